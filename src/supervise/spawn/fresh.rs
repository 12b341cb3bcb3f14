//! What a child does between fork(2) and execve(2), so that its program inherits nothing by accident: signals as after
//! a login, and no descriptor but the first three.

#![allow(unsafe_code, reason = "what a child may do between fork and exec is outside of std")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The numbers of signals. MIPS has twice as many; there, all stay as they are.
const SIGNALS: std::ops::RangeInclusive<libc::c_int> = 1..=64;
/// Room for the kernel's `struct sigaction`, which has at most 32 bytes, in words of 8.
const ACTION_WORDS: usize = 8;
/// Bytes of the kernel's set of signals.
const SET_BYTES: usize = 8;
/// Standard input, output and error.
const STANDARD: libc::c_int = 3;
/// Most descriptors that a child marks one by one, where the kernel cannot mark all at once (before Linux 5.11).
const DESCRIPTORS_MAX: libc::c_int = 65_536;

/// Has the program of `command` start with default dispositions of all signals, none of them blocked, and with standard
/// input, output and error as its only descriptors.
///
/// std leaves both as they are: the mask of the thread that starts the process, signals that this process was started
/// to ignore (nohup(1), a shell's `&`), and descriptors that somebody passed to this process without close-on-exec.
pub(super) fn make_fresh(command: &mut Command) {
    // SAFETY: `fresh` runs in the child of a process with several threads, where only async-signal-safe calls are
    // allowed (signal-safety(7)). It makes system calls only: no allocation, no lock, no panic.
    unsafe {
        command.pre_exec(fresh);
    }
}

fn fresh() -> io::Result<()> {
    // All zero: the default disposition, no flags, an empty mask.
    let default = [0_u64; ACTION_WORDS];
    for signal in SIGNALS {
        // SAFETY: the kernel reads its `struct sigaction`, which is shorter, from our stack. sigaction(3) would refuse
        // the C library's own signals, which a parent may have ignored too. What the kernel refuses stays as it is.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SET_BYTES,
            )
        };
    }
    // SAFETY: the set is on our stack, and sigemptyset makes it one.
    let unblocked = unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut())
    };
    if unblocked != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: numbers only. Marked and not closed, because std tells by one of them why the program does not start.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            STANDARD as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked != 0 {
        for descriptor in STANDARD..DESCRIPTORS_MAX {
            // SAFETY: numbers only; one that is not open is refused.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}
