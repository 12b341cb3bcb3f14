//! Heads of requests, in one piece and in two: to the parser alone, and over a socket to the function that connections
//! use.

use crate::mutate::mutate;
use crate::{fuzz, seeds};
use fastrand::Rng;
use rustix::io::ioctl_fionread;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use threadcast::process::stop::Stop;
use threadcast::web::http::head::parse;
use threadcast::web::http::{Answer, Head, HeadError, read_head};

#[test]
fn a_head_gets_one_verdict_wherever_it_is_cut() {
    let seeds = seeds("head");
    let (mut taken, mut refused, mut partial, mut early) = (0_u64, 0_u64, 0_u64, 0_u64);
    fuzz("head", 20_000, |rng| {
        let bytes = head(rng, &seeds);
        let whole = parsed(&bytes);
        match &whole {
            Ok(Some(_)) => taken += 1,
            Ok(None) => partial += 1,
            Err(_) => refused += 1,
        }
        for _ in 0..8 {
            let cut = rng.usize(..=bytes.len());
            let first = parsed(&bytes[..cut]);
            // More is read only while there is no verdict.
            if first != Ok(None) {
                early += u64::from(cut < bytes.len());
                assert_eq!(first, whole, "cut at {cut}: {}", String::from_utf8_lossy(&bytes));
            }
        }
    });
    eprintln!("head: {taken} taken, {refused} refused, {partial} not whole; {early} decided by the first piece");
    assert!(
        taken > 0 && refused > 0 && partial > 0 && early > 0,
        "the generator is of no use"
    );
}

#[test]
fn what_a_connection_reads_in_two_pieces_is_what_the_parser_makes_of_the_whole() {
    let seeds = seeds("head");
    let stop = Stop::new().unwrap();
    fuzz("head over a socket", 4_000, |rng| {
        let bytes = head(rng, &seeds);
        let expected = match parsed(&bytes) {
            Ok(Some(head)) => Ok(head),
            Ok(None) => Err(HeadError::Gone { received: bytes.len() }),
            Err(answer) => Err(HeadError::Refused(answer)),
        };
        let cut = rng.usize(..=bytes.len());
        let read = read(&bytes, cut, &stop).map(without_rest);
        assert_eq!(read, expected, "cut at {cut}: {}", String::from_utf8_lossy(&bytes));
    });
}

fn head(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[rng.usize(..seeds.len())].clone();
    if rng.u8(..8) > 0 {
        mutate(rng, &mut bytes);
    }
    bytes
}

/// What follows the head may have come with it or not.
fn without_rest(mut head: Head) -> Head {
    head.rest.clear();
    head
}

fn parsed(bytes: &[u8]) -> Result<Option<Head>, Answer> {
    parse(bytes).map(|head| head.map(without_rest))
}

/// What is read of `bytes`, the second piece of which is sent when the first one has been read. Their end follows at
/// once, so nothing waits for a deadline.
fn read(bytes: &[u8], cut: usize, stop: &Stop) -> Result<Head, HeadError> {
    let (mut peer, socket) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_head(socket.as_fd(), stop));
        peer.write_all(&bytes[..cut]).unwrap();
        while ioctl_fionread(&socket).unwrap() > 0 && !reader.is_finished() {
            std::thread::yield_now();
        }
        peer.write_all(&bytes[cut..]).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        reader.join().expect("the parser does not panic")
    })
}
