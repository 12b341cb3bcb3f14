//! What a thread shows of itself: that it moves, since when it does what it does, and what that is.
//!
//! Written by its own thread with plain stores, read by anybody at any time; nobody ever waits for it. Beats live as
//! long as the process: a thread that looks at one must never find it gone.

use crate::liveness::operation::{Numbers, Operation, Pace, SlowTally};
use crate::process::clock::monotonic_us;
use crate::process::threads::is_thread_runnable;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Bits of a beat's state below the operation: microseconds of the monotonic clock, enough for 2,283 years.
const SINCE_BITS: u32 = 56;

/// What a thread is to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The data path needs it.
    Core,
    /// The server does its work without it, but not all that it promises.
    Helper,
    /// It serves one connection.
    Client,
}

/// One thread's beat, on cache lines of its own.
#[derive(Debug)]
#[repr(align(64))]
pub struct Beat {
    /// Grows with every operation, and with every step inside a long one.
    progress: AtomicU64,
    /// The current operation and when it began, in one word so that they are always seen together.
    state: AtomicU64,
    /// What the operation is about.
    about: [AtomicU64; 2],
    /// The number of a client's connection; 0 for the threads that live as long as the server, and for a free place.
    number: AtomicU64,
    /// Until when a drill holds this thread, milliseconds of the monotonic clock; 0 for never.
    held_until_ms: AtomicU64,
    /// How, a kind of drill.
    held_how: AtomicU8,
    /// The watchdog's verdict, a [`Verdict`]: the thread that tells viewers looks here.
    verdict: AtomicU8,
    /// The kernel's id of the thread, 0 before it runs.
    thread_id: AtomicI32,
    /// For how long the watchdog has seen no progress, in milliseconds; only with a verdict.
    still_ms: AtomicU64,
    /// How often it began to hang.
    hangs: AtomicU32,
    /// For how long it made no progress when it last hung, in milliseconds; written when that is over.
    hung_ms: AtomicU64,
    name: &'static str,
    role: Role,
    slow: &'static SlowTally,
}

/// What the watchdog thinks of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Alive = 0,
    /// No progress for a third of the hang timeout.
    Late,
    /// No progress for the hang timeout.
    Hung,
}

impl Verdict {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Alive => "alive",
            Verdict::Late => "late",
            Verdict::Hung => "hung",
        }
    }
}

/// A beat as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    pub progress: u64,
    pub operation: Operation,
    pub about: Numbers,
    /// Since the operation began.
    pub age: Duration,
}

impl Sight {
    /// The operation with what it is about: `broadcast (50 clients, 48 KB)`.
    pub fn text(&self) -> String {
        format!("{}{}", self.operation.name(), self.operation.about(self.about))
    }
}

// Orderings: all relaxed, but where a verdict's parts belong together. Each word is read for itself; a reader that sees
// two of them from different moments is off by one step, which no judgment notices, because it looks twice before it
// says anything.
impl Beat {
    pub fn new(name: &'static str, role: Role, slow: &'static SlowTally) -> Beat {
        Beat {
            progress: AtomicU64::new(0),
            state: AtomicU64::new(state(Operation::Turning)),
            about: [AtomicU64::new(0), AtomicU64::new(0)],
            number: AtomicU64::new(0),
            held_until_ms: AtomicU64::new(0),
            held_how: AtomicU8::new(0),
            verdict: AtomicU8::new(Verdict::Alive as u8),
            thread_id: AtomicI32::new(0),
            still_ms: AtomicU64::new(0),
            hangs: AtomicU32::new(0),
            hung_ms: AtomicU64::new(0),
            name,
            role,
            slow,
        }
    }

    /// The thread's name; `client-17` for a client's.
    pub fn name(&self) -> String {
        match self.role {
            Role::Client => format!("{}-{}", self.name, self.number()),
            _ => self.name.to_owned(),
        }
    }

    /// What its thread is to the server.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns whether the data path needs this thread.
    pub fn is_core(&self) -> bool {
        self.role == Role::Core
    }

    /// The number of a client's connection; 0 for a place that no client has.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Makes this the beat of the calling thread.
    pub fn adopt(&self) {
        let id = rustix::thread::gettid().as_raw_nonzero().get();
        self.thread_id.store(id, Ordering::Relaxed);
    }

    /// The kernel's id of its thread; 0 before it runs.
    pub fn thread_id(&self) -> i32 {
        self.thread_id.load(Ordering::Relaxed)
    }

    /// Returns whether its thread could run but gets no processor, or is busy: not hung, as far as the kernel can tell.
    /// Reads /proc, some 20 µs.
    pub fn is_runnable(&self) -> bool {
        match self.thread_id() {
            0 => false,
            id => is_thread_runnable(id),
        }
    }

