//! Looks again and again at the files that `[[watch]]` names, and sends an event for what appears, changes, goes or
//! settles. It never asks the kernel to tell it (inotify(7)): an observer that is called from outside while it works is
//! what deadlocked the programs that this is made for.
//!
//! Runs on: `watch`, one, in `threadcast up` with a `[[watch]]`.
//! Owns: what it saw at the look before; a way to the event socket.
//! Blocks on: the clock (250 ms a turn); the disks of the files.
//! Can be stalled by: these disks; nobody else is.
//! Full queue means: of the event socket, the event is lost, and counted.
//! Ends when: asked to.
//! Watched as: `watch`, by thread `main`.

mod changes;

use crate::liveness::beat::Beat;
use crate::liveness::clock_wait;
use crate::liveness::operation::Operation;
use crate::process::clock::epoch_seconds;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::visible::visible;
use crate::process::waits;
use crate::process::words::count;
use crate::supervise::events::Events;
use crate::supervise::settings::plan;
use crate::supervise::watch::changes::{Changes, Found, State};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Files of a folder that are watched: the first ones by name.
pub const FILES_MAX: usize = 10_000;
/// Between two looks while there is nothing to look at.
const REST: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Watched {
    watch: plan::Watch,
    changes: Changes,
    due: Instant,
    /// The server knows of it.
    is_registered: bool,
    /// The log has the line that its folder is too large.
    is_cut: bool,
    /// The log has the line that it cannot be read.
    is_unread: bool,
}

/// The thread's own things.
#[derive(Debug)]
pub struct Watches {
    list: Vec<Watched>,
    events: Events,
    beat: &'static Beat,
    stop: Stop,
}

impl Watches {
    /// Ready to run.
    pub fn new(list: &[plan::Watch], events: Events, beat: &'static Beat, stop: Stop) -> Watches {
        let now = Instant::now();
        let list = list.iter().map(|watch| Watched {
            watch: watch.clone(),
            changes: Changes::default(),
            due: now,
            is_registered: false,
            is_cut: false,
            is_unread: false,
        });
        Watches {
            list: list.collect(),
            events,
            beat,
            stop,
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The host refuses another thread; `Refusal` says what helps.
    pub fn start(self) -> io::Result<ThreadHandle<()>> {
        threads::spawn("watch", CORE_STACK_BYTES, None, move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beat.adopt();
        while !self.stop.requested() {
            for at in 0..self.list.len() {
                if self.list[at].due <= Instant::now() {
                    self.look(at);
                }
            }
            let dues = self.list.iter().map(|watched| watched.due);
            let due = dues.min().unwrap_or_else(|| Instant::now() + REST);
            clock_wait::wait_until(due, self.beat, &self.stop, &waits::WATCH);
        }
        for watched in self.list.iter().filter(|watched| watched.is_registered) {
            self.events.end_watch(&watched.watch.name, epoch_seconds());
        }
        if self.events.lost() > 0 {
            log::info!(
                "📭 {} of watched files were not told, because no server took them at the event socket",
                count(self.events.lost(), "change")
            );
        }
        self.beat.turn_to(Operation::Ended);
    }

    fn look(&mut self, at: usize) {
        let watched = &mut self.list[at];
        let (name, path) = (&watched.watch.name, &watched.watch.path);
        if !watched.is_registered {
            watched.is_registered = self.events.register_watch(name, epoch_seconds());
        }
        let found = {
            let _doing = self.beat.begin(Operation::Reading);
            find(path, self.beat)
        };
        let now = Instant::now();
        watched.due = now + watched.watch.every;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                if !std::mem::replace(&mut watched.is_unread, true) {
                    log::warn!(
                        "⚠️ watch {name}: {} cannot be read: {error}; looking again",
                        path.display()
                    );
                }
                return;
            }
        };
        if std::mem::take(&mut watched.is_unread) {
            log::info!("✅ watch {name}: {} can be read again", path.display());
        }
        if found.is_cut && !std::mem::replace(&mut watched.is_cut, true) {
            log::warn!(
                "⚠️ watch {name}: {} has more than {FILES_MAX} files; only the first ones by name are watched",
                path.display()
            );
        }
        for (file, what) in watched.changes.take(found, watched.watch.settle, now) {
            let path = if file.is_empty() {
                path.clone()
            } else {
                path.join(&file)
            };
            let shown = visible(&path.display().to_string());
            self.events.file(name, what.kind(), &shown, epoch_seconds());
        }
    }
}

fn state(facts: &Metadata) -> State {
    (facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec())
}

/// The file at a path, or those directly in the folder there. What is neither is no file.
fn find(path: &Path, beat: &Beat) -> io::Result<Found> {
    let mut found = Found::default();
    let facts = match fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    if facts.is_file() {
        found.files.insert(OsString::new(), state(&facts));
    }
    if !facts.is_dir() {
        return Ok(found);
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        // It went meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        beat.step();
        let entry = entry?;
        // What has gone since is not there.
        let Some(facts) = fs::metadata(entry.path()).ok().filter(Metadata::is_file) else {
            continue;
        };
        found.files.insert(entry.file_name(), state(&facts));
        if found.files.len() > FILES_MAX {
            found.files.pop_last();
            found.is_cut = true;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::beat::Role;
    use crate::liveness::operation::{SlowLimits, SlowTally};

    #[test]
    fn a_file_a_folder_and_nothing_are_found() {
        let limits = SlowLimits {
            broadcast: Duration::MAX,
            snapshot: Duration::MAX,
        };
        let slow: &'static SlowTally = Box::leak(Box::new(SlowTally::new(limits)));
        let beat = Beat::new("watch", Role::Helper, slow);
        let folder = tempfile::tempdir().unwrap();
        let names = |path: &Path| {
            let found = find(path, &beat).unwrap();
            found.files.into_keys().collect::<Vec<_>>()
        };
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        fs::write(folder.path().join("b"), "2").unwrap();
        assert_eq!(names(folder.path()), ["a", "b"]);
        assert_eq!(names(&folder.path().join("a")), [""]);
        assert!(names(&folder.path().join("none")).is_empty());
        assert!(names(Path::new("/dev/null")).is_empty());
        find(&folder.path().join("a/b"), &beat).unwrap_err();
    }
}
