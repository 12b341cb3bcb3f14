//! Asks a thread, by a signal, to copy its registers and its stack into a slot, and waits for it with a bound.
//!
//! The handler does no more than that: it may have interrupted its thread anywhere, inside the allocator or with a lock
//! held. A thread that answers late, when nobody waits any more, finds that the slot is not for it and does nothing;
//! one that is stopped in the middle of copying keeps its slot, and the next question uses another.
#![allow(
    unsafe_code,
    reason = "a handler of a signal, and a slot that it shares with the thread that asks"
)]

use super::memory;
use rustix::thread::futex;
use std::cell::UnsafeCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Of a deeper stack only so much is copied, from its innermost end.
const STACK_BYTES_MAX: usize = memory::CALL_BYTES_MAX;
/// Bytes below the stack pointer that a function without calls may use (System V ABI for x86_64, 3.2.2).
const RED_ZONE: u64 = 128;
/// One is used; the others are for threads that are stopped while they copy.
const SLOTS: usize = 4;
/// A thread that has begun to copy gets this much longer: it needs microseconds of processor time.
const COPYING_GRACE: Duration = Duration::from_millis(500);

/// The signal. Real-time, so that its number is free by convention; the fifth, because C libraries take the first ones.
pub(super) fn signal() -> i32 {
    libc::SIGRTMIN() + 5
}

/// Where one thread leaves its copy.
struct Slot {
    /// The number of the question in the upper 30 bits, the phase in the lower 2.
    state: AtomicU32,
    copy: UnsafeCell<Copy>,
}

/// Registers and stack of a thread at one moment.
struct Copy {
    pc: u64,
    sp: u64,
    bp: u64,
    len: usize,
    stack: [u8; STACK_BYTES_MAX],
}

/// Phase of a slot: nobody uses it.
const FREE: u32 = 0;
/// Phase: the question is asked, and its thread has not begun to copy.
const ASKED: u32 = 1;
/// Phase: the thread copies.
const COPYING: u32 = 2;
/// Phase: the copy is whole.
const DONE: u32 = 3;
/// The bits of [`Slot::state`] that have the phase.
const PHASE: u32 = 3;

// SAFETY: `copy` is written by the one handler that moved `state` from ASKED to COPYING, until it stores DONE
// (release). It is read by the one holder of `Asker` that has seen this DONE (acquire) and that alone begins the next
// question.
unsafe impl Sync for Slot {}

/// All zero, so it takes neither space in the file nor memory before it is used.
static SLOT: [Slot; SLOTS] = [const {
    Slot {
        state: AtomicU32::new(FREE),
        copy: UnsafeCell::new(Copy {
            pc: 0,
            sp: 0,
            bp: 0,
            len: 0,
            stack: [0; STACK_BYTES_MAX],
        }),
    }
}; SLOTS];

/// Who may send the signal.
static OWN_PROCESS: AtomicI32 = AtomicI32::new(0);
/// Whether an `Asker` exists.
static ASKING: AtomicBool = AtomicBool::new(false);

/// Installs the handler.
///
/// # Errors
/// The kernel refuses the handler (sigaction(2)): there can be no stacks then, and the caller reports without them.
pub(super) fn install() -> io::Result<()> {
    // SAFETY: getpid cannot fail. An all-zero sigaction is valid; the handler has the signature that SA_SIGINFO asks
    // for, is async-signal-safe, and stays for the life of the process.
    let installed = unsafe {
        OWN_PROCESS.store(libc::getpid(), Ordering::Relaxed);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_question as *const () as usize;
        // On the alternate stack where a thread has one: its own may be all but used up.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(signal(), &raw const action, std::ptr::null_mut())
    };
    if installed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

extern "C" fn on_question(_signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives both pointers, valid while the handler runs (SA_SIGINFO), and errno belongs to this
    // thread, which must find it as it was.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        answer(&*info, &*context.cast::<libc::ucontext_t>());
        *errno = before;
    }
}

