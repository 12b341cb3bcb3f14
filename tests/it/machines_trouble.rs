//! `threadcast machines` on machines in trouble: which come first, what `--check` tells a script.

use crate::support::server::run;
use crate::support::{TestServer, eventually, pause, state_change};
use serde_json::Value;
use std::time::Duration;

/// A machine is silent in `odd` after 300 ms; nobody's processors are too busy to judge that.
const FLAGS: [&str; 4] = ["--stuck", "*/odd=300ms", "--stuck-cpu-pressure", "100"];

/// `threadcast machines` with these arguments: status, standard output, standard error.
fn machines(server: &TestServer, arguments: &[&str]) -> (i32, String, String) {
    let url = format!("http://{}", server.address);
    run(
        server.folder().path(),
        &[&["machines", "--url", &url], arguments].concat(),
    )
}

#[test]
fn a_script_learns_by_the_status_whether_a_machine_is_stuck_or_silent() {
    let server = TestServer::start(&FLAGS);
    for name in ["db", "worker-1"] {
        server.send(state_change(name, "a", "busy", 1.0));
    }
    let (code, out, err) = eventually("both are known", || {
        let answer = machines(&server, &["--check"]);
        answer.1.contains("; 2 machines").then_some(answer)
    });
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.ends_with("; 2 machines\nno machine is stuck or silent\n"), "{out}");
    server.send(state_change("worker-1", "busy", "odd", 1.0));
    let out = eventually("it is silent", || {
        let (code, out, _) = machines(&server, &["--check"]);
        (code == 1).then_some(out)
    });
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].ends_with("; 2 machines, 1 silent"), "{out}");
    assert!(lines[2].starts_with("worker-1  silent "), "{out}");
    assert_eq!(lines.len(), 3, "the other one is well: {out}");
    let (code, out, _) = machines(&server, &["--check", "--json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, document["machines"].as_array().unwrap().len()), (1, 1), "{out}");
    assert_eq!(document["machines"][0]["verdict"], "silent");
    let (code, out, _) = machines(&server, &["db", "--check"]);
    assert_eq!(code, 0, "only those that match count: {out}");
    // Without it, it comes first, and the status is fine.
    let (code, out, _) = machines(&server, &[]);
    assert_eq!((code, out.lines().count()), (0, 4), "{out}");
    assert!(out.lines().nth(2).unwrap().starts_with("worker-1  silent "), "{out}");
    // A glob with a slip in it must not pass for "all is well".
    let (code, out, err) = machines(&server, &["bd", "--check"]);
    assert!(
        code == 1 && out.is_empty() && err.contains("no machine matches bd"),
        "{out}{err}"
    );
    let (code, _, err) = machines(&server, &["--check", "--watch"]);
    assert!(code == 2 && err.contains("either --check"), "{err}");
}

#[test]
fn a_machine_that_sends_too_much_is_named() {
    let server = TestServer::start(&[]);
    let sender = server.sender();
    sender.send(&state_change("quiet", "a", "b", 1.0)).unwrap();
    let out = eventually("it sends over 100 events/s", || {
        for _ in 0..500 {
            sender.send(&state_change("loud", "a", "b", 1.0)).unwrap();
        }
        pause(Duration::from_millis(200));
        let (_, out, _) = machines(&server, &[]);
        out.contains("noisy").then_some(out)
    });
    let line = |name: &str| out.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(
        line("loud").ends_with("  noisy") && !line("quiet").contains("noisy"),
        "{out}"
    );
}
