//! The bare loop that "ingest only" is compared with: recvmmsg(2) and nothing else.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Datagrams asked for at once, and room for each; what the server uses.
const BATCH: usize = 32;
const ROOM: usize = 256 * 1024;

/// Receives until it is ended from outside.
pub fn run(path: &Path) -> io::Result<()> {
    let _ = std::fs::remove_file(path);
    let socket = UnixDatagram::bind(path)?;
    let mut rooms = vec![0u8; BATCH * ROOM];
    let mut slices: Vec<libc::iovec> = rooms
        .chunks_mut(ROOM)
        .map(|room| libc::iovec {
            iov_base: room.as_mut_ptr().cast(),
            iov_len: room.len(),
        })
        .collect();
    // SAFETY: all-zero is a valid msghdr: no name, no control data, no buffers.
    let mut headers: Vec<libc::mmsghdr> = (0..BATCH).map(|_| unsafe { std::mem::zeroed() }).collect();
    for (header, slice) in headers.iter_mut().zip(&mut slices) {
        header.msg_hdr.msg_iov = slice;
        header.msg_hdr.msg_iovlen = 1;
    }
    println!("ready");
    loop {
        // SAFETY: every header points to one slice, every slice to its own part of `rooms`; all of them outlive the
        // call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}