/// Copies, if it is this thread that is asked. No allocation, no lock, no panic.
fn answer(info: &libc::siginfo_t, context: &libc::ucontext_t) {
    // SAFETY: with SI_QUEUE the kernel has filled in who sent the signal and the value that came with it.
    let (sender, value) = unsafe { (info.si_pid(), info.si_value().sival_ptr as usize) };
    if info.si_code != libc::SI_QUEUE || sender != OWN_PROCESS.load(Ordering::Relaxed) {
        return;
    }
    let question = value as u32 & !PHASE;
    let slot = &SLOT[value & (SLOTS - 1)];
    let (asked, copying) = (question | ASKED, question | COPYING);
    if slot
        .state
        .compare_exchange(asked, copying, Ordering::Acquire, Ordering::Relaxed)
        .is_err()
    {
        return;
    }
    // SAFETY: the thread that made the step to COPYING has the copy for itself until DONE.
    let copy = unsafe { &mut *slot.copy.get() };
    let registers = &context.uc_mcontext.gregs;
    copy.pc = registers[libc::REG_RIP as usize] as u64;
    copy.sp = registers[libc::REG_RSP as usize] as u64;
    copy.bp = registers[libc::REG_RBP as usize] as u64;
    copy.len = memory::read(copy.sp.saturating_sub(RED_ZONE), &mut copy.stack);
    slot.state.store(question | DONE, Ordering::Release);
    let _ = futex::wake(&slot.state, futex::Flags::PRIVATE, 1);
}

/// The right to ask; there is one.
#[derive(Debug)]
pub(super) struct Asker {
    question: u32,
}

/// What came of a question.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    /// The thread as it was when the signal reached it.
    Copied(StackCopy<'a>),
    /// It did not answer within the bound, or could not be asked.
    Silent,
    /// There is no such thread any more.
    Gone,
}

/// Registers and stack of a thread at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct StackCopy<'a> {
    pub(super) pc: u64,
    pub(super) sp: u64,
    pub(super) bp: u64,
    /// The address of the first byte.
    pub(super) start: u64,
    pub(super) bytes: &'a [u8],
}

impl StackCopy<'_> {
    /// Returns whether the stack may go on behind the copy.
    pub(super) fn is_cut(&self) -> bool {
        self.bytes.len() == STACK_BYTES_MAX
    }

    /// The address behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    /// Returns whether the copy has the byte at `address`.
    pub(super) fn has(&self, address: u64) -> bool {
        (self.start..self.end()).contains(&address)
    }
}

impl Asker {
    /// `None` while another one exists.
    pub(super) fn new() -> Option<Asker> {
        // Questions go on where the last asker ended, so that no late answer fits a later question.
        static LAST_QUESTION: AtomicU32 = AtomicU32::new(0);
        let free = ASKING.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        free.ok().map(|_| Asker {
            question: LAST_QUESTION.fetch_add(1 << 20, Ordering::Relaxed),
        })
    }

