//! A kernel that does not let threads wait any more (poll and epoll_wait fail, of which ENOMEM is the usual cause)
//! costs neither the stream nor a processor, and the server says so.

use crate::support::client::TEXT;
use crate::support::filter::refuser;
use crate::support::server::in_shell;
use crate::support::{TestServer, eventually, numbered, pause};
use std::sync::Arc;
use std::time::Duration;

/// Every call that the server waits with.
const WAITS: [&str; 4] = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "ppoll"];

/// Processor time that it has used, in hundredths of a second (proc_pid_stat(5)).
fn processor_time(server: &TestServer) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn waits_that_fail_cost_neither_the_stream_nor_a_processor_and_are_said() {
    let folder = Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap());
    let Some(refuser) = refuser(folder.path(), &WAITS, "ENOMEM") else {
        return;
    };
    let mut server = TestServer::start_command(folder, &["--pong-timeout", "60s"], |command| {
        in_shell(command, &[refuser.to_str().unwrap(), "sh"], "true");
    });
    let mut client = server.client();
    let sender = server.sender();
    for number in 0..50 {
        sender.send(&numbered(number, 100)).unwrap();
    }
    client.expect_numbers(0..50);
    client.send_text("ping");
    eventually("a message of a client is read", || {
        let frame = client.frame();
        (frame.opcode == TEXT && frame.text() == r#"{"type":"pong"}"#).then_some(())
    });
    let waits = [
        "fanout",
        "ingest",
        "inbox",
        "accept",
        "main",
        "heartbeat",
        "log",
        "watchdog",
    ];
    let health = eventually("/health names every wait", || {
        let health = server.health();
        let reasons = health["reasons"].to_string();
        let all = waits
            .iter()
            .all(|wait| reasons.contains(&format!("the kernel refuses a wait ({wait} ")));
        all.then_some(health)
    });
    assert_eq!(health["status"], "degraded", "{health}");
    let before = processor_time(&server);
    // The length of the time is the subject.
    pause(Duration::from_secs(2));
    let used = processor_time(&server) - before;
    eprintln!("{used} hundredths of a second in 2 s");
    assert!(
        used < 60,
        "{used} hundredths of a second in 2 s: it goes round in circles"
    );
    let said = server.lines().with("the kernel refuses what this server waits with");
    assert!((1..=waits.len() + 3).contains(&said.len()), "one line each: {said:?}");
    assert!(
        said.iter().any(|line| line.contains("Cannot allocate memory")),
        "{said:?}"
    );
    for number in 50..60 {
        sender.send(&numbered(number, 100)).unwrap();
    }
    client.expect_numbers(50..60);
    assert!(server.stop().success(), "{}", server.lines().all());
    assert_eq!(client.until_close().expect("a close frame").0, 1012);
}
