//! Asks a running supervisor by its control socket.

use crate::supervise::run_folder::connect_control;
use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;

/// A supervisor answers within moments, whatever hangs.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer: some 500 bytes a service.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// No supervisor runs in that folder.
    Nobody,
    /// What is wrong, in words.
    Other(String),
}

/// Asks the supervisor of the run folder at `run_dir`. Blocks for 2 s at most.
///
/// # Errors
/// There is none, or it does not answer, or it refuses.
pub fn ask(run_dir: &Path, request: &Value) -> Result<Value, Unanswered> {
    let other = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Unanswered::Other(format!("the supervisor of {} does not answer", run_dir.display()))
        }
        _ => Unanswered::Other(format!(
            "the supervisor of {} does not answer: {error}",
            run_dir.display()
        )),
    };
    let mut stream = connect_control(run_dir).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => Unanswered::Nobody,
        ErrorKind::PermissionDenied => Unanswered::Other(format!(
            "{} belongs to another user: ask as that user, or as root",
            run_dir.display()
        )),
        _ => other(error),
    })?;
    let timeouts = stream
        .set_read_timeout(Some(TIMEOUT))
        .and_then(|()| stream.set_write_timeout(Some(TIMEOUT)));
    timeouts.map_err(other)?;
    let mut line = request.to_string();
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(other)?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream).take(ANSWER_BYTES_MAX);
    reader.read_line(&mut answer).map_err(other)?;
    if answer.is_empty() {
        return Err(Unanswered::Other(format!(
            "the supervisor of {} closed the connection",
            run_dir.display()
        )));
    }
    let strange = || Unanswered::Other("the answer is not what a supervisor says".to_owned());
    let answer: Value = serde_json::from_str(&answer).map_err(|_| strange())?;
    if answer.get("ok").and_then(Value::as_bool) == Some(true) {
        return Ok(answer);
    }
    let why = answer.get("error").and_then(Value::as_str).ok_or_else(strange)?;
    Err(Unanswered::Other(why.to_owned()))
}