    /// Asks thread `id` of this process. Blocks until it has answered, at most `bound`, and half a second more if it
    /// was stopped while copying. The calling thread may ask itself.
    pub(super) fn ask(&mut self, id: i32, bound: Duration) -> Answer<'_> {
        let is_usable = |slot: &&Slot| slot.state.load(Ordering::Acquire) & PHASE != COPYING;
        let Some((index, slot)) = SLOT.iter().enumerate().find(|(_, slot)| is_usable(slot)) else {
            return Answer::Silent;
        };
        // The phase and the slot's index share two bits of the value that travels with the signal.
        self.question = self.question.wrapping_add(PHASE + 1) & !PHASE;
        slot.state.store(self.question | ASKED, Ordering::Release);
        if let Err(error) = send(id, self.question as usize | index) {
            slot.state.store(FREE, Ordering::Release);
            return match error.raw_os_error() {
                Some(libc::ESRCH) => Answer::Gone,
                _ => Answer::Silent,
            };
        }
        if self.wait(&slot.state, bound) == Wait::InVain {
            return Answer::Silent;
        }
        // SAFETY: DONE was seen for this question; nobody writes before the next one, which needs `self` mutably, so
        // not while the answer lives.
        let copy = unsafe { &*slot.copy.get() };
        Answer::Copied(StackCopy {
            pc: copy.pc,
            sp: copy.sp,
            bp: copy.bp,
            start: copy.sp.saturating_sub(RED_ZONE),
            bytes: &copy.stack[..copy.len],
        })
    }

    /// Blocks until the answer is there, at most `bound`, and 500 ms more for a thread that has begun to copy.
    fn wait(&self, state: &AtomicU32, bound: Duration) -> Wait {
        let mut deadline = Instant::now() + bound;
        let mut grace = Some(COPYING_GRACE);
        loop {
            let now = state.load(Ordering::Acquire);
            if now == self.question | DONE {
                return Wait::Answered;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let asked = self.question | ASKED;
                if state
                    .compare_exchange(asked, FREE, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
                {
                    return Wait::InVain;
                }
                // It has begun to copy, or is done since we looked.
                match grace.take() {
                    Some(grace) => deadline = Instant::now() + grace,
                    None if state.load(Ordering::Acquire) == self.question | DONE => return Wait::Answered,
                    None => return Wait::InVain,
                }
                continue;
            }
            let timeout = futex::Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            };
            // Woken, interrupted, timed out or too late to sleep: in each case the loop looks again.
            let _ = futex::wait(state, futex::Flags::PRIVATE, now, Some(&timeout));
        }
    }
}

/// How the wait for an answer has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The copy is whole.
    Answered,
    /// The question is withdrawn, or its slot left to the thread that is copying.
    InVain,
}

impl Drop for Asker {
    fn drop(&mut self) {
        for slot in &SLOT {
            if slot.state.load(Ordering::Acquire) & PHASE != COPYING {
                forget(slot);
            }
        }
        ASKING.store(false, Ordering::Release);
    }
}

/// Gives the pages of a copy back to the kernel, so that a process that once dumped is as small as before.
fn forget(slot: &Slot) {
    const PAGE: usize = 4096;
    let start = (slot.copy.get() as usize).next_multiple_of(PAGE);
    let end = (slot.copy.get() as usize + size_of::<Copy>()) / PAGE * PAGE;
    // SAFETY: whole pages inside the copy, which nobody is writing to or reading from: its phase is not COPYING, and
    // it cannot become so without a question. They read as zero afterwards, which is a valid `Copy`.
    unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
}

/// Sends the signal with `value` to thread `id`. The C library has no function for it that takes a value.
fn send(id: i32, value: usize) -> io::Result<()> {
    /// siginfo_t as the kernel takes it for a queued signal (its `_rt` member), 128 bytes.
    #[repr(C)]
    struct QueuedSignal {
        signal: libc::c_int,
        errno: libc::c_int,
        code: libc::c_int,
        padding: libc::c_int,
        sender: libc::pid_t,
        user: libc::uid_t,
        value: usize,
        rest: [u64; 12],
    }
    const { assert!(size_of::<QueuedSignal>() == size_of::<libc::siginfo_t>()) };
    let process = OWN_PROCESS.load(Ordering::Relaxed);
    let queued = QueuedSignal {
        signal: signal(),
        errno: 0,
        code: libc::SI_QUEUE,
        padding: 0,
        sender: process,
        user: rustix::process::getuid().as_raw(),
        value,
        rest: [0; 12],
    };
    // SAFETY: the kernel reads one siginfo_t of the right size and writes nothing.
    let sent = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, id, signal(), &raw const queued) };
    if sent == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What tests need of signals and the standard library does not have.
#[cfg(test)]
pub(super) mod trial {
    use std::sync::atomic::{AtomicPtr, Ordering};

