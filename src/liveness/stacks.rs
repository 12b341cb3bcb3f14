//! Every thread of this process with its stack, made by one thread while any other may be stuck anywhere, the
//! allocator's lock included.
//!
//! The thread that dumps asks each other thread by a signal to copy its registers and its stack (`capture`), unwinds
//! the copy by the unwind tables that the program carries (`unwind`), and finds function, file and line (`symbols`).
//! Nothing of it takes a lock, waits without a bound, or uses the system's allocator: memory comes from [`arena`].
//! Everything that a dump loads it also unloads, so that an idle server carries none of it.
//!
//! A build without the feature `stacks`, or not for x86_64, tells the state of every thread and the address where it
//! entered the kernel.

pub mod arena;
mod maps;
mod stack;
mod text;

pub use stack::Symbols;

#[cfg(all(feature = "stacks", target_arch = "x86_64"))]
mod capture;
#[cfg(all(feature = "stacks", target_arch = "x86_64"))]
mod memory;
#[cfg(all(feature = "stacks", target_arch = "x86_64"))]
mod symbols;
#[cfg(all(feature = "stacks", target_arch = "x86_64"))]
mod unwind;
#[cfg(all(feature = "stacks", target_arch = "x86_64"))]
mod whole;
#[cfg(all(feature = "stacks", target_arch = "x86_64"))]
use whole as source;

#[cfg(not(all(feature = "stacks", target_arch = "x86_64")))]
mod listing;
#[cfg(not(all(feature = "stacks", target_arch = "x86_64")))]
use listing as source;

use crate::process::task::{self, TaskFacts, TaskPlace};
use crate::process::words::count;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant};
use text::{Entry, Writer};

/// Makes dumps. One per process at a time; belongs to the thread that makes them.
#[derive(Debug)]
pub struct Dumper {
    source: source::Source,
}

/// What a dump came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpSummary {
    /// Threads in the text, the one that made it included.
    pub threads: usize,
    /// Of these, with a stack down to where the thread began.
    pub complete: usize,
    /// Of these, asked in vain, so what is told comes from /proc.
    pub unanswered: usize,
    /// How long it took.
    pub took: Duration,
    /// How much is known about the addresses of this program.
    pub symbols: Symbols,
}

impl Dumper {
    /// Prepares dumps. To be called on the thread that will make them, once it runs: a thread that is still on the way
    /// into its body uses the system's allocator once more, and could stick there.
    ///
    /// # Errors
    /// The host refuses address space for the arena, or the handler of the signal.
    pub fn install() -> io::Result<Dumper> {
        arena::prepare()?;
        // The C library gives a thread its cache of free memory at the first use, under a lock.
        drop(std::hint::black_box(Box::new(0_u64)));
        Ok(Dumper {
            source: source::Source::install()?,
        })
    }

    /// Gives the text of a dump to `out` in pieces of whole lines: threads `first` in their order, the others, this
    /// thread. Runs in [`arena::scope`], and so does `out`.
    ///
    /// Blocks until every thread has answered, at most 100 ms for each and some 2 s for all of them together.
    pub fn dump(&mut self, first: &[i32], out: &mut dyn FnMut(&[u8])) -> DumpSummary {
        arena::scope(|| self.dump_in_arena(first, out))
    }

    fn dump_in_arena(&mut self, first: &[i32], out: &mut dyn FnMut(&[u8])) -> DumpSummary {
        let began = Instant::now();
        let mut session = self.source.begin();
        let entries = entries(first, &mut session);
        let count = |what: fn(&Entry) -> bool| entries.iter().filter(|entry| what(entry)).count();
        let mut summary = DumpSummary {
            threads: entries.len(),
            complete: count(|entry| entry.stack.complete),
            unanswered: count(|entry| entry.stack.unanswered),
            took: Duration::ZERO,
            symbols: session.symbols(),
        };
        let mut writer = Writer { out, written: 0 };
        if let Some(note) = session.note() {
            writer.write(&format!("{note}\n"));
        }
        for group in text::fold(entries) {
            writer.write_group(&group, &mut session);
        }
        if let Some(note) = session.last_note() {
            writer.write(&format!("{note}\n"));
        }
        // Unloading is part of it.
        drop(session);
        summary.took = began.elapsed();
        writer.write(&last_line(&summary));
        summary
    }
}

/// All threads with their stacks, those in `first` first, this one last.
fn entries(first: &[i32], session: &mut source::Session) -> Vec<Entry> {
    let own = rustix::thread::gettid().as_raw_nonzero().get();
    let mut ids = first.to_vec();
    // Without /proc there is at least what was asked for.
    ids.extend(
        task::ids()
            .unwrap_or_default()
            .into_iter()
            .filter(|id| !first.contains(id)),
    );
    let entry = |(index, id)| {
        let mut facts = TaskFacts::read(id)?;
        if id == own {
            facts.at = TaskPlace::Running;
        }
        let stack = session.stack(&facts)?;
        Some(Entry {
            facts,
            stack,
            first: index < first.len(),
            reports: id == own,
        })
    };
    ids.into_iter().enumerate().filter_map(entry).collect()
}

fn last_line(summary: &DumpSummary) -> String {
    let mut line = format!(
        "{}, {} with a complete stack",
        count(summary.threads, "thread"),
        summary.complete
    );
    if summary.unanswered > 0 {
        // Writing to a string does not fail.
        let _ = write!(line, ", {} did not answer", summary.unanswered);
    }
    let _ = writeln!(line, "; made in {:.2} s", summary.took.as_secs_f64());
    line
}

#[cfg(test)]
mod tests;
