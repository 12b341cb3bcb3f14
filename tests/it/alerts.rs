//! `--on-alert`: what begins and what ends reaches the command, and no command can hold or outlive the server.

use crate::support::server::{clear_environment, run, run_with};
use crate::support::{DEADLINE, TestServer, eventually, skipped, state_change, uninterrupted, within};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use threadcast::process::clock::epoch_seconds;

/// Puts what it gets into the file `alerts` of the server's folder, as one write.
const KEEP: &str = "sh -c 'alert=$(cat); echo \"$alert\" >> alerts'";

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap())
}

/// A server with that command, in which a second without progress is a hang.
fn server(command: &str, more: &[&str]) -> TestServer {
    let flags = ["--on-alert", command, "--allow-drill", "--hang-timeout", "1s"];
    TestServer::start(&[&flags, more].concat())
}

/// What the command [`KEEP`] has got so far.
fn kept(server: &TestServer) -> Vec<Value> {
    let text = fs::read_to_string(server.path("alerts")).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// Waits until as many have come.
#[track_caller]
fn wait_for(server: &TestServer, count: usize) -> Vec<Value> {
    eventually(&format!("{count} alerts"), || {
        Some(kept(server)).filter(|alerts| alerts.len() >= count)
    })
}

#[track_caller]
fn drill(server: &TestServer, component: &str, millis: u32) {
    let answer = server.act(&format!("/drill?component={component}&ms={millis}"));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

fn facts(alert: &Value) -> (&str, &str, &str) {
    let text = |key: &str| alert[key].as_str().unwrap();
    (text("alert"), text("state"), text("subject"))
}

/// A counter of the alerts in `/health`.
fn counted(server: &TestServer, name: &str) -> u64 {
    server.health()["alerts"][name].as_u64().unwrap()
}

/// The processes whose parent, or whose process group's first process, is `pid`; dead ones that nobody has waited for
/// included.
fn processes(field: usize, pid: u32) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let of = |stat: &String| {
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[field] == pid.to_string()
    };
    stats.filter(of).collect()
}

fn children(server: &TestServer) -> Vec<String> {
    processes(1, server.pid())
}

#[test]
fn a_hang_and_its_end_reach_the_command() {
    let server = server(KEEP, &[]);
    drill(&server, "fanout", 60_000);
    let begun = wait_for(&server, 1).remove(0);
    assert_eq!(facts(&begun), ("hung", "begins", "fanout"));
    let text = begun["text"].as_str().unwrap();
    assert!(text.starts_with("fanout is hung: no progress for "), "{text}");
    assert!(begun.get("seconds").is_none());
    assert_eq!(begun["server"]["url"], format!("http://{}", server.address));
    assert_eq!(begun["server"]["pid"], server.pid());
    drill(&server, "fanout", 0);
    let ended = wait_for(&server, 2).remove(1);
    assert_eq!(facts(&ended), ("hung", "ends", "fanout"));
    let seconds = ended["seconds"].as_f64().unwrap();
    let between = ended["time"].as_f64().unwrap() - begun["time"].as_f64().unwrap();
    assert!((between - seconds).abs() < 0.2, "{seconds} {between}");
    server.wait_for_line("🔔 hung of fanout begins: sh ended well after ");
    server.wait_for_line("🔔 hung of fanout ends: sh ended well after ");
    assert_eq!((counted(&server, "delivered"), counted(&server, "failed")), (2, 0));
    eventually("no process is left", || children(&server).is_empty().then_some(()));
}

#[test]
fn a_stuck_machine_and_a_silent_one_and_their_returns_reach_the_command() {
    // Life within a second is enough, however busy this host is.
    let server = server(KEEP, &["--stuck", "*/odd=2s", "--stuck-cpu-pressure", "100"]);
    server.send(state_change("m", "a", "odd", epoch_seconds()));
    let begun = eventually("an alert", || {
        server.send(r#"{"machine_name": "m", "type": "activity_log"}"#);
        kept(&server).pop()
    });
    assert_eq!(facts(&begun), ("stuck", "begins", "m"));
    let text = begun["text"].as_str().unwrap();
    assert!(
        text.starts_with("machine m (no known type) is stuck: in \"odd\" since "),
        "{text}"
    );
    server.send(state_change("m", "odd", "b", epoch_seconds()));
    let ended = wait_for(&server, 2).remove(1);
    assert_eq!(facts(&ended), ("stuck", "ends", "m"));
    assert!(ended["seconds"].as_f64().unwrap() > 0.0);
    server.send(state_change("n", "a", "odd", epoch_seconds()));
    assert_eq!(facts(&wait_for(&server, 3)[2]), ("silent", "begins", "n"));
    server.send(r#"{"machine_name": "n", "type": "machine_terminated", "payload": {}}"#);
    assert_eq!(facts(&wait_for(&server, 4)[3]), ("silent", "ends", "n"));
    server.wait_for_line("🔔 silent of n ends: sh ended well after ");
}

#[test]
fn a_journal_that_fails_and_recovers_is_told() {
    let server = server(KEEP, &["--journal", "journal"]);
    // Its folder is not its own any more.
    fs::rename(server.path("journal"), server.path("moved")).unwrap();
    fs::write(server.path("journal"), "").unwrap();
    let begun = wait_for(&server, 1).remove(0);
    assert_eq!(facts(&begun), ("journal_failed", "begins", "journal"));
    fs::remove_file(server.path("journal")).unwrap();
    fs::rename(server.path("moved"), server.path("journal")).unwrap();
    let ended = wait_for(&server, 2).remove(1);
    assert_eq!(facts(&ended), ("journal_failed", "ends", "journal"));
}

#[test]
fn an_event_socket_that_another_server_takes_is_told_with_its_name() {
    let server = server(KEEP, &[]);
    let path = server.socket_path();
    fs::remove_file(&path).unwrap();
    let other = UnixDatagram::bind(&path).unwrap();
    // Between the two calls above the path leads nowhere, and the server may bind it again.
    let begun = wait_for(&server, 1).remove(0);
    assert_eq!(facts(&begun), ("socket_taken", "begins", path.to_str().unwrap()));
    let owner = format!("process {} (", std::process::id());
    assert!(begun["text"].as_str().unwrap().contains(&owner), "{begun}");
    drop(other);
    let ended = wait_for(&server, 2).remove(1);
    assert_eq!(facts(&ended), ("socket_taken", "ends", path.to_str().unwrap()));
}

#[test]
fn a_slow_command_is_killed_with_all_that_it_has_started_and_delays_nobody() {
    let script = "sh -c 'sleep 600 & echo $! $$ > pids; sh -c \"sleep 600; :\"'";
    let server = server(script, &["--on-alert-timeout", "1500ms"]);
    let mut client = server.client();
    drill(&server, "heartbeat", 60_000);
    let pids = eventually("the command runs", || {
        let text = fs::read_to_string(server.path("pids")).ok()?;
        text.ends_with('\n').then_some(text)
    });
    let group: u32 = pids.split_whitespace().nth(1).unwrap().parse().unwrap();
    server.send(br#"{"machine_name":"m","type":"t"}"#);
    assert_eq!(client.text(), r#"{"machine_name":"m","type":"t"}"#);
    assert!(!server.health()["reasons"].to_string().contains("alerts"));
    server.wait_for_line("⚠️ hung of heartbeat begins: sh was killed with all that it had started after ");
    eventually("the whole group is gone", || {
        processes(2, group).is_empty().then_some(())
    });
    assert!(children(&server).is_empty(), "a zombie is left");
    assert_eq!((counted(&server, "delivered"), counted(&server, "failed")), (0, 1));
}

#[test]
fn of_a_flood_at_most_one_command_starts_a_second() {
    let server = server("true", &["--log-level", "debug"]);
    for component in ["heartbeat", "files", "accept", "inbox"] {
        drill(&server, component, 60_000);
    }
    let lines = eventually("four commands", || {
        Some(server.lines().with(" begins: starting true")).filter(|lines| lines.len() >= 4)
    });
    // Each line begins with its time, as 2026-11-30T15:05:55.703Z.
    let second = |line: &String| -> f64 {
        let parts: Vec<f64> = line[11..23].split(':').map(|part| part.parse().unwrap()).collect();
        parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]
    };
    let starts: Vec<f64> = lines.iter().map(second).collect();
    for pair in starts.windows(2) {
        // A day may end between the two. The line is made some microseconds after the clock was read.
        let apart = (pair[1] - pair[0]).rem_euclid(86_400.0);
        assert!(apart > 0.95, "{starts:?}");
    }
}

#[test]
fn the_command_has_three_descriptors_and_no_word_of_the_service_manager() {
    let script = "sh -c '(exec ls /proc/self/fd > fds); env > env; echo > done'";
    let flags = [
        "--on-alert",
        script,
        "--allow-drill",
        "--hang-timeout",
        "1s",
        "--journal",
        "journal",
    ];
    let server = TestServer::start_command(folder(), &flags, |command| {
        command.env("LISTEN_FDNAMES", "x").env("KEPT", "yes");
    });
    let _clients = [server.client(), server.client()];
    drill(&server, "heartbeat", 60_000);
    eventually("it has run", || server.path("done").exists().then_some(()));
    let read = |name: &str| fs::read_to_string(server.path(name)).unwrap();
    // What this test itself was started with stays open in all that it starts.
    let mut inherited = Command::new("sh");
    let inherited = inherited.args(["-c", "exec ls /proc/self/fd"]).output().unwrap();
    assert_eq!(read("fds"), String::from_utf8(inherited.stdout).unwrap());
    let environment = read("env");
    assert!(
        environment.contains("KEPT=yes") && !environment.contains("LISTEN_FDNAMES"),
        "{environment}"
    );
}

/// No shell in between: it would block signals for moments of its own.
#[test]
fn the_command_has_a_group_of_its_own_and_takes_every_signal() {
    let server = server("cp /proc/self/status status", &[]);
    drill(&server, "heartbeat", 60_000);
    server.wait_for_line("🔔 hung of heartbeat begins: cp ended well");
    let status = fs::read_to_string(server.path("status")).unwrap();
    let field = |text: &str, name: &str| -> String {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    let mask = |text: &str, name: &str| u64::from_str_radix(&field(text, name), 16).unwrap();
    assert_eq!(
        field(&status, "NSpgid:"),
        field(&status, "NSpid:"),
        "it leads its group"
    );
    // What this test itself was started to ignore, the server and its command ignore too. Rust programs ignore SIGPIPE
    // (13) for themselves; the C library keeps 32 and 33 for itself.
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = (mask(&own, "SigIgn:") & !(1 << 12)) | (0b11 << 31);
    let taken = (mask(&status, "SigBlk:"), mask(&status, "SigIgn:") & !ignored);
    assert_eq!(taken, (0, 0), "{status}");
}

#[test]
fn a_command_that_cannot_start_is_a_warning_with_what_to_do() {
    let server = server("/nowhere/teller --token hush", &[]);
    drill(&server, "heartbeat", 3_000);
    let said =
        server.wait_for_line("⚠️ cannot start /nowhere/teller for an alert (hung of heartbeat begins): No such file");
    assert!(said.contains("PATH") && said.contains("sh -c '...'"), "{said}");
    eventually("both are counted", || (counted(&server, "failed") == 2).then_some(()));
    assert_eq!(server.health()["status"], "ok");
    assert!(!server.lines().all().contains("hush"), "the log shows no argument");
    server.wait_for_line("on-alert=/nowhere/teller ...");
}

#[test]
fn a_command_that_fails_is_said_with_its_first_lines() {
    let server = server("sh -c 'echo one; printf \"two\\033[2J\" >&2; exit 7'", &[]);
    drill(&server, "heartbeat", 60_000);
    let said = server.wait_for_line("⚠️ hung of heartbeat begins: sh ended with exit status: 7 after ");
    assert!(said.contains("one") && said.contains(r"two\u{1b}[2J"), "{said}");
    assert_eq!(counted(&server, "failed"), 1);
}

/// Some supervisors ignore SIGCHLD, and what they start inherits that; the kernel then keeps no status.
#[test]
fn the_status_of_a_command_is_known_under_a_supervisor_that_ignores_its_children() {
    let flags = ["--on-alert", KEEP, "--allow-drill", "--hang-timeout", "1s"];
    let server = TestServer::start_command(folder(), &flags, |command| {
        // Not through a shell, which would heed its children.
        let mut wrapped = Command::new("env");
        wrapped
            .arg("--ignore-signal=CHLD")
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(command.get_current_dir().unwrap())
            .stderr(Stdio::piped());
        clear_environment(&mut wrapped);
        *command = wrapped;
    });
    drill(&server, "heartbeat", 60_000);
    server.wait_for_line("hung of heartbeat begins: sh ended");
    assert_eq!((counted(&server, "delivered"), counted(&server, "failed")), (1, 0));
    eventually("no zombie is left", || children(&server).is_empty().then_some(()));
}

#[test]
fn a_stop_ends_the_command_that_runs_within_its_bound() {
    for (script, ends_by_itself) in [
        ("sh -c 'trap \"\" TERM; echo $$ > pid; sleep 600; :'", false),
        (
            "sh -c 'echo $$ > pid; while [ ! -e stopping ]; do sleep 0.02; done; echo > ended'",
            true,
        ),
    ] {
        let mut server = server(script, &[]);
        drill(&server, "heartbeat", 60_000);
        let pid = eventually("the command runs", || {
            let text = fs::read_to_string(server.path("pid")).ok()?;
            text.trim().parse::<u32>().ok()
        });
        drill(&server, "heartbeat", 0);
        fs::write(server.path("stopping"), "").unwrap();
        let begun = Instant::now();
        assert_eq!(server.stop().code(), Some(0));
        assert!(begun.elapsed() < Duration::from_millis(4400), "{:?}", begun.elapsed());
        assert_eq!(server.path("ended").exists(), ends_by_itself);
        eventually("nothing of it is left", || processes(2, pid).is_empty().then_some(()));
    }
}

#[test]
fn without_a_command_there_is_no_thread() {
    let server = TestServer::start(&[]);
    assert_eq!(server.health()["alerts"], Value::Null);
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    assert!(!names.into_iter().any(|name| name.trim() == "alerts"));
}

#[test]
fn a_command_is_words_or_a_list_of_them_and_never_empty() {
    let folder = folder();
    let show = |value: &str| {
        let (status, text, said) = run_with(
            folder.path(),
            &["config", "show"],
            &[("THREADCAST_SET_ON_ALERT", value)],
        );
        assert_eq!((status, said.as_str()), (0, ""));
        let line = text.lines().find(|line| line.starts_with("on-alert = ")).unwrap();
        line.split("  #").next().unwrap().trim().to_owned()
    };
    assert_eq!(show("a  'b c' \"d\\\"\""), r#"on-alert = "a 'b c' 'd\"'""#);
    assert_eq!(show("none"), r#"on-alert = "none""#);
    assert_eq!(show("'none'"), r#"on-alert = "'none'""#);
    for (value, part) in [
        ("", "write a program"),
        ("a 'b", "is not closed"),
        ("'' b", "write a program"),
    ] {
        let (status, _, said) = run(folder.path(), &["serve", "--on-alert", value]);
        assert!(status == 2 && said.contains(part), "{said}");
    }
    if cfg!(feature = "config-file") {
        let check = |text: &str| {
            fs::write(folder.path().join("t.toml"), text).unwrap();
            let (_, text, said) = run(folder.path(), &["config", "show", "--config", "t.toml"]);
            let line = text.lines().find(|line| line.starts_with("on-alert = "));
            line.map(str::to_owned).unwrap_or(said)
        };
        assert!(
            check(r#"on-alert = ["sh", "-c", "echo 'x' | y"]"#)
                .starts_with(r#"on-alert = "sh -c 'echo '\\''x'\\'' | y'""#)
        );
        assert!(check(r#"on-alert = "a 'b c'""#).starts_with(r#"on-alert = "a 'b c'""#));
        assert!(check("on-alert = []").contains("line 1, column 1: on-alert cannot be \"\": write a program"));
        assert!(check("on-alert = [\"a\",\n [1]]").contains("line 2, column 2: on-alert cannot be of type array"));
    }
}

/// The example of docs/operating.md, with a port of its own.
#[test]
fn the_documented_webhook_gets_the_alert() {
    if run_curl().is_none() {
        skipped("the example of a webhook, because there is no curl");
        return;
    }
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md")).unwrap();
    let (_, behind) = page.split_once("threadcast serve --on-alert '").unwrap();
    let (command, _) = behind.split_once('\'').unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(command.contains("localhost:9000/hook"), "{command}");
    let server = server(&command.replace("localhost:9000", &format!("127.0.0.1:{port}")), &[]);
    drill(&server, "heartbeat", 60_000);
    listener.set_nonblocking(true).unwrap();
    let (mut hook, _) = within(DEADLINE, "curl connects", || listener.accept().ok());
    hook.set_nonblocking(false).unwrap();
    hook.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"}\n") {
        let mut bytes = [0; 4096];
        let len = uninterrupted(|| hook.read(&mut bytes)).unwrap();
        assert!(len > 0, "{}", String::from_utf8_lossy(&request));
        request.extend_from_slice(&bytes[..len]);
    }
    let request = String::from_utf8(request).unwrap();
    assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        facts(&serde_json::from_str(body).unwrap()),
        ("hung", "begins", "heartbeat")
    );
    hook.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    server.wait_for_line("🔔 hung of heartbeat begins: curl ended well after ");
}

fn run_curl() -> Option<()> {
    let output = Command::new("curl").arg("--version").output().ok()?;
    output.status.success().then_some(())
}

#[test]
fn the_documented_keys_are_those_that_come() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md")).unwrap();
    let (_, behind) = page.split_once("## Alerts\n").unwrap();
    let (_, example) = behind.split_once("```json\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let example: Value = serde_json::from_str(example).unwrap();
    let server = server(KEEP, &[]);
    drill(&server, "heartbeat", 2_000);
    let came = wait_for(&server, 2).remove(1);
    let keys = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(&came), keys(&example));
    assert_eq!(keys(&came["server"]), keys(&example["server"]));
}
