//! The log: lines are made on the caller's thread and written on thread `log`.
//!
//! Runs on: `log`, one.
//! Owns: simplelog with its two sinks (terminal and file).
//! Blocks on: a line or its end (250 ms), the terminal (50 ms a line, once it has been slow: not at all), the disk.
//! Can be stalled by: the disk that the log file is on; a terminal of another user, which it may not open (`Outlet`).
//! Full queue means: the line is dropped and counted; the next line that gets through says how many (`lines_lost`).
//! Ends when: asked to; what is in the queue then is still written.
//! Watched as: `log`; not a core thread, a stall makes health `degraded`.
//!
//! Lines that outsiders can cause must not fill a disk, so every place in the code may write only so many lines per
//! window at info and above; what is left out is counted and said once per window.

use crate::process::clock;
use crate::process::files::Phase;
use crate::process::log_sinks::{RotatingFile, SinkLosses, Terminal};
use crate::process::visible::judged;
use crate::process::words::{count, pick};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::{CombinedLogger, ConfigBuilder, SharedLogger, WriteLogger};
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, TryLockError};
use std::time::Duration;
use time::OffsetDateTime;

/// Lines that wait for the disk. At about 200 bytes each this is under 1 MiB, but outsiders can make them longer.
const LINES_QUEUE_LEN_MAX: usize = 4096;
/// What these lines may take together. Full policy as for their number.
const LINES_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest line; machine names and messages come from outside.
const LINE_BYTES_MAX: usize = 4096;
/// How long thread `log` waits for a line before it looks at its other duties.
const TURN: Duration = Duration::from_millis(250);
/// Lines that one place in the code may write per window.
const SITE_LINES_MAX: u32 = 20;
/// Length of such a window.
const SITE_WINDOW_MS: u64 = 10_000;
/// What [`LogControl::leave`] holds for the file. Untouched memory costs nothing, and it is touched in a hang only.
const LEFT_BYTES_MAX: usize = 512 * 1024;
/// The target of lines that are on the terminal already.
const FILE_ONLY: &str = "file-only";

/// Target of lines whose pace is our own clock's, which no outsider can quicken: they are not limited.
pub const SELF_PACED: &str = "self-paced";

/// A line on its way to the sinks.
#[derive(Debug)]
struct Line {
    level: Level,
    text: String,
}

