//! Descriptors that thread `admin` keeps for itself, so that it can let an admin in when everybody else has used up the
//! rest.

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;

/// How many: as many requests as one standing has places. Not more, because each could be a client's.
const DESCRIPTORS: usize = 4;

/// What [`Reserve::give_one`] could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// The next descriptor has a place.
    Made,
    /// The reserve was empty.
    None,
}

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

    /// Closes one, so that the next thing to be opened finds room.
    pub fn give_one(&mut self) -> Room {
        match self.held.pop() {
            Some(_) => Room::Made,
            None => Room::None,
        }
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
        assert_eq!(reserve.give_one(), Room::None);
        reserve.fill();
        for _ in 0..DESCRIPTORS {
            assert_eq!(reserve.give_one(), Room::Made);
        }
        assert_eq!(reserve.give_one(), Room::None);
        for _ in 0..2 * DESCRIPTORS {
            let (one, _) = std::os::unix::net::UnixStream::pair().unwrap();
            reserve.keep(one);
        }
        assert_eq!(reserve.held.len(), DESCRIPTORS);
    }
}
