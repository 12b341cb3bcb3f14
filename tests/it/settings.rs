//! Where settings come from, which of two wins, and what is said of one that cannot be: the real binary with real files
//! and a real environment.

use crate::support::TestServer;
use crate::support::server::{run, run_with};
use serde_json::json;
use std::fs;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap()
}

/// The value of a setting and where it comes from, as `config show` has them.
fn shown(text: &str, name: &str) -> (String, String) {
    let begin = format!("{name} = ");
    let line = text
        .lines()
        .map(|line| line.trim_start_matches("# "))
        .find(|line| line.starts_with(&begin));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    let (value, origin) = line[begin.len()..].rsplit_once("  # ").unwrap();
    (value.trim_end().to_owned(), origin.to_owned())
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let folder = folder();
    let is_full = cfg!(feature = "config-file");
    fs::write(
        folder.path().join("t.toml"),
        "port = 1\nping-interval = \"1s\"\nsend-timeout = \"3s\"\n",
    )
    .unwrap();
    let environment = [("THREADCAST_SET_PORT", "2"), ("THREADCAST_SET_PING_INTERVAL", "2s")];
    let file: &[&str] = if is_full { &["--config", "t.toml"] } else { &[] };
    let arguments = [&["config", "show"], file, &["--port", "3"]].concat();
    let (status, text, said) = run_with(folder.path(), &arguments, &environment);
    assert_eq!((status, said.as_str()), (0, ""));
    let pair = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(shown(&text, "port"), pair("3", "--port"));
    assert_eq!(
        shown(&text, "ping-interval"),
        pair("\"2s\"", "THREADCAST_SET_PING_INTERVAL")
    );
    assert_eq!(shown(&text, "log-dir"), pair("\"logs\"", "default"));
    if is_full {
        assert_eq!(shown(&text, "send-timeout"), pair("\"3s\"", "t.toml, line 3"));
        let environment = [("THREADCAST_SET_CONFIG", "t.toml")];
        let (_, text, _) = run_with(folder.path(), &["config", "show"], &environment);
        assert_eq!(shown(&text, "port"), pair("1", "t.toml, line 1"));
    }
}

#[test]
fn the_server_follows_its_environment() {
    let server = TestServer::start_command(folder().into(), &[], |command| {
        command
            .env("THREADCAST_SET_PING_INTERVAL", "70ms")
            .env("THREADCAST_SET_MAX_CLIENTS", "6")
            // Kubernetes makes this one for a service of that name.
            .env("THREADCAST_PORT", "tcp://10.0.0.1:3002");
    });
    let line = server.wait_for_line("🔧");
    assert!(
        line.contains(" ping-interval=70ms ") && line.contains(" max-clients=6 "),
        "{line}"
    );
    assert!(server.client().frame().is_keepalive());
}

#[test]
fn what_the_environment_cannot_mean_is_wrong_usage() {
    for (name, value, part) in [
        ("THREADCAST_SET_PROT", "1", "did you mean THREADCAST_SET_PORT?"),
        ("THREADCAST_SET_", "1", "is no setting"),
        ("THREADCAST_SET_port", "1", "is no setting"),
        ("THREADCAST_SET_PORT", "", "from 0 to 65535"),
        ("THREADCAST_SET_ALLOW_DRILL", "yes", "true or false"),
        ("THREADCAST_SET_PONG_TIMEOUT", "1s", "longer than ping-interval"),
        (
            "THREADCAST_SET_CONFIG",
            "/nowhere/t.toml",
            "cannot read the settings file",
        ),
    ] {
        for command in [&["serve"][..], &["config", "show"]] {
            let (status, output, said) = run_with(folder().path(), command, &[(name, value)]);
            assert_eq!((status, output.as_str()), (2, ""), "{name}: {said}");
            assert!(said.contains(part) && said.contains("\nhint: "), "{name}: {said}");
            assert!(name == "THREADCAST_SET_CONFIG" || said.contains(name), "{said}");
        }
    }
    // Commands that do not serve take no notice.
    let (status, ..) = run_with(folder().path(), &["tail", "--help"], &[("THREADCAST_SET_PROT", "1")]);
    assert_eq!(status, 0);
}