/// A place in the code that logs, and one of the levels that it logs at: few important lines of a place must not go
/// under in its many others.
type SiteKey = (&'static str, u32, Level);

/// What one place in the code has written at one level in the current window.
#[derive(Debug)]
struct Site {
    window_start_ms: u64,
    lines: u32,
    left_out: u64,
    example: String,
}

/// The logger that the `log` macros reach.
#[derive(Debug)]
struct Front {
    tx: Sender<Line>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The least grave level that is written, a [`LevelFilter`] as a number; changes with [`LogControl::set_level`].
    level: AtomicUsize,
    /// Memory of the lines in the queue, and of those that are tried right now.
    queued_bytes: AtomicUsize,
    /// Lines that found the queue full since the last one that says so.
    queue_full: AtomicU64,
    /// All lines lost so far, whatever the cause.
    lost_total: AtomicU64,
    /// Bounded by the program's text: keys are compiled in, one for each logging macro and level. Nobody waits for this
    /// lock: who finds it taken writes without a limit.
    sites: Mutex<HashMap<SiteKey, Site>>,
    /// Finished lines for the file, and whether there are any. Nobody waits for this lock either.
    left: Mutex<Vec<u8>>,
    has_left: AtomicBool,
}

/// The running log's, for [`with_lock_held`].
static RUNNING: OnceLock<Arc<Shared>> = OnceLock::new();

/// Runs `body` with the log's only lock in its hand, as a thread that hangs in the middle of a line would. For drills: it
/// shows that nobody else waits for that lock.
pub fn with_lock_held(body: impl FnOnce()) {
    let _held = RUNNING
        .get()
        .map(|shared| shared.sites.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    body();
}

impl Front {
    /// Whether the place that made `record` may write another line now.
    fn admits(&self, record: &Record<'_>) -> bool {
        let (Some(file), Some(line)) = (record.file_static(), record.line()) else {
            return true;
        };
        if record.level() > Level::Info || record.target() == SELF_PACED {
            return true;
        }
        let now = clock::monotonic_ms();
        let mut sites = match self.shared.sites.try_lock() {
            Ok(sites) => sites,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return true,
        };
        let site = sites.entry((file, line, record.level())).or_insert_with(|| Site {
            window_start_ms: now,
            lines: 0,
            left_out: 0,
            example: String::new(),
        });
        // A window with lines left out is ended by thread `log`, which says so.
        if site.left_out == 0 && now.saturating_sub(site.window_start_ms) >= SITE_WINDOW_MS {
            site.window_start_ms = now;
            site.lines = 0;
        }
        site.lines = site.lines.saturating_add(1);
        if site.lines <= SITE_LINES_MAX {
            return true;
        }
        if site.left_out == 0 {
            site.example = format!("{}", record.args()).chars().take(60).collect();
        }
        site.left_out += 1;
        false
    }
}

impl Front {
    /// Leaves the line for thread `log`, if there is room. Never blocks.
    fn enqueue(&self, line: Line) -> bool {
        let bytes = line.text.capacity();
        // Relaxed: nothing but this sum depends on it. Counted before it is in, so that it cannot be counted out first.
        let before = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let full =
            before + bytes > LINES_QUEUE_BYTES_MAX || matches!(self.tx.try_send(line), Err(TrySendError::Full(_)));
        if full {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        !full
    }
}

impl Log for Front {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Relaxed: a line more or less at the moment of a change.
        metadata.level() as usize <= self.shared.level.load(Ordering::Relaxed)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || !self.admits(record) {
            return;
        }
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let text = compose(record.level(), name, record.args(), OffsetDateTime::now_utc());
        let line = Line {
            level: record.level(),
            text,
        };
        if !self.enqueue(line) {
            // Relaxed: a count, read for a message only.
            self.shared.queue_full.fetch_add(1, Ordering::Relaxed);
            self.shared.lost_total.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// One line without its end: UTC time, level, thread, message with every unsafe character made visible.
pub fn compose(level: Level, thread: &str, args: &fmt::Arguments<'_>, at: OffsetDateTime) -> String {
    let mut text = format!("{} {level:<5} [{thread}] ", clock::rfc3339_of(at));
    let message = args.to_string();
    for (character, is_treacherous) in judged(&message) {
        if text.len() >= LINE_BYTES_MAX {
            let _ = write!(text, "… (cut, {} in all)", count(message.len(), "byte"));
            break;
        }
        if is_treacherous {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// The running log; made once per process by [`start`].
pub struct LogThread {
    rx: Receiver<Line>,
    shared: Arc<Shared>,
    losses: Arc<SinkLosses>,
    sinks: Box<CombinedLogger>,
    stop_rx: Receiver<()>,
    turn: Duration,
    /// The other half of what [`LogControl::leave`] fills.
    left: Vec<u8>,
}

/// Asks thread `log` to write what is left and end; also counts what was lost.
#[derive(Clone, Debug)]
pub struct LogControl {
    stop_tx: Sender<()>,
    shared: Arc<Shared>,
    losses: Arc<SinkLosses>,
}

impl LogControl {
    /// Writes lines as grave as `level` or graver from now on.
    pub fn set_level(&self, level: LevelFilter) {
        self.shared.level.store(level as usize, Ordering::Relaxed);
        log::set_max_level(level);
    }

    /// Whether a line of this level is written.
    pub fn writes(&self, level: Level) -> bool {
        level as usize <= self.shared.level.load(Ordering::Relaxed)
    }

    /// Makes thread `log` write what waits, then end. Never blocks.
    pub fn stop(&self) {
        let _ = self.stop_tx.try_send(());
    }

    /// Whether lines wait for thread `log`.
    pub fn has_waiting(&self) -> bool {
        self.shared.queued_bytes.load(Ordering::Relaxed) > 0
    }

    /// Whether thread `log` has still to take what [`LogControl::leave`] got.
    pub fn has_left(&self) -> bool {
        self.shared.has_left.load(Ordering::Relaxed)
    }

    /// Leaves finished lines, each with its end, for the log's file; they are not written to the terminal. For a thread
    /// that must neither wait nor take memory: never blocks, never allocates. What has no room is counted as lost, by its
    /// lines.
    pub fn leave(&self, lines: &str) {
        let left = match self.shared.left.try_lock() {
            Ok(left) => Some(left),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        match left.filter(|left| left.len() + lines.len() <= left.capacity()) {
            Some(mut left) => {
                left.extend_from_slice(lines.as_bytes());
                self.shared.has_left.store(true, Ordering::Release);
            }
            None => {
                let count = lines.lines().count() as u64;
                self.shared.queue_full.fetch_add(count, Ordering::Relaxed);
                self.shared.lost_total.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// Lines lost so far: found the queue full, or were refused by the file or by the terminal.
    pub fn lines_lost(&self) -> u64 {
        self.shared.lost_total.load(Ordering::Relaxed) + self.losses.total()
    }
}

/// Makes our front the process's logger, which writes lines as grave as `level` or graver. The sinks take what it lets
/// through. Lines wait in the queue until [`LogThread::run`] runs.
///
/// `file` is the log file, `None` for the terminal alone.
///
/// # Errors
/// A logger was set before.
pub fn start(level: LevelFilter, file: Option<&Path>) -> Result<(LogThread, LogControl), log::SetLoggerError> {
    let (tx, rx) = bounded(LINES_QUEUE_LEN_MAX);
    let (stop_tx, stop_rx) = bounded(1);
    let shared = Arc::new(Shared {
        level: AtomicUsize::new(level as usize),
        left: Mutex::new(Vec::with_capacity(LEFT_BYTES_MAX)),
        ..Shared::default()
    });
    let losses = Arc::new(SinkLosses::default());
    log::set_boxed_logger(Box::new(Front {
        tx,
        shared: Arc::clone(&shared),
    }))?;
    log::set_max_level(level);
    // There is one logger per process, so this is the first.
    let _ = RUNNING.set(Arc::clone(&shared));
    let terminal = Terminal::new(Arc::clone(&losses));
    let mut not_file_only = plain_lines();
    not_file_only.add_filter_ignore_str(FILE_ONLY);
    let mut sinks: Vec<Box<dyn SharedLogger>> =
        vec![WriteLogger::new(LevelFilter::Trace, not_file_only.build(), terminal)];
    if let Some(path) = file {
        let file = RotatingFile::new(path.to_owned(), Arc::clone(&losses));
        sinks.push(WriteLogger::new(LevelFilter::Trace, plain_lines().build(), file));
    }
    let thread = LogThread {
        rx,
        shared: Arc::clone(&shared),
        losses: Arc::clone(&losses),
        sinks: CombinedLogger::new(sinks),
        stop_rx,
        turn: TURN,
        left: Vec::with_capacity(LEFT_BYTES_MAX),
    };
    let control = LogControl {
        stop_tx,
        shared,
        losses,
    };
    Ok((thread, control))
}

/// Lines come finished, so simplelog adds nothing of its own.
fn plain_lines() -> ConfigBuilder {
    let mut config = ConfigBuilder::new();
    config
        .set_time_level(LevelFilter::Off)
        .set_max_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off);
    config
}

impl fmt::Debug for LogThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogThread")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl LogThread {
    /// Writes lines until [`LogControl::stop`]; `show` is called before every wait and every write.
    pub fn run(mut self, mut show: impl FnMut(Phase)) {
        loop {
            show(Phase::Waiting);
            select! {
                recv(self.rx) -> line => match line {
                    Ok(line) => {
                        show(Phase::Writing);
                        self.write_queued(line);
                    }
                    Err(_) => break,
                },
                // Asked to end, or nobody is left who could ask.
                recv(self.stop_rx) -> _ => break,
                default(self.turn) => {}
            }
            self.write_left();
            self.report_losses();
            self.report_left_out(false);
        }
        for line in self.rx.try_iter() {
            self.write_queued(line);
        }
        self.report_left_out(true);
        self.write_left();
        self.report_losses();
    }

    fn write_queued(&self, line: Line) {
        self.write(&line);
        let bytes = line.text.capacity();
        drop(line);
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn write(&self, line: &Line) {
        let mut record = Record::builder();
        self.sinks
            .log(&record.level(line.level).args(format_args!("{}", line.text)).build());
        self.sinks.flush();
    }

    /// Writes to the file what [`LogControl::leave`] took.
    fn write_left(&mut self) {
        if !self.shared.has_left.swap(false, Ordering::Acquire) {
            return;
        }
        // Swapped, so that the lock is held for moments and nothing is allocated meanwhile.
        let mut left = self.shared.left.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::swap(&mut *left, &mut self.left);
        drop(left);
        for line in String::from_utf8_lossy(&self.left).lines() {
            let mut record = Record::builder();
            // The gravest level passes every filter; the line says its own.
            record.level(Level::Error).target(FILE_ONLY);
            self.sinks.log(&record.args(format_args!("{line}")).build());
        }
        self.sinks.flush();
        self.left.clear();
    }

    fn say(&self, level: Level, message: &str) {
        let text = compose(level, "log", &format_args!("{message}"), OffsetDateTime::now_utc());
        self.write(&Line { level, text });
    }

    /// Says what was lost, to whoever can still be told.
    fn report_losses(&self) {
        match self.shared.queue_full.swap(0, Ordering::Relaxed) {
            0 => {}
            lost => self.say(
                Level::Warn,
                &format!(
                    "⚠️ {} {} lost: lines came faster than they could be written",
                    count(lost, "log line"),
                    pick(lost, "was", "were")
                ),
            ),
        }
        for message in self.losses.take_messages() {
            self.say(Level::Warn, &message);
        }
    }

    /// Ends the windows in which lines were left out, and says how many.
    fn report_left_out(&self, at_end: bool) {
        let now = clock::monotonic_ms();
        let mut messages = Vec::new();
        // Held for microseconds; who finds it taken comes back next turn.
        let mut sites = match self.shared.sites.try_lock() {
            Ok(sites) => sites,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        for site in sites.values_mut() {
            let over = now.saturating_sub(site.window_start_ms) >= SITE_WINDOW_MS;
            if site.left_out > 0 && (over || at_end) {
                messages.push(format!(
                    "⚠️ {} like “{}…” {} left out within {:.0} s",
                    count(site.left_out, "more line"),
                    site.example,
                    pick(site.left_out, "was", "were"),
                    now.saturating_sub(site.window_start_ms) as f64 / 1000.0,
                ));
                site.window_start_ms = now;
                site.lines = 0;
                site.left_out = 0;
            }
        }
        drop(sites);
        for message in messages {
            self.say(Level::Warn, &message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::threads;

    fn front() -> (Front, Receiver<Line>) {
        front_with_room(100)
    }

    fn front_with_room(lines: usize) -> (Front, Receiver<Line>) {
        let (tx, rx) = bounded(lines);
        let front = Front {
            tx,
            shared: Arc::new(Shared {
                level: AtomicUsize::new(LevelFilter::Info as usize),
                ..Shared::default()
            }),
        };
        (front, rx)
    }

    /// A thread that writes nowhere, and what stops it.
    fn log_thread(front: &Front, rx: Receiver<Line>) -> (LogThread, Sender<()>) {
        let (stop_tx, stop_rx) = bounded(1);
        let thread = LogThread {
            rx,
            shared: Arc::clone(&front.shared),
            losses: Arc::new(SinkLosses::default()),
            sinks: CombinedLogger::new(Vec::new()),
            stop_rx,
            turn: TURN,
            left: Vec::new(),
        };
        (thread, stop_tx)
    }

    fn record_at(front: &Front, line: u32, text: &str) {
        record_at_level(front, line, Level::Info, text);
    }

    fn record_at_level(front: &Front, line: u32, level: Level, text: &str) {
        front.log(
            &Record::builder()
                .level(level)
                .file_static(Some("a.rs"))
                .line(Some(line))
                .args(format_args!("{text}"))
                .build(),
        );
    }

    #[test]
    fn control_characters_cannot_forge_a_line() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let line = compose(Level::Info, "ingest", &format_args!("a\nb\u{1b}[31m"), at);
        assert_eq!(line, "1970-01-01T00:00:00.000Z INFO  [ingest] a\\nb\\u{1b}[31m");
    }

    #[test]
    fn long_lines_are_cut_and_say_so() {
        let long = "x".repeat(3 * LINE_BYTES_MAX);
        let line = compose(Level::Info, "t", &format_args!("{long}"), OffsetDateTime::UNIX_EPOCH);
        assert!(line.len() < LINE_BYTES_MAX + 64);
        assert!(
            line.ends_with("… (cut, 12288 bytes in all)"),
            "{}",
            &line[line.len() - 60..]
        );
    }

    #[test]
    fn a_place_that_writes_too_much_is_limited_and_others_are_not() {
        let (front, rx) = front();
        for number in 0..SITE_LINES_MAX + 5 {
            record_at(&front, 1, &format!("noise {number}"));
        }
        record_at(&front, 2, "signal");
        assert_eq!(rx.try_iter().count() as u32, SITE_LINES_MAX + 1);
        let sites = front.shared.sites.lock().unwrap();
        assert_eq!(sites[&("a.rs", 1, Level::Info)].left_out, 5);
        assert_eq!(sites.len(), 2, "texts from outside make no entries");
    }

    #[test]
    fn many_lines_of_a_place_do_not_hide_its_graver_ones() {
        let (front, rx) = front();
        for _ in 0..SITE_LINES_MAX + 5 {
            record_at(&front, 1, "ended as usual");
        }
        record_at_level(&front, 1, Level::Warn, "ended too slow");
        let written: Vec<Level> = rx.try_iter().map(|line| line.level).collect();
        assert_eq!(written.len() as u32, SITE_LINES_MAX + 1);
        assert_eq!(written.last(), Some(&Level::Warn));
    }

    #[test]
    fn a_full_queue_counts_and_does_not_wait() {
        let (front, rx) = front();
        for line in 0..103 {
            record_at(&front, line, "x");
        }
        assert_eq!(front.shared.queue_full.load(Ordering::Relaxed), 3);
        assert_eq!(rx.len(), 100);
    }

    #[test]
    fn long_lines_fill_the_queue_by_their_bytes_and_make_room_again() {
        let (front, rx) = front_with_room(LINES_QUEUE_LEN_MAX);
        let long = "x".repeat(LINE_BYTES_MAX);
        for line in 0..LINES_QUEUE_LEN_MAX as u32 {
            record_at(&front, line, &long);
        }
        let lost = front.shared.queue_full.load(Ordering::Relaxed);
        assert_eq!(lost as usize + rx.len(), LINES_QUEUE_LEN_MAX);
        let (thread, stop_tx) = log_thread(&front, rx.clone());
        let lines: Vec<Line> = rx.try_iter().collect();
        let bytes: usize = lines.iter().map(|line| line.text.capacity()).sum();
        assert!(
            (LINES_QUEUE_BYTES_MAX / 2..=LINES_QUEUE_BYTES_MAX).contains(&bytes),
            "{bytes}"
        );
        record_at(&front, u32::MAX, &long);
        assert!(rx.is_empty());

        for line in lines {
            front.tx.try_send(line).unwrap();
        }
        stop_tx.try_send(()).unwrap();
        thread.run(|_| ());
        assert_eq!(front.shared.queued_bytes.load(Ordering::Relaxed), 0);
        record_at(&front, u32::MAX, &long);
        assert_eq!(rx.len(), 1);
    }

    #[test]
    fn a_stop_ends_the_wait_for_a_line() {
        let (front, rx) = front();
        let (mut thread, stop_tx) = log_thread(&front, rx);
        // Only the stop can end it.
        thread.turn = Duration::from_secs(3600);
        let (waits_tx, waits_rx) = bounded(1);
        let show = move |phase| {
            let _ = waits_tx.try_send(phase);
        };
        let handle = threads::spawn("log", threads::CORE_STACK_BYTES, None, || thread.run(show)).unwrap();
        assert_eq!(waits_rx.recv_timeout(Duration::from_secs(10)), Ok(Phase::Waiting));
        stop_tx.try_send(()).unwrap();
        handle.join_within(Duration::from_secs(10)).unwrap();
    }
}
