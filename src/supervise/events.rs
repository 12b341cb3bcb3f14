//! Sends changes of services and of watched files to the server's event socket, as the original engine sends those of
//! its machines.

use crate::supervise::board::State;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};
use serde_json::json;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// What stands before a service's name in that of its machine: a worker may be called as its service is.
pub const MACHINE_PREFIX: &str = "service/";
/// The same before the name of a conflict.
const CONFLICT_PREFIX: &str = "conflict/";
/// The `config_type` of the machines that are services.
pub const CONFIG_TYPE: &str = "service";
/// What stands before a watch's name in that of its machine.
const WATCH_PREFIX: &str = "watch/";
/// The `config_type` of the machines that are watches.
const WATCH_TYPE: &str = "watch";

/// A server that starts takes events within this time.
const UNTAKEN: Duration = Duration::from_secs(10);

/// A way to the event socket. Never blocks: an event that the server does not take at once is lost, and counted.
#[derive(Debug)]
pub struct Events {
    address: Option<SocketAddrUnix>,
    socket: Option<OwnedFd>,
    lost: u64,
    /// Since when nobody takes them, and whether the log knows.
    untaken: Option<(Instant, bool)>,
}

impl Events {
    /// To the socket at `path`, which need not exist yet; `None`: nowhere. A path that no socket can have is nowhere.
    pub fn to(path: Option<&Path>) -> Events {
        Events {
            address: path.and_then(|path| SocketAddrUnix::new(path).ok()),
            socket: None,
            lost: 0,
            untaken: None,
        }
    }

    /// Events so far that no server took.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Tells that there is a service, and its state.
    pub fn register(&mut self, service: &str, state: State, epoch: f64) {
        let payload = json!({"config_type": CONFIG_TYPE, "current_state": state.name(), "timestamp": epoch});
        self.send("machine_registered", service, payload);
    }

    /// Tells that a service has gone from one state to another.
    pub fn change(&mut self, service: &str, (from, to): (State, State), trigger: &str, epoch: f64) {
        let payload = json!({
            "config_type": CONFIG_TYPE,
            "from_state": from.name(),
            "to_state": to.name(),
            "event_trigger": trigger,
            "timestamp": epoch,
        });
        self.send("state_change", service, payload);
    }

    /// Tells that a service is watched no more.
    pub fn end(&mut self, service: &str, epoch: f64) {
        self.send("machine_terminated", service, json!({"timestamp": epoch}));
    }

    /// Tells that there is a conflict, and its level. Returns whether the server has taken it.
    pub fn register_conflict(&mut self, conflict: &str, level: &str, epoch: f64) -> bool {
        let payload = json!({"config_type": "conflict", "current_state": level, "timestamp": epoch});
        self.send_of(CONFLICT_PREFIX, "machine_registered", conflict, payload)
    }

    /// Tells that a conflict has gone from one level to another, with so many processes.
    pub fn change_conflict(&mut self, conflict: &str, (from, to): (&str, &str), processes: usize, epoch: f64) {
        let payload = json!({
            "config_type": "conflict",
            "from_state": from,
            "to_state": to,
            "event_trigger": "count",
            "processes": processes,
            "timestamp": epoch,
        });
        self.send_of(CONFLICT_PREFIX, "state_change", conflict, payload);
    }

    /// Says in the log that nobody takes the events, once that has lasted: a server may just be starting.
    pub fn tell_if_untaken(&mut self) {
        let (Some((since, is_told)), Some(address)) = (&mut self.untaken, &self.address) else {
            return;
        };
        if *is_told || since.elapsed() < UNTAKEN {
            return;
        }
        *is_told = true;
        log::warn!(
            "📭 changes of services are not told: no server takes them at {}; start `threadcast serve`, or put [server] into \
             the file",
            address
                .path()
                .map_or_else(String::new, |path| path.to_string_lossy().into_owned())
        );
    }

    /// Tells that files are watched. Returns whether a server took it.
    pub fn register_watch(&mut self, watch: &str, epoch: f64) -> bool {
        let before = self.lost;
        let payload = json!({"config_type": WATCH_TYPE, "current_state": "watching", "timestamp": epoch});
        self.send_of(WATCH_PREFIX, "machine_registered", watch, payload);
        // It comes again until somebody takes it, so it is not lost.
        before == std::mem::replace(&mut self.lost, before)
    }

    /// Tells what happened to a watched file: `kind` is the event's type.
    pub fn file(&mut self, watch: &str, kind: &str, path: &str, epoch: f64) {
        let payload = json!({"config_type": WATCH_TYPE, "path": path, "timestamp": epoch});
        self.send_of(WATCH_PREFIX, kind, watch, payload);
    }

    /// Tells that files are watched no more.
    pub fn end_watch(&mut self, watch: &str, epoch: f64) {
        self.send_of(WATCH_PREFIX, "machine_terminated", watch, json!({"timestamp": epoch}));
    }

    fn send(&mut self, kind: &str, service: &str, payload: serde_json::Value) {
        self.send_of(MACHINE_PREFIX, kind, service, payload);
    }

    /// Returns whether the server has taken it, or there is nowhere to send it.
    fn send_of(&mut self, prefix: &str, kind: &str, name: &str, payload: serde_json::Value) -> bool {
        let Some(address) = &self.address else {
            return true;
        };
        let machine = format!("{prefix}{name}");
        let event = json!({"type": kind, "machine_name": machine, "payload": payload}).to_string();
        let socket = match self.socket.take() {
            Some(socket) => Ok(socket),
            None => socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None),
        };
        let sent = socket.and_then(|socket| {
            let sent = uninterrupted(|| {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                sendto(&socket, event.as_bytes(), flags, address)
            });
            self.socket = Some(socket);
            sent
        });
        if sent.is_err() {
            self.lost += 1;
            self.untaken.get_or_insert((Instant::now(), false));
        } else if let Some((_, true)) = self.untaken.take() {
            log::info!("📬 the server takes changes of services again; {} were lost", self.lost);
        }
        sent.is_ok()
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::event::check;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn the_server_reads_what_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.sock");
        let mut events = Events::to(Some(&path));
        events.register("web", State::Waiting, 5.0);
        assert_eq!(events.lost(), 1, "nobody is there yet");
        let server = UnixDatagram::bind(&path).unwrap();
        events.change("web", (State::Waiting, State::Starting), "start", 6.5);
        let mut datagram = [0; 1024];
        let len = server.recv(&mut datagram).unwrap();
        let event = check(&datagram[..len]).unwrap();
        assert_eq!(event.machine.as_deref(), Some("service/web"));
        assert_eq!(event.state.as_deref(), Some("starting"));
        assert_eq!(event.from.as_deref(), Some("waiting"));
        assert_eq!(event.config_type.as_deref(), Some("service"));
        assert_eq!(event.time, Some("6.5"));
        assert_eq!(events.lost(), 1);
    }

    #[test]
    fn without_a_socket_nothing_is_lost() {
        let mut events = Events::to(None);
        events.end("web", 1.0);
        assert_eq!(events.lost(), 0);
    }
}
