//! The wall clock may be stepped (by a person, by NTP, by a suspended laptop): no judgment depends on it.

use crate::support::client::{PING, PONG};
use crate::support::{TestClient, TestServer, compile, eventually, numbered, state_change};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Adds the seconds in a file to the wall clock that a process sees; other clocks are left alone.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int outcome = real(id, now);
    if (id != CLOCK_REALTIME) return outcome;
    long step = 0;
    FILE *file = fopen(getenv("CLOCK_STEP_FILE"), "r");
    if (file) {
        if (fscanf(file, "%ld", &step) != 1) step = 0;
        fclose(file);
    }
    now->tv_sec += step;
    return outcome;
}
"#;

/// The shim, compiled; `None`, said, without a C compiler.
pub fn shim(folder: &Path) -> Option<std::path::PathBuf> {
    compile(folder, "step", SHIM)
}

/// The time in the server's next ping; answers what must be answered on the way.
fn next_ping(client: &mut TestClient) -> f64 {
    loop {
        let frame = client.frame();
        if frame.opcode == PING {
            client.send(PONG, &frame.payload);
        } else if frame.payload.starts_with(b"{\"type\":\"ping\"") {
            let ping: serde_json::Value = serde_json::from_slice(&frame.payload).unwrap();
            return ping["timestamp"].as_f64().unwrap();
        }
    }
}

#[test]
fn a_step_of_the_wall_clock_ends_nobody_and_stops_nothing() {
    const DAY: f64 = 86_400.0;
    let folder = Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap());
    let step_file = folder.path().join("step");
    let Some(library) = shim(folder.path()) else {
        return;
    };
    let flags = [
        "--ping-interval",
        "100ms",
        "--pong-timeout",
        "30s",
        "--machine-ttl",
        "1h",
    ];
    let begun = Instant::now();
    let server = TestServer::start_command(Arc::clone(&folder), &flags, |command| {
        command.env("LD_PRELOAD", &library).env("CLOCK_STEP_FILE", &step_file);
    });
    server.send(state_change("m", "a", "b", 1.5));
    eventually("the machine is known", || {
        (server.health()["machines"] == 1).then_some(())
    });
    let mut client = server.client();
    let mut before = next_ping(&mut client);
    for (number, step) in [DAY, -2.0 * DAY, 400.0 * DAY, 0.0].into_iter().enumerate() {
        let last_step = std::fs::read_to_string(&step_file).map_or(0.0, |text| text.parse().unwrap());
        std::fs::write(&step_file, format!("{step:.0}")).unwrap();
        let after = eventually("the server sees the step", || {
            let now = next_ping(&mut client);
            ((now - before - (step - last_step)).abs() < DAY / 2.0).then_some(now)
        });
        before = after;
        server.send(numbered(number, 100));
        client.expect_numbers(number..number + 1);
        let health = server.health();
        assert_eq!(health["status"], "ok", "{health}");
        for span in ["seconds_since_last_event", "uptime_seconds"] {
            let seconds = health[span].as_f64().unwrap();
            assert!(
                seconds <= begun.elapsed().as_secs_f64() + 1.0,
                "{span} went with the wall clock: {health}"
            );
        }
        assert_eq!((&health["machines"], &health["connections"]), (&1.into(), &1.into()));
    }
    assert!(server.lines().with("ended after").is_empty());
}
