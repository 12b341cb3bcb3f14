//! The event server as people usually write it on tokio: a task per client, `sync::broadcast` between them and the task
//! that receives.
//!
//! - The runtime is `#[tokio::main]`'s: as many workers as processors.
//! - An event is parsed into a `serde_json::Value`; what is no object is dropped.
//! - The last state of each machine is in a map behind a mutex, for the `initial` of whoever connects.
//! - The channel holds `CAPACITY` events. A client that is further behind loses the oldest, and its task goes on, as in
//!   tokio's own example of a chat.
//! - tokio-tungstenite does the WebSocket protocol: one frame, one `send`, one system call for each event and client.

#[path = "../../common/start.rs"]
mod start;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use start::Sockets;
use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream, UnixDatagram};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes, http::StatusCode};

/// Events that a client may be behind: four times what the bench has in flight.
const CAPACITY: usize = 1024;

/// What all tasks share.
struct Hub {
    events: broadcast::Sender<Utf8Bytes>,
    /// The row in `initial` of each machine.
    machines: Mutex<BTreeMap<String, Value>>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tokio-usual: {error}");
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

    let hub = Arc::new(Hub {
        events: broadcast::channel(CAPACITY).0,
        machines: Mutex::default(),
    });
    tokio::spawn(receive(socket, hub.clone()));
    tokio::spawn(accept(listener, hub));
    start::say_ready();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    drop(file);
    Ok(())
}

async fn receive(socket: UnixDatagram, hub: Arc<Hub>) {
    let mut buffer = vec![0; start::EVENT_BYTES_MAX];
    loop {
        let length = match socket.recv(&mut buffer).await {
            Ok(length) => length,
            Err(error) => {
                eprintln!("tokio-usual: cannot receive: {error}");
                continue;
            }
        };
        let Ok(text) = std::str::from_utf8(&buffer[..length]) else {
            continue;
        };
        let Ok(event @ Value::Object(_)) = serde_json::from_str::<Value>(text) else {
            continue;
        };
        hub.remember(&event);
        // An error says that nobody listens.
        let _ = hub.events.send(Utf8Bytes::from(text));
    }
}

async fn accept(listener: TcpListener, hub: Arc<Hub>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let hub = hub.clone();
                tokio::spawn(async move {
                    // How a connection ends is the client's affair.
                    let _ = client(stream, hub).await;
                });
            }
            Err(error) => eprintln!("tokio-usual: cannot accept: {error}"),
        }
    }
}

async fn client(stream: TcpStream, hub: Arc<Hub>) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let socket = tokio_tungstenite::accept_hdr_async(stream, check_path).await?;
    let (mut sink, mut messages) = socket.split();
    let (mut events, initial) = hub.join();
    sink.send(Message::text(initial)).await?;
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(Ok(Message::Text(text))) if text == "ping" => sink.send(Message::text(r#"{"type":"pong"}"#)).await?,
                Some(Ok(Message::Text(text))) if text == "refresh" => sink.send(Message::text(hub.initial())).await?,
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
            },
            event = events.recv() => match event {
                Ok(text) => sink.send(Message::Text(text)).await?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

// The callback's type is tungstenite's.
#[allow(clippy::result_large_err)]
fn check_path(request: &Request, response: Response) -> Result<Response, ErrorResponse> {
    if request.uri().path() == "/ws/events" {
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(None);
    *refusal.status_mut() = StatusCode::FORBIDDEN;
    Err(refusal)
}

impl Hub {
    fn remember(&self, event: &Value) {
        let Some(name) = event["machine_name"].as_str() else {
            return;
        };
        let payload = &event["payload"];
        let mut machines = self.machines.lock().expect("no thread panics while it holds the lock");
        match event["type"].as_str() {
            Some("machine_terminated") => {
                machines.remove(name);
            }
            Some("machine_registered") => {
                let row = row(
                    name,
                    &payload["current_state"],
                    &payload["timestamp"],
                    &payload["config_type"],
                );
                machines.insert(name.to_owned(), row);
            }
            Some("state_change") => {
                let config = machines.get(name).map_or(Value::Null, |row| row["config_type"].clone());
                let row = row(name, &payload["to_state"], &payload["timestamp"], &config);
                machines.insert(name.to_owned(), row);
            }
            _ => {}
        }
    }

    /// All events from now on, and what has been before.
    fn join(&self) -> (broadcast::Receiver<Utf8Bytes>, String) {
        (self.events.subscribe(), self.initial())
    }

    fn initial(&self) -> String {
        let machines = self.machines.lock().expect("no thread panics while it holds the lock");
        let rows: Vec<&Value> = machines.values().collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let rows = serde_json::to_string(&rows).expect("values have string keys only");
        // By hand, because `json!` sorts the keys.
        format!(
            r#"{{"type":"initial","machines":{rows},"timestamp":{}}}"#,
            now.as_secs_f64()
        )
    }
}

fn row(name: &str, state: &Value, time: &Value, config: &Value) -> Value {
    json!({
        "machine_name": name,
        "current_state": state,
        "last_activity": time,
        "metadata": null,
        "config_type": config,
    })
}
