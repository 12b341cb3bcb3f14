//! Drives the real binary over real sockets. One file per promise; `support` is the harness.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says what went wrong by panicking"
)]

mod support;

mod address_space;
mod admin;
mod alerts;
mod bad_events;
#[cfg(feature = "config-file")]
mod checks;
#[cfg(feature = "config-file")]
mod cleanup;
mod cli;
mod clock;
mod conflation;
mod contract;
mod delivery;
mod drill;
mod emit;
mod ending;
#[cfg(feature = "engine-db")]
mod engine_db;
#[cfg(feature = "engine-db")]
mod engine_db_faults;
#[cfg(feature = "engine-db")]
mod engine_recovered;
mod environment;
mod event_socket;
mod files;
mod frozen;
mod gaps;
mod handshake;
mod heartbeat;
// Other builds have other defaults, and help that is not wrapped.
#[cfg(all(feature = "engine-db", feature = "shell-comfort"))]
mod help;
mod hostile;
mod http;
mod http_doc;
mod journal;
mod layers;
mod log_format;
mod logging;
mod machines;
mod machines_graph;
mod machines_trouble;
mod memory;
mod messages;
mod names;
mod network_cut;
mod notices;
mod own_events;
mod pausing;
mod protocol_doc;
mod refused_calls;
mod refused_waits;
mod services;
#[cfg(feature = "config-file")]
mod services_doc;
mod settings;
mod signals;
mod slow_client;
mod socket_activation;
mod state_file;
mod status;
mod stopped_thread;
mod stopping;
mod stream_property;
mod stuck;
mod stuck_demo;
mod systemd;
mod table;
mod tail;
mod tail_last;
mod tail_resume;
mod tail_terminal;
mod terminal;
mod tidy;
#[cfg(feature = "config-file")]
mod up;
#[cfg(feature = "config-file")]
mod up_again;
mod watchdog;
#[cfg(feature = "config-file")]
mod watches;
mod wire_property;
