//! Standard error, written to without waiting for its reader; on a terminal with a status line at the bottom.
//!
//! The status line has no line end, so whatever comes next begins with [`ERASE`]. That is right also where only a part
//! of the status line, or of an erasing sequence, was taken: ESC begins a sequence anew.

use super::{LineSink, PATIENCE, PIPE_BUF, SinkLosses, patience, write_patiently};
use crate::process::clock::timespec;
use crate::process::tty::first_of;
use crate::process::words::{count, pick};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::net::{SendFlags, send};
use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Stderr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Goes to the beginning of the terminal's line and clears it (ECMA-48).
pub const ERASE: &str = "\r\u{1b}[K";
/// A line that begins so is the newest status line. No other line can: unsafe characters in it are escaped.
pub const STATUS_MARK: char = '\r';
/// The width of a terminal that does not say how wide it is.
const COLUMNS_USUAL: usize = 80;

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
        self.write_lines_within(lines, PATIENCE)
    }

    /// The same, but blocks for `most` at most: for lines that come in pieces.
    pub fn write_lines_within(&mut self, lines: &[u8], most: Duration) -> Written {
        self.write(lines, lines.len(), most)
    }

    /// Writes `bytes`, of which `lines_len` are whole lines. What is behind them may be cut: nothing ends it.
    fn write(&mut self, bytes: &[u8], lines_len: usize, most: Duration) -> Written {
        let begun = Instant::now();
        // A line is cut only if the reader is stuck, so these two do not wait twice.
        if self.is_cut {
            self.is_cut = self.try_write(b"\n", most) == 0;
        }
        let taken = if self.is_cut {
            0
        } else {
            self.try_write(bytes, most.saturating_sub(begun.elapsed()))
        };
        if taken > 0 {
            self.is_cut = taken < lines_len && !bytes[..taken].ends_with(b"\n");
        }
        self.is_stuck = taken < bytes.len();
        if taken < lines_len {
            Written::Cut
        } else {
            Written::Whole
        }
    }

    /// Returns how many of `bytes` were taken.
    fn try_write(&self, bytes: &[u8], most: Duration) -> usize {
        let try_write = |rest: &[u8]| self.way.try_write(&rest[..rest.len().min(PIPE_BUF)]);
        let (taken, _) = write_patiently(bytes, patience(self.is_stuck).min(most), try_write);
        taken
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.way {
            Way::Reopened(file) => file.as_fd(),
            Way::Socket(stderr) | Way::Given(stderr) => stderr.as_fd(),
        }
    }

    /// Returns whether no other job has the terminal. One that controls nobody, as in a test or a container, counts as
    /// ours.
    fn is_in_foreground(&self) -> bool {
        tcgetpgrp(self.fd()).map_or(true, |group| group == getpgrp())
    }

    /// How many columns the terminal has now.
    fn columns(&self) -> usize {
        match tcgetwinsize(self.fd()) {
            Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
            _ => COLUMNS_USUAL,
        }
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
    /// The newest status line stays at the bottom.
    is_live: bool,
    /// The newest status line, without an end; empty before the first.
    status: String,
    losses: Arc<SinkLosses>,
}

impl Terminal {
    /// The process's standard error. If it `is_live`, it keeps the newest status line at the bottom, and clears it when
    /// it is dropped.
    pub fn new(is_live: bool, losses: Arc<SinkLosses>) -> Terminal {
        Terminal {
            outlet: Outlet::stderr(),
            is_live,
            status: String::new(),
            losses,
        }
    }

    /// Writes `line` over the status line, and that below it. Without a line the status line takes the place of the one
    /// before. In one call, so that it is one write where the terminal takes it: other programs may write there too.
    /// While a shell has the terminal, it draws no status line: what a person types there stays.
    fn write_live(&mut self, line: &[u8]) -> Written {
        if !self.outlet.is_in_foreground() {
            return if line.is_empty() {
                Written::Whole
            } else {
                self.outlet.write(line, line.len(), PATIENCE)
            };
        }
        let status = fitted(&self.status, self.outlet.columns());
        let lines = if line.is_empty() { 0 } else { ERASE.len() + line.len() };
        let bytes = [ERASE.as_bytes(), line, status.as_bytes()].concat();
        self.outlet.write(&bytes, lines, PATIENCE)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if !self.status.is_empty() {
            self.status.clear();
            // What comes next, from us or from a shell, has the line for itself.
            let _ = self.write_live(b"");
        }
    }
}

