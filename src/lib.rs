//! threadcast shows people what their local workers are doing, live, and cannot hang silently.
//!
//! ```text
//!  engines            ┌────────┐  bounded   ┌────────┐  send without blocking   ┌─────────┐
//!  (Unix datagrams) ─►│ ingest │───queue───►│ fanout │─────────────────────────►│ sockets │─► browsers
//!                     └────────┘            └────────┘   or, once one is full:  └─────────┘
//!                                               │        bounded queue ─► client-N ─►┘  ▲
//!                                               │                                       │
//!                     ┌────────┐  a thread per connection: handshake, page   ┌───────┐  │
//!  browsers ─────────►│ accept │────────────────────────────────────────────►│ inbox │──┘ pongs
//!                     └────────┘                                             └───────┘
//! ```
//!
//! There is no async runtime. No component waits for another without a bound. ARCHITECTURE.md has the table of the
//! threads and the order of the rooms. The rooms, from the top:

pub mod cli;

pub mod commands;

pub mod serve;

pub mod supervise;

pub mod client;

pub mod admin;

pub mod web;

pub mod vitals;

pub mod detector;
pub mod engine_db;

pub mod config;

pub mod fanout;

pub mod intake;

pub mod journal;

pub mod outbox;

pub mod stream;

pub mod liveness;

pub mod process;

/// The system's allocator, with a way around its locks for the thread that reports a hang.
#[global_allocator]
static ALLOCATOR: liveness::stacks::arena::Allocator = liveness::stacks::arena::Allocator;
