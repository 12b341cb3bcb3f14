//! The folder of the journal while the server runs: lines go into the segment that grows, the oldest segments go away.

use crate::journal::flush::FlushTx;
use crate::journal::line;
use crate::journal::segments::{Age, Limits, Segment, firsts, list, segment_name};
use crate::process::clock::epoch_seconds;
use crate::process::files::is_absence;
use crate::process::safe_open;
use crate::stream::event::Seq;
use crate::stream::position::Epoch;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the lines go: the segment that grows, and those before it.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    limits: Limits,
    epoch: Epoch,
    /// The oldest first.
    old: VecDeque<Segment>,
    current: Option<Current>,
    flush: FlushTx,
}

/// The segment that grows.
#[derive(Debug)]
struct Current {
    file: File,
    /// Device and inode, which nobody else gets while it is open.
    identity: (u64, u64),
    segment: Segment,
    /// Since it has begun.
    begun: Age,
    /// When the oldest bytes were written that may not be on the disk.
    unsynced: Option<Instant>,
    /// Something with a number is in it.
    is_numbered: bool,
}

/// Segments that somebody has taken out of the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub segments: usize,
    /// Events of this run that were in them.
    pub events: u64,
    /// The newest segment is among them: from this number on nothing is in the folder.
    pub from: Option<Seq>,
}

/// Lines were not written, or not all of them.
#[derive(Debug)]
pub struct WriteError {
    pub error: io::Error,
    /// How many bytes of the lines are in the journal after all: whole lines.
    pub kept: usize,
}

impl Store {
    /// A journal in `folder`, which has these segments.
    pub fn new(folder: PathBuf, limits: Limits, epoch: Epoch, segments: Vec<Segment>, flush: FlushTx) -> Store {
        Store {
            folder,
            limits,
            epoch,
            old: segments.into(),
            current: None,
            flush,
        }
    }

