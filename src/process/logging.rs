//! The log: messages are made on the caller's thread, and written on thread `log` as lines of each sink's form.
//!
//! Runs on: `log`, one.
//! Owns: simplelog with its two sinks (terminal and file).
//! Blocks on: a line or its end (250 ms), the terminal (50 ms a line, once it has been slow: not at all), the disk.
//! Can be stalled by: the disk that the log file is on; a terminal of another user, which it may not open (`Outlet`).
//! Nobody who logs can: the queue has no lock (`pile`), and the locks here and in `sites` are only tried, by everybody.
//! Full queue means: the line is dropped and counted; the next line that gets through says how many (`lines_lost`).
//! Ends when: asked to; what is in the queue then is still written.
//! Watched as: `log`; not a core thread, a stall makes health `degraded`.
//!
//! Lines that outsiders can cause must not fill a disk, so every place in the code may write only 20 lines in 10 s at
//! info and above (`sites`); what is left out is counted and said once per window.

pub mod form;

pub mod line;

mod queue;

mod sites;

pub use sites::{SELF_PACED, STATUS};

use crate::process::clock::timespec;
use crate::process::files::Phase;
use crate::process::locks::try_lock;
use crate::process::log_sinks::rotating_file::RotatingFile;
use crate::process::log_sinks::terminal::{STATUS_MARK, Terminal};
use crate::process::log_sinks::{SinkLosses, WholeLines};
use crate::process::logging::form::{Form, Forms};
use crate::process::logging::line::{Line, compose};
use crate::process::logging::queue::{Full, LINES_QUEUE_LEN_MAX, Queue};
use crate::process::logging::sites::Sites;
use crate::process::pile::Taken;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::waits;
use crate::process::words::{count, pick};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, poll};
use simplelog::{Config, ConfigBuilder, WriteLogger};
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use time::OffsetDateTime;

/// How long thread `log` waits for a line before it looks at its other duties.
const TURN: Duration = Duration::from_millis(250);
/// What [`LogControl::leave`] holds for the file. Untouched memory costs nothing, and it is touched in a hang only.
const LEFT_BYTES_MAX: usize = 512 * 1024;

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
    sites: Sites,
    forms: Forms,
    /// Finished lines for the file, and whether there are any. Nobody waits for this lock either.
    left: Mutex<Vec<u8>>,
    has_left: AtomicBool,
}

/// The running log's, for [`with_lock_held`].
static RUNNING: OnceLock<Arc<Shared>> = OnceLock::new();

/// Runs `body` with the only lock in its hand that logging takes, as a thread that hangs in the middle of a line would.
/// For drills: it shows that nobody else waits for that lock.
pub fn with_lock_held(body: impl FnOnce()) {
    let _held = RUNNING.get().and_then(|shared| try_lock(&shared.sites.by_place));
    body();
}

