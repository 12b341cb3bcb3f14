//! sd_listen_fds(3): sockets that the service manager has opened for us and passes from one server to the next, so that
//! nothing sent while none runs is lost.
//!
//! The only `unsafe` of taking them: descriptors arrive as bare numbers, from 3 on.
#![allow(unsafe_code)]

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// What was passed to this process; `None` where it must open the socket itself.
#[derive(Debug, Default)]
pub struct PassedSockets {
    /// A Unix datagram socket and the path it is bound to.
    pub datagrams: Option<(OwnedFd, PathBuf)>,
    /// A TCP socket that listens.
    pub listener: Option<TcpListener>,
}

/// Why what was passed cannot be used.
#[derive(Debug)]
pub enum PassedError {
    /// `LISTEN_FDS` is no number.
    Count(OsString),
    /// There is no such descriptor, or it is one that was not passed.
    Missing(Descriptor),
    /// It is neither of the two kinds.
    Kind { descriptor: Descriptor, found: String },
    /// There is one of this kind already.
    Second { descriptor: Descriptor, kind: &'static str },
    /// A system call failed.
    Io { descriptor: Descriptor, error: io::Error },
}

/// A passed descriptor, for messages: its number and its name (`FileDescriptorName=`).
#[derive(Clone, Debug)]
pub struct Descriptor {
    number: RawFd,
    name: String,
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "passed descriptor {}", self.number)?;
        match self.name.as_str() {
            "" => Ok(()),
            name => write!(f, " ({name:?})"),
        }
    }
}

impl fmt::Display for PassedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PassedError::Count(value) => write!(f, "LISTEN_FDS is {value:?} instead of a number"),
            PassedError::Missing(descriptor) => write!(f, "{descriptor} does not exist, although LISTEN_FDS counts it"),
            PassedError::Kind { descriptor, found } => {
                write!(
                    f,
                    "{descriptor} is {found}, neither a Unix datagram socket with a path nor a TCP socket that listens"
                )
            }
            PassedError::Second { descriptor, kind } => write!(f, "{descriptor} is a second {kind}"),
            PassedError::Io { descriptor, error } => write!(f, "cannot use {descriptor}: {error}"),
        }
    }
}

impl std::error::Error for PassedError {}

impl PassedError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            PassedError::Count(_) | PassedError::Missing(_) | PassedError::Io { .. } => {
                "whoever starts the server must pass what LISTEN_FDS says (sd_listen_fds(3)), or not set it"
            }
            PassedError::Kind { .. } | PassedError::Second { .. } => {
                "the socket unit takes one ListenDatagram= with a path and one ListenStream= with a port, each at most \
                 once; packaging/threadcast.socket is an example"
            }
        }
    }
}

/// What messages call a socket that events can come from.
const DATAGRAMS: &str = "Unix datagram socket";
/// What messages call a socket that clients can connect to.
const LISTENER: &str = "TCP socket that listens";

