//! The commands that ask a running server: `drill` freezes what it is told to and nothing else, `diagnose` shows every
//! thread, and both say clearly why they could not.

use crate::support::server::run;
use crate::support::{TestServer, eventually};
use std::time::Duration;

fn url(server: &TestServer) -> String {
    format!("http://{}", server.address)
}

#[test]
fn a_drill_freezes_the_component_and_is_ended_by_another() {
    let server = TestServer::start(&["--allow-drill", "--hang-timeout", "1s"]);
    let folder = server.folder();
    let (status, out, err) = run(folder.path(), &["drill", "fanout", "60s", "--url", &url(&server)]);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("fanout stands still for 60s (sleep)"), "{out}");
    eventually("health says so", || {
        (server.http("GET", "/health", &[]).status == 503).then_some(())
    });
    let (status, ..) = run(folder.path(), &["drill", "fanout", "0s", "--url", &url(&server)]);
    assert_eq!(status, 0);
    eventually("health is well again", || {
        (server.health()["status"] == "ok").then_some(())
    });
}

#[test]
fn a_drill_that_cannot_be_says_why() {
    let allowed = TestServer::start(&["--allow-drill"]);
    let forbidden = TestServer::start(&[]);
    let (with, without) = (url(&allowed), url(&forbidden));
    let folder = allowed.folder();
    for (arguments, status, part) in [
        (&["drill", "fanout", "1s", "--url", &without][..], 1, "--allow-drill"),
        (
            &["drill", "coffee", "1s", "--url", &with],
            1,
            "there is no component \"coffee\"; there are ingest, fanout",
        ),
        (&["drill", "client-999", "1s", "--url", &with], 1, "client-N"),
        (
            &["drill", "fanout", "1s", "--kind", "nap", "--url", &with],
            1,
            "there is no kind \"nap\"; there are sleep, spin, log",
        ),
        (
            &["drill", "fanout", "1s", "--url", "http://127.0.0.1:1"],
            1,
            "no admin socket of the server at 127.0.0.1:1 was found",
        ),
        (&["drill", "fanout"], 2, "drill fanout 20s"),
        (&["drill", "fanout", "1h", "--url", &with], 2, "2m"),
        (
            &["drill", "fanout", "1s", "--url", "https://localhost"],
            2,
            "http://HOST:PORT",
        ),
        (&["drill", "fanout", "1s", "again"], 2, "again"),
    ] {
        let (got, out, err) = run(folder.path(), arguments);
        assert_eq!((got, out.as_str()), (status, ""), "{arguments:?}: {err}");
        assert!(
            err.starts_with("threadcast: ") && err.contains(part),
            "{arguments:?}: {err}"
        );
    }
    assert_eq!(allowed.health()["status"], "ok");
}

#[test]
fn diagnose_prints_every_thread_with_its_stack() {
    let server = TestServer::start(&[]);
    let _client = server.client();
    let (status, out, err) = run(server.folder().path(), &["diagnose", "--url", &url(&server)]);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("==== threadcast "), "{out}");
    for name in [
        "ingest",
        "fanout",
        "accept",
        "inbox",
        "heartbeat",
        "files",
        "log",
        "watchdog",
        "client-1",
    ] {
        assert!(out.contains(&format!("{name} (id ")), "no {name} in {out}");
    }
    for component in ["ingest", "fanout", "main", "watchdog"] {
        assert!(out.contains(&format!("📍 {component:<10} ")), "{out}");
    }
    if cfg!(all(feature = "stacks", target_arch = "x86_64")) {
        for function in [
            "ingest::Ingest::",
            "fanout::Fanout::",
            "accept::Accept::",
            "inbox::Inbox::",
        ] {
            assert!(out.contains(function), "no {function} in {out}");
        }
    }
    // Nothing of it is in the file of hangs.
    assert_eq!(
        std::fs::read_to_string(server.path("logs/hang-emergency.log")).unwrap(),
        ""
    );
}

#[test]
fn diagnose_without_a_server_or_watchdog_says_so() {
    let server = TestServer::start(&["--allow-drill"]);
    let folder = server.folder();
    let (status, out, err) = run(folder.path(), &["diagnose", "--url", "http://127.0.0.1:1"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        err.contains("no admin socket of the server at 127.0.0.1:1 was found"),
        "{err}"
    );
    let (status, ..) = run(folder.path(), &["drill", "watchdog", "60s", "--url", &url(&server)]);
    assert_eq!(status, 0);
    // It obeys at its next turn; a report that is made before that is a good one.
    let refused = crate::support::within(Duration::from_secs(60), "no report", || {
        let (status, _, err) = run(folder.path(), &["diagnose", "--url", &url(&server)]);
        (status == 1).then_some(err)
    });
    assert!(
        refused.contains("the watchdog did not make the report in time"),
        "{refused}"
    );
}
