//! Services: programs of others that threadcast starts, watches and stops; their settings file.
//!
//! A process is of a service of this run if its environment has exactly the mark that we gave it ([`mark`]), or if it
//! descends from what we started ([`census`]). Nothing else is ever signaled from here. Every signal goes through a
//! pidfd whose process was compared with what was seen ([`identity`]), so that a number that was given to another
//! process hits nobody. These threads work here: [`act`] starts and stops, [`look`] sees what the services take,
//! [`control`] answers people, [`watch`] looks at files.

pub mod act;
pub mod adopt;
pub mod ask;
pub mod board;
pub mod census;
mod checked;
pub mod checks;
pub mod children;
pub mod conflicts;
pub mod control;
pub mod errand;
pub mod events;
pub mod guard;
pub mod identity;
pub mod launch;
pub mod leader;
pub mod log_files;
pub mod look;
pub mod mark;
pub mod orphans;
mod probe;
pub mod record;
pub mod restarts;
pub mod run_folder;
pub mod settings;
pub mod spawn;
mod starving;
pub mod stat;
pub mod stop;
mod unit;
pub mod watch;
pub mod write;

#[cfg(test)]
mod tests;
