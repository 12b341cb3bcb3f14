//! Looks up the name of the server's host.
//!
//! Runs on: `lookup`, one at a time, in `tail`.
//! Owns: nothing; the answer goes to `main` through a queue of one.
//! Blocks on: the system's answer to a name, without a bound; nobody waits for this thread.
//! Can be stalled by: the name server.
//! Full queue means: nothing; the queue takes the one answer.
//! Ends when: the answer is there, or with the process.
//! Watched as: not watched; a command has no watchdog.

use crate::process::threads::{self, CORE_STACK_BYTES};
use crossbeam_channel::{Receiver, bounded};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// The answer to a name.
pub(super) type Lookup = io::Result<Vec<SocketAddr>>;

/// Starts thread `lookup`; its answer comes through the queue, which holds one.
pub(super) fn look_up(host: String, port: u16) -> io::Result<Receiver<Lookup>> {
    let (answer, answers) = bounded(1);
    // Not joined: nothing ends it before the system answers, and it holds nothing that matters.
    threads::spawn("lookup", CORE_STACK_BYTES, None, move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Nobody may wait for it any more.
        let _ = answer.try_send(addresses);
    })?;
    Ok(answers)
}
