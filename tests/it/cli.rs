//! The command line says what it can do, takes what it says, and refuses everything else with the reason.

use crate::support::server::{STEADY, in_shell, run};
use crate::support::{TestClient, TestServer, skipped};
use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use tempfile::TempDir;

/// Every flag with the default that the issue and the original give it.
const FLAGS: [(&str, &str); 24] = [
    ("--host", "127.0.0.1"),
    ("--port", "3002"),
    ("--event-socket-path", "/tmp/statemachine-events.sock"),
    ("--socket-mode", "0660"),
    ("--log-dir", "logs"),
    ("--log-level", "info"),
    ("--ping-interval", "10s"),
    ("--pong-timeout", "30s"),
    ("--send-timeout", "2s"),
    ("--max-clients", "auto"),
    ("--client-queue-bytes", "1MiB"),
    ("--max-event-bytes", "256KiB"),
    ("--ingest-patience", "5ms"),
    ("--delivery", "direct"),
    ("--state-file", "auto"),
    ("--journal", "none"),
    ("--journal-segment-bytes", "64MiB"),
    ("--journal-segment-age", "1h"),
    ("--journal-keep-bytes", "1GiB"),
    ("--journal-keep-age", "168h"),
    ("--machine-ttl", "never"),
    ("--allow-origin", "none"),
    ("--hang-timeout", "15s"),
    ("--slow-broadcast", "50ms"),
];

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap()
}

fn run_here(arguments: &[&str]) -> (i32, String, String) {
    run(folder().path(), arguments)
}

#[test]
fn help_goes_to_standard_output_and_names_every_command() {
    let (status, overview, said) = run_here(&["--help"]);
    assert_eq!((status, said.as_str()), (0, ""));
    for part in [
        "Usage: threadcast COMMAND",
        "\n  serve ",
        "\n  machines ",
        "--version",
        "0 fine, 1 failed, 2 wrong usage",
    ] {
        assert!(overview.contains(part), "{part}: {overview}");
    }
    for same in [&["-h"][..], &["help"]] {
        assert_eq!(run_here(same), (0, overview.clone(), String::new()));
    }
    let (status, forget, _) = run_here(&["forget", "--help"]);
    assert_eq!(status, 0);
    assert_eq!(run_here(&["help", "forget"]).1, forget);
    let words = words(&forget);
    assert!(
        words.contains("Usage: threadcast forget NAME") && words.contains("else http://127.0.0.1:3002]"),
        "{forget}"
    );
}

/// The text in one line, however it is wrapped.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_help_of_serve_lists_every_flag_with_its_default() {
    let (status, help, said) = run_here(&["serve", "-h"]);
    assert_eq!((status, said.as_str()), (0, ""));
    let flat = words(&help);
    for (flag, default) in FLAGS {
        let (_, about) = flat
            .split_once(&format!(" {flag} "))
            .unwrap_or_else(|| panic!("no {flag}: {help}"));
        let about = about.split(" --").next().unwrap();
        assert!(about.contains(&format!("[{default}]")), "{flag}: {about}");
    }
    for part in ["--config <FILE>", "--allow-drill"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    let (_, long, _) = run_here(&["serve", "--help"]);
    assert!(
        words(&long).contains("[0 to 65535; default 3002; THREADCAST_SET_PORT]"),
        "{long}"
    );
    assert_eq!(run_here(&["help", "serve"]).1, long);
}

#[test]
fn help_of_a_drill_names_every_component() {
    let help = words(&run_here(&["help", "drill"]).1);
    let server = TestServer::start(&["--allow-drill"]);
    let refused = server.act("/drill?component=nonsense&ms=1");
    let body: serde_json::Value = serde_json::from_str(&refused.body).unwrap();
    let detail = body["detail"].as_str().unwrap();
    let (_, names) = detail.split_once("there are ").unwrap();
    let names = names.strip_suffix(", and client-N for each client").unwrap();
    assert!(names.contains("fanout"), "{names}");
    assert!(help.contains(&format!("{names}, or client-N")), "{help}");
}

