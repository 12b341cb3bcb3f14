//! malloc_trim(3): memory that the allocator keeps although nobody uses it goes back to the system.
//!
//! glibc gives back by itself only what lies at the end of a heap. What many clients leave behind lies between the events
//! of the history, and would stay.
#![allow(unsafe_code)]

/// Gives unused pages back. Holds the lock of one heap after the other, so that whoever allocates from it meanwhile waits:
/// some milliseconds for tens of megabytes. Nothing happens where the C library is not glibc.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, may be called from any thread at any time, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
