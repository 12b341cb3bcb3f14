//! From the kernel to the fan-out: the datagram socket and its path, who receives and when, and the queue in between.

pub mod event_socket;

pub mod gauges;

pub mod queue;

pub mod receiver;

pub mod ingest;

use std::time::Duration;

/// Settings of the intake.
#[derive(Clone, Copy, Debug)]
pub struct IntakeSettings {
    /// Bytes of events that the queue holds.
    pub queue_bytes_max: usize,
    /// How long a full queue waits for a fan-out that stands still: `--ingest-patience`.
    pub patience: Duration,
    /// `--max-event-bytes`.
    pub event_bytes_max: usize,
    /// `--socket-mode`.
    pub socket_mode: u32,
}
