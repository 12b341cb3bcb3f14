//! The event server on tokio, as fast as it honestly gets.

#[path = "../../../../src/pipeline/event.rs"]
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

fn main() -> ExitCode {
    let number = |name: &str, default: usize| std::env::var(name).map_or(default, |v| v.parse().unwrap());
    let workers = number("W", 2);
    let mut builder = if workers == 0 {
        runtime::Builder::new_current_thread()
    } else {
        runtime::Builder::new_multi_thread()
    };
    builder.worker_threads(workers.max(1)).enable_io();
    builder.event_interval(number("EI", 61) as u32);
    let served = builder
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
        .and_then(|runtime| {
            let served = runtime.block_on(serve());
            runtime.shutdown_background();
            served
        });
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
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;

    let hub = Arc::new(Hub::new());
    if std::env::var("I").is_ok_and(|v| v == "thread") {
        events.set_nonblocking(false).map_err(failed)?;
        let hub = hub.clone();
        tokio::task::spawn_blocking(move || ingest::run_thread(&events, &hub));
    } else {
        tokio::spawn(ingest::run(
            UnixDatagram::from_std(events).map_err(failed)?,
            hub.clone(),
        ));
    }
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
