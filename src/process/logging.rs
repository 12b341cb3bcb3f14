//! The log: lines are made on the caller's thread and written on thread `log`.
//!
//! Runs on: `log`, one.
//! Owns: simplelog with its two sinks (terminal and file).
//! Blocks on: a line or its end (250 ms), the terminal (50 ms a line, once it has been slow: not at all), the disk.
//! Can be stalled by: the disk that the log file is on; a terminal of another user, which it may not open (`Outlet`).
//! Nobody who logs can: the queue has no lock (`pile`), and the locks of this file are only tried, by everybody.
//! Full queue means: the line is dropped and counted; the next line that gets through says how many (`lines_lost`).
//! Ends when: asked to; what is in the queue then is still written.
//! Watched as: `log`; not a core thread, a stall makes health `degraded`.
//!
//! Lines that outsiders can cause must not fill a disk, so every place in the code may write only so many lines per
//! window at info and above; what is left out is counted and said once per window.

use crate::process::bell::Bell;
use crate::process::clock::{self, timespec};
use crate::process::files::Phase;
use crate::process::locks::try_lock;
use crate::process::log_sinks::rotating_file::RotatingFile;
use crate::process::log_sinks::terminal::Terminal;
use crate::process::log_sinks::{SinkLosses, WholeLines};
use crate::process::pile::{Pile, Taken};
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::visible::judged;
use crate::process::waits;
use crate::process::words::{count, pick};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, poll};
use simplelog::{CombinedLogger, ConfigBuilder, SharedLogger, WriteLogger};
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
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

/// Lines on their way to thread `log`. A thread that stops anywhere in here costs the others one place of the queue.
#[derive(Debug)]
struct Queue {
    lines: Pile<Line>,
    /// How many lines wait, and their memory; with those that are tried right now, and those that thread `log` has in
    /// hand.
    count: AtomicUsize,
    bytes: AtomicUsize,
    count_max: usize,
    bell: Bell,
}

/// The logger that the `log` macros reach.
#[derive(Debug)]
struct Front {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The least grave level that is written, a [`LevelFilter`] as a number; changes with [`LogControl::set_level`].
    level: AtomicUsize,
    queue: Queue,
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

/// Runs `body` with the only lock in its hand that logging takes, as a thread that hangs in the middle of a line would.
/// For drills: it shows that nobody else waits for that lock.
pub fn with_lock_held(body: impl FnOnce()) {
    let _held = RUNNING.get().and_then(|shared| try_lock(&shared.sites));
    body();
}

impl Queue {
    /// Leaves the line for thread `log` and wakes it; returns whether there was room. Never blocks.
    fn leave(&self, line: Line) -> bool {
        let bytes = line.text.capacity();
        // Relaxed: bounds, not an order. Counted before it is in, so that it cannot be counted out first.
        let count_before = self.count.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if count_before >= self.count_max || bytes_before + bytes > LINES_QUEUE_BYTES_MAX {
            self.count_out(bytes);
            return false;
        }
        self.lines.leave(line);
        self.bell.ring();
        true
    }

