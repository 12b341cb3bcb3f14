//! `threadcast tail`: shows events as they come, and stays with the server through its restarts.

use crate::commands::tail_lines::{Format, Lines, visible};
use crate::commands::{complain, end_signals};
use crate::process::clock::{pause, timespec};
use crate::process::exit::ExitStatus;
use crate::process::signals::EndSignals;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rustix::event::{PollFd, PollFlags, poll};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tungstenite::client::client_with_config;
use tungstenite::http::Uri;
use tungstenite::http::uri::InvalidUri;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, HandshakeError, Message, WebSocket};
use wildmatch::WildMatch;

/// Time for a connection, and for its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon a signal, the end of `--duration` and of our reader are noticed.
const LOOK: Duration = Duration::from_millis(250);
/// How long after a signal we may take to end well. A reader that has stopped reading holds us in a system call that
/// nothing else ends.
const GRACE: Duration = Duration::from_secs(1);
/// A thread that only waits must have a bound too.
const SIGNAL_LOOK: Duration = Duration::from_secs(60);
/// The server pings every 10 s by default; after several of them it is as good as gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The first delay before connecting again, and the longest.
const DELAY_FIRST: Duration = Duration::from_millis(500);
const DELAY_MAX: Duration = Duration::from_secs(30);

/// The command's arguments.
#[derive(Debug)]
pub struct Tail {
    pub url: StreamUrl,
    pub machine: Option<String>,
    pub kind: Option<String>,
    pub format: Format,
    pub count: Option<u64>,
    pub duration: Option<Duration>,
}

/// Where a server's stream is.
#[derive(Clone, Debug)]
pub struct StreamUrl {
    uri: Uri,
    /// A name or an address, without brackets.
    host: String,
    port: u16,
}

impl FromStr for StreamUrl {
    type Err = String;

    /// Fails with what would be right.
    fn from_str(text: &str) -> Result<StreamUrl, String> {
        let wanted = || "write ws://HOST:PORT/ws/events".to_owned();
        let uri: Uri = text.parse().map_err(|_: InvalidUri| wanted())?;
        let host = uri.host().map(|host| host.trim_matches(['[', ']']).to_owned());
        // A port out of range reads as none; it must not become the default one.
        let after_host = uri.authority().map_or("", |authority| authority.as_str());
        let after_host = after_host.rsplit([']', '@']).next().unwrap_or_default();
        let bad_port = after_host.contains(':') && uri.port_u16().is_none();
        match (uri.scheme_str(), host) {
            (Some("ws"), Some(host)) if !host.is_empty() && !bad_port => Ok(StreamUrl {
                host,
                port: uri.port_u16().unwrap_or(80),
                uri,
            }),
            _ => Err(wanted()),
        }
    }
}

impl fmt::Display for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uri)
    }
}

/// Why the showing of events came to an end.
#[derive(Debug)]
enum Halt {
    /// Asked to: a signal, `--count`, `--duration`, or the reader of our output is gone.
    Done,
    /// It makes no sense to try again.
    Hopeless(String),
    /// The connection is lost or could not be had.
    Lost(String),
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Halt::Done => f.write_str("done"),
            Halt::Hopeless(why) | Halt::Lost(why) => f.write_str(why),
        }
    }
}

/// The command.
pub fn run(tail: &Tail) -> ExitStatus {
    // The offset of local time can only be asked for while there is one thread.
    let lines = Lines::new(tail.format);
    let signals = end_signals();
    // Not joined: it ends with the process.
    let _last_resort = signals.clone().map(end_after_grace);
    let mut session = Session {
        tail,
        lines,
        machine: tail.machine.as_deref().map(WildMatch::new),
        kind: tail.kind.as_deref().map(WildMatch::new),
        shown: 0,
        end: tail.duration.map(|duration| Instant::now() + duration),
        signals,
        connected: false,
        lookup: None,
    };
    let halt = session.run();
    match halt {
        Halt::Done => ExitStatus::Fine,
        halt => {
            complain(&format!("threadcast: {halt}\n"));
            ExitStatus::Failed
        }
    }
}

