//! The two sockets of the server: opened, or taken from who passed them.

use crate::config::Config;
use crate::config::table::settings;
use crate::intake::event_socket::{self, EventSocket, PathLock};
use crate::process::limits::{self, ClientRoom};
use crate::process::passed_sockets::PassedSockets;
use crate::process::words::count;
use crate::serve::start_error::{StartError, resource};
use rustix::net::{listen, sockopt};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Connections that the kernel holds for `accept` (listen(2)); the host's own limit is usually the same.
const BACKLOG: i32 = 4096;
/// The two sockets.
pub(super) struct Sockets {
    pub(super) listener: TcpListener,
    pub(super) address: SocketAddr,
    /// What a client's socket takes, in bytes.
    pub(super) send_buffer_bytes: usize,
    /// The one that was passed. Our own is bound when there is somebody to receive: see [`bind_events`].
    pub(super) passed_events: Option<EventSocket>,
    pub(super) path_lock: PathLock,
}

/// Opens what was not passed, but for the event socket, whose path is only claimed. What was passed takes the place of
/// the settings that name it.
pub(super) fn open(config: &mut Config, passed: PassedSockets) -> Result<Sockets, StartError> {
    let (listener, address) = match passed.listener {
        Some(listener) => adopt_listener(listener, config)?,
        None => bind_listener(config)?,
    };
    let (passed_events, path_lock) = match passed.datagrams {
        Some((socket, path)) => (
            Some(adopt_event_socket(socket, path, config)),
            PathLock::of_the_manager(),
        ),
        None => {
            let lock = event_socket::lock(&config.event_socket_path).map_err(StartError::Socket)?;
            EventSocket::prepare(&config.event_socket_path).map_err(StartError::Socket)?;
            (None, lock)
        }
    };
    // Linux gives twice what was asked for, the second half for its own bookkeeping (socket(7)).
    let send_buffer_bytes =
        sockopt::socket_send_buffer_size(&listener).map_or(config.send_buffer_bytes, |size| size / 2);
    Ok(Sockets {
        listener,
        address,
        send_buffer_bytes,
        passed_events,
        path_lock,
    })
}

/// The event socket: the one that was passed, or our own, bound now. From here on engines can send, and one that waits
/// for room waits for us.
pub(super) fn bind_events(passed: Option<EventSocket>, config: &Config) -> Result<EventSocket, StartError> {
    match passed {
        Some(socket) => Ok(socket),
        None => EventSocket::bind(&config.event_socket_path, config.socket_mode).map_err(StartError::Socket),
    }
}

/// Serves at a listener that was passed, wherever it listens.
fn adopt_listener(listener: TcpListener, config: &mut Config) -> Result<(TcpListener, SocketAddr), StartError> {
    let (listener, address) = prepare(listener, config).map_err(resource("the passed TCP socket ready"))?;
    let (host, port) = (address.ip().to_string(), address.port());
    if (host.as_str(), port) != (config.host.as_str(), config.port) {
        log::info!(
            "🔌 the service manager passed a socket that listens on {address}; --host {} and --port {} do not matter",
            config.host,
            config.port
        );
    }
    (config.host, config.port) = (host, port);
    Ok((listener, address))
}

/// Receives from a datagram socket that was passed, whatever its path.
fn adopt_event_socket(socket: OwnedFd, path: PathBuf, config: &mut Config) -> EventSocket {
    if path != config.event_socket_path {
        log::info!(
            "🔌 the service manager passed an event socket at {}; --event-socket-path {} does not matter",
            path.display(),
            config.event_socket_path.display()
        );
    }
    config.event_socket_path.clone_from(&path);
    EventSocket::passed(socket, path)
}

