//! The clients that are there, for threads that look at them without asking the fan-out.
//!
//! Locked by connections' threads when a client comes and goes, and by pages; never by thread `fanout`, `watchdog` or a
//! client's thread in between, so that a page is answered while these stand still, and cannot hold them up.

use crate::outbox::link::Link;
use crate::process::locks::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

/// All of them, by number.
#[derive(Debug, Default)]
pub struct Registry {
    clients: Mutex<BTreeMap<u64, Weak<Link>>>,
}

/// One client's entry; taken out when dropped.
#[derive(Debug)]
pub struct Registered {
    registry: Arc<Registry>,
    id: u64,
}

impl Registry {
    /// Enters a client until the entry is dropped. Waits for others that come and go for moments.
    pub fn enter(self: &Arc<Registry>, link: &Arc<Link>) -> Registered {
        let mut clients = lock(&self.clients);
        // Weak: a page must not keep a connection open, nor the list one whose thread is gone.
        clients.insert(link.id(), Arc::downgrade(link));
        Registered {
            registry: Arc::clone(self),
            id: link.id(),
        }
    }

    /// The client with this number, if it is there. Waits as [`Registry::enter`].
    pub fn find(&self, id: u64) -> Option<Arc<Link>> {
        let clients = lock(&self.clients);
        clients.get(&id)?.upgrade()
    }

    /// What `look` makes of each client, by their numbers. Waits as [`Registry::enter`]; nothing is locked while it
    /// looks.
    pub fn map<T>(&self, mut look: impl FnMut(&Link) -> T) -> Vec<T> {
        let clients: Vec<Weak<Link>> = {
            let clients = lock(&self.clients);
            clients.values().cloned().collect()
        };
        // One at a time, so that a client which leaves meanwhile is held for a moment only.
        let seen = clients.iter().filter_map(|client| Some(look(&*client.upgrade()?)));
        seen.collect()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut clients = lock(&self.registry.clients);
        clients.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::view::View;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn who_is_there_is_seen_and_who_has_left_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = Arc::new(TcpStream::connect(address).unwrap());
        let link = |id| Arc::new(Link::new(id, address, Arc::new(View::default()), Arc::clone(&socket)));
        let registry = Arc::new(Registry::default());
        let (second, first) = (link(2), link(1));
        let second_entry = registry.enter(&second);
        let _first_entry = registry.enter(&first);
        assert_eq!(registry.map(Link::id), [1, 2]);
        assert!(registry.find(1).is_some_and(|client| client.id() == 1));
        drop(first);
        assert!(registry.find(1).is_none() && registry.find(3).is_none());
        assert_eq!(registry.map(Link::id), [2]);
        drop(second_entry);
        assert_eq!(registry.map(Link::id), [0; 0]);
    }
}
