//! Who proves that the others are alive.
//!
//! Every thread shows a beat: that it moves, and what it does. The watchdog reads the beats; the heartbeat says how the
//! server does.

pub mod beat;

pub mod operation;

pub mod client_beats;

pub mod clock_wait;

pub mod beats;

pub mod drill;

pub mod judge;

pub mod standstill;

pub mod watchdog;

pub mod voice;

pub mod backlog;

pub mod report;
pub mod report_writer;

pub mod emergency_file;

pub mod demand;

pub mod stacks;
