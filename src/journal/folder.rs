//! The journal's folder, which somebody may take away, or something out of it, while the server runs.

use super::{Journal, lock_path_in};
use crate::journal::displaced::Displaced;
use crate::journal::line::REMOVED;
use crate::liveness::operation::Operation;
use crate::process::files::{LockError, LockFile};
use crate::process::words::{count, pick};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// How often thread `journal` looks whether somebody has taken the folder, or something out of it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Journal {
    /// Looks once a second whether the folder is still ours, and still has what was written. Blocks on the disk.
    pub(super) fn look_after_folder(&mut self) {
        if self.failing.is_some() || self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        let _doing = self.beat.begin(Operation::Journaling);
        // What the file system does not say now, it says at the next look, or when it is written to.
        let held = match self.lock.is_at_its_path() {
            Ok(false) => self.hold_folder(),
            Ok(true) | Err(_) => Ok(()),
        };
        self.look_for_taken();
        if let Err(error) = held {
            self.store.leave();
            self.fail(&error);
        } else if let Some(to) = self.taken_to
            && let Err(error) = self.begin_anew(&[(to, REMOVED)])
        {
            self.fail(&error);
        }
    }

    /// Removes what is too old or too much, while the folder is ours.
    pub(super) fn retire(&mut self) {
        if self.store.is_retiring_due() && matches!(self.lock.is_at_its_path(), Ok(true)) {
            self.store.retire();
            self.show();
        }
    }

    /// Sees to it that the folder is there and that we hold its lock.
    ///
    /// # Errors
    /// [`Displaced`], or the folder cannot be made or looked at.
    pub(super) fn hold_folder(&mut self) -> io::Result<()> {
        if self.lock.is_at_its_path()? {
            return Ok(());
        }
        // Not even its lock, which its rightful server may want to take at this moment.
        if self.is_foreign {
            return Err(io::Error::other(Displaced::Foreign));
        }
        fs::create_dir_all(&self.folder)?;
        let lock = LockFile::acquire(&lock_path_in(&self.folder)).map_err(|error| match error {
            LockError::Io { error, .. } => error,
            held => io::Error::other(Displaced::Locked(Some(held.to_string()))),
        })?;
        if !self.store.is_untouched()? {
            self.is_foreign = true;
            return Err(io::Error::other(Displaced::Foreign));
        }
        self.lock = lock;
        Ok(())
    }

    /// Looks whether somebody has taken segments away: what was in them counts as dropped, and the next segment says
    /// which numbers that was.
    pub(super) fn look_for_taken(&mut self) {
        let Ok(Some(taken)) = self.store.forget_taken() else {
            return;
        };
        self.gauges.lose(taken.events);
        let what = format!(
            "🚨 {} of the journal {} taken out of {} by somebody else: {} of this run that {} kept there {} gone",
            count(taken.segments as u64, "segment"),
            pick(taken.segments as u64, "was", "were"),
            self.folder.display(),
            count(taken.events, "event"),
            pick(taken.events, "was", "were"),
            pick(taken.events, "is", "are")
        );
        let Some(from) = taken.from else {
            log::warn!("{what}. A restart and `threadcast replay` go without them");
            return;
        };
        log::error!("{what}. A new segment begins. Stop the server before you remove or move its journal");
        self.taken_to = self.taken_to.max(Some(self.written));
        self.written = from - 1;
    }
}
