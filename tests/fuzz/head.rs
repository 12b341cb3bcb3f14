//! Heads of requests, through the function that connections use, over a socket.

use crate::mutate::mutate;
use crate::{fuzz, seeds};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use threadcast::client::http::read_head;
use threadcast::process::stop::Stop;

#[test]
fn a_head_is_read_or_refused_alike_in_one_piece_and_in_two() {
    let seeds = seeds("head");
    let stop = Stop::new().unwrap();
    fuzz("head", 8_000, |rng| {
        let mut bytes = seeds[rng.usize(..seeds.len())].clone();
        mutate(rng, &mut bytes);
        let once = read(&bytes, bytes.len(), &stop);
        let twice = read(&bytes, rng.usize(..=bytes.len()), &stop);
        assert_eq!(once, twice, "{}", String::from_utf8_lossy(&bytes));
    });
}

/// What is read of `bytes` that come in two pieces. Their end follows at once, so nothing waits for a deadline.
fn read(bytes: &[u8], first: usize, stop: &Stop) -> String {
    let (mut peer, socket) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let _ = peer.write_all(&bytes[..first]);
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let head = read_head(socket.as_fd(), stop);
            format!("{head:?}")
        });
        // The first piece is taken before the second one comes, unless that is the reader's end already.
        let _ = poll(
            &mut [PollFd::new(&socket, PollFlags::OUT)],
            Some(&Timespec { tv_sec: 0, tv_nsec: 0 }),
        );
        let _ = peer.write_all(&bytes[first..]);
        let _ = peer.shutdown(Shutdown::Write);
        reader.join().expect("the parser does not panic")
    });
    // How much came before the peer left depends on the pieces.
    let gone = read.find("Gone").map_or(read.len(), |at| at + 4);
    // What follows the head may have come with it or not.
    let rest = read.find("rest: [").map_or(gone, |at| at.min(gone));
    read[..rest].to_owned()
}
