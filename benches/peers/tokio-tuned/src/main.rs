//! The event server on tokio with a task per client, as fast as that honestly gets.
//!
//! - `ingest`: one task receives all datagrams that wait, checks each with threadcast's own code, and encodes them
//!   once, into one buffer of frames.
//! - `hub`: `sync::broadcast` hands that buffer, which all share, to the clients' tasks. One that is too far behind is
//!   cut off.
//! - `client`: the task writes all that waits for it in one system call, and reads what the client sends.
//!
//! # What has been tried
//!
//! On two processors that the load generator shared, 200-byte events; deliveries per second with 256 events in flight
//! to 50, 1,000 and 10,000 clients, and the server's processor time per delivery at 100 events a second to 50 clients.
//! Two or three runs each, on a quiet machine:
//!
//! | runtime | receives | between the tasks | 50 | 1,000 | 10,000 | at 100/s |
//! |---|---|---|---|---|---|---|
//! | **1 worker** | **a task** | **`broadcast`** | 6.3-7.1 M | 18-19 M | 20 M | 3.4-4.2 µs |
//! | 1 worker | a thread | `broadcast` | 6.7-6.8 M | 9.7-12 M | 9 M | 6.2-7.4 µs |
//! | 2 workers | a task | `broadcast` | 4.5-5.3 M | 12-14 M | 16 M | 5.8-7.1 µs |
//! | 2 workers | a thread | `broadcast` | 6.6 M | 11-15 M | 15 M | 6.8-8.6 µs |
//! | `current_thread` | a task | `broadcast` | 3.6-7.6 M | 5-12 M | 6 M | 4.2-4.7 µs |
//! | `current_thread` | a thread | `broadcast` | 6.6-7.1 M | 9-11 M | 7 M | 6.2-7.3 µs |
//! | `current_thread` | a task | shared log and `watch` | 3.4-5.5 M | 7-16 M | 4 M | 4.0-6.8 µs |
//! | 2 workers | a thread | shared log and `watch` | 5.2-6.0 M | 11-13 M | 15 M | 6.6-7.1 µs |
//!
//! A second worker costs more in tasks that wander than it brings. A shared log keeps batches that everybody has read,
//! and they fall out of the caches. Asking for I/O every 16 polls (tokio: 61) keeps the senders going while a thousand
//! tasks wait for their turn: 17 against 13 M at 1,000 clients.
//!
//! Also tried, and not kept because it is threadcast's own way and no longer one task per client: the receiving task
//! writes to every client that is not behind itself. It takes 3.2-4.1 µs at 100 events a second to 50 clients, but
//! 4.6-5.2, 10-13 and 5 M deliveries, for its batches are smaller.

#[path = "../../../../src/stream/event.rs"]
#[allow(dead_code, reason = "this uses its check only")]
mod event;
#[path = "../../common/frames.rs"]
mod frames;
#[path = "../../common/start.rs"]
mod start;

mod client;
mod hub;
mod ingest;
mod outbox;
mod reader;
mod table;

use hub::Hub;
use start::Sockets;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixDatagram};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Threads that run tasks.
const WORKERS: usize = 1;

/// Polls of tasks after which a worker looks for I/O.
const POLLS_PER_TURN: u32 = 16;

fn main() -> ExitCode {
    let mut builder = runtime::Builder::new_multi_thread();
    builder
        .worker_threads(WORKERS)
        .event_interval(POLLS_PER_TURN)
        .enable_io();
    let served = builder
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
        .and_then(|runtime| runtime.block_on(serve()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tokio-tuned: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), String> {
    let Sockets { listener, events, file } = start::open()?;
    let failed = |error: io::Error| error.to_string();
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    let socket = UnixDatagram::from_std(events).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;

    let hub = Arc::new(Hub::new());
    tokio::spawn(ingest::run(socket, hub.clone()));
    tokio::spawn(accept(listener, hub));
    start::say_ready();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    drop(file);
    Ok(())
}

async fn accept(listener: TcpListener, hub: Arc<Hub>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(client::serve(stream, hub.clone()))),
            Err(error) => {
                eprintln!("tokio-tuned: cannot accept: {error}");
                // Out of descriptors: clients that go give some back meanwhile.
                tokio::task::yield_now().await;
            }
        }
    }
}
