//! Signals that people and programs send: [`StopSignals`] for the server, where a second wish to end ends the process
//! at once, and [`EndSignals`] for the short commands. A process uses one of them. docs/operating.md has the table.

use crate::process::clock::{monotonic_ms, timespec};
use crate::process::exit::ExitStatus;
use crate::process::waits;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXFSZ,
};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Wishes to end that come within this time are one: GNU timeout(1) signals its child and then the child's group, and a
/// terminal's Ctrl-C can reach a process by two ways. A person who presses it again takes longer.
const ONE_WISH: Duration = Duration::from_millis(500);

/// Signals that would end the process although nobody means its end by them, and a file that must not grow any more
/// (SIGXFSZ, setrlimit(2)): the write then fails with EFBIG, which takes the way of every failed write. They get a
/// handler, because an ignored signal stays ignored in programs that a process starts.
const MEANING_NOTHING: [i32; 9] = [
    SIGUSR1,
    SIGUSR2,
    SIGALRM,
    SIGVTALRM,
    SIGPROF,
    SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    SIGXFSZ,
];

/// Those signals, and the real-time ones, which have no meaning of their own and end a process that does not handle
/// them. The C library keeps the first two or three for itself and leaves them out of its range. One of the rest asks
/// threads for their stacks: its handler, installed later, takes the place of ours.
fn meaning_nothing() -> impl Iterator<Item = i32> {
    MEANING_NOTHING.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
}

/// What a signal means to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// End in order. The signal's name.
    Stop(&'static str),
    /// Read the settings again.
    Reload,
    /// Nothing. The signal's name.
    Nothing(String),
}

/// Waits for the server's signals. One per process; any thread may wait.
#[derive(Debug)]
pub struct StopSignals {
    wake: UnixStream,
    seen: Arc<Seen>,
}

/// Has the kernel keep the status of a child that ends, where this process was started to ignore the ends of its
/// children. By a supervisor that does so, a child's status is lost and its number free at once. To be called before
/// the first child.
///
/// # Errors
/// The kernel refuses the handler.
pub fn heed_children() -> io::Result<()> {
    if ignored_signals() & bit_of(SIGCHLD) != 0 {
        // Any handler does: what counts is that the signal is not ignored.
        on_signal(SIGCHLD, || {})?;
    }
    Ok(())
}

/// What the handlers have seen. They only store; see signal-safety(7).
#[derive(Debug, Default)]
struct Seen {
    /// The first signal that asks to end, or 0, and when it came, in milliseconds of the monotonic clock.
    stop: AtomicUsize,
    stop_ms: AtomicU64,
    reload: AtomicBool,
    /// One bit for each of [`meaning_nothing`], the lowest for signal 1.
    nothing: AtomicU64,
}

impl Seen {
    /// Runs in a handler. A further wish to end, later than [`ONE_WISH`] after the first, ends the process on the spot
    /// with status 1, even if every thread is stuck.
    fn wish_to_end(&self, signal: i32) {
        let now = monotonic_ms();
        // The time first: a thread that sees the signal sees it too. Relaxed suffices within one thread's handlers, and
        // the exchange orders it for others.
        if self.stop.load(Ordering::Acquire) == 0 {
            self.stop_ms.store(now, Ordering::Relaxed);
        }
        let first = self
            .stop
            .compare_exchange(0, signal as usize, Ordering::AcqRel, Ordering::Acquire);
        let since = now.saturating_sub(self.stop_ms.load(Ordering::Relaxed));
        if first.is_err() && u128::from(since) >= ONE_WISH.as_millis() {
            signal_hook::low_level::exit(ExitStatus::Failed as i32);
        }
    }
}

