//! Descriptors that thread `admin` keeps for itself, so that it can let an admin in when everybody else has used up the
//! rest.

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;

/// How many: as many requests as one standing has places. Not more, because each could be a client's.
const DESCRIPTORS: usize = 4;

/// They hold places in the table of descriptors, and nothing else.
#[derive(Debug, Default)]
pub struct Reserve {
    held: Vec<OwnedFd>,
}

impl Reserve {
    /// Takes as many as there are to be had. Never blocks.
    pub fn fill(&mut self) {
        while self.held.len() < DESCRIPTORS {
            // Nothing else of a few bytes can be opened everywhere, without any file.
            match eventfd(0, EventfdFlags::CLOEXEC) {
                Ok(descriptor) => self.held.push(descriptor),
                Err(_) => return,
            }
        }
    }

    /// Closes one, so that the next thing to be opened finds room. Returns whether there was one.
    pub fn give_one(&mut self) -> bool {
        self.held.pop().is_some()
    }

    /// Takes back the place of a connection that is done with. Where `accept` waits for a descriptor, a closed one
    /// would be a client's at once.
    pub fn keep(&mut self, done: impl Into<OwnedFd>) {
        if self.held.len() < DESCRIPTORS {
            self.held.push(done.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_taken_back() {
        let mut reserve = Reserve::default();
        assert!(!reserve.give_one());
        reserve.fill();
        for _ in 0..DESCRIPTORS {
            assert!(reserve.give_one());
        }
        assert!(!reserve.give_one());
        for _ in 0..2 * DESCRIPTORS {
            let (one, _) = std::os::unix::net::UnixStream::pair().unwrap();
            reserve.keep(one);
        }
        assert_eq!(reserve.held.len(), DESCRIPTORS);
    }
}
