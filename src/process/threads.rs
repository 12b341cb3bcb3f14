//! The only place that starts a thread: it gives the name, catches a panic, and makes joining bounded.

use crate::process::locks::lock;
use crossbeam_channel::Sender;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Linux cuts thread names after this many bytes (`TASK_COMM_LEN` - 1, prctl(2)).
pub const NAME_BYTES_MAX: usize = 15;

/// Stack of the threads that live as long as the server. Only touched pages cost memory.
pub const CORE_STACK_BYTES: usize = 1024 * 1024;

/// A thread that can be waited for with a bound.
#[derive(Debug)]
pub struct ThreadHandle<T> {
    name: String,
    outcome: Arc<Outcome<T>>,
    join: std::thread::JoinHandle<()>,
}

/// Where a thread leaves what its body gave, or the text of its panic. A channel would do, but it
/// takes more memory, and there is one of these per client.
#[derive(Debug)]
struct Outcome<T> {
    slot: Mutex<Option<Result<T, String>>>,
    filled: Condvar,
}

/// Why a thread gave no result.
#[derive(Debug, PartialEq, Eq)]
pub enum JoinError {
    /// It was still running when the bound had passed; it keeps running, nobody waits for it any more.
    StillRunning { name: String, waited: Duration },
    /// It panicked with this message.
    Panicked { name: String, message: String },
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::StillRunning { name, waited } => {
                write!(f, "thread {name} did not end within {waited:?}")
            }
            JoinError::Panicked { name, message } => write!(f, "thread {name} panicked: {message}"),
        }
    }
}

impl std::error::Error for JoinError {}

/// Says which core thread ended, so that `main` can stop the server with its name as the cause.
pub type Obituaries = Sender<String>;

/// Starts a thread called `name` (at most [`NAME_BYTES_MAX`] bytes) with a stack of `stack_bytes`.
///
/// When it ends, however it ends, its name goes to `obituaries`, if any.
///
/// # Errors
/// The host refuses another thread (limits of the user, the control group or the kernel, or memory).
pub fn spawn<T, F>(
    name: &str,
    stack_bytes: usize,
    obituaries: Option<Obituaries>,
    body: F,
) -> io::Result<ThreadHandle<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    debug_assert!(name.len() <= NAME_BYTES_MAX, "{name} is too long");
    let outcome = Arc::new(Outcome {
        slot: Mutex::new(None),
        filled: Condvar::new(),
    });
    let own_outcome = Arc::clone(&outcome);
    let own_name = name.to_owned();
    let run = move || {
        let result = catch_unwind(AssertUnwindSafe(body)).map_err(|panic| panic_text(&*panic));
        // Held for moments by us and by the thread that joins.
        *lock(&own_outcome.slot) = Some(result);
        own_outcome.filled.notify_all();
        if let Some(obituaries) = obituaries {
            let _ = obituaries.try_send(own_name);
        }
    };
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    let join = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(stack_bytes)
        .spawn(run)?;
    Ok(ThreadHandle {
        name: name.to_owned(),
        outcome,
        join,
    })
}

impl<T> ThreadHandle<T> {
    /// The thread's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether its body has returned or panicked.
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }

    /// Blocks until the thread has ended, at most `bound`.
    ///
    /// # Errors
    /// It runs on, or it panicked.
    pub fn join_within(self, bound: Duration) -> Result<T, JoinError> {
        let slot = lock(&self.outcome.slot);
        let (mut slot, _) = self
            .outcome
            .filled
            .wait_timeout_while(slot, bound, |slot| slot.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let Some(outcome) = slot.take() else {
            return Err(JoinError::StillRunning {
                name: self.name,
                waited: bound,
            });
        };
        drop(slot);
        // The body is over. What is left of the thread is its own tear-down, for which nobody waits: it has no bound.
        drop(self.join);
        outcome.map_err(|message| JoinError::Panicked {
            name: self.name,
            message,
        })
    }
}

/// Returns whether thread `id` of this process is running or waits for a processor only (state R of proc_pid_stat(5)).
pub fn is_thread_runnable(id: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat"));
    // The name before the state may itself contain parentheses.
    stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" R")))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;

    #[test]
    fn a_panic_becomes_an_error_with_name_and_text() {
        let handle = spawn::<(), _>("panics", 256 * 1024, None, || panic!("no more {}", "tea")).unwrap();
        let error = handle.join_within(Duration::from_secs(10)).unwrap_err();
        assert_eq!(error.to_string(), "thread panics panicked: no more tea");
    }

    #[test]
    fn joining_is_bounded_and_names_who_runs_on() {
        let (gate_tx, gate_rx) = bounded::<()>(1);
        let handle = spawn("runs-on", 256 * 1024, None, move || {
            let _ = gate_rx.recv();
        })
        .unwrap();
        let error = handle.join_within(Duration::from_millis(1)).unwrap_err();
        assert!(error.to_string().starts_with("thread runs-on did not end"));
        drop(gate_tx);
    }

    #[test]
    fn every_end_is_announced() {
        let (obituaries, ends) = bounded(2);
        spawn("one", 256 * 1024, Some(obituaries.clone()), || ()).unwrap();
        spawn::<(), _>("two", 256 * 1024, Some(obituaries), || panic!("x")).unwrap();
        let mut names: Vec<String> = (0..2)
            .map(|_| ends.recv_timeout(Duration::from_secs(10)).unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["one", "two"]);
    }
}