impl Shared {
    fn new(level: LevelFilter, forms: Forms, count_max: usize, left_bytes_max: usize) -> io::Result<Shared> {
        Ok(Shared {
            level: AtomicUsize::new(level as usize),
            queue: Queue::new(count_max)?,
            queue_full: AtomicU64::new(0),
            lost_total: AtomicU64::new(0),
            sites: Sites::default(),
            forms,
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

impl Log for Front {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Relaxed: a line more or less at the moment of a change.
        metadata.level() as usize <= self.shared.level.load(Ordering::Relaxed)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || !self.shared.sites.admits(record) {
            return;
        }
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let mut line = compose(record.level(), name, record.args(), OffsetDateTime::now_utc());
        line.is_status = record.target() == STATUS;
        if let Err(Full) = self.shared.queue.leave(line) {
            self.shared.lose(1);
        }
    }

    fn flush(&self) {}
}

/// A sink, by way of simplelog, and the form of its lines.
struct Sink {
    form: Form,
    logger: Box<dyn Log>,
    /// Gets what [`LogControl::leave`] took.
    takes_left: bool,
}

impl Sink {
    fn new(form: Form, writes_to: impl Write + Send + 'static, takes_left: bool) -> Sink {
        Sink {
            form,
            logger: WriteLogger::new(LevelFilter::Trace, plain_lines(), writes_to),
            takes_left,
        }
    }

    /// Writes one line.
    fn write(&self, line: &Line) {
        if line.is_status && self.form.is_live() {
            self.write_finished(&format!("{STATUS_MARK}{}", self.form.status(line)));
            return;
        }
        let mut text = String::with_capacity(line.text.len() + 64);
        self.form.push(line, &mut text);
        self.write_finished(&text);
    }

    fn write_finished(&self, line: &str) {
        // The gravest level passes every filter; the line says its own.
        let mut record = Record::builder();
        self.logger
            .log(&record.level(Level::Error).args(format_args!("{line}")).build());
        self.logger.flush();
    }
}

/// The running log; made once per process by [`start`].
pub struct LogThread {
    shared: Arc<Shared>,
    losses: Arc<SinkLosses>,
    sinks: Vec<Sink>,
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

    /// Returns whether a line of this level is written.
    pub fn writes(&self, level: Level) -> bool {
        level as usize <= self.shared.level.load(Ordering::Relaxed)
    }

    /// Makes thread `log` write what waits, then end. Never blocks.
    pub fn stop(&self) {
        self.stop.request();
    }

    /// Returns whether lines wait for thread `log`.
    pub fn has_waiting(&self) -> bool {
        self.shared.queue.count.load(Ordering::Relaxed) > 0
    }

    /// Returns whether thread `log` has still to take what [`LogControl::leave`] got.
    pub fn has_left(&self) -> bool {
        self.shared.has_left.load(Ordering::Relaxed)
    }

    /// Leaves finished lines in the file's form, each with its end, for the log's file; they are not written to the
    /// terminal. For a thread
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

    /// How lines look on standard error and in the file.
    pub fn forms(&self) -> Forms {
        self.shared.forms
    }

    /// Lines lost so far: found the queue full, or were refused by the file or by the terminal.
    pub fn lines_lost(&self) -> u64 {
        self.shared.lost_total.load(Ordering::Relaxed) + self.losses.total()
    }
}

/// Makes our front the process's logger, which writes lines as grave as `level` or graver. The sinks take what it lets
/// through. Lines wait in the queue until [`LogThread::run`] runs.
///
/// `file` is the log file, `None` for the terminal alone. Lines look as `forms` says.
///
/// # Errors
/// A logger was set before, or the process is out of descriptors.
pub fn start(level: LevelFilter, forms: Forms, file: Option<&Path>) -> io::Result<(LogThread, LogControl)> {
    let shared = Arc::new(Shared::new(level, forms, LINES_QUEUE_LEN_MAX, LEFT_BYTES_MAX)?);
    let stop = Stop::new()?;
    let losses = Arc::new(SinkLosses::default());
    let front = Front {
        shared: Arc::clone(&shared),
    };
    log::set_boxed_logger(Box::new(front)).map_err(|error| io::Error::other(error.to_string()))?;
    log::set_max_level(level);
    // There is one logger per process, so this is the first.
    let _ = RUNNING.set(Arc::clone(&shared));
    let terminal = Terminal::new(forms.terminal.is_live(), Arc::clone(&losses));
    let mut sinks = vec![Sink::new(forms.terminal, WholeLines::to(terminal), false)];
    if let Some(path) = file {
        let file = RotatingFile::new(path.to_owned(), Arc::clone(&losses));
        sinks.push(Sink::new(forms.file, WholeLines::to(file), true));
    }
    let thread = LogThread {
        shared: Arc::clone(&shared),
        losses: Arc::clone(&losses),
        sinks,
        stop: stop.clone(),
        turn: TURN,
        left: Vec::with_capacity(LEFT_BYTES_MAX),
    };
    let control = LogControl { stop, shared, losses };
    Ok((thread, control))
}

/// Lines come finished, so simplelog adds nothing of its own.
fn plain_lines() -> Config {
    let mut config = ConfigBuilder::new();
    config
        .set_time_level(LevelFilter::Off)
        .set_max_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off);
    config.build()
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
    /// The host refuses another thread; `Refusal` says what helps.
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
            // Threads that still run then may have left more meanwhile.
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
        self.sinks.iter().for_each(|sink| sink.write(line));
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
        let left = String::from_utf8_lossy(&self.left);
        for sink in self.sinks.iter().filter(|sink| sink.takes_left) {
            left.lines().for_each(|line| sink.write_finished(line));
        }
        self.left.clear();
    }

    fn say(&self, level: Level, message: &str) {
        self.write(&compose(
            level,
            "log",
            &format_args!("{message}"),
            OffsetDateTime::now_utc(),
        ));
    }

    /// Says what was lost, to the sink that still takes lines.
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

    /// Says how many lines were left out in the windows that end.
    fn report_left_out(&self, at_end: bool) {
        for message in self.shared.sites.end_windows(at_end) {
            self.say(Level::Warn, &message);
        }
    }
}

#[cfg(test)]
mod tests;
