//! One event's journey: received, checked, numbered, applied to the machine table, encoded once, handed to everybody.
//!
//! ```text
//! datagram ─ event_socket ─ ingest ─ intake ─► fanout ─ event ─ machines ─ batch ─► every client, history, journal
//! ```

pub mod event;

pub mod event_socket;

pub mod intake;

pub mod receiver;

pub mod ingest;

pub mod chunk;

pub mod batch;

pub mod position;

pub mod history;

pub mod journal;

pub mod machines;

pub mod state_file;

pub mod rates;

pub mod requests;

pub mod engine_db;

pub mod fanout;
