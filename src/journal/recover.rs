//! What a former run left: its last events for the history, the number to go on with, and a whole end.
//!
//! Runs on `main`, before the threads. Reads as much of the journal's end as the history holds, and at least two lines'
//! worth; what lies before that is left unread.

use crate::journal::line::{self, DAMAGED, LINE_BYTES_MAX, Line, RESTART};
use crate::journal::reader::LineReader;
use crate::journal::segments::{Segment, list};
use crate::process::clock::monotonic_us;
use crate::process::safe_open;
use crate::process::words::{count, pick};
use crate::stream::batch::{BatchBuilder, Loss};
use crate::stream::event::{Event, Seq};
use crate::stream::history::History;
use crate::stream::position::Epoch;
use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// After a run that did not end in order, nobody knows how many numbers it gave that never reached the journal.
/// Numbering skips as many as it could have given since the last line: this many, because one loss may take millions at
/// once, and one for each microsecond, which is more than a fan-out can number. 2^53, from which on JavaScript cannot
/// count, is 2 million such ends or 285 years of that away.
const SKIP_LEAST: u64 = 1 << 32;
/// A last line that is older, in microseconds (100 days), says that a clock was wrong, and would use up numbers for
/// nothing.
const SKIP_MICROS_MAX: u64 = 1 << 43;
/// Most events of a batch that is made for the history: as many as one turn of the fan-out takes.
const BATCH_EVENTS_MAX: usize = 512;
/// Most bytes of such a batch; one event may be larger.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// What was found.
#[derive(Debug)]
pub struct Recovered {
    pub epoch: Epoch,
    /// The last events; its newest number is the last that was given, or is skipped.
    pub history: History,
    /// Numbers that are skipped, to be journaled first.
    pub restart: Option<(Loss, f64)>,
    /// All segments, the oldest first.
    pub segments: Vec<Segment>,
    /// When the newest one has begun, if writing can go on in it.
    pub resumes: Option<f64>,
}

/// Reads what is in `folder`, repairs its end, and says what was wrong. `now` in seconds since the epoch.
///
/// # Errors
/// A file of it cannot be read or repaired.
pub fn recover(folder: &Path, history_bytes: usize, now: f64) -> Result<Recovered, (PathBuf, io::Error)> {
    let mut segments = list(folder).map_err(|error| (folder.to_owned(), error))?;
    let mut tail = Tail::new(history_bytes);
    for (index, offset) in plan(&segments, history_bytes) {
        let segment = &segments[index];
        tail.read(segment, offset)
            .map_err(|error| (segment.path.clone(), error))?;
    }
    if let Some(newest) = segments.last_mut() {
        tail.repair(newest).map_err(|error| (newest.path.clone(), error))?;
    }
    segments.retain(|segment| segment.bytes > 0);
    tail.say(folder);
    Ok(tail.finish(segments, now))
}

/// Which segments are read, and from which byte on.
fn plan(segments: &[Segment], history_bytes: usize) -> Vec<(usize, u64)> {
    let wanted = history_bytes.max(2 * LINE_BYTES_MAX) as u64;
    let mut left = wanted;
    let mut planned = Vec::new();
    for (index, segment) in segments.iter().enumerate().rev() {
        planned.push((index, segment.bytes.saturating_sub(left)));
        left = left.saturating_sub(segment.bytes);
        if left == 0 {
            break;
        }
    }
    planned.reverse();
    planned
}

/// The end of the journal, as far as it has been read.
#[derive(Debug)]
struct Tail {
    history_bytes: usize,
    history: History,
    /// The batch that is just being made: of events of one time.
    batch: Option<(BatchBuilder, f64, usize)>,
    epoch: Option<Epoch>,
    /// The number that must come next; 0 while none is known.
    next: Seq,
    /// When the last line was written.
    time: f64,
    /// The last line said that the run ended in order.
    is_clean: bool,
    /// Lines that cannot be read, and where the first is.
    damaged: (u64, Option<(PathBuf, u64)>),
    /// Of the segment that was read last: when it began, the end of its last line but one, whether the last one is
    /// good.
    begun: Option<f64>,
    before_last: u64,
    last_is_good: bool,
}

