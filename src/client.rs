//! One viewer's life: accepted, shaken hands with, joined, served, ended.

pub mod accept;

pub mod handshake;

pub mod last;

pub mod inbox;

pub mod frame_rules;

pub mod writer;

pub mod notices;
