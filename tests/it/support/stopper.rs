//! Stops one thread of a server at a system call that a test chooses, as a debugger does (ptrace(2)).
#![expect(unsafe_code, reason = "rustix has no ptrace(2)")]

use crate::support::{DEADLINE, TestServer, eventually, skipped};
use std::ffi::{c_int, c_void};
use std::fs;
use std::io;
use std::ptr;
use std::time::Instant;

/// A system call that a thread is about to make.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pid: u32,
    pub number: i64,
    pub arguments: [u64; 6],
}

impl Call {
    /// Whether it wakes another thread of this process: by a futex, or by an eventfd.
    pub fn wakes(&self) -> bool {
        match self.number {
            libc::SYS_futex => self.arguments[1] as c_int & !libc::FUTEX_PRIVATE_FLAG == libc::FUTEX_WAKE,
            libc::SYS_write => self.arguments[2] == 8 && self.is_about_an_eventfd(),
            _ => false,
        }
    }

    fn is_about_an_eventfd(&self) -> bool {
        let file = fs::read_link(format!("/proc/{}/fd/{}", self.pid, self.arguments[0]));
        file.is_ok_and(|file| file.to_string_lossy().contains("eventfd"))
    }
}

/// A thread that stands still until this is dropped. Only the thread that has stopped it may drop it.
#[derive(Debug)]
pub struct Stopped {
    thread: c_int,
}

impl Stopped {
    /// Stops the thread called `name` when it is about to make a system call that is `wanted`; fails if it does not in
    /// time. `None`, said, where this user may not stop threads.
    pub fn at(server: &TestServer, name: &str, wanted: impl Fn(&Call) -> bool) -> Option<Stopped> {
        Stopped::of(server.pid(), name, wanted)
    }

    /// The same of the process with this id.
    pub fn of(pid: u32, name: &str, wanted: impl Fn(&Call) -> bool) -> Option<Stopped> {
        let thread = thread_called(pid, name);
        if let Err(error) = request(libc::PTRACE_SEIZE, thread, libc::PTRACE_O_TRACESYSGOOD as usize) {
            skipped(format_args!("what a stopped {name} does to others, because {error}"));
            return None;
        }
        let (stopped, begun) = (Stopped { thread }, Instant::now());
        request(libc::PTRACE_INTERRUPT, thread, 0).unwrap();
        loop {
            let signal = match stopped.wait() {
                // A stop of ptrace's own, not one for a signal.
                status if status >> 16 != 0 => 0,
                status => match libc::WSTOPSIG(status) {
                    signal if signal == libc::SIGTRAP | 0x80 => {
                        if stopped.call(pid).is_some_and(|call| wanted(&call)) {
                            return Some(stopped);
                        }
                        0
                    }
                    signal => signal,
                },
            };
            assert!(begun.elapsed() < DEADLINE, "{name} makes no such call");
            request(libc::PTRACE_SYSCALL, thread, signal as usize).unwrap();
        }
    }

    /// Blocks until the thread stops; how.
    #[track_caller]
    fn wait(&self) -> c_int {
        let status = eventually("the thread stops", || {
            let mut status = 0;
            // SAFETY: waitpid(2) writes one int to the address given, that of `status`.
            let waited = unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL | libc::WNOHANG) };
            assert!(waited >= 0, "{}", io::Error::last_os_error());
            (waited == self.thread).then_some(status)
        });
        assert!(libc::WIFSTOPPED(status), "the thread has ended: {status:x}");
        status
    }

    /// The call before which it stands, if it does not stand behind one.
    fn call(&self, pid: u32) -> Option<Call> {
        // SAFETY: all its fields are numbers, for which zero is a value.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let bytes = size_of_val(&info);
        // SAFETY: the request writes at most `bytes` bytes to the address given, that of `info`.
        let got = unsafe {
            libc::ptrace(
                libc::PTRACE_GET_SYSCALL_INFO,
                self.thread,
                bytes as *mut c_void,
                (&raw mut info).cast::<c_void>(),
            )
        };
        assert!(got > 0, "{}", io::Error::last_os_error());
        (info.op == libc::PTRACE_SYSCALL_INFO_ENTRY).then(|| {
            // SAFETY: the kernel fills this one of the union before a call.
            let entry = unsafe { info.u.entry };
            Call {
                pid,
                number: entry.nr as i64,
                arguments: entry.args,
            }
        })
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It fails when the thread has ended with its process, or runs because a test failed in between.
        let _ = request(libc::PTRACE_DETACH, self.thread, 0);
    }
}

/// A request of ptrace(2) that takes a number.
fn request(request: libc::c_uint, thread: c_int, data: usize) -> io::Result<()> {
    // SAFETY: the requests of this module that use this take no address but in `data`, which is a number to them.
    let done = unsafe { libc::ptrace(request, thread, ptr::null_mut::<c_void>(), data as *mut c_void) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The kernel's number of a thread.
fn thread_called(pid: u32, name: &str) -> c_int {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut tasks = tasks.map(|task| task.unwrap().path());
    let is_called = |comm: String| comm.trim_end() == name;
    let task = tasks.find(|task| fs::read_to_string(task.join("comm")).is_ok_and(is_called));
    let task = task.unwrap_or_else(|| panic!("no thread {name}"));
    task.file_name().unwrap().to_str().unwrap().parse().unwrap()
}