/// A line contradicts what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Contradiction;

impl Tail {
    fn new(history_bytes: usize) -> Tail {
        Tail {
            history_bytes,
            history: History::new(history_bytes, 0),
            batch: None,
            epoch: None,
            next: 0,
            time: 0.0,
            is_clean: false,
            damaged: (0, None),
            begun: None,
            before_last: 0,
            last_is_good: true,
        }
    }

    fn read(&mut self, segment: &Segment, offset: u64) -> io::Result<()> {
        let mut reader = LineReader::open(&segment.path, segment.bytes)?;
        (self.begun, self.before_last, self.last_is_good) = (None, 0, true);
        if self.next > 0 && segment.first > self.next {
            self.miss(segment.first);
        }
        let mut is_first = true;
        let mut before = 0;
        while let Some(line) = reader.next_line()? {
            let good = line.is_whole.then(|| line::parse(line.bytes)).flatten();
            (self.before_last, before) = (before, line.end);
            self.last_is_good = good.is_some();
            match good {
                Some(good) => {
                    if let (true, Line::Head { time, .. }) = (is_first, &good) {
                        self.begun = Some(*time);
                    }
                    if let Err(Contradiction) = self.take(good) {
                        self.damage(segment, self.before_last);
                    }
                }
                None => self.damage(segment, self.before_last),
            }
            if is_first && offset > before {
                reader.skip_to(offset)?;
                // The numbers that are left out are no loss.
                self.next = 0;
            }
            is_first = false;
        }
        Ok(())
    }

    /// Takes what a line says.
    ///
    /// # Errors
    /// It contradicts what stands before it, so that nothing of it was taken: the caller counts it as damage.
    fn take(&mut self, line: Line<'_>) -> Result<(), Contradiction> {
        self.is_clean = false;
        match line {
            Line::Head { epoch, first, time } => {
                if self.epoch != Some(epoch) || self.next == 0 {
                    self.begin_epoch(epoch, first);
                }
                self.time = time;
            }
            Line::Event {
                seq,
                time,
                recovered,
                payload,
                event,
            } => {
                self.reach(seq)?;
                self.time = time;
                self.add(time, recovered, payload, &event);
            }
            Line::Loss { loss, time } => {
                self.reach(loss.from)?;
                self.time = time;
                self.lose(&loss);
            }
            Line::End { seq, time } => {
                self.reach(seq + 1)?;
                self.time = time;
                self.is_clean = true;
            }
            Line::Other => {}
        }
        Ok(())
    }

    fn begin_epoch(&mut self, epoch: Epoch, first: Seq) {
        self.flush();
        // Numbers of the file's end are never below those before it, whatever its head says.
        let first = first.max(self.history.newest() + 1);
        self.history = History::new(self.history_bytes, first - 1);
        self.next = first;
        self.epoch = Some(epoch);
    }

    /// Makes `seq` the next number: the numbers before it that are not here are lost.
    ///
    /// # Errors
    /// `seq` was given before, so the files contradict each other.
    fn reach(&mut self, seq: Seq) -> Result<(), Contradiction> {
        if self.next == 0 {
            self.flush();
            self.history = History::new(self.history_bytes, seq - 1);
            self.next = seq;
        }
        if seq > self.next {
            self.miss(seq);
        }
        if seq == self.next { Ok(()) } else { Err(Contradiction) }
    }

    fn miss(&mut self, next: Seq) {
        let loss = Loss {
            from: self.next,
            to: next - 1,
            count: Some(next - self.next),
            cause: DAMAGED,
        };
        self.lose(&loss);
    }

    fn add(&mut self, time: f64, recovered: Option<NonZeroU64>, payload: &[u8], event: &Event<'_>) {
        let is_full = |(builder, begun, bytes): &(BatchBuilder, f64, usize)| {
            *begun != time
                || *bytes >= BATCH_BYTES_MAX
                || builder.next_seq() - self.history.newest() > BATCH_EVENTS_MAX as u64
        };
        if self.batch.as_ref().is_some_and(is_full) {
            self.flush();
        }
        let next = self.next;
        let begin = || (BatchBuilder::new(next, 1, payload.len()), time, 0);
        let (builder, _, bytes) = self.batch.get_or_insert_with(begin);
        builder.push_as(recovered, payload, event.machine.as_deref(), event.kind.as_deref());
        *bytes += payload.len();
        self.next += 1;
    }

