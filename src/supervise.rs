//! Other people's processes, safely: what identifies, starts, finds, stops and remembers the processes of services.
//!
//! A process is of a service of this run if its environment has exactly the mark that we gave it ([`mark`]), or if it
//! descends from what we started ([`census`]). Nothing else is ever signaled from here. Every signal goes through a
//! pidfd whose process was compared with what was seen ([`identity`]), so that a number that was given to another
//! process hits nobody. Nothing here has a thread of its own.
//!
//! [`settings`] reads the file that describes services; the rest takes plain values.

pub mod adopt;
pub mod census;
pub mod children;
pub mod identity;
pub mod launch;
pub mod leader;
pub mod log_files;
pub mod mark;
pub mod orphans;
pub mod record;
pub mod run_folder;
pub mod settings;
pub mod spawn;
pub mod stat;
pub mod stop;
pub mod write;

#[cfg(test)]
mod tests;
