//! `threadcast machines --graph`: what machines usually do, for people, for programs, for graphviz.

use crate::support::server::run;
use crate::support::{TestServer, eventually, skipped, state_change};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

/// Texts that a careless writer of graphviz's language, or of terminals, would trip over.
const ODD: &str = "a\"]; x [label=\\\"&lt;<b>\u{1b}[31m{日\\";

fn now() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

/// `threadcast machines --graph` with these arguments, on lines of so many columns: status, standard output, standard
/// error.
fn graph(server: &TestServer, columns: &str, arguments: &[&str]) -> (i32, String, String) {
    let url = format!("http://{}", server.address);
    let output = Command::new(env!("CARGO_BIN_EXE_threadcast"))
        .args(["machines", "--url", &url, "--graph"])
        .args(arguments)
        .env("COLUMNS", columns)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A server that has learned of a worker, and of a machine with odd names.
#[track_caller]
fn with_lessons() -> TestServer {
    let server = TestServer::start(&[]);
    server.send(
        r#"{"machine_name": "encoder", "type": "machine_registered", "payload": {"config_type": "worker", "current_state": "idle"}}"#,
    );
    for _ in 0..3 {
        // What is older than a minute is replayed, and teaches nothing.
        server.send(state_change("encoder", "idle", "encoding", now()));
        server.send(state_change("encoder", "encoding", "idle", now()));
    }
    let odd = serde_json::json!({"machine_name": ODD, "type": "state_change", "payload": {
        "from_state": format!("{ODD}1"), "to_state": format!("{ODD}2"), "event_trigger": ODD,
    }});
    server.send(odd.to_string());
    eventually("all of it is learned", || {
        let document = server.http("GET", "/api/graph", &[]).json();
        (document["seq"] == 8).then_some(())
    });
    server
}

#[test]
fn people_get_a_table_of_each_type_and_programs_the_document() {
    let server = with_lessons();
    let (code, out, err) = graph(&server, "100", &["worker"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        (lines[1], lines[2]),
        ("", "worker: 2 states, 1 machine in them now"),
        "{out}"
    );
    assert!(lines[3].starts_with("STATE ") && lines[3].ends_with("P99"), "{out}");
    let rows: Vec<Vec<&str>> = lines[4..]
        .iter()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..4], ["encoding", "3", "0", "3"], "{out}");
    assert_eq!(rows[1], ["<-", "idle", "t", "3"], "{out}");
    assert_eq!(rows[2][..4], ["idle", "4", "1", "3"], "{out}");
    assert_eq!(rows[3], ["<-", "encoding", "t", "3"], "{out}");
    assert_eq!(rows[4], ["<-", "(start)", "1"], "{out}");
    for columns in [60, 80, 120] {
        let (_, out, _) = graph(&server, &columns.to_string(), &[]);
        assert!(
            out.contains("a machine of no known type") && !out.contains('\u{1b}'),
            "{out}"
        );
        assert!(
            out.lines().all(|line| line.chars().count() <= columns),
            "{columns}: {out}"
        );
    }
    let (code, out, _) = graph(&server, "100", &["w*", "--json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, out.lines().count()), (0, 1));
    assert_eq!(document["types"][0]["states"][0]["entered"], 3, "{out}");
    let (code, _, err) = graph(&server, "100", &["wroker"]);
    assert_eq!(
        (code, err.as_str()),
        (
            0,
            "threadcast: no type matches wroker; the server knows 1 type: worker\n"
        )
    );
}

#[test]
fn graphviz_takes_the_graph_whatever_the_names_are() {
    let server = with_lessons();
    let (code, out, err) = graph(&server, "100", &["--dot"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.starts_with("digraph threadcast {\n") && out.ends_with("}\n"),
        "{out}"
    );
    assert!(
        out.contains("n0_0 [label=\"encoding\\nmedian ") && out.contains("n0_1 -> n0_0 [label=\"t\\n3\"]"),
        "{out}"
    );
    let dot = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut dot) = dot else {
        skipped("no graphviz here, so nothing draws the graph");
        return;
    };
    dot.stdin.take().unwrap().write_all(out.as_bytes()).unwrap();
    let drawn = dot.wait_with_output().unwrap();
    let (svg, said) = (
        String::from_utf8_lossy(&drawn.stdout),
        String::from_utf8_lossy(&drawn.stderr),
    );
    assert!(
        drawn.status.success() && !said.contains("syntax error"),
        "{said}\n{out}"
    );
    for text in [">encoding<", ">worker<"] {
        assert!(svg.contains(text), "{text}: {svg}");
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (&["machines", "--dot"][..], "--graph with --dot"),
        (&["machines", "--graph", "a", "--dot", "--json"], "--dot without --json"),
        (&["machines", "w*", "--graph"], "either --graph"),
        (&["machines", "--graph", "a", "--check"], "either --graph"),
        (&["machines", "--graph", "a", "--forget", "m"], "either --forget"),
        (&["machines", "--graph", "a,,b"], "empty"),
    ] {
        let (code, _, err) = run(folder.path(), arguments);
        assert!(code == 2 && err.contains(said), "{arguments:?}: {err}");
    }
}