    /// From here on numbers are of `epoch`.
    pub fn begin_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.close();
    }

    /// Goes on in the newest segment, which began at `begun` (seconds since the epoch), if it has room; else number
    /// `next` begins another one.
    ///
    /// # Errors
    /// It cannot be opened for writing.
    pub fn resume(&mut self, begun: f64, next: Seq) -> io::Result<()> {
        // A clock that was set back makes no segment old.
        let begun = Age::of(Duration::try_from_secs_f64(epoch_seconds() - begun).unwrap_or_default());
        // One without numbers has the name that a new one would get.
        let suits = |segment: &&Segment| segment.first == next || !self.is_full(segment.bytes, begun);
        let Some(segment) = self.old.back().filter(suits) else {
            return Ok(());
        };
        let segment_is_numbered = segment.first < next;
        let path = segment.path.clone();
        let file = safe_open::append_no_link(&path, false)?;
        let identity = identity(&file.metadata()?);
        self.current = self.old.pop_back().map(|segment| Current {
            file,
            identity,
            segment,
            begun,
            unsynced: None,
            is_numbered: segment_is_numbered,
        });
        Ok(())
    }

    /// Writes the line with which a run begins: whatever stood at the end before is no end any more. At the beginning
    /// of a segment its own first line does that.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn begin_run(&mut self, first: Seq) -> Result<(), WriteError> {
        match self.current {
            None => self.begin_segment(first).map_err(nothing_kept),
            Some(_) => {
                let mut head = Vec::new();
                line::put_head(&mut head, self.epoch, first, epoch_seconds());
                self.write(&head)
            }
        }
    }

    /// Writes whole lines, of which the first has number `first`; into a new segment when the one before is full.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// The disk takes no more. The segment is given up: what is torn of it is cut off, and the next lines begin a new
    /// one.
    pub fn append(&mut self, first: Seq, lines: &[u8]) -> Result<(), WriteError> {
        let full = self.current.as_ref().is_some_and(|current| {
            current.is_numbered && self.is_full(current.segment.bytes + lines.len() as u64, current.begun)
        });
        if full {
            self.flush().map_err(nothing_kept)?;
            self.close();
        }
        if self.current.is_none() {
            self.begin_segment(first).map_err(nothing_kept)?;
        }
        self.write(lines)?;
        if let Some(current) = &mut self.current {
            current.is_numbered = true;
        }
        Ok(())
    }

    fn is_full(&self, bytes: u64, begun: Age) -> bool {
        bytes > self.limits.segment_bytes || begun.get() >= self.limits.segment_age
    }

    fn begin_segment(&mut self, first: Seq) -> io::Result<()> {
        let path = self.folder.join(segment_name(first));
        let begun = epoch_seconds();
        set_aside(&path, begun)?;
        // What stood there is no segment any more; it must not take the new one with it when it is old.
        self.old.retain(|segment| segment.path != path);
        let mut options = OpenOptions::new();
        let file = options.append(true).create_new(true).open(&path)?;
        let identity = identity(&file.metadata()?);
        self.current = Some(Current {
            file,
            identity,
            segment: Segment {
                first,
                path,
                bytes: 0,
                age: Age::new(),
                events: 0,
            },
            begun: Age::new(),
            unsynced: None,
            is_numbered: false,
        });
        let mut head = Vec::new();
        line::put_head(&mut head, self.epoch, first, begun);
        self.write(&head).map_err(|fault| fault.error)?;
        // Its name must be on the disk too.
        let flush = &mut self.flush;
        let named = File::open(&self.folder).and_then(|folder| flush.ask(&folder));
        if named.is_err() {
            self.close();
        }
        named
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), WriteError> {
        let Some(current) = &mut self.current else {
            return Err(nothing_kept(io::ErrorKind::NotFound.into()));
        };
        let (written, outcome) = write_all(&mut current.file, lines);
        if written > 0 {
            current.unsynced.get_or_insert_with(Instant::now);
        }
        let Err(error) = outcome else {
            current.segment.bytes += written as u64;
            current.segment.age = Age::new();
            return Ok(());
        };
        let kept = lines[..written]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        current.segment.bytes += kept as u64;
        current.is_numbered |= kept > 0;
        // Where even that fails, the next start finds a torn line, and says so.
        if current.file.set_len(current.segment.bytes).is_err() {
            current.segment.bytes += (written - kept) as u64;
        }
        let _ = current.file.sync_data();
        self.close();
        Err(WriteError { error, kept })
    }

    /// Leaves the segment that grows; one without numbers goes, because the next one gets its name.
    fn close(&mut self) {
        if let Some(current) = self.current.take() {
            if current.is_numbered {
                self.old.push_back(current.segment);
            } else if let Ok(true) = current.is_at_its_path() {
                let _ = fs::remove_file(&current.segment.path);
            }
        }
    }

    /// Begins a new segment with the next lines.
    pub fn leave(&mut self) {
        self.close();
    }

    /// Counts `events` to the segment that was written last.
    pub fn note_events(&mut self, events: u64) {
        let current = self.current.as_mut().map(|current| &mut current.segment);
        if let Some(segment) = current.or(self.old.back_mut()) {
            segment.events += events;
        }
    }

    /// Looks whether the folder still has every segment, and forgets those that it has not: the next lines begin a new
    /// one where the one that grows is gone. Blocks on the disk.
    ///
    /// # Errors
    /// The file system does not say; then nothing is forgotten.
    pub fn forget_taken(&mut self) -> io::Result<Option<Taken>> {
        let present = firsts(&self.folder)?;
        let lost_current = match &self.current {
            Some(current) => !current.is_whole()?,
            None => false,
        };
        let mut taken = Taken {
            segments: 0,
            events: 0,
            from: None,
        };
        let mut newest = if lost_current { self.current.take() } else { None }.map(|current| current.segment);
        // What stands right before it and is gone too is one loss with it.
        while self.current.is_none() {
            let gone = |segment: &mut Segment| !present.contains(&segment.first);
            let Some(segment) = newest.take().or_else(|| self.old.pop_back_if(gone)) else {
                break;
            };
            taken.segments += 1;
            taken.events += segment.events;
            taken.from = Some(segment.first);
        }
        self.old.retain(|segment| {
            let is_there = present.contains(&segment.first);
            if !is_there {
                taken.segments += 1;
                taken.events += segment.events;
            }
            is_there
        });
        Ok((taken.segments > 0).then_some(taken))
    }

    /// Returns whether nobody else has written in the folder: every segment there that has something in it is one of
    /// ours, and as long as we left it. No folder is as good. Blocks on the disk.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn is_untouched(&self) -> io::Result<bool> {
        let current = self.current.as_ref().map(|current| &current.segment);
        let ours = |found: &Segment| {
            let mut own = self.old.iter().chain(current);
            own.any(|own| own.first == found.first && own.bytes == found.bytes)
        };
        match list(&self.folder) {
            Err(error) if is_absence(&error) => Ok(true),
            found => Ok(found?.iter().filter(|found| found.bytes > 0).all(ours)),
        }
    }

    /// When the oldest bytes were written that may not be on the disk.
    pub fn unsynced(&self) -> Option<Instant> {
        self.current.as_ref()?.unsynced
    }

    /// Returns whether the flush that was asked for last is done.
    pub fn is_flushed(&self) -> bool {
        self.flush.is_idle()
    }

    /// Asks that the disk keep what was written (fdatasync(2)).
    ///
    /// # Errors
    /// As [`FlushTx::ask`]. The segment is given up.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(current) = self.current.as_mut().filter(|current| current.unsynced.is_some()) else {
            return Ok(());
        };
        current.unsynced = None;
        let asked = self.flush.ask(&current.file);
        if asked.is_err() {
            self.close();
        }
        asked
    }

    /// Abandons the segment if a requested flush has failed: nobody knows then what the disk has kept since
    /// the one before.
    ///
    /// # Errors
    /// The flush failed, with the error that the disk gave; the caller must begin a new segment.
    pub fn look_after_flush(&mut self) -> io::Result<()> {
        match self.flush.failure() {
            None => Ok(()),
            Some(error) => {
                self.close();
                Err(error)
            }
        }
    }

    /// Has the disk keep what was written, and waits for that.
    ///
    /// # Errors
    /// The disk failed. The segment is given up.
    pub fn sync(&mut self) -> io::Result<()> {
        let synced = self.wait_for_disk();
        if synced.is_err() {
            self.close();
        }
        synced
    }

    /// As [`Store::sync`], for a segment that has no event yet.
    ///
    /// # Errors
    /// The disk failed. The segment is removed, because the next one gets its name.
    pub fn sync_new(&mut self) -> io::Result<()> {
        let synced = self.wait_for_disk();
        if let (Err(_), Some(current)) = (&synced, &mut self.current) {
            current.is_numbered = false;
            self.close();
        }
        synced
    }

    fn wait_for_disk(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        current.unsynced = None;
        current.file.sync_data()?;
        File::open(&self.folder)?.sync_all()
    }

    /// Returns whether [`Store::retire`] has something to remove.
    pub fn is_retiring_due(&self) -> bool {
        let oldest = self.old.front().map(|oldest| oldest.age.get());
        oldest.is_some_and(|age| age >= self.limits.keep_age || self.bytes() > self.limits.keep_bytes)
    }

    /// Removes the oldest whole segments that are too old, or too much, by their paths: the folder must be ours. Blocks
    /// on the disk.
    pub fn retire(&mut self) {
        let mut bytes = self.bytes();
        while let Some(oldest) = self.old.front() {
            if bytes <= self.limits.keep_bytes && oldest.age.get() < self.limits.keep_age {
                return;
            }
            match fs::remove_file(&oldest.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    log::error!(
                        "🚨 cannot remove the old journal segment {}: {error}; the journal grows beyond --journal-keep-bytes",
                        oldest.path.display()
                    );
                    // So that the younger ones are still looked at; the next start finds it again.
                }
                _ => log::info!(
                    "🧹 journal segment {} was removed: it was the oldest",
                    oldest.path.display()
                ),
            }
            bytes -= oldest.bytes;
            self.old.pop_front();
        }
    }

    /// All segments together.
    pub fn bytes(&self) -> u64 {
        let current = self.current.as_ref().map(|current| &current.segment);
        self.old.iter().chain(current).map(|segment| segment.bytes).sum()
    }

    /// The segment that grows: the number in its name, and its bytes.
    pub fn current(&self) -> Option<(Seq, u64)> {
        let current = self.current.as_ref()?;
        Some((current.segment.first, current.segment.bytes))
    }
}