#[test]
fn without_a_command_the_program_says_what_to_try() {
    let (status, output, said) = run_here(&[]);
    assert_eq!((status, output.as_str()), (2, ""));
    for part in [
        "threadcast: no command given\nhint: ",
        "`threadcast serve`",
        "`threadcast demo`",
        "`threadcast --help`",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let expected = format!("threadcast {}\n", env!("CARGO_PKG_VERSION"));
    for flag in ["--version", "-V"] {
        assert_eq!(run_here(&[flag]), (0, expected.clone(), String::new()));
    }
}

#[test]
fn wrong_usage_ends_with_2_and_names_what_was_wrong() {
    for (arguments, parts) in [
        (&["sevre"][..], &["sevre", "did you mean \"serve\"?"][..]),
        (&["--serve"], &["--serve"]),
        (&["help", "sevre"], &["sevre"]),
        (&["serve", "extra"], &["extra"]),
        (&["serve", "-p", "1"], &["-p"]),
        (&["serve", "--prot", "1"], &["--prot", "did you mean --port?"]),
        (&["serve", "--nonsense"], &["--nonsense", "serve --help"]),
        (&["tail", "-5"], &["write -n 5"]),
        (&["config", "check"], &["path of a settings file"]),
        (&["config", "completions", "tcsh"], &["\"tcsh\"", "bash, zsh or fish"]),
        (&["doctor"], &["doctor needs --probe"]),
        (&["clients", "--url", "https://h"], &["--url", "no TLS"]),
        (&["serve", "--port"], &["--port"]),
        (
            &["serve", "--port", "65536"],
            &["--port", "\"65536\"", "from 0 to 65535"],
        ),
        (&["serve", "--port", "-1"], &["--port"]),
        (&["serve", "--host", ""], &["--host", "empty"]),
        (&["serve", "--event-socket-path", ""], &["--event-socket-path", "empty"]),
        (&["serve", "--socket-mode", "0999"], &["--socket-mode", "octal"]),
        (&["serve", "--socket-mode", "1777"], &["--socket-mode", "octal"]),
        (&["serve", "--log-level", "loud"], &["--log-level", "debug"]),
        (&["serve", "--log-level", "off"], &["--log-level", "debug"]),
        (&["serve", "--ping-interval", "10"], &["--ping-interval", "10s"]),
        (&["serve", "--ping-interval", "0s"], &["--ping-interval", "from 10ms"]),
        (&["serve", "--ping-interval", "NaNs"], &["--ping-interval", "from 10ms"]),
        (&["serve", "--ping-interval", "infs"], &["--ping-interval", "from 10ms"]),
        (&["serve", "--pong-timeout=-5s"], &["--pong-timeout"]),
        (&["serve", "--max-clients", "0"], &["--max-clients", "from 1"]),
        (
            &["serve", "--client-queue-bytes", "1"],
            &["--client-queue-bytes", "from 4KiB"],
        ),
        (
            &["serve", "--max-event-bytes", "2MiB"],
            &["--max-event-bytes", "1023KiB"],
        ),
        (&["serve", "--ingest-patience", "1s"], &["--ingest-patience", "250ms"]),
        (&["serve", "--delivery", "fast"], &["--delivery", "direct or queued"]),
        (&["serve", "--state-file", ""], &["--state-file", "empty"]),
        (&["serve", "--machine-ttl", "soon"], &["--machine-ttl"]),
        (
            &["serve", "--allow-origin", "example.com"],
            &["--allow-origin", "https://"],
        ),
        (&["serve", "--hang-timeout", "10ms"], &["--hang-timeout", "from 1s"]),
        (&["serve", "--allow-drill=perhaps"], &["--allow-drill", "true or false"]),
        (&["serve", "--journal", ""], &["--journal", "empty"]),
        (
            &["serve", "--journal-segment-bytes", "1KiB"],
            &["--journal-segment-bytes", "64KiB"],
        ),
        (&["forget"], &["forget", "name of a machine"]),
        (&["replay"], &["replay", "--journal"]),
        (
            &["replay", "--journal", "j", "--from", "noon"],
            &["--from", "@1795393480"],
        ),
        (&["replay", "--journal", "j", "--speed", "0"], &["--speed", "0.001"]),
        (&["replay", "--journal", "j", "--speed", "2", "--fast"], &["not both"]),
        (&["forget", "one", "two"], &["two"]),
        (&["forget", "one", "--port", "x"], &["x"]),
        (&["forget", "one", "--prot", "1"], &["--prot"]),
    ] {
        let (status, output, said) = run_here(arguments);
        assert_eq!((status, output.as_str()), (2, ""), "{arguments:?}: {said}");
        assert!(said.starts_with("threadcast: "), "{said}");
        let help = match arguments.first() {
            Some(&"config") => format!("`threadcast config {} --help`", arguments[1]),
            Some(command) if !["sevre", "--serve", "help"].contains(command) => {
                format!("`threadcast {command} --help`")
            }
            _ => "`threadcast --help`".to_owned(),
        };
        assert!(said.contains(&format!("\nhint: {help}")), "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?} does not say {part:?}: {said}");
        }
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure_with_the_reason() {
    for arguments in [&["--help"][..], &["config", "show"], &["--version"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_threadcast"))
            .args(arguments)
            .stdout(full)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.starts_with("threadcast: cannot write to standard output: "),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn an_argument_that_is_no_text_is_wrong_usage_and_no_panic() {
    for flag in ["--host", "--event-socket-path", "--prot"] {
        let output = Command::new(env!("CARGO_BIN_EXE_threadcast"))
            .args(["serve", flag])
            .arg(OsStr::from_bytes(b"/tmp/\xff"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("threadcast: "), "{said}");
    }
}

#[test]
fn the_first_lines_say_where_it_serves_where_events_come_in_and_what_is_set() {
    let server = TestServer::start(&[
        "--pong-timeout",
        "1m",
        "--allow-origin",
        "https://a.example",
        "--max-clients",
        "7",
        "--socket-mode",
        "0600",
        // The default, given.
        "--send-timeout",
        "2s",
    ]);
    server.wait_for_line("room for 7 clients");
    let said = server.lines().all();
    let first: Vec<&str> = said
        .lines()
        .map(|line| line.split_once("] ").map_or(line, |(_, message)| message))
        .collect();
    let address = server.address;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        first[0],
        format!(
            "🚀 threadcast {version} listens on http://{address}, stream at ws://{address}/ws/events, health at \
             http://{address}/health"
        )
    );
    let events = server.socket_path();
    assert_eq!(
        first[1],
        format!(
            "📨 events come in at {} (mode 0600); admin socket {}",
            events.display(),
            server.admin_socket().display()
        )
    );
    let steady = STEADY.iter().filter(|(flag, _)| *flag != "--send-timeout");
    let steady = steady.map(|(flag, value)| format!("{}={value}", flag.trim_start_matches('-')));
    let mut expected: Vec<String> = [
        "port=0",
        "pong-timeout=1m",
        "allow-origin=https://a.example",
        "max-clients=7",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain(["socket-mode=0600".to_owned()])
    .chain([format!("event-socket-path={}", events.display())])
    .chain(steady)
    .collect();
    expected.sort();
    let list = first[2]
        .strip_prefix("🔧 settings that are not the defaults: ")
        .unwrap();
    let mut listed: Vec<&str> = list.split(' ').collect();
    listed.sort_unstable();
    assert_eq!(listed, expected, "nothing else is listed");
    assert_eq!(server.http("GET", "/health", &[]).status, 200);
}

#[test]
fn the_room_for_clients_is_what_the_host_allows() {
    let server = TestServer::start_command(folder().into(), &["--max-clients", "1000"], |command| {
        in_shell(command, &["sh"], "ulimit -n 300");
    });
    let line = server.wait_for_line("🧵 room for ");
    let room: usize = line
        .split("room for ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..300).contains(&room), "{line}");
    server.wait_for_line("⚠️ --max-clients is more than the host's limits allow");
}

#[cfg(feature = "config-file")]
mod settings_file {
    use super::*;

    fn start_with(text: &str, flags: &[&str]) -> TestServer {
        let folder = folder();
        fs::write(folder.path().join("t.toml"), text).unwrap();
        let flags = [&["--config", "t.toml"], flags].concat();
        TestServer::start_in(folder.into(), &flags)
    }

    #[test]
    fn its_values_apply_and_flags_win() {
        let text = "# Ours.\nping-interval = \"70ms\"\nclient-queue-bytes = 65_536\nsocket-mode = 0o640\nallow-drill = true\n\
                    delivery = 'queued'\nmax-clients = 5\nallow-origin = [\"https://a.example\", \"https://b.example\"]\nport = 1\n";
        let server = start_with(text, &["--max-clients", "6"]);
        let line = server.wait_for_line("🔧");
        for part in [
            "ping-interval=70ms",
            "client-queue-bytes=64KiB",
            "socket-mode=0640",
            "allow-drill=true",
            "delivery=queued",
            "max-clients=6",
            "allow-origin=https://a.example,https://b.example",
            "port=0",
        ] {
            assert!(format!("{line} ").contains(&format!(" {part} ")), "{part}: {line}");
        }
        // In force, not only printed.
        let mut client = server.client();
        assert!(client.frame().is_keepalive());
        assert_eq!(server.act("/drill?component=files&ms=1").status, 200);
        let mode = fs::metadata(server.socket_path()).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&mode) & 0o777, 0o640);
    }

    #[test]
    fn a_fault_is_wrong_usage_with_file_and_line() {
        for (text, parts) in [
            (
                "port = 1\nprot = 2\n",
                &["line 2, column 1", "\"prot\"", "did you mean \"port\"?"][..],
            ),
            ("\n\nconfig = \"x\"\n", &["line 3", "\"config\""]),
            ("[server]\nport = 1\n", &["line 1", "\"server\""]),
            ("port = 70000\n", &["line 1, column 8", "port", "from 0 to 65535"]),
            ("host = \"::1\"\nport = \n", &["line 2"]),
            ("port = 1\nport = 2\n", &["line 2", "duplicate key"]),
            ("\nhost = [\"a\"]\n", &["line 2", "host"]),
            (
                "allow-origin = [\n  \"https://a\",\n  \"b\",\n]\n",
                &["allow-origin", "\"b\""],
            ),
            ("port = 1.5\n", &["line 1", "float"]),
        ] {
            let folder = folder();
            fs::write(folder.path().join("t.toml"), text).unwrap();
            let (status, output, said) = run(folder.path(), &["serve", "--config", "t.toml"]);
            assert_eq!((status, output.as_str()), (2, ""), "{text:?}: {said}");
            assert!(said.starts_with("threadcast: t.toml, line "), "{text:?}: {said}");
            for part in parts {
                assert!(said.contains(part), "{text:?} does not say {part:?}: {said}");
            }
        }
    }

    #[test]
    fn one_that_cannot_be_read_is_wrong_usage_with_its_name() {
        let folder = folder();
        fs::create_dir(folder.path().join("folder")).unwrap();
        fs::write(folder.path().join("latin1"), b"host = \"\xe4\"\n").unwrap();
        for name in ["missing", "folder", "latin1"] {
            let (status, _, said) = run(folder.path(), &["serve", "--config", name]);
            assert_eq!(status, 2, "{said}");
            assert!(
                said.starts_with(&format!("threadcast: {name}: cannot read the settings file: ")),
                "{said}"
            );
        }
    }
}

#[test]
fn an_address_that_cannot_be_had_is_a_failure_with_a_hint() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (flags, parts) in [
        (
            &["--port", &port][..],
            &["cannot listen on 127.0.0.1:", "another server has this port", "--port"][..],
        ),
        // TEST-NET-1 (RFC 5737) is no machine's.
        (
            &["--port", "0", "--host", "192.0.2.1"],
            &["192.0.2.1", "--host must be an address of this machine"],
        ),
    ] {
        let folder = folder();
        let socket = folder.path().join("events.sock");
        let flags = [&["serve", "--event-socket-path", socket.to_str().unwrap()], flags].concat();
        let (status, output, said) = run(folder.path(), &flags);
        assert_eq!((status, output.as_str()), (1, ""), "{said}");
        assert!(said.contains("\nhint: "), "{said}");
        for part in parts {
            assert!(said.contains(part), "no {part:?}: {said}");
        }
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert!(left.is_empty(), "a server that did not start leaves nothing: {left:?}");
    }
}

#[test]
fn a_name_and_an_ipv6_address_are_served_too() {
    let server = TestServer::start(&["--host", "localhost"]);
    assert!(server.address.ip().is_loopback());
    server.client();

    if TcpListener::bind("[::1]:0").is_err() {
        skipped("--host ::1, because this host has no IPv6 loopback");
        return;
    }
    let server = TestServer::start(&["--host", "::1"]);
    assert!(server.address.is_ipv6());
    let event = r#"{"machine_name": "m", "type": "state_change", "payload": {"to_state": "s"}}"#;
    let mut client: TestClient = server.client();
    server.send(event);
    assert_eq!(client.text(), event);
    assert_eq!(server.health()["status"], "ok");
    let port = server.address.port().to_string();
    let (status, _, said) = run(&server.path(""), &["forget", "m", "--host", "::1", "--port", &port]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(client.json()["type"], "machine_terminated");
}

#[cfg(not(feature = "engine-db"))]
#[test]
fn a_build_that_cannot_read_the_engine_database_refuses_a_path_of_one() {
    let folder = folder();
    let socket = folder.path().join("events.sock");
    let (status, _, said) = run(
        folder.path(),
        &[
            "serve",
            "--event-socket-path",
            socket.to_str().unwrap(),
            "--db",
            "data/pipeline.db",
        ],
    );
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("--db cannot be") && said.contains("write none"), "{said}");
    assert!(!socket.exists());
    let server = TestServer::start(&["--db", "none"]);
    assert_eq!(server.health()["engine_db"], serde_json::Value::Null);
    drop(server);
    // Nor is it looked for unless it is asked for.
    let server = TestServer::start(&[]);
    assert_eq!(server.health()["engine_db"], serde_json::Value::Null);
}
