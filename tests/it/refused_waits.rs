//! A kernel that does not let threads wait any more (poll and epoll_wait fail, of which ENOMEM is the usual cause) costs
//! neither the stream nor a processor, and the server says so.

use crate::support::client::TEXT;
use crate::support::server::in_shell;
use crate::support::{TestServer, eventually, numbered, pause};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Runs a command for which every wait fails with ENOMEM, by a filter of system calls (seccomp(2)): the server makes these
/// calls without the C library, so that no preloaded one could stand in between.
const REFUSER: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#define REFUSE(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), \
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM)
int main(int count, char **arguments) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#ifdef SYS_epoll_wait
        REFUSE(SYS_epoll_wait),
#endif
        REFUSE(SYS_epoll_pwait),
        REFUSE(SYS_epoll_pwait2),
        REFUSE(SYS_ppoll),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    if (count < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return 125;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 125;
    execvp(arguments[1], arguments + 1);
    return 126;
}
"#;

/// Compiles it; `None`, said, where that or the filter cannot be had.
fn refuser(folder: &Path) -> Option<PathBuf> {
    let (source, program) = (folder.join("refuser.c"), folder.join("refuser"));
    std::fs::write(&source, REFUSER).unwrap();
    let compiled = Command::new("cc").arg("-o").args([&program, &source]).status();
    let works = compiled.is_ok_and(|status| status.success())
        && Command::new(&program)
            .arg("true")
            .status()
            .is_ok_and(|status| status.success());
    if !works {
        eprintln!("SKIPPED: without a C compiler, or without seccomp, no wait can be made to fail");
    }
    works.then_some(program)
}

/// Processor time that it has used, in hundredths of a second (proc_pid_stat(5)).
fn processor_time(server: &TestServer) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn waits_that_fail_cost_neither_the_stream_nor_a_processor_and_are_said() {
    let folder = Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap());
    let Some(refuser) = refuser(folder.path()) else { return };
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
    let waits = ["fanout", "ingest", "inbox", "accept", "main", "heartbeat", "watchdog"];
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
