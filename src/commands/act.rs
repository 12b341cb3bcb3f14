//! How commands act on a server of this host: they find its admin socket, and speak only to a peer that can be that
//! server.

use crate::admin::place::Address;
use crate::commands::complain;
use crate::commands::request::{self, Answer, ServerUrl};
use crate::process::exit::ExitStatus;
use crate::process::peer;
use crate::process::visible::visible;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use serde_json::Value;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the packaged unit has it.
const OF_THE_UNIT: &str = "/run/threadcast/admin.sock";
/// How long each part of a look for the socket may take.
const LOOK: Duration = Duration::from_secs(2);

/// Which server to act on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// By its address, which says its port.
    pub server: ServerUrl,
    /// By its socket: `--admin-socket`.
    pub socket: Option<PathBuf>,
}

/// Why a command does not use a socket.
#[derive(Debug)]
enum NotThis {
    Absent,
    /// It belongs to a server that listens elsewhere.
    OtherServer(SocketAddr),
    Denied,
    /// Its user.
    Stranger(u32),
    Failed(io::Error),
}

impl fmt::Display for NotThis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotThis::Absent => f.write_str("nobody listens there"),
            NotThis::OtherServer(address) => write!(f, "it belongs to the server at {address}"),
            NotThis::Denied => f.write_str("this user may not connect"),
            NotThis::Stranger(uid) => {
                write!(
                    f,
                    "user {uid} listens there, who is neither this user, nor root, nor the owner of its folder"
                )
            }
            NotThis::Failed(error) => write!(f, "{error}"),
        }
    }
}

/// Sends `POST target` to the server's admin socket; if it cannot, says so with a hint. Blocks 2 s for each place at
/// which the socket may be, and `patience` for each part of the answer.
///
/// # Errors
/// No socket of that server was found, or it gives no answer. The person has been told, so the caller only ends with
/// this status.
pub fn post(to: &Target, target: &str, patience: Duration) -> Result<Answer, ExitStatus> {
    let given = to.socket.is_some();
    let places = match &to.socket {
        Some(path) => vec![path.clone()],
        None => local_places(&to.server),
    };
    // The server is asked only when no place of this host has its socket: it may be one that does not answer.
    let named = std::iter::once_with(|| if given { None } else { named_by_status(&to.server) });
    let mut tried: Vec<(PathBuf, NotThis)> = Vec::new();
    for path in places.into_iter().chain(named.flatten()) {
        if tried.iter().any(|(known, _)| *known == path) {
            continue;
        }
        match open(&path, (!given).then_some(&to.server)) {
            Ok(socket) => return ask(socket, target, patience).map_err(|error| no_answer(&path, &error)),
            Err(why) => tried.push((path, why)),
        }
    }
    Err(not_found(to, &tried))
}

/// The places of this host to look at, the best first.
fn local_places(server: &ServerUrl) -> Vec<PathBuf> {
    let name = format!("threadcast-{}.sock", server.port());
    let mut places = vec![PathBuf::from(OF_THE_UNIT)];
    if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        places.push(Path::new(&folder).join(&name));
    }
    places.push(Path::new("logs").join(&name));
    places
}

/// The path that the server's `/status` names. Blocks as [`request::quietly`] does.
fn named_by_status(server: &ServerUrl) -> Option<PathBuf> {
    let status = request::quietly(server, "/status", LOOK).ok()?;
    let status: Value = serde_json::from_str(&status.body).ok()?;
    Some(PathBuf::from(status.get("admin_socket")?.as_str()?))
}

/// Connects, if the process that listens there may know what we ask, and is the server at that address.
fn open(path: &Path, server: Option<&ServerUrl>) -> Result<UnixStream, NotThis> {
    if let Some(server) = server {
        let socket = connect_to_trusted(path)?;
        let answer = request::exchange(&socket, "localhost", ("GET", "/admin"), LOOK).map_err(NotThis::Failed)?;
        if answer.status == 403 {
            return Err(NotThis::Denied);
        }
        let body: Option<Value> = serde_json::from_str(&answer.body).ok();
        let theirs = body.and_then(|body| body.get("address")?.as_str()?.parse().ok());
        let theirs: SocketAddr =
            theirs.ok_or_else(|| NotThis::Failed(io::Error::other("what answers there is no threadcast")))?;
        if !is_at(server, theirs) {
            return Err(NotThis::OtherServer(theirs));
        }
    }
    // A connection is for one request, so this is a new one, and its listener is judged anew.
    connect_to_trusted(path)
}

/// Returns whether a server that listens at `theirs` is the one that `server` names: the port, and either the address
/// itself or, for one that listens at every address, an address of this host.
fn is_at(server: &ServerUrl, theirs: SocketAddr) -> bool {
    let Ok(addresses) = server.addresses() else {
        return false;
    };
    let is_own = |address: IpAddr| UdpSocket::bind((address, 0)).is_ok();
    addresses.into_iter().any(|wanted| {
        let (wanted_ip, their_ip) = (wanted.ip().to_canonical(), theirs.ip().to_canonical());
        wanted.port() == theirs.port() && (wanted_ip == their_ip || their_ip.is_unspecified() && is_own(wanted_ip))
    })
}

/// Connects to this user, root, or the owner of the socket's folder; to nobody else.
fn connect_to_trusted(path: &Path) -> Result<UnixStream, NotThis> {
    let socket = connect_to(path, LOOK)?;
    let peer = peer::credentials(&socket).map_err(NotThis::Failed)?;
    let own = rustix::process::geteuid().as_raw();
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let is_owner = || fs::metadata(folder).is_ok_and(|folder| folder.uid() == peer.uid);
    if peer.uid != own && peer.uid != 0 && !is_owner() {
        return Err(NotThis::Stranger(peer.uid));
    }
    Ok(socket)
}

fn connect_to(path: &Path, patience: Duration) -> Result<UnixStream, NotThis> {
    let connected = || -> io::Result<UnixStream> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let socket = UnixStream::from(socket);
        // connect(2) heeds it too, where the queue of connections is full.
        socket.set_write_timeout(Some(patience))?;
        connect(&socket, &Address::of(path)?.address)?;
        Ok(socket)
    };
    connected().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => NotThis::Absent,
        io::ErrorKind::PermissionDenied => NotThis::Denied,
        _ => NotThis::Failed(error),
    })
}

fn ask(socket: UnixStream, target: &str, patience: Duration) -> io::Result<Answer> {
    request::exchange(&socket, "localhost", ("POST", target), patience)
}

fn no_answer(path: &Path, error: &io::Error) -> ExitStatus {
    complain(&format!(
        "threadcast: no answer at the admin socket {}: {error}\nhint: ask again; the server's log says what it does\n",
        visible(&path.display().to_string())
    ));
    ExitStatus::Failed
}

fn not_found(to: &Target, tried: &[(PathBuf, NotThis)]) -> ExitStatus {
    let mut text = match &to.socket {
        Some(_) => "threadcast: cannot act on the server:\n".to_owned(),
        None => format!(
            "threadcast: no admin socket of the server at {} was found:\n",
            to.server
        ),
    };
    for (path, why) in tried {
        text.push_str(&format!("  {}: {why}\n", visible(&path.display().to_string())));
    }
    text.push_str(if tried.iter().any(|(_, why)| matches!(why, NotThis::Denied)) {
        "hint: the server's own user, root, and members of its --admin-group may act on it; try with sudo\n"
    } else {
        "hint: is it running, on this host? Its log says `admin socket PATH` at the start; give that as --admin-socket PATH\n"
    });
    complain(&text);
    ExitStatus::Failed
}
