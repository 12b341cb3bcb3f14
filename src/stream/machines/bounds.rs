//! What the table may hold, what each row takes of that, and which machines leave when it is full.

use super::row::{Process, Row};
use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};
use std::time::Instant;

/// Longest text of a row, in bytes. A longer machine name, state, configuration or time is no sensible value: its event
/// is forwarded, and its machine not tabled.
const FIELD_BYTES_MAX: usize = 16 * 1024;
/// Longest text of a row in JSON, in bytes: a control character is one byte and becomes six. With both bounds a row is
/// under 220 KiB, so that it fits into a part of an `initial`.
const FIELD_JSON_BYTES_MAX: usize = 40 * 1024;
/// No row has more JSON than this, in bytes: its name twice, three other texts, a time, and the keys.
pub(super) const ROW_JSON_BYTES_MAX: usize = 5 * FIELD_JSON_BYTES_MAX + FIELD_BYTES_MAX + 1024;
/// The largest part of a full table that leaves at once, so that a flood of names does not search the table for each of
/// them.
const LEAVING_PART: usize = 16;

/// What an allocation takes besides its bytes: the allocator's word, and rounding.
const ALLOCATION_BYTES: usize = 16;
/// What the map takes for a row: its nodes are half full at least.
const ENTRY_BYTES: usize = 2 * (size_of::<Row>() + size_of::<Box<str>>());
/// Copies of a row's JSON beside its own: in the shared copy of which `initial` is made, in the state file's content
/// that waits, and in that which is being written.
const COPIES: usize = 3;
/// What these copies have for each row besides.
const PLACE_BYTES: usize = 128;

/// The bounds of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// `--max-machines`, at least 1.
    pub machines_max: usize,
    /// `--machine-bytes`: memory of all rows with all copies that the server makes of them.
    pub bytes_max: usize,
}

impl Default for TableLimits {
    fn default() -> TableLimits {
        TableLimits {
            machines_max: 20_000,
            bytes_max: 32 * 1024 * 1024,
        }
    }
}

impl TableLimits {
    /// Twice as much of both.
    pub(super) fn doubled(self) -> TableLimits {
        TableLimits {
            machines_max: 2 * self.machines_max,
            bytes_max: 2 * self.bytes_max,
        }
    }
}

/// What rows take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Their JSON, with a comma each.
    pub(super) json: usize,
    /// All memory, copies included.
    pub(super) memory: usize,
}

impl Size {
    /// Of the row of machine `name`.
    pub(super) fn of(name: &str, row: &Row) -> Size {
        let texts = [&row.current_state, &row.config_type, &row.metadata, &row.trigger];
        let texts = texts.into_iter().flatten().map(|text| text.len() + ALLOCATION_BYTES);
        let buffers = [name.len(), row.last_activity.capacity(), row.json.capacity()];
        let buffers = buffers.into_iter().map(|bytes| bytes + ALLOCATION_BYTES);
        Size {
            json: row.json.len() + 1,
            memory: ENTRY_BYTES + PLACE_BYTES + COPIES * row.json.len() + texts.chain(buffers).sum::<usize>(),
        }
    }
}

impl AddAssign for Size {
    fn add_assign(&mut self, more: Size) {
        self.json += more.json;
        self.memory += more.memory;
    }
}

impl SubAssign for Size {
    fn sub_assign(&mut self, less: Size) {
        self.json -= less.json;
        self.memory -= less.memory;
    }
}

/// Returns whether a text is too long for a row, as it is or in JSON.
pub(super) fn is_too_long(text: &str) -> bool {
    // The first is enough for most: six bytes for each byte is the most.
    text.len() > FIELD_JSON_BYTES_MAX / 6 && (text.len() > FIELD_BYTES_MAX || json_len(text) > FIELD_JSON_BYTES_MAX)
}

