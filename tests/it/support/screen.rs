//! Pseudo-terminals, and what a person sees on one.

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A pseudo-terminal: the end that a terminal emulator reads, and the end that a program writes to.
pub fn pty() -> (File, OwnedFd) {
    let emulator = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&emulator).unwrap();
    unlockpt(&emulator).unwrap();
    let name = ptsname(&emulator, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let program = open(name.as_c_str(), flags, Mode::empty()).unwrap();
    (File::from(emulator), program)
}

/// Makes the terminal this many columns wide.
pub fn set_columns(terminal: impl AsFd, columns: u16) {
    let size = Winsize {
        ws_col: columns,
        ws_row: 24,
        ..tcgetwinsize(&terminal).unwrap()
    };
    tcsetwinsize(&terminal, size).unwrap();
}

/// All that a terminal got.
#[derive(Debug)]
pub struct Shown {
    seen: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Shown {
    /// Reads `emulator` until nobody has the other end.
    pub fn read(mut emulator: File) -> Shown {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sees = Arc::clone(&seen);
        #[expect(clippy::disallowed_methods, reason = "the harness has threads of its own")]
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = emulator.read(&mut bytes) {
                sees.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Shown { seen, reader }
    }

    /// Whether nobody has the other end any more, and all that came is here.
    pub fn has_ended(&self) -> bool {
        self.reader.is_finished()
    }

    /// As it came; a character may be cut.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// What a person sees, row by row, on a screen that is wide and high enough for all.
    #[track_caller]
    pub fn rows(&self) -> Vec<String> {
        let raw = self.raw();
        let mut rows = vec![Vec::new()];
        let (mut column, mut rest) = (0, raw.chars());
        while let Some(character) = rest.next() {
            let row: &mut Vec<char> = rows.last_mut().unwrap();
            match character {
                '\r' => column = 0,
                '\n' => rows.push(Vec::new()),
                '\u{1b}' => match rest.as_str().strip_prefix("[K") {
                    Some(behind) => {
                        row.truncate(column);
                        rest = behind.chars();
                    }
                    // Not whole yet, or cut and begun anew.
                    None if rest.as_str().len() < 2 || rest.as_str().starts_with(['\r', '[']) => {
                        let unfinished = rest.as_str();
                        rest = unfinished.strip_prefix('[').unwrap_or(unfinished).chars();
                    }
                    None => panic!("an escape sequence that nobody expects: {:.20}", rest.as_str()),
                },
                other => {
                    match row.get_mut(column) {
                        Some(place) => *place = other,
                        None => row.push(other),
                    }
                    column += 1;
                }
            }
        }
        rows.into_iter().map(String::from_iter).collect()
    }
}
