//! A thread that stands still at any moment (for a debugger, or a page on a disk that does not answer) holds up nobody
//! else: the worst moments are those at which it has something in hand that others need.

use crate::support::stopper::{Call, Stopped};
use crate::support::{TestServer, eventually, numbered, within};
use std::fs;
use std::time::Duration;

/// Flags under which every thread logs often, and one that stands still is noticed soon.
const FLAGS: [&str; 10] = [
    "--hang-timeout",
    "1s",
    "--log-level",
    "debug",
    "--ping-interval",
    "100ms",
    "--pong-timeout",
    "60s",
    "--heartbeat-interval",
    "1s",
];

/// Waits until `/health` names `component` as hung and nobody else.
#[track_caller]
fn expect_alone_hung(server: &TestServer, component: &str) {
    let prefix = format!("{component} is hung");
    within(Duration::from_secs(30), "health names it, and nobody else", || {
        let health = server.health();
        let reasons = health["reasons"].as_array()?;
        // A look may show somebody else late, whom a busy machine gives no processor.
        (reasons.len() == 1 && reasons[0].as_str()?.starts_with(&prefix)).then_some(())
    });
}

#[test]
fn a_thread_that_stops_while_it_wakes_the_log_holds_up_nobody() {
    for name in ["client-1", "heartbeat"] {
        let mut server = TestServer::start(&FLAGS);
        let (mut first, mut second) = (server.client(), server.client());
        // Each of its lines wakes thread `log`, which has nothing to do.
        let Some(stopped) = Stopped::at(&server, name, Call::wakes) else {
            return;
        };
        for number in 0..50 {
            server.send(numbered(number, 100));
            second.expect_numbers(number..number + 1);
        }
        let log = server.path("logs/websocket-server.log");
        eventually("the fan-out's lines are written", || {
            let text = fs::read_to_string(&log).unwrap();
            text.contains("📥 event 50: ").then_some(())
        });
        expect_alone_hung(&server, name);
        drop(stopped);
        first.expect_numbers(0..50);
        eventually("health is well again", || {
            (server.health()["status"] == "ok").then_some(())
        });
        assert!(server.stop().success(), "{}", server.lines().all());
    }
}