#[cfg(feature = "config-file")]
#[test]
fn what_config_show_prints_is_a_settings_file_with_the_same_settings() {
    let folder = folder();
    let flags = [
        "config",
        "show",
        "--port",
        "0",
        "--event-socket-path",
        "a \"quoted\" \\ ä.sock",
        "--allow-origin",
        "https://a.example",
        "--allow-origin",
        "*",
        "--allow-drill",
        "--stuck",
        "face_*/cropping \"x\" ä=90s",
        "--stuck",
        "*/a=b/c=never",
    ];
    let (status, first, _) = run(folder.path(), &flags);
    assert_eq!(status, 0);
    fs::write(folder.path().join("shown.toml"), &first).unwrap();
    let (status, said, _) = run(folder.path(), &["config", "check", "shown.toml"]);
    assert_eq!((status, said.as_str()), (0, "shown.toml: 5 settings, no fault\n"));
    let (_, second, _) = run(folder.path(), &["config", "show", "--config", "shown.toml"]);
    let plain = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.rsplit_once("  # ").map_or(line, |(line, _)| line).to_owned())
            .collect()
    };
    assert_eq!(plain(&first), plain(&second));
}

#[cfg(feature = "config-file")]
#[test]
fn a_stuck_table_of_the_settings_file_is_a_rule_and_a_flag_takes_its_place() {
    let folder = folder();
    let file = "[[stuck]]\ntype = \"face_*\"\nstate = \"cropping_*\"\nafter = \"2m\"\n\n[[stuck]]\nstate = \"waiting\"\nafter = \"never\"\n";
    fs::write(folder.path().join("t.toml"), file).unwrap();
    let show = |more: &[&str]| {
        let (status, text, said) = run(
            folder.path(),
            &[&["config", "show", "--config", "t.toml"], more].concat(),
        );
        assert_eq!((status, said.as_str()), (0, ""));
        shown(&text, "stuck")
    };
    let pair = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    let rules = r#"["face_*/cropping_*=2m", "*/waiting=never"]"#;
    assert_eq!(show(&[]), pair(rules, "t.toml, line 1"));
    assert_eq!(show(&["--stuck", "a/b=1m"]), pair(r#"["a/b=1m"]"#, "--stuck"));
    assert_eq!(show(&["--stuck", "none"]), pair("[]", "--stuck"));
    fs::write(folder.path().join("t.toml"), format!("{file}port = 1\n")).unwrap();
    let (status, _, said) = run(folder.path(), &["serve", "--config", "t.toml"]);
    let expected = "t.toml, line 9, column 1: there is no key \"port\" in stuck, only type, state, after; a setting must \
                    stand above the first [[stuck]]";
    assert!(status == 2 && said.contains(expected), "{said}");
}

#[cfg(feature = "config-file")]
#[test]
fn config_check_names_every_fault_with_its_place() {
    let folder = folder();
    fs::write(
        folder.path().join("t.toml"),
        "prot = 1\nport = \"x\"\n\n ping-interval = 5\n",
    )
    .unwrap();
    let (status, output, said) = run(folder.path(), &["config", "check", "t.toml"]);
    assert_eq!((status, output.as_str()), (1, ""));
    for line in [
        "threadcast: t.toml, line 1, column 1: there is no setting \"prot\"; did you mean \"port\"?\n",
        "threadcast: t.toml, line 2, column 8: port cannot be \"x\": write a whole number from 0 to 65535\n",
        "threadcast: t.toml, line 4, column 18: ping-interval cannot be \"5\": write a time such as 500ms, 10s or 2m, from \
         10ms to 1h\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(said.lines().count(), 4, "{said}");
    assert_eq!(run(folder.path(), &["config", "check", "missing"]).0, 1);
    // Its name and its values may be a stranger's.
    fs::write(folder.path().join("x\u{1b}[2J"), "event-socket-path = \"@\\u001b[2J\"").unwrap();
    let (status, _, said) = run(folder.path(), &["config", "check", "x\u{1b}[2J"]);
    assert!(status == 1 && !said.contains('\u{1b}'), "{said:?}");
    let (status, _, said) = run(folder.path(), &["serve", "--config", "x\u{1b}[2J"]);
    assert!(status == 2 && !said.contains('\u{1b}'), "{said:?}");
    let (status, _, said) = run(folder.path(), &["config", "check", "/dev/zero"]);
    assert!(status == 1 && said.contains("larger than 1 MiB"), "{said}");
    // A list with a line for each value takes no longer a value than a short one.
    let list = format!("allow-origin = [\n{}]", "\"http://a\",\n".repeat(50_000));
    fs::write(folder.path().join("long.toml"), list).unwrap();
    let (status, said, _) = run(folder.path(), &["config", "check", "long.toml"]);
    assert_eq!((status, said.as_str()), (0, "long.toml: 1 setting, no fault\n"));
}

#[cfg(not(feature = "config-file"))]
#[test]
fn the_minimal_build_says_that_it_reads_no_settings_file() {
    let folder = folder();
    fs::write(folder.path().join("t.toml"), "port = 1\n").unwrap();
    for (arguments, expected) in [
        (&["serve", "--config", "t.toml"][..], 2),
        (&["config", "check", "t.toml"], 1),
    ] {
        let (status, _, said) = run(folder.path(), arguments);
        assert_eq!(status, expected);
        assert!(
            said.contains("minimal build") && said.contains("THREADCAST_SET_PORT"),
            "{said}"
        );
    }
    let (status, _, said) = run(folder.path(), &["config", "completions", "bash"]);
    assert_eq!(status, 1);
    assert!(said.contains("minimal build"), "{said}");
}

#[test]
fn every_command_takes_the_server_in_the_same_forms_and_from_the_environment() {
    let server = TestServer::start(&[]);
    server.send(json!({"machine_name": "m", "type": "state_change", "payload": {"to_state": "s"}}).to_string());
    let address = server.address.to_string();
    for command in [
        &["doctor", "--probe"][..],
        &["clients"],
        &["diagnose"],
        &["tail", "-n", "1", "--count", "1", "--duration", "10s"],
        &["forget", "nobody"],
    ] {
        // There is no such machine, and the server says so.
        let expected = i32::from(command[0] == "forget");
        for url in [format!("http://{address}"), format!("ws://{address}"), address.clone()] {
            let arguments = [command, &["--url", &url]].concat();
            let (status, _, said) = run(&server.path(""), &arguments);
            assert_eq!(status, expected, "{arguments:?}: {said}");
            let (status, _, said) = run_with(&server.path(""), command, &[("THREADCAST_URL", &url)]);
            assert_eq!(status, expected, "{command:?} in {url}: {said}");
        }
    }
}

#[test]
fn a_probe_ends_with_0_only_when_the_server_is_well() {
    let mut server = TestServer::start(&["--allow-drill", "--hang-timeout", "1s"]);
    let url = server.address.to_string();
    let folder = folder();
    let probe = || run(folder.path(), &["doctor", "--probe", "--url", &url]);
    assert_eq!(probe(), (0, format!("{url}: ok\n"), String::new()));
    assert_eq!(server.act("/drill?component=fanout&ms=20000").status, 200);
    server.wait_for_line("SERVER HANG DETECTED");
    let (status, output, said) = probe();
    assert_eq!((status, output.as_str()), (1, ""), "{said}");
    assert!(
        said.contains("is not well: hung (status 503)") && said.contains("\nhint: "),
        "{said}"
    );
    assert_eq!(server.act("/drill?component=fanout&ms=0").status, 200);
    server.stop();
    let (status, _, said) = probe();
    assert_eq!(status, 1);
    assert!(
        said.contains("cannot ask the server") && said.contains("\nhint: "),
        "{said}"
    );
}
