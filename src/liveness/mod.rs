//! Who proves that the others are alive.
//!
//! In this version: the beats that every thread shows, and the drill that makes one stop. Health is judged from them.

pub mod beat;

pub mod drill;

pub mod stacks;