impl LineSink for Terminal {
    /// Writes the line if it is taken within the patience; else it is lost, although its beginning may be there. A
    /// status line is not lost: the next one comes.
    fn write_line(&mut self, line: &[u8]) {
        let text = str::from_utf8(line).unwrap_or_default();
        let written = match text.strip_prefix(STATUS_MARK) {
            Some(status) if self.is_live => {
                status.trim_end().clone_into(&mut self.status);
                self.write_live(b"")
            }
            _ if self.is_live => self.write_live(line),
            _ => self.outlet.write_lines(line),
        };
        if written == Written::Cut {
            self.losses.lost_by(&self.losses.terminal);
            return;
        }
        // A status line that was taken says nothing of the reader: it may be cut.
        if self.outlet.is_stuck {
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

/// What of a status line fits into `columns`: its first and its last field, which says what is wrong, and between them
/// as many as there is room for. One column stays free: some terminals go on to the next line with the last one.
fn fitted(status: &str, columns: usize) -> String {
    const BETWEEN: &str = " | ";
    let room = columns.saturating_sub(1);
    let fields: Vec<&str> = status.split(BETWEEN).collect();
    let [first, middle @ .., last] = fields.as_slice() else {
        return beginning(status, room);
    };
    let mut left = room.saturating_sub(width(first) + BETWEEN.len() + width(last));
    let fit = middle.iter().take_while(|field| {
        let needed = width(field) + BETWEEN.len();
        let fits = needed <= left;
        left = left.saturating_sub(needed);
        fits
    });
    let shown: Vec<&str> = [*first].into_iter().chain(fit.copied()).chain([*last]).collect();
    beginning(&shown.join(BETWEEN), room)
}

/// The columns that `text` takes at most.
fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// The beginning of `text` that takes `room` columns at most.
fn beginning(text: &str, room: usize) -> String {
    first_of(text.chars(), room, columns_of)
}

/// The most columns that a terminal draws the character in. Two for all that is not ASCII: a line that is too short
/// does no harm.
fn columns_of(character: char) -> usize {
    if character.is_ascii() { 1 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(file: File, is_live: bool, losses: &Arc<SinkLosses>) -> Terminal {
        Terminal {
            outlet: Outlet::to(Way::Reopened(file)),
            is_live,
            status: String::new(),
            losses: Arc::clone(losses),
        }
    }

    /// What a pipe holds; an unprivileged user with many of them gets small ones.
    fn room_of_a_pipe() -> usize {
        let (_reader, writer) = io::pipe().unwrap();
        let own = reopen(writer.as_fd()).unwrap();
        let taken = std::iter::from_fn(|| rustix::io::write(&own, &[0; PIPE_BUF]).ok());
        taken.sum()
    }

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let (mut reader, writer) = io::pipe().unwrap();
        let own = reopen(writer.as_fd()).unwrap();
        drop(writer);
        let losses = Arc::new(SinkLosses::default());
        let mut terminal = on(own, false, &losses);
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

    #[test]
    fn the_status_line_stays_below_the_others_and_goes_at_the_end() {
        let (reader, writer) = io::pipe().unwrap();
        let losses = Arc::new(SinkLosses::default());
        let mut terminal = on(reopen(writer.as_fd()).unwrap(), true, &losses);
        drop(writer);
        terminal.write_line(b"one\n");
        terminal.write_line(b"\r#1\n");
        terminal.write_line(b"two\n");
        terminal.write_line(b"\r#2\n");
        drop(terminal);
        let parts = ["", "one\n", "#1", "two\n#1", "#2", ""];
        assert_eq!(io::read_to_string(reader).unwrap(), parts.join(ERASE));
        assert_eq!(losses.total(), 0);
    }

    #[test]
    fn a_status_line_that_was_cut_glues_to_no_line_and_is_not_lost() {
        let (mut reader, writer) = io::pipe().unwrap();
        let losses = Arc::new(SinkLosses::default());
        let mut terminal = on(reopen(writer.as_fd()).unwrap(), true, &losses);
        let full = room_of_a_pipe();
        drop(writer);
        // Whole pages, which leave no room for a byte.
        terminal.status = "s".repeat(60);
        let line = [vec![b'l'; full - ERASE.len() - 1], b"\n".to_vec()].concat();
        terminal.write_line(&line);
        assert!(
            terminal.outlet.is_stuck && !terminal.outlet.is_cut,
            "the status line has no room"
        );
        assert_eq!(losses.total(), 0);
        terminal.write_line(b"\r#2\n");
        assert_eq!(losses.total(), 0, "no status line is lost");
        terminal.write_line(b"lost\n");
        assert_eq!(losses.total(), 1);

        let mut taken = vec![0; full];
        io::Read::read_exact(&mut reader, &mut taken).unwrap();
        terminal.write_line(b"next\n");
        drop(terminal);
        let rest = io::read_to_string(reader).unwrap();
        assert_eq!(rest, format!("{ERASE}next\n#2{ERASE}"));
    }

    #[test]
    fn a_narrow_terminal_keeps_what_is_wrong() {
        let status = "12:00:00 heart #1 | connections=3 | tasks=12 | queue=0 | status=degraded: why";
        assert_eq!(fitted(status, 200), status);
        assert_eq!(
            fitted(status, 60),
            "12:00:00 heart #1 | connections=3 | status=degraded: why"
        );
        assert_eq!(fitted(status, 45), "12:00:00 heart #1 | status=degraded: why");
        assert_eq!(fitted(status, 31), "12:00:00 heart #1 | status=deg");
        assert_eq!(fitted("💓💓💓", 6), "💓💓");
        assert_eq!(fitted("x", 0), "");
    }
}
