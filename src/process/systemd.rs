//! sd_notify(3): tells the service manager that we serve, stop, and are alive.
//!
//! The protocol is one datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names. Without that variable
//! nothing is sent. The variables stay in the environment; what starts a process leaves [`PRIVATE_VARIABLES`] out of
//! its environment.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// What the service manager passes to this process alone (sd_notify(3), sd_listen_fds(3)); no other process may get it.
pub const PRIVATE_VARIABLES: [&str; 8] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "FDSTORE",
];

/// Longest message; a status is cut to fit. systemd takes 4 KiB.
const MESSAGE_BYTES_MAX: usize = 512;

/// The way to the service manager, if there is one.
///
/// Its methods may be called from any thread. They never block and use no memory of the heap, so that a thread that
/// watches others can call them while the allocator is stuck. A message that does not get through at once is an error
/// (`WouldBlock` while the manager's queue is full), and nothing of it was sent.
#[derive(Debug)]
pub struct Notifier {
    manager: Option<(OwnedFd, SocketAddrUnix)>,
    watchdog_interval: Option<Duration>,
}

impl Notifier {
    /// To nobody.
    pub fn silent() -> Notifier {
        Notifier {
            manager: None,
            watchdog_interval: None,
        }
    }

    /// To the manager that this process's environment names; to nobody if it names none.
    ///
    /// # Errors
    /// A variable has a value that we cannot follow, which the error names, or the host is out of descriptors.
    pub fn from_environment() -> io::Result<Notifier> {
        Notifier::new(|name| std::env::var_os(name), std::process::id())
    }

    fn new(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> io::Result<Notifier> {
        let Some(name) = variable("NOTIFY_SOCKET") else {
            return Ok(Notifier::silent());
        };
        let address = match name.as_bytes() {
            [b'/', ..] => SocketAddrUnix::new(name.as_bytes()),
            [b'@', abstract_name @ ..] => SocketAddrUnix::new_abstract_name(abstract_name),
            _ => return Err(unusable("NOTIFY_SOCKET", &name, "a path that begins with / or @")),
        };
        let address = address.map_err(|_| unusable("NOTIFY_SOCKET", &name, "at most 107 bytes"))?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Notifier {
            manager: Some((socket, address)),
            watchdog_interval: watchdog_interval(variable, pid)?,
        })
    }

