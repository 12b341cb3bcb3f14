//! The table at one moment, as clients get it.

use crate::process::locks::lock;
use crate::stream::chunk::Chunk;
use crate::stream::event::Seq;
use std::sync::{Arc, Mutex};

/// The table at one moment, ready to be sent.
#[derive(Debug)]
pub struct Snapshot {
    /// `{"type":"initial",...}`.
    pub json: Vec<u8>,
    /// The same as a frame.
    pub chunk: Arc<Chunk>,
    /// Number of rows.
    pub machines: usize,
    /// The last one that was made with a number: 1,000 clients that read nothing hold one of 1 MiB, not 1,000.
    numbered: Mutex<Option<(Seq, Arc<Chunk>)>>,
}

impl Snapshot {
    /// Of a document and its number of rows.
    pub fn new(json: Vec<u8>, machines: usize) -> Snapshot {
        Snapshot {
            chunk: Arc::new(Chunk::message(&json)),
            json,
            machines,
            numbered: Mutex::new(None),
        }
    }

    /// It with the number of the last event in it, as `make` makes it; made once for all who ask in a row. Called by
    /// clients' threads, which may wait for each other for the milliseconds that it takes to make 1 MiB.
    pub fn numbered(&self, as_of: Seq, make: impl FnOnce(&[u8]) -> Chunk) -> Arc<Chunk> {
        let mut last = lock(&self.numbered);
        match &*last {
            Some((seq, chunk)) if *seq == as_of => Arc::clone(chunk),
            _ => {
                let chunk = Arc::new(make(&self.json));
                *last = Some((as_of, Arc::clone(&chunk)));
                chunk
            }
        }
    }
}