    /// Blocks the signal that asks for the calling thread, or lets it through again.
    pub(in super::super) fn block_question(block: bool) {
        let how = if block { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
        // SAFETY: an all-zero signal set is valid; the call changes the mask of this thread only.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut set, super::signal());
            assert_eq!(libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut()), 0);
        }
    }

    /// Runs `work` in a handler of SIGUSR2 on the calling thread, on its alternate stack or on its own.
    #[inline(never)]
    pub(in super::super) fn in_a_handler(work: fn(), alternate_stack: bool) {
        static WORK: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());
        extern "C" fn handler(_signal: libc::c_int) {
            // SAFETY: stored below, before the signal is raised.
            let work: fn() = unsafe { std::mem::transmute(WORK.load(Ordering::Relaxed)) };
            work();
        }
        WORK.store(work as *mut (), Ordering::Relaxed);
        // SAFETY: an all-zero sigaction is valid, the handler has the right signature.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = if alternate_stack { libc::SA_ONSTACK } else { 0 };
            assert_eq!(
                libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()),
                0
            );
            libc::raise(libc::SIGUSR2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::stacks::arena::one_at_a_time;
    use crate::process::threads::spawn;
    use crossbeam_channel::bounded;

    const BOUND: Duration = Duration::from_secs(30);

    fn own_id() -> i32 {
        rustix::thread::gettid().as_raw_nonzero().get()
    }

    #[test]
    fn a_late_answer_is_for_nobody() {
        let _alone = one_at_a_time();
        install().unwrap();
        let (id_tx, id_rx) = bounded(1);
        let (unblock_tx, unblock_rx) = bounded::<()>(1);
        let (unblocked_tx, unblocked_rx) = bounded(1);
        let (end_tx, end_rx) = bounded::<()>(1);
        let thread = spawn("late", 262_144, None, move || {
            trial::block_question(true);
            id_tx.send(own_id()).unwrap();
            let _ = unblock_rx.recv();
            // The handler of the question that was withdrawn runs here.
            trial::block_question(false);
            unblocked_tx.send(()).unwrap();
            let _ = end_rx.recv();
        })
        .unwrap();
        let id = id_rx.recv_timeout(BOUND).unwrap();
        let mut asker = Asker::new().unwrap();
        assert!(matches!(asker.ask(id, Duration::from_millis(20)), Answer::Silent));
        let question = asker.question;
        unblock_tx.send(()).unwrap();
        unblocked_rx.recv_timeout(BOUND).unwrap();
        assert!(
            SLOT.iter()
                .all(|slot| slot.state.load(Ordering::Acquire) != question | DONE)
        );
        let Answer::Copied(copy) = asker.ask(id, BOUND) else {
            panic!("no answer")
        };
        assert!(copy.has(copy.sp) && !copy.is_cut());
        drop(end_tx);
        thread.join_within(BOUND).unwrap();
        // A thread that joins another may be a moment ahead of the kernel's own end of it.
        let deadline = Instant::now() + BOUND;
        while !matches!(asker.ask(id, Duration::from_millis(1)), Answer::Gone) {
            assert!(Instant::now() < deadline);
        }
    }

    #[test]
    fn a_slot_that_is_being_filled_is_left_alone() {
        let _alone = one_at_a_time();
        install().unwrap();
        let mut asker = Asker::new().unwrap();
        let stuck = |count| {
            for slot in &SLOT[..count] {
                slot.state.store(COPYING, Ordering::Release);
            }
        };
        stuck(SLOTS - 1);
        assert!(matches!(asker.ask(own_id(), BOUND), Answer::Copied(_)));
        stuck(SLOTS);
        assert!(matches!(asker.ask(own_id(), BOUND), Answer::Silent));
        for slot in &SLOT {
            slot.state.store(FREE, Ordering::Release);
        }
    }

    #[test]
    fn there_is_one_asker_at_a_time() {
        let _alone = one_at_a_time();
        let first = Asker::new().unwrap();
        assert!(Asker::new().is_none());
        drop(first);
        assert!(Asker::new().is_some());
    }
}