impl PassedSockets {
    /// Takes what the environment says was passed to this process; nothing if it says so of none or of another process.
    ///
    /// Call it before anything else is opened: a descriptor that `LISTEN_FDS` counts wrongly is then seen to be
    /// missing.
    ///
    /// # Errors
    /// A descriptor is missing or of a kind that we have no use for; the error names it.
    pub fn from_environment() -> Result<PassedSockets, PassedError> {
        let mut passed = PassedSockets::default();
        for descriptor in announced(|name| std::env::var_os(name), std::process::id())? {
            let Some(owned) = take(descriptor.number) else {
                return Err(PassedError::Missing(descriptor));
            };
            let failed = |error| PassedError::Io {
                descriptor: descriptor.clone(),
                error,
            };
            fcntl_setfd(&owned, FdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
            passed.sort_in(owned, &descriptor)?;
        }
        Ok(passed)
    }

    /// Puts a descriptor where its kind belongs.
    fn sort_in(&mut self, owned: OwnedFd, descriptor: &Descriptor) -> Result<(), PassedError> {
        let second = |kind| PassedError::Second {
            descriptor: descriptor.clone(),
            kind,
        };
        match kind(owned) {
            Kind::Datagrams(..) if self.datagrams.is_some() => Err(second(DATAGRAMS)),
            Kind::Listener(_) if self.listener.is_some() => Err(second(LISTENER)),
            Kind::Datagrams(socket, path) => {
                self.datagrams = Some((socket, path));
                Ok(())
            }
            Kind::Listener(listener) => {
                self.listener = Some(listener);
                Ok(())
            }
            Kind::Other(found) => Err(PassedError::Kind {
                descriptor: descriptor.clone(),
                found,
            }),
        }
    }
}

/// The descriptors that the environment counts for process `pid`.
fn announced(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Result<Vec<Descriptor>, PassedError> {
    let number = |name: &str| variable(name)?.to_str()?.parse::<u32>().ok();
    // Variables that a parent inherited and did not remove mean the parent.
    if number("LISTEN_PID") != Some(pid) {
        return Ok(Vec::new());
    }
    let count = match variable("LISTEN_FDS") {
        None => return Ok(Vec::new()),
        // More than two are never of use, so a few more are enough to find the first wrong one.
        Some(value) => number("LISTEN_FDS").ok_or(PassedError::Count(value))?.min(16),
    };
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.to_string_lossy();
    let names = names.split(':').chain(std::iter::repeat(""));
    Ok((FIRST..)
        .zip(names)
        .take(count as usize)
        .map(|(number, name)| Descriptor {
            number,
            name: name.to_owned(),
        })
        .collect())
}

/// Takes the ownership of a descriptor that this process was started with; `None` if `number` is none.
fn take(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD takes no pointer, changes nothing, and fails with EBADF for a number that is not open.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return None;
    }
    // SAFETY: the descriptor is open, and nobody in this process owns it. It has no FD_CLOEXEC, which everything that
    // this program, the standard library and our dependencies open is born with; so it was there when the process
    // began (execve(2) closes the others), standard streams aside, which are below 3. And we have not taken it before,
    // because our caller sets FD_CLOEXEC on what it takes.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// What a descriptor is good for.
enum Kind {
    Datagrams(OwnedFd, PathBuf),
    Listener(TcpListener),
    /// Nothing; what it is.
    Other(String),
}

fn kind(owned: OwnedFd) -> Kind {
    let Ok(family) = sockopt::socket_domain(&owned) else {
        return Kind::Other("not a socket".to_owned());
    };
    let sort = sockopt::socket_type(&owned);
    let listens = sockopt::socket_acceptconn(&owned).unwrap_or(false);
    if family == AddressFamily::UNIX && sort == Ok(SocketType::DGRAM) {
        let socket = UnixDatagram::from(owned);
        let path = socket.local_addr().ok();
        return match path.and_then(|address| address.as_pathname().map(PathBuf::from)) {
            Some(path) => Kind::Datagrams(socket.into(), path),
            None => Kind::Other("a Unix datagram socket without a path".to_owned()),
        };
    }
    let internet = family == AddressFamily::INET || family == AddressFamily::INET6;
    if internet && sort == Ok(SocketType::STREAM) && listens {
        return Kind::Listener(owned.into());
    }
    let family = match family {
        AddressFamily::UNIX => "a Unix",
        AddressFamily::INET => "an IPv4",
        AddressFamily::INET6 => "an IPv6",
        _ => "another",
    };
    let sort = match sort {
        Ok(SocketType::STREAM) if listens => "stream socket that listens",
        Ok(SocketType::STREAM) => "stream socket that does not listen",
        Ok(SocketType::DGRAM) => "datagram socket",
        Ok(SocketType::SEQPACKET) => "sequential packet socket",
        _ => "socket",
    };
    Kind::Other(format!("{family} {sort}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn numbers(variables: &[(&str, &str)]) -> Vec<(RawFd, String)> {
        let value = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let announced = announced(value, 42).unwrap();
        announced.into_iter().map(|one| (one.number, one.name)).collect()
    }

    #[test]
    fn only_what_is_meant_for_this_process_counts() {
        assert_eq!(numbers(&[]), []);
        assert_eq!(numbers(&[("LISTEN_FDS", "2")]), []);
        assert_eq!(numbers(&[("LISTEN_PID", "41"), ("LISTEN_FDS", "2")]), []);
        assert_eq!(numbers(&[("LISTEN_PID", "42")]), []);
        let named = |name: &str, number| (number, name.to_owned());
        let two = [("LISTEN_PID", "42"), ("LISTEN_FDS", "2")];
        assert_eq!(numbers(&two), [named("", 3), named("", 4)]);
        let with_names = [two[0], two[1], ("LISTEN_FDNAMES", "events:http")];
        assert_eq!(numbers(&with_names), [named("events", 3), named("http", 4)]);
    }

    #[test]
    fn what_this_process_has_opened_itself_is_never_taken() {
        let own = UnixDatagram::unbound().unwrap();
        assert!(take(own.as_raw_fd()).is_none());
        assert!(take(RawFd::MAX).is_none());
    }

    #[test]
    fn kinds_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.sock");
        let found = kind(UnixDatagram::bind(&path).unwrap().into());
        assert!(matches!(found, Kind::Datagrams(_, found) if found == path));
        let found = kind(TcpListener::bind("127.0.0.1:0").unwrap().into());
        assert!(matches!(found, Kind::Listener(_)));
        let streams = UnixListener::bind(folder.path().join("streams.sock")).unwrap();
        for (other, words) in [
            (
                UnixDatagram::unbound().unwrap().into(),
                "a Unix datagram socket without a path",
            ),
            (streams.into(), "a Unix stream socket that listens"),
            (
                UnixStream::pair().unwrap().0.into(),
                "a Unix stream socket that does not listen",
            ),
            (
                std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(),
                "an IPv4 datagram socket",
            ),
            (std::fs::File::open("/dev/null").unwrap().into(), "not a socket"),
        ] {
            assert!(matches!(kind(other), Kind::Other(found) if found == words), "{words}");
        }
    }

    #[test]
    fn a_second_of_a_kind_is_refused_by_its_number() {
        let descriptor = |number| Descriptor {
            number,
            name: "x".to_owned(),
        };
        let mut passed = PassedSockets::default();
        let listener = || TcpListener::bind("127.0.0.1:0").unwrap().into();
        passed.sort_in(listener(), &descriptor(3)).unwrap();
        let error = passed.sort_in(listener(), &descriptor(4)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "passed descriptor 4 (\"x\") is a second TCP socket that listens"
        );
    }
}
