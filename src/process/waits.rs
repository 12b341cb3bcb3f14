//! What a thread does when the kernel does not let it wait: poll(2) and epoll_wait(2) may fail, and a loop that only
//! goes round again would take a whole processor.
//!
//! Runs on every thread that waits for descriptors. Blocks for [`BACK_OFF`] after a failure, and else never.

use crate::process::clock::pause;
use rustix::io::Errno;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

/// How long a thread stands back after a failed wait, before it looks by itself for something to do. A hundred looks a
/// second cost next to nothing, and delay an event by less than a person sees.
pub const BACK_OFF: Duration = Duration::from_millis(10);
/// Failures in a row from which on the fault is a lasting one, and worth a line: a tenth of a second. A single one
/// passes unsaid.
const LASTING: u32 = 10;

/// One kind of wait, and how it goes.
#[derive(Debug)]
pub struct Wait {
    /// Who waits, and for what, for messages.
    what: &'static str,
    /// Failures in a row.
    failures: AtomicU32,
    /// The error number of a lasting fault; 0 while there is none.
    lasting: AtomicI32,
    /// The log may be told. Not by who watches over the log.
    says: bool,
}

/// The waits of the server's threads.
pub static MAIN: Wait = Wait::new("main waits for signals");
pub static INGEST: Wait = Wait::new("ingest waits for datagrams");
/// The receiver says by itself which socket it is.
pub static EVENT_SOCKET: Wait = Wait::silent("ingest receives events");
pub static FANOUT: Wait = Wait::new("fanout waits for work");
pub static ACCEPT: Wait = Wait::new("accept waits for connections");
pub static INBOX: Wait = Wait::new("inbox waits for clients' messages");
pub static CLIENTS: Wait = Wait::new("clients' threads wait for their sockets");
pub static ADMIN: Wait = Wait::new("admin waits for requests");
pub static ALERTS: Wait = Wait::new("alerts waits for its command");
pub static HEARTBEAT: Wait = Wait::new("heartbeat waits for its time");
pub static ENGINE_DB: Wait = Wait::new("enginedb waits for its time");
pub static DETECTOR: Wait = Wait::new("detector waits for its time");
pub static REPORTS: Wait = Wait::new("reports waits for something to write");
pub static LOG: Wait = Wait::new("log waits for lines");
pub static WATCHDOG: Wait = Wait::silent("watchdog waits for its time");

/// A command's that sends events; no page shows it.
pub static SENDER: Wait = Wait::silent("a command waits for room");

/// Those of `threadcast up`; no page shows them.
pub static ACT: Wait = Wait::silent("act waits for ends and orders");
pub static LOOK: Wait = Wait::silent("look waits for its time");
pub static CONTROL: Wait = Wait::silent("control waits for requests");
pub static WATCH: Wait = Wait::silent("watch waits for its time");

/// Those of the server.
static ALL: [&Wait; 15] = [
    &MAIN,
    &INGEST,
    &EVENT_SOCKET,
    &FANOUT,
    &ACCEPT,
    &INBOX,
    &CLIENTS,
    &ADMIN,
    &ALERTS,
    &HEARTBEAT,
    &ENGINE_DB,
    &DETECTOR,
    &REPORTS,
    &LOG,
    &WATCHDOG,
];

/// What is wrong with the waits at this moment: a sentence for each that fails lastingly.
pub fn faults() -> impl Iterator<Item = String> {
    ALL.iter().filter_map(|wait| wait.fault())
}

// Relaxed throughout: each is a fact by itself. Several threads may share a wait; then one that succeeds says that the
// fault is over, which it is for the kernel's memory.
impl Wait {
    const fn new(what: &'static str) -> Wait {
        Wait {
            what,
            failures: AtomicU32::new(0),
            lasting: AtomicI32::new(0),
            says: true,
        }
    }

    const fn silent(what: &'static str) -> Wait {
        Wait {
            says: false,
            ..Wait::new(what)
        }
    }

    /// Judges the outcome of a system call that waits. An interrupted one is none, and the caller's clock tells how
    /// long to go on. Blocks for [`BACK_OFF`] after any other failure, so that the caller may look for itself and wait
    /// again.
    pub fn judge<T>(&self, outcome: Result<T, Errno>) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.succeeded();
                Some(value)
            }
            Err(Errno::INTR) => None,
            Err(error) => {
                self.failed(error);
                pause(BACK_OFF);
                None
            }
        }
    }

    fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.failures.store(0, Ordering::Relaxed);
        if self.lasting.swap(0, Ordering::Relaxed) != 0 && self.says {
            log::warn!("✅ the kernel lets this server wait again ({})", self.what);
        }
    }

    fn failed(&self, error: Errno) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < LASTING || self.lasting.swap(error.raw_os_error(), Ordering::Relaxed) != 0 || !self.says {
            return;
        }
        log::error!(
            "🚨 the kernel refuses what this server waits with ({}): {error}; it looks by itself every {BACK_OFF:?} until \
             that is over. Out of memory is a usual cause: look at the host's, and at MemoryMax= of the unit",
            self.what
        );
    }

    fn fault(&self) -> Option<String> {
        let error = self.lasting.load(Ordering::Relaxed);
        let error = (error != 0).then(|| Errno::from_raw_os_error(error))?;
        Some(format!("the kernel refuses a wait ({}): {error}", self.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn an_interrupted_wait_is_no_fault_and_costs_nothing() {
        let (wait, begun) = (Wait::new("x"), Instant::now());
        for _ in 0..1000 {
            assert_eq!(wait.judge::<()>(Err(Errno::INTR)), None);
        }
        assert_eq!((wait.fault(), wait.failures.load(Ordering::Relaxed)), (None, 0));
        assert!(begun.elapsed() < BACK_OFF * 100, "it does not stand back");
    }

    #[test]
    fn a_failure_that_passes_is_a_pause_and_one_that_lasts_a_fault() {
        let (wait, begun) = (Wait::new("x"), Instant::now());
        for _ in 1..LASTING {
            assert_eq!(wait.judge::<()>(Err(Errno::NOMEM)), None);
            assert_eq!(wait.fault(), None);
        }
        assert!(begun.elapsed() >= BACK_OFF * (LASTING - 1));
        assert_eq!(wait.judge(Ok(7)), Some(7));
        for _ in 0..LASTING {
            let _ = wait.judge::<()>(Err(Errno::NOMEM));
        }
        let fault = wait.fault().unwrap();
        assert!(fault.starts_with("the kernel refuses a wait (x): "), "{fault}");
        assert_eq!(wait.judge(Ok(7)), Some(7));
        assert_eq!(wait.fault(), None, "it is over");
    }
}
