//! The filter of a container or a service (seccomp(2)) refuses what the server could otherwise do: it goes another way,
//! or says that it is a filter, and what to let through.

use crate::support::client::Options;
use crate::support::filter::refuser;
use crate::support::server::{in_shell, run};
use crate::support::{TestClient, TestServer, compile, numbered};
use std::process::{Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap())
}

/// Threads, and those with a complete stack, by the last line of a dump.
fn stacks(dump: &str) -> (usize, usize) {
    let line = dump
        .lines()
        .find(|line| line.contains(" with a complete stack"))
        .unwrap();
    let number = |text: &str| text.trim().split(' ').next().unwrap().parse().unwrap();
    let (threads, complete) = line.split_once(", ").unwrap();
    (number(threads), number(complete))
}

#[test]
fn stacks_are_found_without_the_call_of_debuggers() {
    if !cfg!(all(feature = "stacks", target_arch = "x86_64")) {
        return;
    }
    for error in ["EPERM", "ENOSYS"] {
        let folder = folder();
        let Some(refuser) = refuser(folder.path(), &["process_vm_readv"], error) else {
            return;
        };
        let server = TestServer::start_command(folder, &[], |command| {
            in_shell(command, &[refuser.to_str().unwrap(), "sh"], "true");
        });
        let _client = server.client();
        let url = format!("http://{}", server.address);
        let (status, dump, err) = run(server.folder().path(), &["diagnose", "--url", &url]);
        assert_eq!((status, err.as_str()), (0, ""), "{dump}");
        let (threads, complete) = stacks(&dump);
        assert!(threads > 8 && complete == threads, "{error}: {dump}");
        for part in [
            "threadcast::fanout::Fanout::run",
            "threadcast::client::accept::Accept::run",
        ] {
            assert!(dump.contains(part), "{error}: {part}: {dump}");
        }
        assert!(!dump.contains("forbids"), "{error}: {dump}");
    }
}

/// What a line says that is about a filter, and not about a limit.
#[track_caller]
fn names_the_filter(text: &str) {
    for part in ["Operation not permitted", "seccomp", "SystemCallFilter=", "clone3"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for part in ["ulimit", "TasksMax", "--max-clients"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_start_without_threads_names_the_filter_that_refuses_them() {
    let folder = folder();
    let Some(refuser) = refuser(folder.path(), &["clone", "clone3"], "EPERM") else {
        return;
    };
    let output = Command::new(refuser)
        .arg(env!("CARGO_BIN_EXE_threadcast"))
        .args(["serve", "--port", "0", "--event-socket-path", "events.sock"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot make thread log: "), "{said}");
    names_the_filter(&said);
    assert!(!folder.path().join("events.sock").exists(), "it leaves nothing behind");
}

/// Puts the thread that takes in connections under a filter, once it has taken one.
const LATER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#define REFUSE(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
int accept4(int listener, struct sockaddr *peer, socklen_t *len, int flags) {
    static int (*real)(int, struct sockaddr *, socklen_t *, int);
    static int taken;
    if (!real) real = (int (*)(int, struct sockaddr *, socklen_t *, int))dlsym(RTLD_NEXT, "accept4");
    int socket = real(listener, peer, len, flags);
    if (socket >= 0 && peer && peer->sa_family != AF_UNIX && ++taken == 2) {
        struct sock_filter filter[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            REFUSE(SYS_clone),
            REFUSE(SYS_clone3),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    }
    return socket;
}
"#;

#[test]
fn a_client_without_a_thread_names_the_filter_and_costs_nobody_else() {
    let folder = folder();
    let (Some(_), Some(library)) = (
        refuser(folder.path(), &["clone"], "EPERM"),
        compile(folder.path(), "later", LATER),
    ) else {
        return;
    };
    let server = TestServer::start_command(folder, &[], |command| {
        command.env("LD_PRELOAD", &library);
    });
    let mut client = server.client();
    let refused = TestClient::try_with(server.address, &Options::default())
        .unwrap_err()
        .to_string();
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    let line = server.wait_for_line("cannot start a thread for a client: ");
    names_the_filter(&line);
    for number in 0..10 {
        server.send(numbered(number, 100));
    }
    client.expect_numbers(0..10);
}
