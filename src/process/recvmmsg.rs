//! recvmmsg(2): many datagrams with one system call, each with its "was cut" flag.
//!
//! The only `unsafe` of the receive path. The standard library's `recv` cuts datagrams silently, and rustix has no
//! `recvmmsg`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Buffers for one call, allocated once and used by the thread that receives.
#[derive(Debug)]
pub struct DatagramBatch {
    bytes: Vec<u8>,
    room: usize,
    received: Vec<Received>,
}

#[derive(Clone, Copy, Debug)]
struct Received {
    len: usize,
    cut: bool,
}

/// One datagram of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// What arrived, at most the room of the batch.
    pub bytes: &'a [u8],
    /// The datagram was longer than the room, the rest of it is gone (MSG_TRUNC, recvmsg(2)).
    pub cut: bool,
}

impl DatagramBatch {
    /// Room for `count` datagrams of `room` bytes each.
    ///
    /// The memory comes zeroed from the kernel, so only pages that a datagram has touched are resident.
    pub fn new(count: usize, room: usize) -> DatagramBatch {
        DatagramBatch {
            bytes: vec![0; count * room],
            room,
            received: Vec::with_capacity(count),
        }
    }

    /// Receives what is waiting, at most `most` datagrams and what there is room for, without blocking. Returns the
    /// number of datagrams, 0 when none waits.
    ///
    /// # Errors
    /// What recvmmsg(2) reports, except EAGAIN.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        self.received.clear();
        let mut slices: Vec<libc::iovec> = self
            .bytes
            .chunks_exact_mut(self.room)
            .take(most)
            .map(|room| libc::iovec {
                iov_base: room.as_mut_ptr().cast(),
                iov_len: room.len(),
            })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = slices
            .iter_mut()
            .map(|slice| {
                // SAFETY: an all-zero msghdr is valid: null pointers with zero lengths mean "no address, no control".
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_iov = slice;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        // SAFETY: `headers` has as many elements as we say; each points at one iovec in `slices`, which points at its
        // own part of `self.bytes`, disjoint by `chunks_exact_mut`. All three outlive the call and nothing else uses
        // them meanwhile. The kernel writes at most `iov_len` bytes to each. A null timeout with MSG_DONTWAIT never
        // blocks.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock => Ok(0),
                _ => Err(error),
            };
        }
        let filled = headers.iter().take(count as usize);
        self.received.extend(filled.map(|header| Received {
            len: (header.msg_len as usize).min(self.room),
            cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }));
        Ok(self.received.len())
    }

    /// The datagrams of the last [`DatagramBatch::receive`], in order of arrival.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let rooms = self.bytes.chunks_exact(self.room);
        self.received.iter().zip(rooms).map(|(received, room)| Datagram {
            bytes: &room[..received.len],
            cut: received.cut,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn takes_what_waits_in_order_and_tells_what_was_cut() {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        let mut batch = DatagramBatch::new(4, 8);
        assert_eq!(batch.receive(receiver.as_fd(), usize::MAX).unwrap(), 0);
        for text in ["one", "", "12345678", "123456789"] {
            sender.send(text.as_bytes()).unwrap();
        }
        assert_eq!(batch.receive(receiver.as_fd(), usize::MAX).unwrap(), 4);
        let seen: Vec<_> = batch.datagrams().map(|d| (d.bytes.to_vec(), d.cut)).collect();
        let expected = [("one", false), ("", false), ("12345678", false), ("12345678", true)];
        let expected = expected.map(|(text, cut)| (text.as_bytes().to_vec(), cut));
        assert_eq!(seen, expected);
    }

    #[test]
    fn more_than_a_batch_is_left_for_the_next_call() {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        let mut batch = DatagramBatch::new(2, 8);
        for text in ["a", "b", "c", "d"] {
            sender.send(text.as_bytes()).unwrap();
        }
        assert_eq!(batch.receive(receiver.as_fd(), usize::MAX).unwrap(), 2);
        assert_eq!(batch.receive(receiver.as_fd(), 1).unwrap(), 1);
        assert_eq!(batch.datagrams().next().unwrap().bytes, b"c");
        assert_eq!(batch.receive(receiver.as_fd(), usize::MAX).unwrap(), 1);
        assert_eq!(batch.datagrams().next().unwrap().bytes, b"d");
    }
}
