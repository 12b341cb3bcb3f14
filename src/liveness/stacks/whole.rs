//! Complete stacks: each thread is asked for a copy; one that cannot answer is examined from outside.

use super::capture::{self, Answer, Asker};
use super::stack::{Stack, Symbols};
use super::symbols::Symbolizer;
use super::unwind::{Calls, Unwinder};
use super::{arena, memory};
use crate::process::task::{TaskFacts, TaskPlace};
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// How long one thread may take to answer: it needs microseconds, and a processor.
const ANSWER_BOUND: Duration = Duration::from_millis(100);
/// Once silent threads have cost this much together, each gets only [`ANSWER_BOUND_SHORT`].
const SILENCE_BOUND: Duration = Duration::from_secs(2);
/// How long each thread may take to answer from then on: 2 ms are enough for one that has a processor.
const ANSWER_BOUND_SHORT: Duration = Duration::from_millis(2);

/// The handler is installed.
#[derive(Debug)]
pub(super) struct Source;

impl Source {
    pub(super) fn install() -> io::Result<Source> {
        // Now, because there may be no descriptor when it is needed. What fails is tried again then, and told.
        let _ = memory::prepare();
        capture::install()?;
        Ok(Source)
    }

    /// Begins a dump: reads what is loaded now.
    pub(super) fn begin(&mut self) -> Session {
        // First of all, because the rest reads memory.
        let unreadable = memory::prepare().err();
        let unwinder = Unwinder::new();
        let mut symbolizer = Symbolizer::new(&unwinder.codes);
        Session {
            unreadable,
            quality: symbolizer.quality(),
            asker: Asker::new(),
            unwinder,
            symbolizer,
            silence: Duration::ZERO,
            scratch: Vec::with_capacity(memory::CALL_BYTES_MAX),
        }
    }
}

/// One dump.
pub(super) struct Session {
    asker: Option<Asker>,
    unwinder: Unwinder,
    symbolizer: Symbolizer,
    quality: Symbols,
    /// Why there are no stacks.
    unreadable: Option<memory::Refused>,
    /// Time spent on threads that did not answer.
    silence: Duration,
    /// For stacks that are read from outside.
    scratch: Vec<u8>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("quality", &self.quality)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// `None` when the thread has ended.
    pub(super) fn stack(&mut self, facts: &TaskFacts) -> Option<Stack> {
        if !arena::has_room() {
            return Some(Stack {
                note: Some("stack left out: the memory set aside for the report is used up"),
                ..Stack::default()
            });
        }
        if facts.state == 'Z' {
            return Some(Stack {
                note: Some("this thread has ended; the process has not"),
                ..Stack::default()
            });
        }
        // Who is stopped or in a wait that signals do not end would answer when that is over.
        let note = match facts.state {
            'T' | 't' => "stopped, so it cannot answer",
            'D' => "in a wait that no signal ends, so it cannot answer",
            _ if facts.blocks(capture::signal()) => "it blocks the signal that asks for the stack",
            _ => "it did not answer in time",
        };
        let can_answer = !matches!(facts.state, 'T' | 't' | 'D') && !facts.blocks(capture::signal());
        if can_answer && let Some(asker) = &mut self.asker {
            let bound = if self.silence < SILENCE_BOUND {
                ANSWER_BOUND
            } else {
                ANSWER_BOUND_SHORT
            };
            let asked = Instant::now();
            match asker.ask(facts.id, bound) {
                Answer::Gone => return None,
                Answer::Copied(copy) => {
                    let calls = self.unwinder.calls(copy, &mut self.scratch);
                    return Some(answered(calls, copy.is_cut()));
                }
                Answer::Silent => self.silence += asked.elapsed(),
            }
        }
        Some(self.look_from_outside(facts.at, note))
    }

    fn look_from_outside(&mut self, at: TaskPlace, why: &'static str) -> Stack {
        let calls = match at {
            TaskPlace::Waiting { sp, pc, .. } => self.unwinder.calls_by_search(sp, pc, &mut self.scratch),
            TaskPlace::Running | TaskPlace::Unknown => Calls::default(),
        };
        Stack {
            note: Some(why),
            hint: Some(match calls.pcs.len() {
                0 => "so its stack is not known",
                _ => "so this stack was searched for and may lack frames",
            }),
            pcs: calls.pcs,
            complete: calls.complete,
            unanswered: true,
        }
    }

    pub(super) fn symbols(&self) -> Symbols {
        self.quality
    }

    /// What every reader of this dump must know.
    pub(super) fn note(&self) -> Option<Cow<'static, str>> {
        if let Some(refused) = &self.unreadable {
            return Some(format!("note: {refused}").into());
        }
        let note = match self.quality {
            Symbols::Lines => None,
            Symbols::Names => Some(
                "note: this program has no line tables, so frames have no file and line; a build that keeps them \
                 (debug = \"line-tables-only\", no strip: as the release profile of threadcast is) has both",
            ),
            Symbols::ModulesOnly => Some(
                "note: this program is stripped or its file cannot be read, so its frames are file+address; \
                 `addr2line -Cfie FILE ADDRESS` with an unstripped build of the same source tells function and line",
            ),
        };
        note.map(Cow::Borrowed)
    }

    /// What only shows at the end.
    pub(super) fn last_note(&self) -> Option<&'static str> {
        self.symbolizer
            .ran_out
            .then_some("note: the memory set aside for the report is used up, so some frames have no name")
    }

    /// Appends the lines for one address, without their numbers.
    pub(super) fn describe(&mut self, pc: u64, lines: &mut Vec<String>) {
        self.symbolizer.describe(pc, lines);
    }
}

fn answered(calls: Calls, cut: bool) -> Stack {
    Stack {
        note: match (calls.complete, cut) {
            (true, _) => None,
            (false, true) => Some("the stack is deeper than the 256 KiB that are copied; its beginning is missing"),
            (false, false) => Some("the stack could not be followed to its beginning"),
        },
        hint: None,
        pcs: calls.pcs,
        complete: calls.complete,
        unanswered: false,
    }
}