    /// Begins `operation`, which lasts as long as what is returned; called by the beat's own thread. Two looks at the
    /// clock, some 50 ns in all.
    #[must_use = "the operation ends when this is dropped"]
    pub fn begin(&'static self, operation: Operation) -> Doing {
        self.begin_about(operation, (0, 0))
    }

    /// As [`Beat::begin`], with what the operation is about.
    #[must_use = "the operation ends when this is dropped"]
    pub fn begin_about(&'static self, operation: Operation, about: Numbers) -> Doing {
        let doing = Doing {
            beat: self,
            operation,
            about,
            begun_us: monotonic_us(),
            outer: self.state.load(Ordering::Relaxed),
            outer_about: self.about(),
        };
        self.state
            .store(doing.begun_us | number_bits(operation), Ordering::Relaxed);
        self.show(about);
        doing
    }

    /// Leaves what it did for `operation`, which lasts until the next call; for a thread that tells its phases by a
    /// callback and so cannot hold what [`Beat::begin`] gives.
    pub fn turn_to(&self, operation: Operation) {
        let (before, since_us) = parts(self.state.load(Ordering::Relaxed));
        let now = monotonic_us();
        self.state.store(now | number_bits(operation), Ordering::Relaxed);
        self.show((0, 0));
        self.ended(before, (0, 0), now.saturating_sub(since_us));
    }

    /// One step forward inside an operation: a nanosecond.
    pub fn step(&self) {
        let next = self.progress.load(Ordering::Relaxed).wrapping_add(1);
        // Only one thread writes, so load and store need not be one operation.
        self.progress.store(next, Ordering::Relaxed);
    }

    /// A step, and what the operation is about from here on.
    pub fn show(&self, about: Numbers) {
        self.about[0].store(about.0, Ordering::Relaxed);
        self.about[1].store(about.1, Ordering::Relaxed);
        self.step();
    }

    /// The count of steps so far.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    fn about(&self) -> Numbers {
        (
            self.about[0].load(Ordering::Relaxed),
            self.about[1].load(Ordering::Relaxed),
        )
    }

    /// The beat now.
    pub fn sight(&self) -> Sight {
        let progress = self.progress();
        let (operation, since_us) = parts(self.state.load(Ordering::Relaxed));
        Sight {
            progress,
            operation,
            about: self.about(),
            age: Duration::from_micros(monotonic_us().saturating_sub(since_us)),
        }
    }

    /// The watchdog's verdict, and for how long it has seen no progress; zero while all is well.
    pub fn verdict(&self) -> (Verdict, Duration) {
        // Acquire: with the verdict comes what was written before it.
        let verdict = match self.verdict.load(Ordering::Acquire) {
            0 => return (Verdict::Alive, Duration::ZERO),
            1 => Verdict::Late,
            _ => Verdict::Hung,
        };
        (verdict, Duration::from_millis(self.still_ms.load(Ordering::Relaxed)))
    }

    /// Which of its hangs it is in, and for how long the watchdog has seen no progress; `None` while it does not hang.
    pub fn hang(&self) -> Option<(u32, Duration)> {
        let (verdict, still) = self.verdict();
        (verdict == Verdict::Hung).then(|| (self.hangs.load(Ordering::Relaxed), still))
    }

    /// For how long it made no progress when it last hung and went on again.
    pub fn last_hang(&self) -> Duration {
        Duration::from_millis(self.hung_ms.load(Ordering::Relaxed))
    }

    /// Watchdog: its verdict.
    pub(super) fn judge(&self, verdict: Verdict, still: Duration) {
        let (before, was_still) = self.verdict();
        if verdict == Verdict::Hung && before != Verdict::Hung {
            // Only the watchdog writes while a thread has this beat, so load and store need not be one operation.
            let hangs = self.hangs.load(Ordering::Relaxed).wrapping_add(1);
            self.hangs.store(hangs, Ordering::Relaxed);
        } else if verdict != Verdict::Hung && before == Verdict::Hung {
            self.hung_ms.store(was_still.as_millis() as u64, Ordering::Relaxed);
        }
        self.still_ms.store(still.as_millis() as u64, Ordering::Relaxed);
        // Release: a thread that sees the verdict sees which hang it is.
        self.verdict.store(verdict as u8, Ordering::Release);
    }

    /// Asks the thread to stand still until `until_ms`, for a drill.
    pub(super) fn hold_until(&self, until_ms: u64, how: u8) {
        self.held_how.store(how, Ordering::Relaxed);
        // Release: a thread that sees the time sees how, too.
        self.held_until_ms.store(until_ms, Ordering::Release);
    }

    /// Until when the thread is to stand still, 0 for never; and how.
    pub(super) fn held(&self) -> (u64, u8) {
        let until = self.held_until_ms.load(Ordering::Acquire);
        (until, self.held_how.load(Ordering::Relaxed))
    }

    /// Returns whether a drill wants this thread to stand still.
    pub fn is_held(&self) -> bool {
        self.held_until_ms.load(Ordering::Relaxed) != 0
    }

    /// An operation is over.
    fn ended(&self, operation: Operation, about: Numbers, took_us: u64) {
        if self.slow.note(operation, took_us) == Pace::Slow {
            log::warn!(
                "⚠️  SLOW OPERATION: {} took {:.2}ms{}",
                operation.name(),
                took_us as f64 / 1000.0,
                operation.about(about)
            );
        }
    }

    /// Makes this the beat of connection `number`.
    pub(super) fn take_place(&self, number: u64) {
        self.state.store(state(Operation::Turning), Ordering::Relaxed);
        self.show((0, 0));
        self.held_until_ms.store(0, Ordering::Relaxed);
        self.judge(Verdict::Alive, Duration::ZERO);
        self.adopt();
        self.number.store(number, Ordering::Relaxed);
    }

    /// Makes it nobody's.
    pub(super) fn leave_place(&self) {
        self.number.store(0, Ordering::Relaxed);
        self.thread_id.store(0, Ordering::Relaxed);
        self.judge(Verdict::Alive, Duration::ZERO);
    }
}

