//! SIOCOUTQ: how many bytes of a connection the peer has not taken yet (tcp(7)).
//!
//! The only `unsafe` of the send path; rustix has no safe form of this request.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes in the socket's send queue that the peer's system has not acknowledged. Falls whenever the peer reads, even
/// while there is too little room for another send.
///
/// # Errors
/// The descriptor is no connected TCP socket.
pub fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request (TIOCOUTQ has the same number as SIOCOUTQ) writes one int to the address given, which is that
    // of `bytes` and outlives the call; the descriptor is open as long as it is borrowed.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    match outcome {
        0 => Ok(usize::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    #[test]
    fn falls_when_the_peer_reads() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut writer, _) = listener.accept().unwrap();
        writer.set_nonblocking(true).unwrap();
        while writer.write(&[0; 64 * 1024]).is_ok() {}
        let full = unacknowledged_bytes(writer.as_fd()).unwrap();
        assert!(full > 0);
        let mut scrap = vec![0; 1024 * 1024];
        let deadline = Instant::now() + Duration::from_secs(10);
        while unacknowledged_bytes(writer.as_fd()).unwrap() >= full {
            assert!(Instant::now() < deadline);
            reader.read_exact(&mut scrap).unwrap();
        }
    }
}
