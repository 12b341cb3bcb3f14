//! Finds out once whether something answers, or whether a service has shown that it is ready. Everything here may block
//! on disks and on others' answers, so a thread of its own runs it; its bound is the timeout, but for a disk that does
//! not answer.

use crate::process::address::{Authority, ServerAddress};
use crate::process::visible::visible;
use crate::supervise::children::{Children, Purpose};
use crate::supervise::errand::{self, Errand};
use crate::supervise::settings::plan::{Probe, ReadySign};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest answer that is read: a greeting, or the head of an HTTP response.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// What is read of a log at a time.
const LOG_BYTES: usize = 64 * 1024;
/// Characters of an answer that a message shows.
const SHOWN_CHARS: usize = 60;

/// Where a probe runs.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub cwd: PathBuf,
    pub environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
}

/// What is known of a service that is to show that it is ready.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub log: PathBuf,
    /// Bytes that its log had then.
    pub log_bytes: u64,
    /// What the file that shows its readiness was before.
    pub file_before: Option<FileState>,
    /// Of a service that was taken over, when it was started, in seconds since the epoch: nobody knows what the file
    /// was before that.
    pub adopted: Option<f64>,
}

/// The start of a process is known to a hundredth of a second, and the time of a file's change to a few milliseconds.
const TIMES_DIFFER: f64 = 0.1;

/// Looks whether a service has shown that it is ready. Blocks for `timeout` at most, and on disks.
///
/// # Errors
/// It has not; the text says what was seen instead.
pub(super) fn is_ready(
    sign: &ReadySign,
    begun: &Begun,
    place: &Place,
    children: &Children,
    timeout: Duration,
) -> Result<(), String> {
    match sign {
        ReadySign::File(path) => file_is_new(path, begun),
        ReadySign::Log(text) => log_has(begun, text),
        ReadySign::Probe(probe) => answers(probe, place, children, timeout),
    }
}

/// Looks whether something answers as it should. Blocks for `timeout` at most; a name server may take longer.
///
/// # Errors
/// It does not; the text says what was seen instead.
pub(super) fn answers(probe: &Probe, place: &Place, children: &Children, timeout: Duration) -> Result<(), String> {
    match probe {
        Probe::Tcp { address, send, expect } => {
            let name = address.to_string();
            let addresses = resolved(address.host(), address.port())?;
            tcp(&addresses, &name, send.as_deref(), expect.as_deref(), timeout)
        }
        Probe::Http { address, status } => http(address, status, timeout),
        Probe::Command(command) => {
            let errand = Errand {
                command: &command.words,
                cwd: &place.cwd,
                environment: &place.environment,
                timeout,
            };
            let done = children.start(Purpose::Errand, || errand::begin(&errand))?;
            errand::finish(done, children).map(|_| ())
        }
    }
}

/// By what a file differs once it is written: inode, bytes, seconds and nanoseconds of its change (inode(7)). Its time
/// alone would not do, because the kernel notes it some milliseconds late.
pub(super) type FileState = (u64, u64, i64, i64);

/// What a file is now; `None` where there is none. Blocks on its disk.
pub(super) fn state_of(path: &Path) -> Option<FileState> {
    let facts = std::fs::metadata(path).ok()?;
    Some((facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec()))
}

fn file_is_new(path: &Path, begun: &Begun) -> Result<(), String> {
    let shown = visible(&path.display().to_string());
    let Some(now) = state_of(path) else {
        return Err(format!("{shown} is not there"));
    };
    let written = now.2 as f64 + now.3 as f64 / 1e9;
    let is_older = begun.adopted.is_some_and(|started| written + TIMES_DIFFER < started);
    if is_older || begun.file_before == Some(now) {
        return Err(format!("{shown} was not written since the start"));
    }
    Ok(())
}

/// Looks for `text` in what the log has got since the start. A log that was rotated meanwhile is read whole.
fn log_has(begun: &Begun, text: &str) -> Result<(), String> {
    let missing = || format!("its log has no {:?} since the start", visible(text));
    let open = || {
        let mut log = File::open(&begun.log)?;
        if log.metadata()?.len() >= begun.log_bytes {
            log.seek(SeekFrom::Start(begun.log_bytes))?;
        }
        Ok::<File, std::io::Error>(log)
    };
    let mut log = open().map_err(|error| format!("its log cannot be read: {error}"))?;
    let wanted = text.as_bytes();
    let mut window: Vec<u8> = Vec::new();
    loop {
        let before = window.len();
        window.resize(before + LOG_BYTES, 0);
        let more = log.read(&mut window[before..]).map_err(|error| error.to_string())?;
        window.truncate(before + more);
        if more == 0 {
            return Err(missing());
        }
        if wanted.is_empty() || window.windows(wanted.len()).any(|part| part == wanted) {
            return Ok(());
        }
        // What may be the beginning of it.
        window.drain(..window.len().saturating_sub(wanted.len() - 1));
    }
}

