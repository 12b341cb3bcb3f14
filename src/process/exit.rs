//! The exit statuses of every command; README's table is checked against this one by a test.

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Everything asked for was done; for `serve`: stopped by SIGTERM or SIGINT, in order.
    Fine = 0,
    /// It could not start, or could not go on; also a further signal while stopping.
    Failed = 1,
    /// Unknown command or flag, a value that cannot be read, a faulty settings file.
    Usage = 2,
}

impl ExitStatus {
    /// Every status with the text that README shows.
    pub const TABLE: [(ExitStatus, &'static str); 3] = [
        (ExitStatus::Fine, "fine"),
        (ExitStatus::Failed, "failed"),
        (ExitStatus::Usage, "wrong usage"),
    ];
}

impl From<ExitStatus> for std::process::ExitCode {
    fn from(status: ExitStatus) -> Self {
        std::process::ExitCode::from(status as u8)
    }
}