fn number_bits(operation: Operation) -> u64 {
    u64::from(operation.number()) << SINCE_BITS
}

/// `operation`, beginning now.
fn state(operation: Operation) -> u64 {
    monotonic_us() | number_bits(operation)
}

fn parts(state: u64) -> (Operation, u64) {
    let number = (state >> SINCE_BITS) as u8;
    (Operation::from_number(number), state & ((1 << SINCE_BITS) - 1))
}

/// An operation under way; it ends when this is dropped, and the one around it goes on.
#[derive(Debug)]
pub struct Doing {
    beat: &'static Beat,
    operation: Operation,
    about: Numbers,
    begun_us: u64,
    outer: u64,
    outer_about: Numbers,
}

impl Doing {
    /// What the operation turned out to be about.
    pub fn about(&mut self, about: Numbers) {
        self.about = about;
        self.beat.show(about);
    }

    /// For how long it has lasted.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(monotonic_us().saturating_sub(self.begun_us))
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        let now = monotonic_us();
        let outer = match parts(self.outer).0 {
            // Between two operations the time begins anew.
            Operation::Turning => now | number_bits(Operation::Turning),
            _ => self.outer,
        };
        self.beat.state.store(outer, Ordering::Relaxed);
        self.beat.show(self.outer_about);
        self.beat
            .ended(self.operation, self.about, now.saturating_sub(self.begun_us));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::operation::SlowLimits;

    fn beat() -> &'static Beat {
        let limits = SlowLimits {
            broadcast: Duration::from_millis(50),
            snapshot: Duration::from_millis(200),
        };
        let slow = Box::leak(Box::new(SlowTally::new(limits)));
        Box::leak(Box::new(Beat::new("fanout", Role::Core, slow)))
    }

    #[test]
    fn operations_nest_and_each_step_shows() {
        let beat = beat();
        let before = beat.sight();
        {
            let mut outer = beat.begin(Operation::Answering);
            outer.about((1, 2));
            {
                let _inner = beat.begin_about(Operation::Snapshot, (7, 0));
                assert_eq!(beat.sight().text(), "snapshot (7 machines)");
            }
            assert_eq!(beat.sight().operation, Operation::Answering);
            assert_eq!(beat.sight().about, (1, 2));
        }
        let after = beat.sight();
        assert_eq!(after.operation, Operation::Turning);
        assert!(after.progress >= before.progress + 4);
    }

    #[test]
    fn a_running_thread_is_runnable_and_nobody_is_not() {
        let beat = beat();
        assert!(!beat.is_runnable());
        beat.adopt();
        assert!(beat.is_runnable());
    }

    #[test]
    fn a_hang_has_a_number_and_a_length_that_outlast_it() {
        let beat = beat();
        let seconds = Duration::from_secs;
        for (number, length) in [(1, 17), (2, 20)] {
            beat.judge(Verdict::Late, seconds(5));
            assert_eq!(beat.hang(), None);
            beat.judge(Verdict::Hung, seconds(15));
            beat.judge(Verdict::Hung, seconds(length));
            assert_eq!(beat.hang(), Some((number, seconds(length))));
            beat.judge(Verdict::Alive, Duration::ZERO);
            assert_eq!((beat.hang(), beat.last_hang()), (None, seconds(length)));
        }
    }

    #[test]
    fn a_beat_has_cache_lines_of_its_own_and_not_many() {
        assert_eq!(std::mem::align_of::<Beat>(), 64);
        assert!(std::mem::size_of::<Beat>() <= 128, "{}", std::mem::size_of::<Beat>());
    }
}