fn resolved(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let addresses = (host, port).to_socket_addrs();
    let addresses = addresses.map_err(|error| format!("{host} is no address: {error}"))?;
    Ok(addresses.collect())
}

/// Connects to the first of these addresses that lets us.
fn connected(addresses: &[SocketAddr], name: &str, deadline: Instant) -> Result<TcpStream, String> {
    let mut why = format!("{name} has no address");
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => why = format!("{name}: {error}"),
        }
    }
    Err(why)
}

fn tcp(
    addresses: &[SocketAddr],
    name: &str,
    send: Option<&str>,
    expect: Option<&str>,
    timeout: Duration,
) -> Result<(), String> {
    let deadline = Instant::now() + timeout;
    let mut stream = connected(addresses, name, deadline)?;
    if let Some(text) = send {
        write(&mut stream, text.as_bytes(), deadline).map_err(|why| format!("{name}: {why}"))?;
    }
    let Some(expected) = expect else {
        return Ok(());
    };
    let mut answer = Vec::new();
    let read = read_until(&mut stream, &mut answer, deadline, |answer| {
        has(answer, expected.as_bytes())
    });
    match read {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!(
            "{name} answered {} instead of {expected:?}",
            beginning(&answer)
        )),
        Err(why) => Err(format!("{name}: {why}")),
    }
}

fn http(address: &ServerAddress, status: &[u16], timeout: Duration) -> Result<(), String> {
    let is_whole = |answer: &[u8]| answer.contains(&b'\n');
    let (name, answer) = request(&address.authority, &address.path, timeout, is_whole)?;
    match status_of(&answer) {
        Some(code) if status.contains(&code) || status.is_empty() && (200..300).contains(&code) => Ok(()),
        Some(code) => Err(format!("{name} answered with status {code}")),
        None => Err(format!("{name} answered {}, which is no HTTP", beginning(&answer))),
    }
}

/// Gets what a server of ours has at a path, up to 64 KiB. Blocks for `timeout` at most; a name server may take longer.
///
/// # Errors
/// There is no answer, or not with status 200; the text says what was seen instead.
pub(super) fn get(authority: &Authority, path: &str, timeout: Duration) -> Result<Vec<u8>, String> {
    let (name, mut answer) = request(authority, path, timeout, |_| false)?;
    match status_of(&answer) {
        Some(200) => {}
        Some(code) => return Err(format!("{name} answered with status {code}")),
        None => return Err(format!("{name} answered {}, which is no HTTP", beginning(&answer))),
    }
    let head = answer.windows(4).position(|part| part == b"\r\n\r\n");
    Ok(answer.split_off(head.map_or(0, |head| head + 4)))
}

/// Sends a GET and reads the answer, until `is_enough` or its end. Returns it with the name of what was asked.
fn request(
    authority: &Authority,
    path: &str,
    timeout: Duration,
    is_enough: fn(&[u8]) -> bool,
) -> Result<(String, Vec<u8>), String> {
    let deadline = Instant::now() + timeout;
    let name = format!("http://{authority}{path}");
    let addresses = resolved(authority.host(), authority.port())?;
    let mut stream = connected(&addresses, &name, deadline)?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: threadcast\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        if path.is_empty() { "/" } else { path },
        authority.for_header()
    );
    write(&mut stream, request.as_bytes(), deadline).map_err(|why| format!("{name}: {why}"))?;
    let mut answer = Vec::new();
    read_until(&mut stream, &mut answer, deadline, is_enough).map_err(|why| format!("{name}: {why}"))?;
    Ok((name, answer))
}

/// The status of an answer; `None`: it is no HTTP.
fn status_of(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
}

fn write(stream: &mut TcpStream, bytes: &[u8], deadline: Instant) -> Result<(), String> {
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1));
    let written = stream
        .set_write_timeout(Some(left))
        .and_then(|()| stream.write_all(bytes));
    written.map_err(|error| error.to_string())
}

/// Reads until `is_enough`. Returns whether it is: the other side may end before.
fn read_until(
    stream: &mut TcpStream,
    answer: &mut Vec<u8>,
    deadline: Instant,
    is_enough: impl Fn(&[u8]) -> bool,
) -> Result<bool, String> {
    let mut part = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("no answer in time".to_owned());
        }
        let read = stream
            .set_read_timeout(Some(left))
            .and_then(|()| stream.read(&mut part));
        match read {
            Ok(0) => return Ok(false),
            Ok(more) => answer.extend_from_slice(&part[..more]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err("no answer in time".to_owned());
            }
            Err(error) => return Err(error.to_string()),
        }
        if is_enough(answer) {
            return Ok(true);
        }
        if answer.len() >= ANSWER_BYTES_MAX {
            return Ok(false);
        }
    }
}

fn has(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

/// The beginning of an answer, as a message shows it.
fn beginning(answer: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(answer).chars().take(SHOWN_CHARS).collect();
    format!("{:?}", visible(text.trim_end()))
}
