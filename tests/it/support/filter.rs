//! Filters of system calls (seccomp(2)), as containers and services have them. The server makes many calls without the
//! C library, so that no preloaded one could stand in between.

use super::skipped;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a command under the filter.
const LAUNCHER: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#define REFUSE(call, error) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), \
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error)
int main(int count, char **arguments) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
REFUSALS
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    if (count < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return 125;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 125;
    execvp(arguments[1], arguments + 1);
    return 126;
}
"#;

/// A program that runs its arguments as a command whose `calls` fail with `error`, both by their names in C; `None`,
/// said, where it or the filter cannot be had. A call that this architecture does not have is left out.
pub fn refuser(folder: &Path, calls: &[&str], error: &str) -> Option<PathBuf> {
    let refusals = calls
        .iter()
        .map(|call| format!("#ifdef SYS_{call}\n        REFUSE(SYS_{call}, {error}),\n#endif\n"));
    let (source, program) = (folder.join("refuser.c"), folder.join("refuser"));
    std::fs::write(&source, LAUNCHER.replace("REFUSALS\n", &refusals.collect::<String>())).unwrap();
    let compiled = Command::new("cc").arg("-o").args([&program, &source]).status();
    let works = compiled.is_ok_and(|status| status.success())
        && Command::new(&program)
            .arg("true")
            .status()
            .is_ok_and(|status| status.success());
    if !works {
        skipped(format_args!(
            "what a refused {} does, because there is no C compiler or no seccomp",
            calls.join(" or ")
        ));
    }
    works.then_some(program)
}
