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
//! | thread | count | owns | waits for, at most | watched |
//! |---|---|---|---|---|
//! | `main` | 1 | start, signals, ordered stop | a signal, 250 ms | yes |
//! | `ingest` | 1 | that the datagram socket's path is still ours; receiving, while the fan-out is busy | a datagram, 250 ms | core |
//! | `fanout` | 1 | client list, machine table, numbering, history; receiving, while it is idle | an event or a request, 250 ms; the rest of a burst, 4 ms | core |
//! | `accept` | 1 | the TCP listener | a connection, 250 ms | core |
//! | `inbox` | 1 | reading from every client | readiness, 250 ms | core |
//! | `client-N` | 1 per client | that client's handshake, backlog, keepalive, closing | its queue until the next ping; its socket 2 s | yes |
//! | `heartbeat` | 1 | the line every 5 s, the content of the status file | the clock, 250 ms | yes |
//! | `journal` | 0-1 | the event journal | a batch of events, 250 ms | yes |
//! | `journal-sync` | 0-1 | nothing | something to flush, 250 ms | yes |
//! | `enginedb` | 0-1 | reading the engine's database | the clock, 250 ms; a locked database, 250 ms | yes |
//! | `admin` | 0-1 | the admin socket | a connection, 250 ms | yes |
//! | `admin-request` | 0-12 | one request at the admin socket | its head 5 s, a report 10 s, its answer 5 s | no |
//! | `files` | 0-1 | the state file and the status file | content, 250 ms | yes |
//! | `watchdog` | 1 | what it remembers of every beat | the clock, 250 ms; the emergency file, 1 s | by `/health` |
//! | `reports` | 1 | the emergency file | a report, 250 ms | yes |
//! | `log` | 1 | simplelog and its sinks | a line, 250 ms | yes |
//! | `start` | 1, while the server starts; when it is given up, 1 more for each file to remove | ending a start that hangs when a signal asks for it | the start's end, 100 ms | no |
//! | `reload` | 0-1, after SIGHUP | reading the settings again | the file of settings, without a bound; nobody waits for it | no |
//! | `signals` | 1, in `tail` and `emit --stdin` only | ending the command when a signal cannot reach what it waits for | a signal, 60 s | no |
//! | `lookup` | 1, in `tail` only | nothing | the system's answer to a name | no |
//!
//! There is no async runtime. No component waits for another without a bound. Modules, in reading order:

pub mod cli;

pub mod commands;

pub mod serve;

pub mod client;

pub mod admin;

pub mod web;

pub mod vitals;

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
