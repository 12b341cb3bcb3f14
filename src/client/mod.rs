//! One viewer's life: accepted, shaken hands with, joined, served, ended.

pub mod accept;

pub mod handshake;

pub mod origin;

pub mod http;

pub mod handover;

pub mod outbox;

pub mod writer;

pub mod notices;

pub mod inbox;

pub mod frame_rules;

pub mod last;

pub mod protocol;

pub mod filter;

pub mod view;

pub mod gauges;

pub mod figures;

pub mod registry;