/// Listens with the options that every accepted socket inherits (tcp(7)).
fn bind_listener(config: &Config) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::Listen {
        address: format!("{}:{}", config.host, config.port),
        error,
    };
    let addresses = (config.host.as_str(), config.port).to_socket_addrs().map_err(failed)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpListener::bind(address).and_then(|listener| prepare(listener, config)) {
            Ok(bound) => return Ok(bound),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn prepare(listener: TcpListener, config: &Config) -> io::Result<(TcpListener, SocketAddr)> {
    sockopt::set_socket_send_buffer_size(&listener, config.send_buffer_bytes)?;
    sockopt::set_tcp_nodelay(&listener, true)?;
    // The standard library has listened with a shorter backlog already; listening again lengthens it.
    listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// What the first lines of the log say besides the settings and the sockets.
pub(super) struct Announced<'a> {
    /// The event socket came from the service manager, which has set its mode.
    pub(super) events_are_passed: bool,
    pub(super) admin_socket: Option<&'a Path>,
    pub(super) clients_max: usize,
    pub(super) room: ClientRoom,
}

/// Says what runs here: where it serves, where events come in, which settings are not the defaults, and its bounds.
pub(super) fn announce(config: &Config, sockets: &Sockets, announced: &Announced<'_>) {
    let address = sockets.address;
    log::info!(
        "🚀 threadcast {} listens on http://{address}, stream at ws://{address}/ws/events, health at \
         http://{address}/health",
        env!("CARGO_PKG_VERSION"),
    );
    let mode = if announced.events_are_passed {
        "of the service manager".to_owned()
    } else {
        format!("mode {:04o}", config.socket_mode)
    };
    // Hints of commands quote "admin socket PATH".
    let admin = announced.admin_socket.map_or("no admin socket".to_owned(), |path| {
        format!("admin socket {}", path.display())
    });
    log::info!(
        "📨 events come in at {} ({mode}); {admin}",
        config.event_socket_path.display()
    );
    log::info!("🔧 {}", settings_given(config));
    announce_room(config, announced);
    if let Some(warning) = &sockets.path_lock.warning {
        log::warn!("⚠️ {warning}; another server that starts here would find us only by trying to connect");
    }
    match limits::datagram_queue_len() {
        Some(len) if len < DATAGRAM_QUEUE_COMFORT => log::info!(
            "💡 this host holds {} for us at a time (net.unix.max_dgram_qlen): an engine that sends more in \
             one burst finds it full; `sysctl net.unix.max_dgram_qlen=512` before the start helps",
            count(len, "datagram")
        ),
        _ => {}
    }
}

/// The settings in force that are not the defaults.
fn settings_given(config: &Config) -> String {
    let defaults = Config::default();
    let differing: Vec<String> = settings()
        .filter(|setting| setting.show(config) != setting.show(&defaults))
        .map(|setting| format!("{}={}", setting.name, setting.logged(config)))
        .collect();
    if differing.is_empty() {
        "all settings are the defaults".to_owned()
    } else {
        format!("settings that are not the defaults: {}", differing.join(" "))
    }
}

/// Says how many clients have room, and what bounds them.
fn announce_room(config: &Config, announced: &Announced<'_>) {
    let Announced { clients_max, room, .. } = *announced;
    let bound = match config.max_clients {
        Some(wanted) if wanted == clients_max => "--max-clients",
        _ => room.bound(),
    };
    let by_addresses = match room.by_addresses {
        u64::MAX => String::new(),
        connections => format!(", {connections} by addresses"),
    };
    log::info!(
        "🧵 room for {}, bounded by {bound} (the host's limits allow {} by descriptors, {} by threads, {} by \
         mappings{by_addresses})",
        count(clients_max, "client"),
        count(room.by_descriptors, "connection"),
        room.by_threads,
        room.by_mappings
    );
    if config.max_clients.is_some_and(|wanted| wanted > clients_max) {
        log::warn!("⚠️ --max-clients is more than the host's limits allow: raise that of {bound}, or lower it");
    }
}

/// Newer distributions set 512; below this a short burst of a sender that does not wait is lost before it reaches us.
const DATAGRAM_QUEUE_COMFORT: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_inherit_buffer_size_and_nodelay() {
        let config = Config {
            port: 0,
            send_buffer_bytes: 50_000,
            ..Config::default()
        };
        let (listener, address) = bind_listener(&config).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        assert_eq!(sockopt::socket_send_buffer_size(&accepted).unwrap(), 100_000);
    }

    #[test]
    fn defaults_are_not_listed_one_by_one() {
        assert_eq!(settings_given(&Config::default()), "all settings are the defaults");
        let config = Config {
            port: 8765,
            allow_drill: true,
            ..Config::default()
        };
        assert_eq!(
            settings_given(&config),
            "settings that are not the defaults: port=8765 allow-drill=true"
        );
    }

    #[test]
    fn a_host_that_is_not_ours_is_named_with_a_hint() {
        let config = Config {
            host: "192.0.2.1".to_owned(),
            port: 0,
            ..Config::default()
        };
        let error = bind_listener(&config).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot listen on 192.0.2.1:0: "),
            "{error}"
        );
        assert!(error.hint().contains("--host"));
    }
}