/// Ends the process if it has not ended by itself [`GRACE`] after a signal.
fn end_after_grace(signals: Arc<EndSignals>) -> io::Result<ThreadHandle<()>> {
    threads::spawn("signals", CORE_STACK_BYTES, None, move || {
        while !signals.wait(SIGNAL_LOOK) {}
        pause(GRACE);
        std::process::exit(ExitStatus::Fine as i32);
    })
}

struct Session<'a> {
    tail: &'a Tail,
    lines: Lines,
    machine: Option<WildMatch>,
    kind: Option<WildMatch>,
    shown: u64,
    end: Option<Instant>,
    signals: Option<Arc<EndSignals>>,
    /// Whether there was a connection since the last delay.
    connected: bool,
    /// The look-up that is still under way.
    lookup: Option<Receiver<Lookup>>,
}

/// The answer to a name.
type Lookup = io::Result<Vec<SocketAddr>>;

impl Session<'_> {
    fn run(&mut self) -> Halt {
        let mut delay = DELAY_FIRST;
        loop {
            let halt = match self.connect() {
                Ok(mut socket) => self.show(&mut socket),
                Err(halt) => halt,
            };
            let Halt::Lost(why) = halt else {
                return halt;
            };
            if self.is_over() {
                return Halt::Done;
            }
            if std::mem::take(&mut self.connected) {
                delay = DELAY_FIRST;
            }
            // Between half and the whole, so that many of us do not come back at the same moment.
            let wait = delay.mul_f64(0.5 + 0.5 * fastrand::f64());
            complain(&format!(
                "threadcast: {why}; connecting again in {:.1} s\n",
                wait.as_secs_f64()
            ));
            if self.rest(wait) {
                return Halt::Done;
            }
            delay = (delay * 2).min(DELAY_MAX);
        }
    }

    /// Whether it is time to end.
    fn is_over(&self) -> bool {
        self.signals.as_ref().is_some_and(|signals| signals.requested())
            || self.end.is_some_and(|end| Instant::now() >= end)
            || reader_is_gone()
    }

    /// Waits for `duration`; whether it is time to end.
    fn rest(&self, duration: Duration) -> bool {
        let until = Instant::now() + duration;
        while !self.is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            pause(left.min(LOOK));
        }
        true
    }

    /// The addresses of the server's host. Blocks until they are known or it is time to end, at most until `deadline`.
    ///
    /// Nothing ends a look-up that hangs, so another thread does it. One is under way at a time: if it takes longer, the
    /// next call waits for its answer too.
    fn resolve(&mut self, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
        let url = &self.tail.url;
        if let Ok(address) = url.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, url.port)]);
        }
        let answer = match self.lookup.take() {
            Some(answer) => answer,
            None => look_up(url.host.clone(), url.port)?,
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match answer.recv_timeout(left.min(LOOK)) {
                Ok(addresses) => return addresses,
                Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the look-up of the name failed")),
                Err(RecvTimeoutError::Timeout) if left.is_zero() || self.is_over() => {
                    self.lookup = Some(answer);
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the look-up of the name takes too long",
                    ));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn connect(&mut self) -> Result<WebSocket<Looking>, Halt> {
        let url = &self.tail.url;
        let lost = |why: &dyn fmt::Display| Halt::Lost(format!("cannot connect to {url}: {why}"));
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let deadline = self.end.map_or(deadline, |end| end.min(deadline));
        let addresses = self.resolve(deadline).map_err(|error| lost(&error))?;
        let stream = open(&addresses, deadline).map_err(|error| lost(&error))?;
        let config = WebSocketConfig::default().read_buffer_size(64 * 1024);
        let mut shaken = client_with_config(url.uri.clone(), Looking(stream), Some(config));
        loop {
            match shaken {
                Ok((socket, _)) => return Ok(socket),
                // The socket's timeout, after each look.
                Err(HandshakeError::Interrupted(half)) => {
                    if self.is_over() || Instant::now() >= deadline {
                        return Err(lost(&"nothing answers there"));
                    }
                    shaken = half.handshake();
                }
                Err(HandshakeError::Failure(Error::Http(answer))) => {
                    let body = answer.body().as_deref().unwrap_or_default();
                    let why = format!("the server answers {}: {}", answer.status(), reason(body));
                    // What a server says of itself may pass; what it says of our request does not.
                    return match answer.status().is_server_error() {
                        true => Err(lost(&why)),
                        false => Err(Halt::Hopeless(format!("cannot use {url}: {why}"))),
                    };
                }
                Err(HandshakeError::Failure(error)) => return Err(lost(&error)),
            }
        }
    }

    fn show(&mut self, socket: &mut WebSocket<Looking>) -> Halt {
        self.connected = true;
        let mut heard = Instant::now();
        loop {
            if self.is_over() || self.is_full() {
                let _ = socket.close(None).and_then(|()| socket.flush());
                return Halt::Done;
            }
            match socket.read() {
                Ok(Message::Close(frame)) => {
                    let why = frame.map_or(String::new(), |frame| {
                        format!(" ({} {})", u16::from(frame.code), visible(&frame.reason))
                    });
                    return Halt::Lost(format!("the server has ended the connection{why}"));
                }
                Ok(message) => {
                    heard = Instant::now();
                    if let Message::Text(text) = message
                        && let Err(error) = self.take(&text)
                    {
                        return match error.kind() {
                            io::ErrorKind::BrokenPipe => Halt::Done,
                            _ => Halt::Hopeless(format!("cannot write the events: {error}")),
                        };
                    }
                }
                Err(Error::Io(error)) if is_timeout(&error) => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Halt::Lost(format!("nothing came from the server for {SILENCE_MAX:?}"));
                    }
                }
                Err(error) => return Halt::Lost(format!("the connection is lost: {error}")),
            }
        }
    }

    fn is_full(&self) -> bool {
        self.tail.count.is_some_and(|count| self.shown >= count)
    }

    /// Shows one message, if it is an event that is wanted.
    fn take(&mut self, text: &str) -> io::Result<()> {
        let Ok(event) = crate::pipeline::event::check(text.as_bytes()) else {
            // `initial` and `ping`, which no event can be.
            if let Some(note) = self.lines.connected(&self.tail.url.to_string(), text) {
                complain(&note);
            }
            return Ok(());
        };
        let wanted = |pattern: &Option<WildMatch>, value: Option<&str>| {
            pattern
                .as_ref()
                .is_none_or(|pattern| value.is_some_and(|value| pattern.matches(value)))
        };
        if !wanted(&self.machine, event.machine.as_deref()) || !wanted(&self.kind, event.kind.as_deref()) {
            return Ok(());
        }
        self.shown += 1;
        let mut out = io::stdout().lock();
        out.write_all(self.lines.line(&event, text).as_bytes())?;
        out.flush()
    }
}

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut)
}

