//! Reads this process's own memory without a fault, whatever the address: the kernel does the access.
//!
//! Stacks of running threads and libraries that come and go are read this way, so no guess of an address can end the
//! process, and no reference to memory that another thread changes ever exists.
#![allow(unsafe_code, reason = "rustix and the standard library have no process_vm_readv(2)")]

/// The unit in which the kernel keeps what it could read; also on hosts with larger pages a correct, smaller step.
const PAGE: u64 = 4096;
/// Pages per call: with these a call reads 256 KiB, and the list of them needs 1 KiB of stack.
const PAGES_PER_CALL: usize = 65;
/// What one call reads at most, from any address.
pub(super) const CALL_BYTES_MAX: usize = (PAGES_PER_CALL - 1) * PAGE as usize;

/// Copies memory from `address` on into `into`, at most [`CALL_BYTES_MAX`] bytes. Gives the number of bytes up to the
/// first page that cannot be read; 0 also when the host forbids the call.
///
/// Async-signal-safe (signal-safety(7)): one system call, no allocation, no lock, no panic.
pub(super) fn read(address: u64, into: &mut [u8]) -> usize {
    let wanted = into.len().min(CALL_BYTES_MAX) as u64;
    let Some(end) = address.checked_add(wanted) else {
        return 0;
    };
    let nothing = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    // A list entry is copied whole or not at all, so each ends with its page.
    let mut pages = [nothing; PAGES_PER_CALL];
    let mut next = address;
    let mut count = 0;
    for page in &mut pages {
        if next >= end {
            break;
        }
        let page_end = ((next | (PAGE - 1)).saturating_add(1)).min(end);
        page.iov_base = next as *mut libc::c_void;
        page.iov_len = (page_end - next) as usize;
        next = page_end;
        count += 1;
    }
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: wanted as usize,
    };
    // SAFETY: the kernel writes at most `wanted` bytes, which `into` has; it checks the addresses that it reads itself
    // and fails instead of faulting. getpid(2) cannot fail. The system call is made directly, because the wrapper of a
    // C library may be a point of cancellation.
    let copied = unsafe {
        let pid = libc::c_long::from(libc::getpid());
        libc::syscall(
            libc::SYS_process_vm_readv,
            pid,
            &raw const local,
            1_usize,
            pages.as_ptr(),
            count as usize,
            0_usize,
        )
    };
    usize::try_from(copied).unwrap_or(0)
}

/// Whether the host lets this process read its own memory in this way.
pub(super) fn is_allowed() -> bool {
    let here = [1_u8, 2, 3];
    let mut copy = [0; 3];
    read(here.as_ptr() as u64, &mut copy) == here.len() && copy == here
}

/// Copies `len` bytes from `address` on; `None` unless all of them can be read.
pub(super) fn read_all(address: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match read(address.checked_add(done as u64)?, &mut bytes[done..]) {
            0 => return None,
            count => done += count,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_copied_across_pages_and_calls() {
        let bytes: Vec<u8> = (0..CALL_BYTES_MAX * 2 + 77).map(|n| (n % 251) as u8).collect();
        let address = bytes.as_ptr() as u64;
        assert_eq!(read_all(address, bytes.len()).unwrap(), bytes);
        let mut few = [0; 3];
        assert_eq!(read(address + 5, &mut few), 3);
        assert_eq!(few, [5, 6, 7]);
        assert!(is_allowed());
    }

    #[test]
    fn what_is_not_mapped_ends_the_copy_and_nothing_else() {
        let mut bytes = [0; 64];
        for address in [0, 8, u64::MAX - 8, u64::MAX, 0xdead_beef_0000_0000] {
            assert_eq!(read(address, &mut bytes), 0, "{address:#x}");
        }
        // The end of the highest mapping below the kernel's half, or of any other with nothing behind it.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let stack = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
        let end = u64::from_str_radix(stack.split(['-', ' ']).nth(1).unwrap(), 16).unwrap();
        assert_eq!(read(end - 16, &mut bytes), 16);
        assert_eq!(read_all(end - 16, 64), None);
    }
}
