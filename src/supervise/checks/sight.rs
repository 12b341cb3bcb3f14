//! What one look at a sign has come to.

use std::time::Duration;

/// How a look counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All is well.
    Well,
    /// Neither: there was no time yet to show it.
    Open,
    /// Nothing can be said, and a person should know: a damaged queue, a server that does not answer.
    Blind,
    Failing,
}

/// What a look has measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figure {
    /// How old the newest sign is.
    pub age: Option<Duration>,
    /// How much waits.
    pub length: Option<u64>,
    /// Memory.
    pub bytes: Option<u64>,
}

/// One look.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    pub kind: Kind,
    /// What was seen, or what is wrong, for people.
    pub text: String,
    pub figure: Figure,
}

impl Sight {
    /// A look without figures.
    pub fn new(kind: Kind, text: impl Into<String>) -> Sight {
        Sight {
            kind,
            text: text.into(),
            figure: Figure::default(),
        }
    }

    /// The same with what it has measured.
    pub fn with(mut self, figure: Figure) -> Sight {
        self.figure = figure;
        self
    }
}

/// The time in words: `0.4 s`, `12 s`, `3 min`, `2.5 h`.
pub fn in_words(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        ..10.0 => format!("{seconds:.1} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
