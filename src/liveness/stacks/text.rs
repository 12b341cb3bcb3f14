//! What a dump says: one entry per thread, threads that stand at the same place folded into one, bounded in size.

#[cfg(not(all(feature = "stacks", target_arch = "x86_64")))]
use super::listing::Session;
use super::stack::Stack;
#[cfg(all(feature = "stacks", target_arch = "x86_64"))]
use super::whole::Session;
use crate::process::task::{TaskFacts, TaskPlace, syscall_name};
use crate::process::words::count;
use std::fmt::Write as _;
use std::time::Duration;

/// After so many bytes further entries have no frames any more, only their heads: 1 MiB holds some 500 different stacks
/// and is what an operator can still attach to a ticket.
const FRAMES_BYTES_MAX: usize = 1 << 20;
/// Frames shown of the inner end of a deeper stack. Its middle is left out: a runaway recursion repeats itself there.
const FRAMES_TOP: usize = 100;
/// Frames shown of its outer end, which says what the thread is.
const FRAMES_BOTTOM: usize = 28;
/// Lines with the names of folded threads are broken here.
const NAMES_COLUMNS: usize = 110;
/// A shorter wait for a processor is usual and not told.
const RUN_DELAY_TOLD: Duration = Duration::from_millis(10);

/// One thread.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) facts: TaskFacts,
    pub(super) stack: Stack,
    /// To be shown by itself, before the others.
    pub(super) first: bool,
    /// This is the thread that makes the dump.
    pub(super) reports: bool,
}

impl Entry {
    /// Returns whether both may share one entry.
    fn folds_with(&self, other: &Entry) -> bool {
        let alone = |entry: &Entry| entry.first || entry.reports || entry.stack.note.is_some();
        let what = |entry: &Entry| (entry.facts.state, syscall_of(&entry.facts));
        !alone(self)
            && !alone(other)
            && self.stack.pcs == other.stack.pcs
            && self.facts.wchan == other.facts.wchan
            && what(self) == what(other)
    }
}

fn syscall_of(facts: &TaskFacts) -> Option<i64> {
    match facts.at {
        TaskPlace::Waiting { syscall, .. } => syscall,
        TaskPlace::Running | TaskPlace::Unknown => None,
    }
}

/// Entries that stand at the same place together, each group where its first member was.
pub(super) fn fold(mut entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    // Stable, so that who is to be first and the order of ids stay.
    entries.sort_by(|a, b| {
        let key = |entry: &Entry| (!entry.first, entry.reports);
        key(a).cmp(&key(b))
    });
    let mut groups: Vec<Vec<Entry>> = Vec::new();
    for entry in entries {
        match groups.iter_mut().find(|group| group[0].folds_with(&entry)) {
            Some(group) => group.push(entry),
            None => groups.push(vec![entry]),
        }
    }
    groups
}

/// Writes groups and counts bytes.
pub(super) struct Writer<'a> {
    pub(super) out: &'a mut dyn FnMut(&[u8]),
    pub(super) written: usize,
}

impl Writer<'_> {
    /// Whole lines.
    pub(super) fn write(&mut self, lines: &str) {
        self.written += lines.len();
        (self.out)(lines.as_bytes());
    }

    /// One entry; without its frames when there is no room for them any more.
    pub(super) fn write_group(&mut self, group: &[Entry], session: &mut Session) {
        let mut text = head(group);
        let stack = &group[0].stack;
        if let Some(note) = stack.note {
            let comma = if stack.hint.is_some() { ", " } else { "" };
            let _ = writeln!(text, "  ({note}{comma}{})", stack.hint.unwrap_or_default());
        }
        if self.written > FRAMES_BYTES_MAX {
            text.push_str("  (stack left out: the dump has reached 1 MiB)\n");
        } else {
            frames(&stack.pcs, session, &mut text);
        }
        self.write(&text);
    }
}

/// Line by line, numbered; functions that the compiler has put into their caller have lines of their own.
fn frames(pcs: &[u64], session: &mut Session, text: &mut String) {
    let mut number = 0;
    let mut lines = Vec::new();
    for (index, pc) in pcs.iter().enumerate() {
        let left_out = pcs.len().saturating_sub(FRAMES_TOP + FRAMES_BOTTOM);
        if left_out > 0 && index == FRAMES_TOP {
            let _ = writeln!(text, "  ({} left out)", count(left_out, "frame"));
        }
        if (FRAMES_TOP..FRAMES_TOP + left_out).contains(&index) {
            continue;
        }
        lines.clear();
        session.describe(*pc, &mut lines);
        for line in &lines {
            let _ = writeln!(text, "  #{number} {line}");
            number += 1;
        }
    }
}