    fn lose(&mut self, loss: &Loss) {
        let (next, time) = (self.next, self.time);
        let begin = || (BatchBuilder::new(next, 0, 0), time, 0);
        let (builder, ..) = self.batch.get_or_insert_with(begin);
        match loss.count {
            Some(count) => builder.lose(count, loss.cause),
            None => builder.skip(loss.to, loss.cause),
        }
        self.next = loss.to + 1;
    }

    /// Puts the batch that was made into the history.
    fn flush(&mut self) {
        let finished = self
            .batch
            .take()
            .and_then(|(builder, time, _)| builder.finish(monotonic_us(), time));
        if let Some(batch) = finished {
            self.history.push(Arc::new(batch));
        }
    }

    fn damage(&mut self, segment: &Segment, at: u64) {
        self.damaged.0 += 1;
        self.damaged.1.get_or_insert_with(|| (segment.path.clone(), at));
    }

    /// Cuts off the last line when it is torn; `newest` was read last.
    fn repair(&mut self, newest: &mut Segment) -> io::Result<()> {
        if newest.bytes == 0 {
            return fs::remove_file(&newest.path);
        }
        if self.last_is_good {
            return Ok(());
        }
        self.is_clean = false;
        self.damaged.0 -= 1;
        log::warn!(
            "⚠️ the last line of journal segment {} was torn, {}; it was cut off",
            newest.path.display(),
            count(newest.bytes - self.before_last, "byte")
        );
        newest.bytes = self.before_last;
        if newest.bytes == 0 {
            return fs::remove_file(&newest.path);
        }
        let file = safe_open::append_no_link(&newest.path, false)?;
        file.set_len(newest.bytes)?;
        file.sync_data()
    }

    fn say(&self, folder: &Path) {
        if let (lines @ 1.., Some((path, at))) = &self.damaged {
            log::error!(
                "🚨 {} of the journal in {} cannot be read (the first at byte {at} of {}); {} as {}, and \
                 the numbers count as lost",
                count(*lines, "line"),
                folder.display(),
                path.display(),
                pick(*lines, "it is left", "they are left"),
                pick(*lines, "it is", "they are")
            );
        }
    }

    fn finish(mut self, segments: Vec<Segment>, now: f64) -> Recovered {
        self.flush();
        let named = segments.last().map_or(0, |newest| newest.first.saturating_sub(1));
        let last = self.history.newest().max(named);
        let is_known = self.next > 0 && self.history.newest() >= named;
        let skipped = if self.is_clean {
            Some(0)
        } else {
            skipped(now - self.time)
        };
        // Where the time of the former run cannot be measured, its numbers and ours cannot be told apart.
        let (Some(epoch), true, Some(skipped)) = (self.epoch, is_known, skipped) else {
            return Recovered {
                epoch: Epoch::new(),
                history: History::new(self.history_bytes, last),
                restart: None,
                segments,
                resumes: None,
            };
        };
        let restart = (skipped > 0).then(|| self.skip(skipped, now));
        Recovered {
            epoch,
            history: self.history,
            restart: restart.map(|loss| (loss, now)),
            segments,
            resumes: self.begun,
        }
    }

    fn skip(&mut self, skipped: u64, now: f64) -> Loss {
        let loss = Loss {
            from: self.next,
            to: self.next - 1 + skipped,
            count: None,
            cause: RESTART,
        };
        self.time = now;
        self.lose(&loss);
        self.flush();
        loss
    }
}

/// How many numbers a run may have given in so many seconds after its last line; `None` when no clock can tell.
fn skipped(seconds: f64) -> Option<u64> {
    let micros = (seconds * 1e6).ceil();
    (seconds >= 0.0 && micros <= SKIP_MICROS_MAX as f64).then(|| SKIP_LEAST + micros as u64)
}
