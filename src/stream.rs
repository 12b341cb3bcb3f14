//! What travels, and what is known of it: events with their numbers, the batches that carry them, the history, the
//! table of machines, and how each client sees them. Owns no thread.

pub mod event;

pub mod conflation;
pub mod drops;

pub mod position;

pub mod chunk;

pub mod filter;

pub mod declared;

pub mod protocol;

pub mod machines;

pub mod view;

pub mod batch;

pub mod history;
pub mod initial;

pub mod learned;

pub mod notice;