/// A connection whose look ends early when a signal comes: then it is asked whether it is time to end, and nothing is lost.
struct Looking(TcpStream);

impl Read for Looking {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes).map_err(early)
    }
}

impl Write for Looking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(early)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(early)
    }
}

/// What is interrupted is no failure.
fn early(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::Interrupted => io::ErrorKind::WouldBlock.into(),
        _ => error,
    }
}

/// The reason in the body of a refusal.
fn reason(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let detail = serde_json::from_str::<serde_json::Value>(&text).ok();
    let detail = detail.and_then(|body| Some(body.get("detail")?.as_str()?.to_owned()));
    visible(detail.as_deref().unwrap_or(text.trim()))
}

/// Whether nobody can read our standard output any more. A write would tell too, but only with the next event.
fn reader_is_gone() -> bool {
    let out = io::stdout();
    let mut fds = [PollFd::from_borrowed_fd(out.as_fd(), PollFlags::empty())];
    let looked = poll(&mut fds, Some(&timespec(Duration::ZERO)));
    looked.is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Starts thread `lookup`; its answer comes through the queue, which holds one.
fn look_up(host: String, port: u16) -> io::Result<Receiver<Lookup>> {
    let (answer, answers) = bounded(1);
    // Not joined: nothing ends it before the system answers, and it holds nothing that matters.
    threads::spawn("lookup", CORE_STACK_BYTES, None, move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Nobody may wait for it any more.
        let _ = answer.try_send(addresses);
    })?;
    Ok(answers)
}

fn open(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero is not a timeout.
        match TcpStream::connect_timeout(address, left.max(Duration::from_millis(1))) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LOOK))?;
                stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
