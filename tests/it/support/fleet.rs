//! Many clients read by a few threads, so that the readers are never the slow part; each must get every event made by
//! `numbered`, once and in order.

use super::client::{self, CLOSE, PING, PONG, TEXT};
use super::{TestServer, eventually, number_of};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// The clients; they are read from the start on, until [`Fleet::expect`] or the drop.
pub struct Fleet {
    threads: Vec<JoinHandle<()>>,
    /// How many events each has got.
    got: Arc<Vec<AtomicUsize>>,
    /// What went wrong with each, at most one thing.
    faults: Arc<std::sync::Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

struct Member {
    index: usize,
    socket: TcpStream,
    received: Vec<u8>,
}

impl Fleet {
    /// Joins `count` clients and reads them on `threads` threads.
    #[track_caller]
    pub fn start(server: &TestServer, count: usize, threads: usize) -> Fleet {
        let mut members: Vec<Vec<Member>> = (0..threads).map(|_| Vec::new()).collect();
        for index in 0..count {
            let (socket, received) = server.client().into_parts();
            socket.set_nonblocking(true).unwrap();
            members[index % threads].push(Member {
                index,
                socket,
                received,
            });
        }
        let got = Arc::new((0..count).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
        let faults = Arc::new(std::sync::Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = members
            .into_iter()
            .map(|mut members| {
                let (got, faults, stop) = (Arc::clone(&got), Arc::clone(&faults), Arc::clone(&stop));
                let read = move || {
                    let mut scrap = vec![0; 256 * 1024];
                    while !stop.load(Ordering::Relaxed) && !members.is_empty() {
                        turn(&mut members, &mut scrap, &got, &faults);
                    }
                };
                #[expect(clippy::disallowed_methods, reason = "the harness has threads of its own")]
                std::thread::spawn(read)
            })
            .collect();
        Fleet {
            threads,
            got,
            faults,
            stop,
        }
    }

    /// How many events the client that has least has got.
    pub fn least(&self) -> usize {
        self.got
            .iter()
            .map(|got| got.load(Ordering::Relaxed))
            .min()
            .unwrap_or(0)
    }

    /// What went wrong so far.
    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }

    /// Fails unless everybody is still connected and has got what it got in order.
    #[track_caller]
    pub fn expect_well(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "{} clients: {}", faults.len(), faults.join("; "));
    }

    /// Waits until every client has got the events 0 to `count` at least. Fails when nothing moves for `DEADLINE`.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        while self.least() < count {
            let before = self.least();
            eventually("every client gets another event", || {
                self.expect_well();
                (self.least() > before).then_some(())
            });
        }
    }

    /// Waits until every client has got exactly the events 0 to `count`. Fails when nothing moves for `DEADLINE`.
    #[track_caller]
    pub fn expect(&self, count: usize) {
        self.wait_for(count);
        self.expect_well();
        let most = self.got.iter().map(|got| got.load(Ordering::Relaxed)).max();
        assert_eq!((self.least(), most), (count, Some(count)), "somebody got more");
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic is in the test's output already.
            let _ = thread.join();
        }
    }
}

fn turn(members: &mut Vec<Member>, scrap: &mut [u8], got: &[AtomicUsize], faults: &std::sync::Mutex<Vec<String>>) {
    let mut fds: Vec<PollFd<'_>> = members
        .iter()
        .map(|member| PollFd::from_borrowed_fd(member.socket.as_fd(), PollFlags::IN))
        .collect();
    let look = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    let _ = poll(&mut fds, Some(&look));
    let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
    let mut ready = ready.into_iter();
    members.retain_mut(|member| {
        if !ready.next().unwrap_or(false) {
            return true;
        }
        match member.read(scrap, &got[member.index]) {
            Ok(()) => true,
            Err(what) => {
                let text = format!("client {}: {what}", member.index);
                faults.lock().unwrap().push(text);
                false
            }
        }
    });
}

impl Member {
    fn read(&mut self, scrap: &mut [u8], got: &AtomicUsize) -> Result<(), String> {
        let next = got.load(Ordering::Relaxed);
        let count = match self.socket.read(scrap) {
            Ok(0) => return Err(format!("ended before event {next}")),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(error) => return Err(format!("{error} before event {next}")),
        };
        self.received.extend_from_slice(&scrap[..count]);
        let mut start = 0;
        while let Some((opcode, payload, len)) = client::peek(&self.received[start..]) {
            let expected = got.load(Ordering::Relaxed);
            match opcode {
                PING => {
                    let _ = self.socket.write_all(&client::masked(PONG, payload));
                }
                CLOSE => {
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                    return Err(format!("closed before event {expected}: {reason}"));
                }
                TEXT if payload.starts_with(b"{\"type\":\"ping\"") => {}
                _ => {
                    if number_of(payload) != Some(expected) || !payload.ends_with(b"\"}}") {
                        let text = String::from_utf8_lossy(&payload[..payload.len().min(100)]).into_owned();
                        return Err(format!("instead of event {expected}: opcode {opcode} {text}"));
                    }
                    got.store(expected + 1, Ordering::Relaxed);
                }
            }
            start += len;
        }
        self.received.drain(..start);
        Ok(())
    }
}