    /// How often [`Notifier::alive`] must be called, which is twice in the time after which the manager takes us for
    /// hung (sd_watchdog_enabled(3)); `None`: the manager does not ask for it.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog_interval
    }

    /// Tells that we serve from now on, and `status`, a line for `systemctl status`.
    ///
    /// # Errors
    /// It did not get through; a manager that waits for it goes on waiting.
    pub fn ready(&self, status: &str) -> io::Result<()> {
        self.send_with_status("READY=1", status)
    }

    /// Tells that we have begun to stop.
    ///
    /// # Errors
    /// The manager did not take the message; it sees the end when the process ends.
    pub fn stopping(&self) -> io::Result<()> {
        self.send_with_status("STOPPING=1", "stopping: delivering what was received")
    }

    /// Tells that we are alive. The caller vouches for every core thread.
    ///
    /// # Errors
    /// It did not get through; the next call may.
    pub fn alive(&self) -> io::Result<()> {
        self.send(b"WATCHDOG=1\n")
    }

    fn send_with_status(&self, what: &str, status: &str) -> io::Result<()> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let len = compose(&mut buffer, what, status);
        self.send(&buffer[..len])
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        let Some((socket, address)) = &self.manager else {
            return Ok(());
        };
        loop {
            // By address each time: a manager that was started anew has another socket at the same place.
            match sendto(socket, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, address) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Writes the message; returns its length.
fn compose(buffer: &mut [u8; MESSAGE_BYTES_MAX], what: &str, status: &str) -> usize {
    // A line end would begin another assignment.
    let line = status.split('\n').next().unwrap_or_default();
    let room = MESSAGE_BYTES_MAX - what.len() - "\nSTATUS=\n".len();
    let cut = &line[..line.floor_char_boundary(room)];
    let mut rest = &mut buffer[..];
    // It has room for all of it, as just computed.
    let _ = write!(rest, "{what}\nSTATUS={cut}\n");
    let left = rest.len();
    MESSAGE_BYTES_MAX - left
}

/// Half of `WATCHDOG_USEC`, if it is meant for process `pid`.
fn watchdog_interval(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> io::Result<Option<Duration>> {
    let number = |name: &str| match variable(name) {
        None => Ok(None),
        Some(value) => match value.to_str().and_then(|text| text.parse::<u64>().ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(unusable(name, &value, "a number")),
        },
    };
    let Some(microseconds) = number("WATCHDOG_USEC")? else {
        return Ok(None);
    };
    if number("WATCHDOG_PID")?.is_some_and(|meant| meant != u64::from(pid)) {
        return Ok(None);
    }
    match microseconds {
        // What systemd takes for "never".
        0 | u64::MAX => Ok(None),
        _ => Ok(Some(Duration::from_micros(microseconds) / 2)),
    }
}

fn unusable(name: &str, value: &OsString, wanted: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{name} is {value:?} instead of {wanted}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    fn notifier(variables: &[(&str, &str)]) -> io::Result<Notifier> {
        let value = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Notifier::new(value, 42)
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let len = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }

    #[test]
    fn messages_are_what_the_protocol_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).unwrap();
        notifier.ready("serving\nWATCHDOG=trigger").unwrap();
        assert_eq!(received(&manager), "READY=1\nSTATUS=serving\n");
        notifier.alive().unwrap();
        assert_eq!(received(&manager), "WATCHDOG=1\n");
        notifier.stopping().unwrap();
        assert!(received(&manager).starts_with("STOPPING=1\nSTATUS=stopping"));
        notifier.ready(&"é".repeat(MESSAGE_BYTES_MAX)).unwrap();
        let cut = received(&manager);
        assert!(cut.len() > MESSAGE_BYTES_MAX - 3 && cut.ends_with("é\n"), "{cut}");
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _manager = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).unwrap();
        // More than any host's net.unix.max_dgram_qlen would hold without being read.
        let refused = (0..100_000).find_map(|_| notifier.alive().err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn without_a_manager_nothing_is_sent_and_nothing_fails() {
        let notifier = notifier(&[("WATCHDOG_USEC", "1000")]).unwrap();
        assert_eq!(notifier.watchdog_interval(), None);
        notifier.ready("x").unwrap();
        notifier.stopping().unwrap();
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_if_it_means_us() {
        let interval = |variables: &[(&str, &str)]| {
            notifier(&[&[("NOTIFY_SOCKET", "@threadcast-test")], variables].concat())
                .map(|notifier| notifier.watchdog_interval())
        };
        let three = Some(Duration::from_secs(3));
        assert_eq!(interval(&[]).unwrap(), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "6000000")]).unwrap(), three);
        assert_eq!(
            interval(&[("WATCHDOG_USEC", "6000000"), ("WATCHDOG_PID", "42")]).unwrap(),
            three
        );
        assert_eq!(
            interval(&[("WATCHDOG_USEC", "6000000"), ("WATCHDOG_PID", "41")]).unwrap(),
            None
        );
        assert_eq!(interval(&[("WATCHDOG_USEC", "0")]).unwrap(), None);
        let error = interval(&[("WATCHDOG_USEC", "soon")]).unwrap_err();
        assert_eq!(error.to_string(), "WATCHDOG_USEC is \"soon\" instead of a number");
        for name in ["relative", "", "vsock:2:1234"] {
            let error = notifier(&[("NOTIFY_SOCKET", name)]).unwrap_err();
            assert!(error.to_string().starts_with("NOTIFY_SOCKET is "), "{error}");
        }
        assert!(notifier(&[("NOTIFY_SOCKET", &format!("/{}", "x".repeat(108)))]).is_err());
    }
}
