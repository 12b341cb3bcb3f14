//! The global allocator: the system's, except for a thread inside [`scope`], which gets memory of its own.
//!
//! A thread that reports a hang must not need a lock that a stuck thread may hold, and the system's allocator has
//! locks. Inside [`scope`] all of Rust's allocations of the calling thread come from one private mapping that is filled
//! from its beginning and emptied when the scope ends. Everybody else pays one look at a thread-local flag.
//!
//! What happens at the border:
//! - Memory of the arena that outlives its scope stays valid: the arena is emptied only when nothing of it is in use.
//!   Freeing it later, by any thread, only counts.
//! - Memory of the system that is freed inside a scope is not freed, because that would take the lock; it is leaked and
//!   counted ([`leaked`]). Who runs inside a scope must not drop what was made outside; the dump does not (a test
//!   looks).
//! - Memory of the system that grows inside a scope moves to the arena, and its old place is leaked in the same way.
//! - When the arena is full, an allocation fails, which ends the process. So code that fills it asks [`has_room`]
//!   between two steps and stops in time; the dump does, and says what it left out.
#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use crate::process::limits;
use crate::process::locks::lock;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Sizes of the arena that are tried, in bytes. Pages cost memory once they are touched, a dump touches 10 to 60 MiB;
/// the smaller ones are for hosts that limit the address space.
const SIZES: [usize; 3] = [1 << 30, 1 << 28, 1 << 26];

/// Bytes that an emptied arena keeps resident, so that small scopes cost no page faults.
const KEPT_BYTES: usize = 64 * 1024;

/// The allocator of this crate and of every program that links it.
#[derive(Debug)]
pub struct Allocator;

thread_local! {
    /// Whether this thread is inside a scope. Constant and without a destructor, so reading it never allocates.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

// Orderings: BASE and SIZE are written once, before the first address of the arena exists. USED and PEAK belong to the
// thread that occupies the arena; taking OCCUPIED (acquire) and giving it back (release) hands them on. LIVE is lowered
// by the thread that frees (release), so that who sees 0 (acquire) also sees that nobody uses the memory any more.
static BASE: AtomicUsize = AtomicUsize::new(0);
static SIZE: AtomicUsize = AtomicUsize::new(0);
static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static LEAKED: AtomicUsize = AtomicUsize::new(0);
static OCCUPIED: AtomicBool = AtomicBool::new(false);

/// Reserves the arena's addresses, once per process; they cost no memory until they are used.
///
/// # Errors
/// The host refuses even the smallest size: a limit of the address space, or strict overcommit without memory.
pub fn prepare() -> io::Result<()> {
    // Almost always; then no lock is touched.
    if SIZE.load(Ordering::Acquire) != 0 {
        return Ok(());
    }
    static PREPARING: Mutex<()> = Mutex::new(());
    let _preparing = lock(&PREPARING);
    if SIZE.load(Ordering::Acquire) != 0 {
        return Ok(());
    }
    let mut refusal = io::Error::from(io::ErrorKind::OutOfMemory);
    let limit = limits::address_space().unwrap_or(u64::MAX);
    for size in SIZES.into_iter().filter(|size| fits_under(*size, limit)) {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new private anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, kind, -1, 0) };
        if base != libc::MAP_FAILED {
            BASE.store(base as usize, Ordering::Relaxed);
            SIZE.store(size, Ordering::Release);
            return Ok(());
        }
        refusal = io::Error::last_os_error();
    }
    Err(refusal)
}

/// What [`prepare`] reserves at most under a limit of this process's addresses; 0 where that leaves no room for it.
pub fn size_under(limit: u64) -> u64 {
    SIZES.into_iter().find(|size| fits_under(*size, limit)).unwrap_or(0) as u64
}

/// Reports are rare, and clients that find no room are not: at most an eighth is for reports.
fn fits_under(size: usize, limit: u64) -> bool {
    size as u64 <= limit / 8
}

/// Runs `work` with all of Rust's allocations of this thread in the arena, and empties the arena afterwards unless
/// something of it is still in use. A scope inside a scope is the same scope.
///
/// If the arena cannot be reserved, `work` runs with the system's allocator; [`prepare`] tells that beforehand.
///
/// # Panics
/// Another thread is inside a scope: there is one arena, for one thread at a time.
pub fn scope<R>(work: impl FnOnce() -> R) -> R {
    if INSIDE.get() || prepare().is_err() {
        return work();
    }
    let _inside = Inside::enter();
    work()
}

/// Bytes of the arena that are still free; all there are outside of any scope.
pub fn room() -> usize {
    SIZE.load(Ordering::Relaxed) - USED.load(Ordering::Relaxed)
}

/// Returns whether there is room for another step: more than three quarters are free. The rest is for the step in work,
/// which cannot be stopped.
pub fn has_room() -> bool {
    room() > SIZE.load(Ordering::Relaxed) / 4 * 3
}

/// Allocations of the system's allocator that were dropped inside a scope and so are lost for good, in this process.
pub fn leaked() -> usize {
    LEAKED.load(Ordering::Relaxed)
}

/// The stay of a thread in the arena; leaving also happens when the work panics.
struct Inside;