fn head(group: &[Entry]) -> String {
    let mut text = String::new();
    let entry = &group[0];
    let facts = &entry.facts;
    if let [_] = group {
        let _ = write!(text, "thread {} (id {}) ", facts.name, facts.id);
        situation(facts, &mut text);
        let _ = write!(text, ", cpu {:.2} s", facts.cpu.as_secs_f64());
        if facts.run_delay >= RUN_DELAY_TOLD {
            let _ = write!(text, ", waited {:.2} s for a processor", facts.run_delay.as_secs_f64());
        }
        if entry.reports {
            text.push_str("; this thread makes the report");
        }
        text.push('\n');
        return text;
    }
    let _ = write!(text, "{} threads at the same place, ", group.len());
    situation(facts, &mut text);
    let cpu = group.iter().map(|entry| entry.facts.cpu);
    let least = cpu.clone().min().unwrap_or_default().as_secs_f64();
    let _ = write!(
        text,
        ", cpu {least:.2} s to {:.2} s:",
        cpu.max().unwrap_or_default().as_secs_f64()
    );
    names(group, &mut text);
    text
}

/// Every name and id, in broken lines.
fn names(group: &[Entry], text: &mut String) {
    let mut columns = NAMES_COLUMNS;
    for (index, entry) in group.iter().enumerate() {
        let who = format!("{} (id {})", entry.facts.name, entry.facts.id);
        if index > 0 {
            text.push(',');
        }
        if columns + who.len() + 2 > NAMES_COLUMNS {
            text.push_str("\n ");
            columns = 1;
        }
        text.push(' ');
        text.push_str(&who);
        columns += who.len() + 2;
    }
    text.push('\n');
}

fn situation(facts: &TaskFacts, text: &mut String) {
    let _ = write!(text, "state {}", facts.state);
    let syscall = match facts.at {
        TaskPlace::Running => {
            text.push_str(", running");
            return;
        }
        TaskPlace::Waiting { syscall, .. } => syscall,
        TaskPlace::Unknown => None,
    };
    match (facts.wchan.is_empty(), facts.state) {
        (false, _) => {
            let _ = write!(text, ", waiting in {}", facts.wchan);
        }
        (true, 'S' | 'D') => text.push_str(", waiting"),
        (true, _) => {}
    }
    if let Some(number) = syscall {
        let _ = match syscall_name(number) {
            Some(name) => write!(text, " (syscall {name})"),
            None => write!(text, " (syscall {number})"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, id: i32, pcs: &[u64]) -> Entry {
        Entry {
            facts: TaskFacts {
                id,
                name: name.to_owned(),
                state: 'S',
                cpu: Duration::from_millis(1230),
                wchan: "futex_do_wait".to_owned(),
                at: TaskPlace::Waiting {
                    syscall: Some(libc::SYS_futex),
                    sp: 1,
                    pc: 2,
                },
                ..TaskFacts::default()
            },
            stack: Stack {
                pcs: pcs.to_vec(),
                ..Stack::default()
            },
            first: false,
            reports: false,
        }
    }

    #[test]
    fn a_head_tells_who_it_is_and_what_it_waits_for() {
        let mut one = entry("fanout", 4711, &[]);
        assert_eq!(
            head(std::slice::from_ref(&one)),
            "thread fanout (id 4711) state S, waiting in futex_do_wait (syscall futex), cpu 1.23 s\n"
        );
        one.facts.at = TaskPlace::Running;
        one.facts.state = 'R';
        one.facts.run_delay = Duration::from_millis(250);
        one.reports = true;
        assert_eq!(
            head(&[one]),
            "thread fanout (id 4711) state R, running, cpu 1.23 s, waited 0.25 s for a processor; this thread makes the \
             report\n"
        );
    }

    #[test]
    fn an_unknown_place_is_not_made_up() {
        let mut one = entry("x", 1, &[]);
        one.facts.at = TaskPlace::Unknown;
        one.facts.wchan.clear();
        assert_eq!(head(&[one]), "thread x (id 1) state S, waiting, cpu 1.23 s\n");
        let mut two = entry("x", 1, &[]);
        two.facts.at = TaskPlace::Waiting {
            syscall: Some(9999),
            sp: 1,
            pc: 1,
        };
        two.facts.wchan.clear();
        assert_eq!(
            head(&[two]),
            "thread x (id 1) state S, waiting (syscall 9999), cpu 1.23 s\n"
        );
    }

    #[test]
    fn threads_at_one_place_share_an_entry_that_names_them_all() {
        let mut entries: Vec<Entry> = (1..=40)
            .map(|n| entry(&format!("client-{n}"), 5000 + n, &[1, 2]))
            .collect();
        entries.push(entry("fanout", 6000, &[1, 3]));
        entries[7].first = true;
        entries[9].stack.note = Some("did not answer");
        let groups = fold(entries);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [1, 38, 1, 1]);
        assert_eq!(groups[0][0].facts.name, "client-8");
        let text = head(&groups[1]);
        assert!(
            text.starts_with(
                "38 threads at the same place, state S, waiting in futex_do_wait (syscall futex), cpu 1.23 s to"
            ),
            "{text}"
        );
        for n in (1..=40).filter(|n| ![8, 10].contains(n)) {
            assert!(text.contains(&format!("client-{n} (id {})", 5000 + n)), "{n} in {text}");
        }
        assert!(text.lines().all(|line| line.len() <= NAMES_COLUMNS + 2), "{text}");
    }
}
