//! Between the task that receives and the tasks that send: `sync::broadcast` with batches in it, and the machine table.

use crate::table::Table;
use bytes::Bytes;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::broadcast::{self, error::TryRecvError};

/// Batches that a client may be behind before it is cut off; the bench has at most 256 events in flight.
const CAPACITY: usize = 1024;

pub struct Hub {
    batches: broadcast::Sender<Bytes>,
    /// Locked while a batch is made and published, so that a new client's `initial` has all events before its first.
    table: Mutex<Table>,
}

/// The batches from the moment of joining on.
pub struct Batches(broadcast::Receiver<Bytes>);

/// The client is too far behind.
pub struct Lagged;

impl Hub {
    pub fn new() -> Hub {
        Hub {
            batches: broadcast::channel(CAPACITY).0,
            table: Mutex::default(),
        }
    }

    pub fn table(&self) -> MutexGuard<'_, Table> {
        // A panic of another task has been told on stderr; the table is as good as before.
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Hands a batch to all clients.
    pub fn publish(&self, batch: Bytes) {
        // An error says that there are none.
        let _ = self.batches.send(batch);
    }

    /// All batches from now on, and the rows of `initial` up to now.
    pub fn join(&self) -> (Batches, Vec<u8>) {
        let table = self.table();
        (Batches(self.batches.subscribe()), table.rows())
    }
}

impl Batches {
    /// The next batch.
    pub async fn next(&mut self) -> Result<Bytes, Lagged> {
        self.0.recv().await.map_err(|_| Lagged)
    }

    /// The next batch, if there is one already.
    pub fn try_next(&mut self) -> Result<Option<Bytes>, Lagged> {
        match self.0.try_recv() {
            Ok(batch) => Ok(Some(batch)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Lagged(_) | TryRecvError::Closed) => Err(Lagged),
        }
    }
}
