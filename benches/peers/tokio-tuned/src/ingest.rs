//! From datagrams to batches of ready frames: each event is checked once and encoded once, for all clients.

use crate::event;
use crate::frames;
use crate::hub::Hub;
use crate::start::EVENT_BYTES_MAX;
use crate::table::Table;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use tokio::net::UnixDatagram;

/// Bytes of frames in one batch, apart from its last event.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Receives for ever. Each turn takes everything that waits.
pub async fn run(socket: UnixDatagram, hub: Arc<Hub>) {
    let mut datagram = vec![0; EVENT_BYTES_MAX];
    let mut batch = Vec::new();
    loop {
        if let Err(error) = socket.readable().await {
            eprintln!("tokio-tuned: cannot receive: {error}");
            continue;
        }
        let mut table = hub.table();
        while batch.len() < BATCH_BYTES_MAX {
            match socket.try_recv(&mut datagram) {
                Ok(length) => take(&datagram[..length], &mut batch, &mut table),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if !batch.is_empty() {
            hub.publish(Bytes::copy_from_slice(&batch));
            batch.clear();
        }
    }
}

fn take(datagram: &[u8], batch: &mut Vec<u8>, table: &mut Table) {
    // What may not be forwarded is dropped, as by threadcast, which also counts it.
    if let Ok(event) = event::check(datagram) {
        table.apply(&event);
        frames::append_text(batch, datagram);
    }
}
