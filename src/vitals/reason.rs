//! Why the server is not well, or what it has found: one reason, for `/health`, the heartbeat and alerts.

/// What a reason is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A thread makes no progress for the hang timeout.
    Hung,
    /// The journal cannot be written.
    JournalFailed,
    /// The path of the event socket leads to another server, or to nothing.
    SocketTaken,
    /// A machine lives, and is in its state for longer than its limit.
    Stuck,
    /// The same without a sign of life.
    Silent,
    /// Anything that raises no alert.
    Other,
}

impl Kind {
    /// Its name as an alert; `None` raises none.
    pub fn alert(self) -> Option<&'static str> {
        match self {
            Kind::Hung => Some("hung"),
            Kind::JournalFailed => Some("journal_failed"),
            Kind::SocketTaken => Some("socket_taken"),
            Kind::Stuck => Some("stuck"),
            Kind::Silent => Some("silent"),
            Kind::Other => None,
        }
    }
}

/// One reason. Kind and subject stay the same while it lasts; the text may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub kind: Kind,
    /// A thread, a path, a machine.
    pub subject: String,
    /// A sentence without its end.
    pub text: String,
}