impl Inside {
    fn enter() -> Inside {
        let occupied = OCCUPIED.swap(true, Ordering::Acquire);
        assert!(!occupied, "two threads at once in the arena");
        INSIDE.set(true);
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
        if LIVE.load(Ordering::Acquire) == 0 {
            empty();
        }
        OCCUPIED.store(false, Ordering::Release);
    }
}

/// Gives the pages back to the kernel, except the first few. Called by the occupant, when nothing is in use.
fn empty() {
    let peak = PEAK.swap(0, Ordering::Relaxed);
    USED.store(0, Ordering::Relaxed);
    if peak > KEPT_BYTES {
        let start = BASE.load(Ordering::Relaxed) + KEPT_BYTES;
        // SAFETY: the range lies in the arena, starts at a page, and nobody uses any of it; its content may be lost.
        unsafe { libc::madvise(start as *mut libc::c_void, peak - KEPT_BYTES, libc::MADV_DONTNEED) };
    }
}

/// The offset of an address in the arena; `None` for memory of the system.
#[inline]
fn offset_in_arena(address: *mut u8) -> Option<usize> {
    let offset = (address as usize).wrapping_sub(BASE.load(Ordering::Relaxed));
    (offset < SIZE.load(Ordering::Relaxed)).then_some(offset)
}

/// Moves the end of the used part. Called by the occupant only.
fn set_used(used: usize) {
    USED.store(used, Ordering::Relaxed);
    if used > PEAK.load(Ordering::Relaxed) {
        PEAK.store(used, Ordering::Relaxed);
    }
}

/// Memory of the arena for the occupant; null when there is not enough left.
#[cold]
fn take(layout: Layout) -> *mut u8 {
    let base = BASE.load(Ordering::Relaxed);
    let start = (base + USED.load(Ordering::Relaxed)).next_multiple_of(layout.align()) - base;
    match start.checked_add(layout.size()) {
        Some(end) if end <= SIZE.load(Ordering::Relaxed) => {
            set_used(end);
            LIVE.fetch_add(1, Ordering::Relaxed);
            (base + start) as *mut u8
        }
        _ => std::ptr::null_mut(),
    }
}

/// Gives memory of the arena back: what was taken last can be taken again, all else waits for the end of the scope.
#[cold]
fn give_back(offset: usize, size: usize) {
    if INSIDE.get() && offset + size == USED.load(Ordering::Relaxed) {
        set_used(offset);
    }
    LIVE.fetch_sub(1, Ordering::Release);
}

/// Grows or shrinks in place what was taken last.
fn resize_last(offset: usize, old_size: usize, new_size: usize) -> bool {
    let is_last = INSIDE.get() && offset + old_size == USED.load(Ordering::Relaxed);
    let fits = new_size <= SIZE.load(Ordering::Relaxed) - offset;
    if is_last && fits {
        set_used(offset + new_size);
    }
    is_last && fits
}

// SAFETY: outside of scopes every call goes to the system's allocator unchanged. Inside, `take` gives disjoint, aligned
// parts of a mapping that is never unmapped; a part is used again only after it was given back: at once if it was the
// last one, by the one thread that takes; else when LIVE, which counts what is in use, has come to 0. Which of the two
// an address belongs to is told by the address alone, so it may be freed in or out of a scope, by any thread.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if INSIDE.get() {
            return take(layout);
        }
        hold::wait();
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if INSIDE.get() {
            let memory = take(layout);
            if !memory.is_null() {
                // SAFETY: `take` gave this many writable bytes. They may have been used before.
                unsafe { memory.write_bytes(0, layout.size()) };
            }
            return memory;
        }
        hold::wait();
        // SAFETY: as above. The system knows which pages are zero without touching them.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(offset) = offset_in_arena(memory) {
            return give_back(offset, layout.size());
        }
        if INSIDE.get() {
            LEAKED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        hold::wait();
        // SAFETY: not of the arena, so it came from the system.
        unsafe { System.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let offset = offset_in_arena(memory);
        if offset.is_none() && !INSIDE.get() {
            hold::wait();
            // SAFETY: of the system, and stays there.
            return unsafe { System.realloc(memory, layout, new_size) };
        }
        if let Some(offset) = offset
            && resize_last(offset, layout.size(), new_size)
        {
            return memory;
        }
        // SAFETY: the caller promises that `new_size` with this alignment is a valid layout; old and new place are
        // disjoint and have at least the number of bytes that is copied.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !new.is_null() {
                std::ptr::copy_nonoverlapping(memory, new, layout.size().min(new_size));
                self.dealloc(memory, layout);
            }
            new
        }
    }
}

#[cfg(debug_assertions)]
pub use hold::hold_malloc_until;

/// A drill for builds with debug assertions: the system's allocator as if a stuck thread held its lock.
#[cfg(debug_assertions)]
mod hold {
    use crate::process::clock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// 0 while nothing is held, so that the usual case is one load.
    static UNTIL_MS: AtomicU64 = AtomicU64::new(0);
    /// How often a thread that is held looks whether it still is.
    const LOOK: Duration = Duration::from_millis(2);

