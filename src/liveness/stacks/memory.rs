//! Reads this process's own memory without a fault, whatever the address: the kernel does the access.
//!
//! Stacks of running threads and libraries that come and go are read this way, so no guess of an address can end the
//! process, and no reference to memory that another thread changes ever exists.
//!
//! process_vm_readv(2) needs nothing but the call. Filters of system calls refuse it often (seccomp profiles of
//! containers count it among a debugger's calls); /proc/self/mem then gives the same by pread(2), which no program can
//! do without.
#![allow(unsafe_code, reason = "rustix and the standard library have no process_vm_readv(2)")]

use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

/// The unit in which the kernel keeps what it could read; also on hosts with larger pages a correct, smaller step.
const PAGE: u64 = 4096;
/// Pages per call: with these a call reads 256 KiB, and the list of them needs 1 KiB of stack.
const PAGES_PER_CALL: usize = 65;
/// What one call reads at most, from any address.
pub(super) const CALL_BYTES_MAX: usize = (PAGES_PER_CALL - 1) * PAGE as usize;

/// Our memory as a file, opened only where the call is refused. Set once; reading it takes no lock.
static FILE: OnceLock<OwnedFd> = OnceLock::new();

/// The host refuses both ways of reading.
#[derive(Debug)]
pub(super) struct Refused {
    call: io::Error,
    file: io::Error,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Refused { call, file } = self;
        write!(
            f,
            "the host forbids process_vm_readv(2) ({call}) and /proc/self/mem cannot be read either ({file}), so there are \
             no stacks; let the filter of system calls (seccomp, SystemCallFilter=) allow the call, or mount /proc"
        )
    }
}

/// Finds out by which way memory can be read, and opens the file if that is the one. Not for a handler of a signal.
///
/// # Errors
/// The host allows neither of the two; the text says so, and [`read`] then reads nothing.
pub(super) fn prepare() -> Result<(), Refused> {
    let call = match probe(read_by_call) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    if FILE.get().is_none() {
        // A limit of descriptors may let it through at the next dump.
        let opened = rustix::fs::open(c"/proc/self/mem", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        match opened {
            // The thread that was first has opened the same.
            Ok(file) => drop(FILE.set(file)),
            Err(error) => {
                let file = error.into();
                return Err(Refused { call, file });
            }
        }
    }
    probe(read_by_file).map_err(|file| Refused { call, file })
}

fn probe(read: fn(u64, &mut [u8]) -> io::Result<usize>) -> io::Result<()> {
    let here = [1_u8, 2, 3];
    let mut copy = [0; 3];
    match read(here.as_ptr() as u64, &mut copy)? {
        3 if copy == here => Ok(()),
        _ => Err(io::Error::other("it does not read what is there")),
    }
}

/// Copies memory from `address` on into `into`, at most [`CALL_BYTES_MAX`] bytes. Returns the number of bytes up to the
/// first page that cannot be read; 0 also when the host forbids both ways. The file also gives pages that the process
/// itself may not read, such as those that guard stacks.
///
/// Async-signal-safe (signal-safety(7)): one or two system calls, no allocation, no lock, no panic.
pub(super) fn read(address: u64, into: &mut [u8]) -> usize {
    match read_by_call(address, into) {
        Ok(count) => count,
        Err(_) => read_by_file(address, into).unwrap_or(0),
    }
}

fn read_by_file(address: u64, into: &mut [u8]) -> io::Result<usize> {
    let file = FILE.get().ok_or(rustix::io::Errno::BADF)?;
    let wanted = into.len().min(CALL_BYTES_MAX);
    Ok(rustix::io::pread(file, &mut into[..wanted], address)?)
}

fn read_by_call(address: u64, into: &mut [u8]) -> io::Result<usize> {
    let wanted = into.len().min(CALL_BYTES_MAX) as u64;
    let Some(end) = address.checked_add(wanted) else {
        return Err(rustix::io::Errno::FAULT.into());
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
    // Its error is the number alone, without a text, so making it allocates nothing.
    usize::try_from(copied).map_err(|_| io::Error::last_os_error())
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
        prepare().unwrap();
    }

    /// A filter that refuses the call cannot be taken back, so that it is tried on a process of its own in tests/it.
    #[test]
    fn the_file_gives_what_the_call_gives() {
        let file = rustix::fs::open(c"/proc/self/mem", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let _ = FILE.set(file.unwrap());
        probe(read_by_file).unwrap();
        let bytes: Vec<u8> = (0..CALL_BYTES_MAX + 77).map(|n| (n % 251) as u8).collect();
        let (mut by_call, mut by_file) = (vec![0; bytes.len()], vec![0; bytes.len()]);
        let address = bytes.as_ptr() as u64;
        let counts = [
            read_by_call(address, &mut by_call).unwrap(),
            read_by_file(address, &mut by_file).unwrap(),
        ];
        assert_eq!(counts, [CALL_BYTES_MAX; 2]);
        assert!(by_call == by_file && by_file[..CALL_BYTES_MAX] == bytes[..CALL_BYTES_MAX]);
        for address in [0, 8, u64::MAX - 8, u64::MAX, 0xdead_beef_0000_0000] {
            assert!(read_by_file(address, &mut by_file).is_err(), "{address:#x}");
        }
    }

    #[test]
    fn a_refusal_names_both_ways_and_the_remedy() {
        let refused = Refused {
            call: rustix::io::Errno::PERM.into(),
            file: rustix::io::Errno::NOENT.into(),
        };
        let text = refused.to_string();
        for part in [
            "process_vm_readv(2) (Operation not permitted",
            "/proc/self/mem",
            "No such file",
            "seccomp",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
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
