//! What glibc's allocator does not do by itself: malloc_trim(3) gives memory that nobody uses back to the system, and
//! mallopt(3) bounds the addresses that heaps take.
//!
//! glibc gives back by itself only what lies at the end of a heap. What many clients leave behind lies between the
//! events of the history, and would stay.
//!
//! A heap takes no lock from the threads of another one, but each reserves [`HEAP_BYTES`] of addresses, and threads get
//! heaps of their own until there are eight for each processor. Under a limit of the address space these reservations
//! would take the room of clients.
#![allow(unsafe_code)]

/// Addresses that each heap but the first reserves: glibc's HEAP_MAX_SIZE on 64-bit hosts.
pub const HEAP_BYTES: u64 = 64 * 1024 * 1024;

/// From this size on, what a process with few addresses allocates gets a mapping of its own, which goes back as a whole
/// when it is freed. It is glibc's own threshold, which otherwise grows with what is freed, to 32 MiB.
#[cfg(target_env = "gnu")]
const OWN_MAPPING_BYTES: i32 = 128 * 1024;

/// Spares addresses: lets threads share `heaps` heaps, one at least, if that is fewer than glibc would make, and keeps
/// what is large out of them. To be called before the first thread starts: a heap that exists stays. Nothing happens
/// where the C library is not glibc.
pub fn spare_addresses(heaps: u64) {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes numbers, sets one of the allocator's own under the allocator's own lock, and may be called
        // from any thread at any time. If it refuses, more addresses are taken.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES);
        }
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
        if heaps >= 8 * processors as u64 {
            return;
        }
        let heaps = i32::try_from(heaps.max(1)).unwrap_or(i32::MAX);
        // SAFETY: as above.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, heaps);
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = heaps;
}

/// Returns unused pages to the system. Holds the lock of one heap after the other, so that a thread that allocates from
/// it meanwhile waits: some milliseconds for tens of megabytes. Nothing happens where the C library is not glibc.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, may be called from any thread at any time, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