    /// Makes every thread that uses the system's allocator through Rust wait until `until_ms` of
    /// [`clock::monotonic_ms`]; 0 ends it. The caller too, with its next allocation.
    pub fn hold_malloc_until(until_ms: u64) {
        UNTIL_MS.store(until_ms, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn wait() {
        if UNTIL_MS.load(Ordering::Relaxed) != 0 {
            wait_until();
        }
    }

    #[cold]
    fn wait_until() {
        loop {
            let until_ms = UNTIL_MS.load(Ordering::Relaxed);
            if clock::monotonic_ms() >= until_ms {
                // The thread that finds it over says so, unless it has been begun anew.
                let _ = UNTIL_MS.compare_exchange(until_ms, 0, Ordering::Relaxed, Ordering::Relaxed);
                return;
            }
            clock::pause(LOOK);
        }
    }
}

#[cfg(not(debug_assertions))]
mod hold {
    #[inline]
    pub(super) fn wait() {}
}

/// There is one arena and one signal per process, and tests run in parallel: a test that dumps or enters a scope in a
/// unit test holds this meanwhile.
#[cfg(test)]
pub(crate) fn one_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    crate::process::locks::lock(&ALONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in_arena<T>(value: &T) -> bool {
        offset_in_arena(std::ptr::from_ref(value).cast_mut().cast()).is_some()
    }

    #[test]
    fn only_the_thread_in_the_scope_gets_arena_memory_and_only_there() {
        let _alone = one_at_a_time();
        assert!(!is_in_arena(&*Box::new(1)));
        let other = scope(|| {
            assert!(is_in_arena(&*Box::new(2)));
            scope(|| assert!(is_in_arena(&*Box::new(3))));
            assert!(is_in_arena(&*Box::new(4)), "the inner scope does not end the outer one");
            std::sync::Arc::new(())
        });
        assert!(!is_in_arena(&*Box::new(5)));
        let thread = crate::process::threads::spawn("elsewhere", 65_536, None, move || {
            drop(other);
            is_in_arena(&*Box::new(6))
        });
        assert!(!thread.unwrap().join_within(std::time::Duration::from_secs(30)).unwrap());
    }

    #[test]
    fn what_outlives_its_scope_stays_as_it_was_and_the_arena_is_emptied_once_it_is_gone() {
        let _alone = one_at_a_time();
        let kept = scope(|| vec![7_u8; 100_000]);
        for filling in 0..3 {
            scope(|| assert_eq!(vec![filling; 1_000_000].len(), 1_000_000));
        }
        assert!(kept.iter().all(|byte| *byte == 7));
        assert!(room() < SIZE.load(Ordering::Relaxed));
        drop(kept);
        scope(|| ());
        assert_eq!(room(), SIZE.load(Ordering::Relaxed));
    }

    #[test]
    fn memory_grows_shrinks_moves_and_is_zeroed_where_asked() {
        let _alone = one_at_a_time();
        scope(|| {
            let mut first: Vec<u32> = Vec::new();
            let mut second: Vec<u32> = Vec::new();
            for number in 0..10_000 {
                first.push(number);
                second.push(!number);
            }
            first.shrink_to_fit();
            assert!(first.iter().zip(&second).all(|(a, b)| *a == !*b));
            drop((first, second));
            assert!(vec![0_u8; 200_000].iter().all(|byte| *byte == 0), "used before");
        });
    }

    #[test]
    fn memory_of_the_system_that_is_dropped_inside_is_leaked_and_counted() {
        let _alone = one_at_a_time();
        // Else the compiler may leave out an allocation that nobody looks at.
        let outside = std::hint::black_box(Box::new(1));
        let before = leaked();
        scope(|| drop(outside));
        assert_eq!(leaked(), before + 1);
    }

    #[test]
    fn a_full_arena_refuses_and_harms_nobody() {
        let _alone = one_at_a_time();
        scope(|| {
            let mut too_much: Vec<u8> = Vec::new();
            assert!(too_much.try_reserve(room() + 1).is_err());
            assert_eq!(*Box::new(3), 3);
        });
    }

    #[test]
    fn a_scope_ends_with_a_panic_too() {
        let _alone = one_at_a_time();
        let panicked = std::panic::catch_unwind(|| scope(|| std::panic::resume_unwind(Box::new(()))));
        assert!(panicked.is_err());
        assert!(!is_in_arena(&*Box::new(1)));
        drop(panicked);
        scope(|| ());
    }

    #[cfg(debug_assertions)]
    #[test]
    fn while_malloc_is_held_everybody_waits_but_who_is_in_a_scope() {
        use crate::process::clock::monotonic_ms;
        let _alone = one_at_a_time();
        let until_ms = monotonic_ms() + 300;
        hold_malloc_until(until_ms);
        let inside_ms = scope(|| {
            drop(vec![1; 100]);
            monotonic_ms()
        });
        drop(std::hint::black_box(Box::new(1)));
        let outside_ms = monotonic_ms();
        assert!(outside_ms >= until_ms, "{outside_ms} {until_ms}");
        assert!(inside_ms < until_ms, "{inside_ms} {until_ms}");
    }
}
