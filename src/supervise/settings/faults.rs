//! What is wrong with a file of services: each fault with its place.

use crate::config::file::{FileError, Place};
use std::path::PathBuf;

/// Collects faults.
#[derive(Debug)]
pub(super) struct Faults {
    path: PathBuf,
    list: Vec<FileError>,
}

impl Faults {
    /// Of the file at `path`; none yet.
    pub(super) fn of(path: PathBuf) -> Faults {
        Faults { path, list: Vec::new() }
    }

    /// Adds a fault of this file. `message` says what is wrong, and what to write instead.
    pub(super) fn add(&mut self, place: Place, message: impl Into<String>) {
        self.push(FileError {
            path: self.path.clone(),
            place: Some(place),
            message: message.into(),
        });
    }

    /// Adds a fault, which may be another file's.
    pub(super) fn push(&mut self, fault: FileError) {
        self.list.push(fault);
    }

    /// Returns whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them, in the order of their places.
    pub(super) fn into_list(mut self) -> Vec<FileError> {
        self.list
            .sort_by_key(|fault| fault.place.map(|place| (place.line, place.column)));
        self.list
    }
}
