//! Standard error, written to without waiting for its reader.

use super::{LineSink, PIPE_BUF, SinkLosses, patience, write_patiently};
use crate::process::clock::timespec;
use crate::process::words::{count, pick};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::net::{SendFlags, send};
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Stderr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Writes lines to standard error without waiting for its reader for longer than 50 ms.
#[derive(Debug)]
pub struct Outlet {
    way: Way,
    /// The reader did not take all of what came last: what comes next is tried without patience.
    is_stuck: bool,
    /// What the reader took last was the beginning of a line.
    is_cut: bool,
}

/// What became of lines at an [`Outlet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The reader took all of them.
    Whole,
    /// There was no room for all of them in time. Their beginning may be there.
    Cut,
}

#[derive(Debug)]
enum Way {
    /// A terminal or a pipe, opened anew without blocking. O_NONBLOCK on the description that we were given would hold
    /// for everybody who shares it, first of all the shell.
    Reopened(File),
    /// A socket (that of systemd's journal) cannot be opened anew, but each send can say that it will not wait.
    Socket(Stderr),
    /// A file or /dev/null, which nobody reads at the other end; also a terminal or a pipe of another user (after
    /// `su`), which we may not open. It is asked for room first. With room for a byte a terminal polls writable and
    /// then holds us until all is taken, so this is the one way left on which it can do that.
    Given(Stderr),
}

impl Outlet {
    /// The process's standard error.
    pub fn stderr() -> Outlet {
        Outlet::to(Way::of(io::stderr()))
    }

    fn to(way: Way) -> Outlet {
        Outlet {
            way,
            is_stuck: false,
            is_cut: false,
        }
    }

    /// Writes `lines`, each with its end, on a line of their own: first ends a line that was cut. Blocks for 50 ms at
    /// most, and not at all while the reader is stuck; where standard error is a file, as long as its disk does. Takes
    /// no lock, not even that of the standard library, and no memory.
    pub fn write_lines(&mut self, lines: &[u8]) -> Written {
        // A line is cut only if the reader is stuck, so these two do not wait twice.
        if self.is_cut {
            self.is_cut = self.write(b"\n") == 0;
        }
        let taken = if self.is_cut { 0 } else { self.write(lines) };
        if taken > 0 {
            self.is_cut = !lines[..taken].ends_with(b"\n");
        }
        self.is_stuck = taken < lines.len();
        if self.is_stuck { Written::Cut } else { Written::Whole }
    }

    /// Returns how many of `bytes` were taken.
    fn write(&self, bytes: &[u8]) -> usize {
        let try_write = |rest: &[u8]| self.way.try_write(&rest[..rest.len().min(PIPE_BUF)]);
        let (taken, _) = write_patiently(bytes, patience(self.is_stuck), try_write);
        taken
    }
}

impl Way {
    fn of(stderr: Stderr) -> Way {
        let file_type = fstat(&stderr).map(|stat| FileType::from_raw_mode(stat.st_mode));
        match file_type {
            Ok(FileType::Socket) => Way::Socket(stderr),
            // Never a file: its new description would begin at its beginning.
            Ok(FileType::Fifo) => reopen(stderr.as_fd()).map_or(Way::Given(stderr), Way::Reopened),
            _ if stderr.is_terminal() => reopen(stderr.as_fd()).map_or(Way::Given(stderr), Way::Reopened),
            _ => Way::Given(stderr),
        }
    }

    /// Writes as much of `piece`, at most [`PIPE_BUF`] bytes, as there is room for; `WouldBlock` when there is none.
    fn try_write(&self, piece: &[u8]) -> io::Result<usize> {
        match self {
            Way::Reopened(file) => Ok(rustix::io::write(file, piece)?),
            Way::Socket(stderr) => Ok(send(stderr, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?),
            Way::Given(stderr) => {
                let mut fds = [PollFd::new(stderr, PollFlags::OUT)];
                match poll(&mut fds, Some(&timespec(Duration::ZERO)))? {
                    0 => Err(ErrorKind::WouldBlock.into()),
                    _ => Ok(rustix::io::write(stderr, piece)?),
                }
            }
        }
    }
}

/// A description of our own for what `fd` is open on, which never makes a write wait.
fn reopen(fd: BorrowedFd<'_>) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let own = rustix::fs::open(format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, Mode::empty())?;
    Ok(File::from(own))
}

/// Standard error, which may be a pipe that nobody reads or a terminal that somebody has stopped.
#[derive(Debug)]
pub struct Terminal {
    outlet: Outlet,
    losses: Arc<SinkLosses>,
}

impl Terminal {
    /// The process's standard error.
    pub fn new(losses: Arc<SinkLosses>) -> Terminal {
        let outlet = Outlet::stderr();
        Terminal { outlet, losses }
    }
}

impl LineSink for Terminal {
    /// Writes the line if it is taken within the patience; else it is lost, although its beginning may be there.
    fn write_line(&mut self, line: &[u8]) {
        if self.outlet.write_lines(line) == Written::Cut {
            self.losses.lost_by(&self.losses.terminal);
            return;
        }
        let lost = self.losses.terminal.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.losses.say(format!(
                "⚠️ the terminal did not take {}; {} in the log file only",
                count(lost, "log line"),
                pick(lost, "it is", "they are")
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let (mut reader, writer) = io::pipe().unwrap();
        let own = reopen(writer.as_fd()).unwrap();
        drop(writer);
        let losses = Arc::new(SinkLosses::default());
        let mut terminal = Terminal {
            outlet: Outlet::to(Way::Reopened(own)),
            losses: Arc::clone(&losses),
        };
        // No pipe has room for all of it (pipe(7)), and every one for its beginning.
        terminal.write_line(&[vec![b'c'; 2 * 1024 * 1024], b"ut\n".to_vec()].concat());
        terminal.write_line(b"lost\n");
        assert_eq!(losses.total(), 2);

        let mut taken = vec![0; 2 * 1024 * 1024];
        let count = io::Read::read(&mut reader, &mut taken).unwrap();
        assert!(taken[..count].iter().all(|byte| *byte == b'c'));
        terminal.write_line(b"next\n");
        terminal.write_line(b"last\n");
        assert_eq!(losses.total(), 2);
        assert!(losses.take_messages()[0].contains("did not take 2 log lines"));
        drop(terminal);
        assert_eq!(io::read_to_string(reader).unwrap(), "\nnext\nlast\n");
    }
}