impl Current {
    /// Returns whether the file is still the one at its path, and as long as it was left.
    fn is_whole(&self) -> io::Result<bool> {
        // A file that does not even know itself any more was removed at its server (ESTALE).
        let has_all = self
            .file
            .metadata()
            .is_ok_and(|facts| facts.len() >= self.segment.bytes);
        Ok(has_all && self.is_at_its_path()?)
    }

    fn is_at_its_path(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.segment.path) {
            Ok(there) => Ok(identity(&there) == self.identity),
            Err(error) if is_absence(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn identity(facts: &fs::Metadata) -> (u64, u64) {
    (facts.dev(), facts.ino())
}

fn nothing_kept(error: io::Error) -> WriteError {
    WriteError { error, kept: 0 }
}

/// How many bytes were written, and whether that is all.
fn write_all(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(len) => written += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// A file of that name is one in which nobody found a number, or that somebody has put in the place of ours: it is kept
/// for people to look at.
fn set_aside(path: &Path, now: f64) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".damaged-{now:.9}"));
    match fs::rename(path, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            log::warn!(
                "⚠️ {} is in the way of a new journal segment; it was set aside as {}",
                path.display(),
                Path::new(&aside).display()
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::flush::flusher;
    use crate::liveness::beats::tests::beats;
    use crate::process::stop::Stop;

    const LIMITS: Limits = Limits {
        segment_bytes: 300,
        segment_age: Duration::from_secs(3600),
        keep_bytes: 1000,
        keep_age: Duration::from_secs(3600),
    };

    /// Nobody flushes: it does so itself when the queue is full.
    fn store(folder: &tempfile::TempDir, limits: Limits) -> Store {
        let path = folder.path().to_owned();
        let (flush, _) = flusher(beats().journal_sync, Stop::new().unwrap());
        Store::new(path.clone(), limits, Epoch::new(), list(&path).unwrap(), flush)
    }

    /// Writes events `from..to`, each for itself.
    fn fill(store: &mut Store, numbers: std::ops::Range<Seq>) {
        for seq in numbers {
            let mut line = Vec::new();
            line::put_event(&mut line, seq, "1.5", None, br#"{"type":"x"}"#);
            store.append(seq, &line).unwrap();
            store.retire();
        }
        store.sync().unwrap();
    }

    #[test]
    fn a_full_segment_is_followed_by_another_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&folder, LIMITS);
        fill(&mut store, 1..60);
        let segments = list(folder.path()).unwrap();
        assert!(segments.len() > 2, "{segments:?}");
        assert!(segments.iter().all(|segment| segment.bytes <= 300), "{segments:?}");
        assert_eq!(segments.iter().map(|segment| segment.bytes).sum::<u64>(), store.bytes());
        assert!(store.bytes() <= 1000);
        // What is left follows each other without a gap.
        let mut next = segments[0].first;
        assert!(next > 1);
        for segment in &segments {
            assert_eq!(segment.first, next, "{segments:?}");
            let text = fs::read_to_string(&segment.path).unwrap();
            assert!(text.starts_with("{\"journal\":1,"), "{text}");
            next += text.lines().count() as u64 - 1;
        }
        assert_eq!(next, 60);
    }

    #[test]
    fn an_old_segment_is_full_and_what_is_too_old_goes() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits {
            segment_age: Duration::ZERO,
            ..LIMITS
        };
        fill(&mut store(&folder, limits), 1..4);
        assert_eq!(list(folder.path()).unwrap().len(), 3);
        let limits = Limits {
            keep_age: Duration::ZERO,
            ..LIMITS
        };
        fill(&mut store(&folder, limits), 4..5);
        let firsts: Vec<Seq> = list(folder.path())
            .unwrap()
            .iter()
            .map(|segment| segment.first)
            .collect();
        assert_eq!(firsts, [4]);
    }

    #[test]
    fn the_newest_segment_goes_on_while_it_has_room() {
        let folder = tempfile::tempdir().unwrap();
        fill(&mut store(&folder, LIMITS), 1..3);
        let mut again = store(&folder, LIMITS);
        again.resume(epoch_seconds(), 3).unwrap();
        again.begin_run(3).unwrap();
        fill(&mut again, 3..4);
        assert_eq!(list(folder.path()).unwrap().len(), 1);
        let mut late = store(&folder, LIMITS);
        late.resume(epoch_seconds() - 4000.0, 4).unwrap();
        late.begin_run(4).unwrap();
        assert_eq!(list(folder.path()).unwrap().len(), 2);
    }

    #[test]
    fn a_disk_that_writes_but_does_not_flush_costs_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits {
            keep_bytes: 0,
            ..LIMITS
        };
        let mut store = store(&folder, limits);
        // As a journal of a former run may have left it: without a number that can be read.
        fs::write(folder.path().join(segment_name(1)), "nonsense").unwrap();
        store.old.extend(list(folder.path()).unwrap());
        for _ in 0..3 {
            store.begin_run(1).unwrap();
            // Takes what is written, and refuses to flush (EINVAL).
            store.current.as_mut().unwrap().file = File::options().write(true).open("/dev/null").unwrap();
            store.append(1, b"{}\n").unwrap();
            store.sync_new().unwrap_err();
            assert_eq!(list(folder.path()).unwrap(), []);
            assert_eq!(store.old, []);
        }
        fill(&mut store, 1..2);
        store.retire();
        let names = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names: Vec<String> = names
            .filter(|name| !name.contains(&format!("{}.damaged-", segment_name(1))))
            .collect();
        assert_eq!(names, [segment_name(1)]);
        let aside = fs::read_dir(folder.path()).unwrap().count() - 1;
        assert_eq!(aside, 1, "what stood there, once");
    }

    #[test]
    fn nothing_else_in_the_folder_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "events-1.jsonl",
            "events-0000000000000000000x.jsonl",
            "events-18446744073709551615.jsonl",
            "notes",
        ] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(list(folder.path()).unwrap(), []);
        fs::write(folder.path().join(segment_name(1)), "nonsense").unwrap();
        let mut store = store(&folder, LIMITS);
        fill(&mut store, 1..2);
        let names = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let aside = names
            .filter(|name| name.to_string_lossy().contains(".damaged-"))
            .count();
        assert_eq!(aside, 1);
    }
}
