//! What a build without stacks can tell of a thread: the address where it entered the kernel.

use super::maps::{self, Module};
use super::stack::{Stack, Symbols};
use crate::process::task::{TaskFacts, TaskPlace};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

/// Nothing to prepare in this build.
#[derive(Debug)]
pub(super) struct Source;

impl Source {
    pub(super) fn install() -> io::Result<Source> {
        Ok(Source)
    }

    pub(super) fn begin(&mut self) -> Session {
        Session {
            modules: maps::read_modules(),
        }
    }
}

/// One dump.
#[derive(Debug)]
pub(super) struct Session {
    modules: Vec<Module>,
}

impl Session {
    /// `None` when the thread has ended.
    pub(super) fn stack(&mut self, facts: &TaskFacts) -> Option<Stack> {
        let pcs = match facts.at {
            TaskPlace::Waiting { pc, .. } => vec![pc],
            TaskPlace::Running | TaskPlace::Unknown => Vec::new(),
        };
        Some(Stack {
            pcs,
            ..Stack::default()
        })
    }

    pub(super) fn symbols(&self) -> Symbols {
        Symbols::ModulesOnly
    }

    /// What every reader of this dump must know.
    pub(super) fn note(&self) -> Option<Cow<'static, str>> {
        Some(Cow::Borrowed(
            "note: this build has no stacks, only the address where each waiting thread entered the kernel; \
             a build for x86_64 with the feature `stacks`, which is on by default, has them",
        ))
    }

    /// What only shows at the end.
    pub(super) fn last_note(&self) -> Option<&'static str> {
        None
    }

    /// Appends the lines for one address, without their numbers.
    pub(super) fn describe(&mut self, pc: u64, lines: &mut Vec<String>) {
        let mut line = String::new();
        // Writing to a string does not fail.
        let _ = match self.modules.iter().find(|module| module.contains(pc)) {
            Some(module) => write!(line, "{}+{:#x}", module.name(), pc - module.start),
            None => write!(line, "{pc:#x}, in no module"),
        };
        lines.push(line);
    }
}
