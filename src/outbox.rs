//! The way from the fan-out to one client: who may write to its socket, what waits for it, what is counted of it.
//!
//! `fanout`, `inbox` and the client's own thread share this; none of them waits for another one here.

pub mod handover;

pub mod link;

pub mod figures;

pub mod registry;

pub mod gauges;