    fn count_out(&self, bytes: usize) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Shared {
    fn new(level: LevelFilter, count_max: usize, left_bytes_max: usize) -> io::Result<Shared> {
        Ok(Shared {
            level: AtomicUsize::new(level as usize),
            queue: Queue {
                lines: Pile::new(),
                count: AtomicUsize::new(0),
                bytes: AtomicUsize::new(0),
                count_max,
                bell: Bell::new()?,
            },
            queue_full: AtomicU64::new(0),
            lost_total: AtomicU64::new(0),
            sites: Mutex::default(),
            left: Mutex::new(Vec::with_capacity(left_bytes_max)),
            has_left: AtomicBool::new(false),
        })
    }

    fn lose(&self, lines: u64) {
        // Relaxed: counts, read for messages only.
        self.queue_full.fetch_add(lines, Ordering::Relaxed);
        self.lost_total.fetch_add(lines, Ordering::Relaxed);
    }
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
        let Some(mut sites) = try_lock(&self.shared.sites) else {
            return true;
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
        if !self.shared.queue.leave(line) {
            self.shared.lose(1);
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
    shared: Arc<Shared>,
    losses: Arc<SinkLosses>,
    sinks: Box<CombinedLogger>,
    stop: Stop,
    turn: Duration,
    /// The other half of what [`LogControl::leave`] fills.
    left: Vec<u8>,
}

/// Asks thread `log` to write what is left and end; also counts what was lost.
#[derive(Clone, Debug)]
pub struct LogControl {
    stop: Stop,
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
        self.stop.request();
    }

    /// Whether lines wait for thread `log`.
    pub fn has_waiting(&self) -> bool {
        self.shared.queue.count.load(Ordering::Relaxed) > 0
    }

    /// Whether thread `log` has still to take what [`LogControl::leave`] got.
    pub fn has_left(&self) -> bool {
        self.shared.has_left.load(Ordering::Relaxed)
    }

    /// Leaves finished lines, each with its end, for the log's file; they are not written to the terminal. For a thread
    /// that must neither wait nor take memory: never blocks, never allocates. What has no room is counted as lost, by
    /// its lines.
    pub fn leave(&self, lines: &str) {
        match try_lock(&self.shared.left).filter(|left| left.len() + lines.len() <= left.capacity()) {
            Some(mut left) => {
                left.extend_from_slice(lines.as_bytes());
                self.shared.has_left.store(true, Ordering::Release);
            }
            None => self.shared.lose(lines.lines().count() as u64),
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
/// A logger was set before, or the process is out of descriptors.
pub fn start(level: LevelFilter, file: Option<&Path>) -> io::Result<(LogThread, LogControl)> {
    let shared = Arc::new(Shared::new(level, LINES_QUEUE_LEN_MAX, LEFT_BYTES_MAX)?);
    let stop = Stop::new()?;
    let losses = Arc::new(SinkLosses::default());
    let front = Front {
        shared: Arc::clone(&shared),
    };
    log::set_boxed_logger(Box::new(front)).map_err(|error| io::Error::other(error.to_string()))?;
    log::set_max_level(level);
    // There is one logger per process, so this is the first.
    let _ = RUNNING.set(Arc::clone(&shared));
    let terminal = WholeLines::to(Terminal::new(Arc::clone(&losses)));
    let mut not_file_only = plain_lines();
    not_file_only.add_filter_ignore_str(FILE_ONLY);
    let mut sinks: Vec<Box<dyn SharedLogger>> =
        vec![WriteLogger::new(LevelFilter::Trace, not_file_only.build(), terminal)];
    if let Some(path) = file {
        let file = WholeLines::to(RotatingFile::new(path.to_owned(), Arc::clone(&losses)));
        sinks.push(WriteLogger::new(LevelFilter::Trace, plain_lines().build(), file));
    }
    let thread = LogThread {
        shared: Arc::clone(&shared),
        losses: Arc::clone(&losses),
        sinks: CombinedLogger::new(sinks),
        stop: stop.clone(),
        turn: TURN,
        left: Vec::with_capacity(LEFT_BYTES_MAX),
    };
    let control = LogControl { stop, shared, losses };
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
    /// Starts thread `log`, which runs [`LogThread::run`]. `show` is called at its beginning and its end too.
    ///
    /// # Errors
    /// The host refuses another thread.
    pub fn start(self, mut show: impl FnMut(Phase) + Send + 'static) -> io::Result<ThreadHandle<()>> {
        threads::spawn("log", CORE_STACK_BYTES, None, move || {
            show(Phase::Begun);
            self.run(&mut show);
            show(Phase::Ended);
        })
    }

    /// Writes lines until [`LogControl::stop`]; `show` is called before every wait and every write.
    pub fn run(mut self, mut show: impl FnMut(Phase)) {
        loop {
            show(Phase::Waiting);
            // Looked at before the lines: what was left before the request is taken after it.
            let is_last = self.stop.requested();
            self.wait();
            for line in self.take() {
                show(Phase::Writing);
                self.write_queued(line);
                self.write_left();
                self.report();
            }
            self.write_left();
            self.report_left_out(is_last);
            self.report();
            // Whoever still runs then may have left more meanwhile.
            if is_last && self.shared.queue.lines.is_empty() {
                return;
            }
        }
    }

    /// Blocks until a line waits or the end is asked for, at most a turn.
    fn wait(&self) {
        let (bell, stop) = (&self.shared.queue.bell, &self.stop);
        let is_idle = || self.shared.queue.lines.is_empty() && !stop.requested();
        bell.sleep(is_idle, || {
            let mut fds = [PollFd::new(bell, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            // An interrupted wait is one more look, and so is one that has failed.
            let _ = waits::LOG.judge(poll(&mut fds, Some(&timespec(self.turn))));
            bell.quieten();
        });
    }

    fn take(&self) -> Taken<Line> {
        self.shared.queue.lines.take()
    }

    /// Reports losses and left-out lines between two lines.
    fn report(&self) {
        self.report_losses();
        self.report_left_out(false);
    }

    fn write_queued(&self, line: Line) {
        self.write(&line);
        let bytes = line.text.capacity();
        drop(line);
        self.shared.queue.count_out(bytes);
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
        let Some(mut left) = try_lock(&self.shared.left) else {
            // Somebody leaves more right now, or has stopped in the middle of that.
            self.shared.has_left.store(true, Ordering::Relaxed);
            return;
        };
        // Swapped, so that the lock is held for moments and nothing is allocated meanwhile.
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
        let Some(mut sites) = try_lock(&self.shared.sites) else {
            return;
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
    use crossbeam_channel::bounded;

    fn front() -> Front {
        front_with_room(100)
    }

    fn front_with_room(lines: usize) -> Front {
        Front {
            shared: Arc::new(Shared::new(LevelFilter::Info, lines, LINE_BYTES_MAX).unwrap()),
        }
    }

    impl Front {
        /// Takes what waits, as thread `log` does.
        fn taken(&self) -> Vec<Line> {
            let lines: Vec<Line> = self.shared.queue.lines.take().collect();
            for line in &lines {
                self.shared.queue.count_out(line.text.capacity());
            }
            lines
        }

        fn lost(&self) -> u64 {
            self.shared.queue_full.load(Ordering::Relaxed)
        }
    }

    /// Where a thread under test writes.
    #[derive(Clone, Debug, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        /// The messages, without time, level and thread.
        fn messages(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let message = |line: &str| line.split_once("] ").map_or(line, |(_, message)| message).to_owned();
            text.lines().map(message).collect()
        }
    }

    /// A thread, where it writes, and what stops it.
    fn log_thread(front: &Front) -> (LogThread, Written, Stop) {
        let (written, stop) = (Written::default(), Stop::new().unwrap());
        let sink = WriteLogger::new(LevelFilter::Trace, plain_lines().build(), written.clone());
        let thread = LogThread {
            shared: Arc::clone(&front.shared),
            losses: Arc::new(SinkLosses::default()),
            sinks: CombinedLogger::new(vec![sink]),
            stop: stop.clone(),
            turn: TURN,
            left: Vec::with_capacity(LINE_BYTES_MAX),
        };
        (thread, written, stop)
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
        let front = front();
        for number in 0..SITE_LINES_MAX + 5 {
            record_at(&front, 1, &format!("noise {number}"));
        }
        record_at(&front, 2, "signal");
        assert_eq!(front.taken().len() as u32, SITE_LINES_MAX + 1);
        let sites = front.shared.sites.lock().unwrap();
        assert_eq!(sites[&("a.rs", 1, Level::Info)].left_out, 5);
        assert_eq!(sites.len(), 2, "texts from outside make no entries");
    }

    #[test]
    fn many_lines_of_a_place_do_not_hide_its_graver_ones() {
        let front = front();
        for _ in 0..SITE_LINES_MAX + 5 {
            record_at(&front, 1, "ended as usual");
        }
        record_at_level(&front, 1, Level::Warn, "ended too slow");
        let written: Vec<Level> = front.taken().iter().map(|line| line.level).collect();
        assert_eq!(written.len() as u32, SITE_LINES_MAX + 1);
        assert_eq!(written.last(), Some(&Level::Warn));
    }

    #[test]
    fn a_full_queue_counts_and_does_not_wait() {
        let front = front();
        for line in 0..103 {
            record_at(&front, line, "x");
        }
        assert_eq!(front.lost(), 3);
        assert_eq!(front.taken().len(), 100);
    }

    #[test]
    fn lines_in_hand_still_take_their_room_and_a_loss_is_said_behind_the_next_line() {
        let front = front_with_room(3);
        let (thread, written, stop) = log_thread(&front);
        for line in 0..3 {
            record_at(&front, line, &format!("line {line}"));
        }
        let mut phases = 0;
        stop.request();
        thread.run(|phase| {
            // Two of the three are still in hand, and there is room for one.
            if phase == Phase::Writing && phases == 1 {
                record_at(&front, 10, "in time");
                record_at(&front, 11, "too late");
            }
            phases += u32::from(phase == Phase::Writing);
        });
        let lost = "⚠️ 1 log line was lost: lines came faster than they could be written";
        assert_eq!(written.messages(), ["line 0", "line 1", lost, "line 2", "in time"]);
    }

    #[test]
    fn long_lines_fill_the_queue_by_their_bytes_and_make_room_again() {
        let front = front_with_room(LINES_QUEUE_LEN_MAX);
        let long = "x".repeat(LINE_BYTES_MAX);
        for line in 0..LINES_QUEUE_LEN_MAX as u32 {
            record_at(&front, line, &long);
        }
        let lost = front.lost() as usize;
        let (thread, written, stop) = log_thread(&front);
        let bytes = front.shared.queue.bytes.load(Ordering::Relaxed);
        assert!(
            (LINES_QUEUE_BYTES_MAX / 2..=LINES_QUEUE_BYTES_MAX).contains(&bytes),
            "{bytes}"
        );
        record_at(&front, u32::MAX, &long);
        assert_eq!(front.lost() as usize, lost + 1);

        stop.request();
        thread.run(|_| ());
        assert_eq!(front.shared.queue.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(front.shared.queue.count.load(Ordering::Relaxed), 0);
        // And one that tells of the loss.
        assert_eq!(written.messages().len(), LINES_QUEUE_LEN_MAX - lost + 1);
        record_at(&front, u32::MAX, &long);
        assert_eq!(front.taken().len(), 1);
    }

    #[test]
    fn every_line_is_written_or_counted_and_each_threads_lines_keep_their_order() {
        const THREADS: usize = 4;
        const EACH: usize = 2000;
        let front = front_with_room(500);
        let (thread, written, stop) = log_thread(&front);
        let handle = threads::spawn("log", threads::CORE_STACK_BYTES, None, || thread.run(|_| ())).unwrap();
        std::thread::scope(|scope| {
            for of in 0..THREADS {
                let front = &front;
                // Each line of a place of its own, which has no limit then.
                let line =
                    move |number: usize| record_at(front, (of * EACH + number) as u32, &format!("{of} {number}"));
                scope.spawn(move || (0..EACH).for_each(line));
            }
        });
        stop.request();
        handle.join_within(Duration::from_secs(20)).unwrap();
        let mut next = [0; THREADS];
        let mut seen = 0;
        for message in written.messages() {
            let Some((of, number)) = message.split_once(' ').filter(|_| !message.starts_with('⚠')) else {
                continue;
            };
            let (of, number): (usize, usize) = (of.parse().unwrap(), number.parse().unwrap());
            assert!(number >= next[of], "{number} of thread {of} after {}", next[of]);
            next[of] = number + 1;
            seen += 1;
        }
        let lost = front.shared.lost_total.load(Ordering::Relaxed) as usize;
        assert_eq!(seen + lost, THREADS * EACH, "{lost} were lost");
        assert_eq!(front.shared.queue.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_thread_that_stops_with_the_locks_holds_up_nobody() {
        let front = front();
        let (thread, written, stop) = log_thread(&front);
        let control = LogControl {
            stop: stop.clone(),
            shared: Arc::clone(&front.shared),
            losses: Arc::new(SinkLosses::default()),
        };
        control.leave("[watchdog] said before\n");
        let held = (front.shared.sites.lock().unwrap(), front.shared.left.lock().unwrap());
        record_at(&front, 1, "said meanwhile");
        control.leave("[watchdog] lost\n");
        let (waits_tx, waits_rx) = bounded(2);
        let show = move |phase| {
            if phase == Phase::Waiting {
                let _ = waits_tx.try_send(());
            }
        };
        let handle = threads::spawn("log", threads::CORE_STACK_BYTES, None, || thread.run(show)).unwrap();
        // The second wait comes after a turn of everything that it does.
        for _ in 0..2 {
            assert_eq!(waits_rx.recv_timeout(Duration::from_secs(20)), Ok(()));
        }
        let lost = "⚠️ 1 log line was lost: lines came faster than they could be written";
        assert_eq!(written.messages(), ["said meanwhile", lost]);
        drop(held);
        stop.request();
        handle.join_within(Duration::from_secs(20)).unwrap();
        assert_eq!(written.messages(), ["said meanwhile", lost, "said before"]);
    }

    #[test]
    fn a_stop_ends_the_wait_for_a_line() {
        let front = front();
        let (mut thread, _, stop) = log_thread(&front);
        // Only the stop can end it.
        thread.turn = Duration::from_secs(3600);
        let (waits_tx, waits_rx) = bounded(1);
        let show = move |phase| {
            let _ = waits_tx.try_send(phase);
        };
        let handle = threads::spawn("log", threads::CORE_STACK_BYTES, None, || thread.run(show)).unwrap();
        assert_eq!(waits_rx.recv_timeout(Duration::from_secs(10)), Ok(Phase::Waiting));
        stop.request();
        handle.join_within(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn a_line_ends_the_wait_for_one() {
        let front = front();
        let (mut thread, written, stop) = log_thread(&front);
        thread.turn = Duration::from_secs(3600);
        let (writes_tx, writes_rx) = bounded(1);
        let show = move |phase| {
            if phase == Phase::Waiting {
                let _ = writes_tx.try_send(());
            }
        };
        let handle = threads::spawn("log", threads::CORE_STACK_BYTES, None, || thread.run(show)).unwrap();
        for number in 0..100 {
            assert_eq!(writes_rx.recv_timeout(Duration::from_secs(20)), Ok(()));
            record_at(&front, number, "x");
        }
        stop.request();
        handle.join_within(Duration::from_secs(20)).unwrap();
        assert_eq!(written.messages().len(), 100);
    }
}
