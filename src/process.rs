//! The contract with the operating system: time, threads, signals, files, the log.
//!
//! Knows nobody else in this crate; everybody may use it.

pub mod address;
pub mod bell;
pub mod clock;
pub mod command_line;
pub mod exit;
pub mod files;
pub mod groups;
pub mod heap;
pub mod host_names;
pub mod limits;
pub mod locks;
pub mod log_sinks;
pub mod logging;
pub mod nearest;
pub mod passed_sockets;
pub mod peer;
pub mod pile;
pub mod pressure;
pub mod procfs;
pub mod recvmmsg;
pub mod refusal;
pub mod safe_open;
pub mod signals;
pub mod stop;
pub mod systemd;
pub mod tally;
pub mod task;
pub mod tcp_path;
pub mod threads;
pub mod tty;
pub mod values;
pub mod visible;
pub mod waits;
pub mod wake;
pub mod web_origin;
pub mod words;