/// Bytes of a text in JSON, without its quotes.
fn json_len(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

/// The machines that must leave a table of these rows, which take `used`: none while it is within its limits, else as
/// many as make a sixteenth of room. Those that were silent longest leave first; those whose process lives leave after
/// all others, and `newest`, the machine just heard of, stays. Looks at every row of a full table once, about 0.1 µs
/// each.
pub(super) fn leaving(
    rows: &BTreeMap<Box<str>, Row>,
    used: Size,
    limits: TableLimits,
    newest: Option<&str>,
) -> Vec<Box<str>> {
    let TableLimits {
        machines_max,
        bytes_max,
    } = limits;
    if rows.len() <= machines_max && used.memory <= bytes_max {
        return Vec::new();
    }
    let machines = if rows.len() > machines_max {
        machines_max - machines_max / LEAVING_PART
    } else {
        machines_max
    };
    let bytes = if used.memory > bytes_max {
        bytes_max - bytes_max / LEAVING_PART
    } else {
        bytes_max
    };
    let others = rows.iter().filter(|(name, _)| newest != Some(&***name));
    let mut silent: Vec<_> = others.map(|(name, row)| (silence(row), &**name, row)).collect();
    let order = |a: &(Silence, &str, &Row), b: &(Silence, &str, &Row)| (a.0, a.1).cmp(&(b.0, b.1));
    let (mut left, mut memory, mut names) = (rows.len(), used.memory, Vec::new());
    let mut rest = &mut silent[..];
    while (left > machines || memory > bytes) && !rest.is_empty() {
        // As many as their number alone demands; where bytes demand more, further rounds find them.
        let count = left.saturating_sub(machines).max(rows.len() / (4 * LEAVING_PART) + 1);
        let count = count.min(rest.len());
        if count < rest.len() {
            rest.select_nth_unstable_by(count, order);
        }
        let (first, others) = rest.split_at_mut(count);
        first.sort_unstable_by(order);
        for (_, name, row) in first {
            if left <= machines && memory <= bytes {
                break;
            }
            left -= 1;
            memory -= Size::of(name, row).memory;
            names.push((*name).into());
        }
        rest = others;
    }
    names
}

/// Rows with a lesser one leave first: whether the process lives, and when the machine was heard of last. After a
/// restart only the time of the last event tells that.
type Silence = (bool, Instant, Option<Instant>);

fn silence(row: &Row) -> Silence {
    (row.process == Process::Lives, row.heard, row.event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_text_is_too_long_by_its_bytes_or_by_those_of_its_json() {
        for (text, too_long) in [
            ("x".repeat(FIELD_BYTES_MAX), false),
            ("x".repeat(FIELD_BYTES_MAX + 1), true),
            ("\u{1}".repeat(FIELD_JSON_BYTES_MAX / 6), false),
            ("\u{1}".repeat(FIELD_JSON_BYTES_MAX / 6 + 1), true),
            ("\"".repeat(FIELD_BYTES_MAX), false),
            (String::new(), false),
        ] {
            assert_eq!(is_too_long(&text), too_long, "{} bytes", text.len());
        }
        let text = "a\"\\\n\r\t\u{8}\u{c}\u{1}ä";
        assert_eq!(json_len(text) + 2, serde_json::to_string(text).unwrap().len());
    }

    fn rows(count: u64, begun: Instant) -> BTreeMap<Box<str>, Row> {
        let row = |number: u64| {
            // Older ones have greater names.
            let mut row = Row::new(begun + Duration::from_millis(count - number));
            let name: Box<str> = format!("m{number:05}").into();
            row.encode(&name);
            (name, row)
        };
        (0..count).map(row).collect()
    }

    fn size(rows: &BTreeMap<Box<str>, Row>) -> Size {
        let mut size = Size::default();
        rows.iter().for_each(|(name, row)| size += Size::of(name, row));
        size
    }

    #[test]
    fn a_sixteenth_leaves_and_it_is_those_that_were_silent_longest() {
        let rows = rows(161, Instant::now());
        let limits = |machines_max, bytes_max| TableLimits {
            machines_max,
            bytes_max,
        };
        let used = size(&rows);
        let leaving = |limits| leaving(&rows, used, limits, None);
        assert_eq!(leaving(limits(161, used.memory)), [""; 0].map(Box::from));
        let oldest = |count| {
            (161 - count..161)
                .rev()
                .map(|number| format!("m{number:05}").into())
                .collect::<Vec<Box<str>>>()
        };
        assert_eq!(leaving(limits(160, usize::MAX)), oldest(11));
        assert_eq!(leaving(limits(1, usize::MAX)), oldest(160));
        let by_bytes = leaving(limits(161, used.memory - 1));
        assert_eq!(by_bytes, oldest(by_bytes.len()));
        let each = used.memory / rows.len();
        assert_eq!(
            by_bytes.len(),
            (used.memory / LEAVING_PART).div_ceil(each)
                + usize::from((used.memory / LEAVING_PART).is_multiple_of(each))
        );
        let few = leaving(limits(161, used.memory / 20));
        assert_eq!(few, oldest(few.len()));
        assert!((152..161).contains(&few.len()), "{}", few.len());
    }

    #[test]
    fn a_machine_whose_process_lives_leaves_last_and_the_one_just_heard_of_stays() {
        let mut rows = rows(20, Instant::now());
        rows.get_mut("m00019").unwrap().process = Process::Lives;
        let limits = TableLimits {
            machines_max: 1,
            bytes_max: usize::MAX,
        };
        let names = leaving(&rows, size(&rows), limits, Some("m00018"));
        assert_eq!(names.len(), 19);
        assert_eq!((&*names[0], &*names[18]), ("m00017", "m00019"));
    }
}