impl StopSignals {
    /// Takes over SIGTERM, SIGINT, SIGHUP and those that mean nothing here. The latter two stay ignored where the
    /// process was started to ignore them, as nohup(1) does.
    ///
    /// From here on [`StopSignals::wait`] reports the first wish to end; one that comes more than 500 ms later ends the
    /// process on the spot with status 1, because the handler itself does it. SIGHUP is a wish to end where the process
    /// has a controlling terminal, which sends it when it closes, and asks for the settings to be read again elsewhere.
    ///
    /// # Errors
    /// The process or the host is out of descriptors, or the kernel refuses the handler; the server cannot start then.
    pub fn install() -> io::Result<StopSignals> {
        let (wake, sender) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        sender.set_nonblocking(true)?;
        let seen = Arc::new(Seen::default());
        // Starts the clock here, because its first use takes a lock.
        monotonic_ms();
        let ignored = ignored_signals();
        let is_heeded = |signal: &i32| ignored & bit_of(*signal) == 0;
        let hup_ends = has_terminal();
        for signal in [SIGTERM, SIGINT].into_iter().chain(Some(SIGHUP).filter(is_heeded)) {
            let seen = Arc::clone(&seen);
            on_signal(signal, move || {
                if signal == SIGHUP && !hup_ends {
                    seen.reload.store(true, Ordering::Release);
                } else {
                    seen.wish_to_end(signal);
                }
            })?;
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        for signal in meaning_nothing().filter(is_heeded) {
            let seen = Arc::clone(&seen);
            on_signal(signal, move || {
                // The failed write is said already.
                if signal != SIGXFSZ {
                    seen.nothing.fetch_or(bit_of(signal), Ordering::Relaxed);
                }
            })?;
        }
        Ok(StopSignals { wake, seen })
    }

    /// Blocks until a signal has come that asks for something, at most `bound`; returns what there is to do. A wish to
    /// end is given again at every call, anything else once.
    pub fn wait(&self, bound: Duration) -> Option<Heard> {
        let mut fds = [PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        // An interrupted poll is as good as one that timed out: the flags decide.
        let _ = waits::MAIN.judge(poll(&mut fds, Some(&timespec(bound))));
        if let Some(stop) = self.stop() {
            return Some(Heard::Stop(stop));
        }
        // What woke us is done with; the flags are looked at behind it. Empty is as good.
        let _ = (&self.wake).read(&mut [0; 64]);
        if self.seen.reload.swap(false, Ordering::Acquire) {
            return Some(Heard::Reload);
        }
        let nothing = self.seen.nothing.load(Ordering::Relaxed);
        (nothing != 0).then(|| {
            let signal = nothing.trailing_zeros() as i32 + 1;
            self.seen.nothing.fetch_and(!bit_of(signal), Ordering::Relaxed);
            Heard::Nothing(shown(signal))
        })
    }

    /// Takes a wish to end that waits for a thread which cannot take it: the kernel gives a signal to the main thread
    /// by preference, and one that a disk holds in the kernel runs no handler. For another thread, while `main` may be
    /// held. Never blocks.
    #[expect(unsafe_code, reason = "sigtimedwait(2) has no safe wrapper")]
    pub fn take_waiting(&self) {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset(3) initialises the set before the others read it; all pointers live as long as the calls.
        let signal = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), SIGTERM);
            libc::sigaddset(set.as_mut_ptr(), SIGINT);
            libc::sigtimedwait(set.as_ptr(), std::ptr::null_mut(), &at_once)
        };
        if signal > 0 {
            self.seen.wish_to_end(signal);
        }
    }

    /// The name of the signal that asked to end, if one has.
    pub fn stop(&self) -> Option<&'static str> {
        match self.seen.stop.load(Ordering::Acquire) as i32 {
            0 => None,
            signal => Some(name_of(signal)),
        }
    }
}

/// Runs `handler` whenever `signal` comes.
#[expect(unsafe_code, reason = "signal_hook's own handlers cannot look at a clock")]
fn on_signal(signal: i32, handler: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
    // SAFETY: the handlers of this module do only what signal-safety(7) allows: they load and store atomics, read the
    // monotonic clock, whose start was set before, and call _exit(2). They take no lock, no memory, and do not unwind.
    unsafe { signal_hook::low_level::register(signal, handler) }.map(drop)
}

/// Its place in a set of signals.
fn bit_of(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The name of any signal, a real-time one's by its distance from the first.
fn shown(signal: i32) -> String {
    match signal - libc::SIGRTMIN() {
        0 => "SIGRTMIN".to_owned(),
        above @ 1.. => format!("SIGRTMIN+{above}"),
        _ => name_of(signal).to_owned(),
    }
}

fn name_of(signal: i32) -> &'static str {
    match signal {
        // These two are Linux's own, and not in the library's table.
        libc::SIGPWR => "SIGPWR",
        libc::SIGSTKFLT => "SIGSTKFLT",
        _ => signal_hook::low_level::signal_name(signal).unwrap_or("a signal"),
    }
}

/// Returns whether the process has a controlling terminal (tty(4)).
fn has_terminal() -> bool {
    open(
        "/dev/tty",
        OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .is_ok()
}

/// What asks a command to end.
const ASKING_TO_END: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Ctrl-C (SIGINT), SIGTERM and SIGHUP as a wish to end, for a command that stays for a while but is no server. One per
/// process.
#[derive(Debug)]
pub struct EndSignals {
    wake: UnixStream,
    requested: Arc<AtomicBool>,
    again: Arc<Again>,
}

/// When the first signal came, in milliseconds of the monotonic clock and one more, and whether another wish has come.
#[derive(Debug, Default)]
struct Again {
    first_ms: AtomicU64,
    has_come: AtomicBool,
}

impl Again {
    /// A signal has come. Async-signal-safe, but for the first look at the clock.
    fn note(&self) {
        let now = monotonic_ms() + 1;
        let first = self
            .first_ms
            .compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
        if let Err(first) = first
            && now.saturating_sub(first) > ONE_WISH.as_millis() as u64
        {
            self.has_come.store(true, Ordering::Release);
        }
    }
}

impl EndSignals {
    /// Takes over those of the three signals that the process was not started to ignore.
    ///
    /// A shell starts `command &` in a script with SIGINT ignored, and nohup(1) starts its command with SIGHUP ignored;
    /// this wish of the process that started us stays in force.
    ///
    /// # Errors
    /// The process or the host is out of descriptors, or the kernel refuses a handler; the signals then end the process
    /// at once.
    pub fn install() -> io::Result<EndSignals> {
        let (wake, sender) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        let requested = Arc::new(AtomicBool::new(false));
        let again = Arc::new(Again::default());
        let ignored = ignored_signals();
        let is_heeded = |signal: &i32| ignored & bit_of(*signal) == 0;
        if ASKING_TO_END.iter().all(is_heeded) {
            let (flag, noted) = (Arc::clone(&requested), Arc::clone(&again));
            let heard = move || {
                flag.store(true, Ordering::Release);
                noted.note();
                // A full pipe means that the threads that wait are woken already.
                let _ = (&sender).write(&[0]);
            };
            ctrlc::try_set_handler(heard).map_err(|error| io::Error::other(error.to_string()))?;
            return Ok(EndSignals { wake, requested, again });
        }
        // ctrlc takes all of them or none.
        for signal in ASKING_TO_END.into_iter().filter(is_heeded) {
            signal_hook::flag::register(signal, Arc::clone(&requested))?;
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(EndSignals { wake, requested, again })
    }

    /// Returns whether one of them has come; from then on always.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Returns whether one has come more than 500 ms after the first; timeout(1) sends two for one wish, microseconds
    /// apart. Never, where the process was started to ignore one of them.
    pub fn requested_again(&self) -> bool {
        self.again.has_come.load(Ordering::Acquire)
    }

    /// Blocks until `descriptor` can be read, or has ended or failed, or one of the signals has come, at most `bound`.
    /// Returns whether the descriptor can be read, as far as the kernel tells.
    pub fn is_readable_within(&self, descriptor: impl AsFd, bound: Duration) -> bool {
        let mut fds = [
            PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
        ];
        let _ = waits::MAIN.judge(poll(&mut fds, Some(&timespec(bound))));
        !fds[0].revents().is_empty()
    }

    /// Blocks until one of them has come, at most `bound`. Returns whether one has.
    pub fn is_requested_within(&self, bound: Duration) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        // What is there to read stays, so everybody who waits is woken. An interrupted poll costs nothing.
        let _ = waits::MAIN.judge(poll(&mut fds, Some(&timespec(bound))));
        self.requested()
    }
}

/// The signals that this process ignores, one bit each, the lowest for signal 1 (proc_pid_status(5)); none where /proc
/// cannot be read.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::consts::SIGPIPE;

    #[test]
    fn ignored_signals_are_known() {
        // The standard library ignores SIGPIPE before `main`; nobody ignores SIGSEGV.
        assert_ne!(ignored_signals() & bit_of(SIGPIPE), 0);
        assert_eq!(ignored_signals() & bit_of(libc::SIGSEGV), 0);
    }

    #[test]
    fn every_signal_that_means_nothing_has_a_place_and_a_name_of_its_own() {
        let signals: Vec<i32> = meaning_nothing().collect();
        let bits = signals.iter().fold(0, |bits, signal| bits | bit_of(*signal));
        assert_eq!(bits.count_ones() as usize, signals.len());
        let names: std::collections::BTreeSet<String> = signals.iter().map(|signal| shown(*signal)).collect();
        assert_eq!(names.len(), signals.len(), "{names:?}");
        for name in ["SIGUSR1", "SIGPWR", "SIGRTMIN", "SIGRTMIN+1"] {
            assert!(names.contains(name), "{name} is not in {names:?}");
        }
    }
}
