//! The table at one moment, and the documents that clients get of it.
//!
//! Thread `fanout` only copies the rows that have changed. Clients' threads make documents of them, shared by all that
//! see the same.

use super::blocks::Block;
use crate::process::clock::json_seconds;
use crate::process::locks::lock;
use crate::stream::chunk::Chunk;
use crate::stream::event::Seq;
use crate::stream::filter::Filter;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Instant;

/// The largest plain `initial`: clients such as Python's `websockets` end on a message over 1 MiB.
const PLAIN_BYTES_MAX: usize = 1024 * 1024 - 1024;
/// Most bytes of the end of a document: how many rows are left out, and a time.
const END_BYTES: usize = 128;
/// How each row begins, before the name as a JSON string.
const ROW_START: &[u8] = b"{\"machine_name\":";

/// The table at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// All rows, in the order of the names' bytes.
    blocks: Vec<Arc<Block>>,
    /// The place of the first row of each block.
    firsts: Vec<usize>,
    machines: usize,
    /// When it was made, a JSON number of seconds since the epoch.
    timestamp: String,
    /// `initial` as plain clients without a filter get it, once one has asked.
    plain: OnceLock<Plain>,
    /// Parts of the last one that was made with a number, as long as a client has them: 1,000 clients that join at once
    /// share them.
    parts: Mutex<(Seq, Vec<Weak<Chunk>>)>,
}

/// A plain `initial`.
#[derive(Clone, Debug)]
pub struct Plain {
    /// `{"type":"initial",...}` as a frame.
    pub chunk: Arc<Chunk>,
    /// Rows that it has no room for.
    pub left_out: usize,
}

impl Snapshot {
    /// Of these blocks, at `epoch` on the wall.
    pub(super) fn of(blocks: Vec<Arc<Block>>, epoch: f64) -> Snapshot {
        let mut machines = 0;
        let first = |block: &Arc<Block>| {
            let first = machines;
            machines += block.len();
            first
        };
        let firsts = blocks.iter().map(first).collect();
        Snapshot {
            blocks,
            firsts,
            machines,
            timestamp: json_seconds(epoch),
            plain: OnceLock::new(),
            parts: Mutex::default(),
        }
    }

    /// Number of rows.
    pub fn machines(&self) -> usize {
        self.machines
    }

    /// `initial` for plain clients without a filter, made by the first thread that asks. The others wait for it, some
    /// milliseconds at most.
    pub fn plain(&self) -> &Plain {
        self.plain.get_or_init(|| self.make_plain(&Filter::default()))
    }

    /// Rows that the plain `initial` without a filter leaves out; `None` until there is one.
    pub fn left_out(&self) -> Option<usize> {
        self.plain.get().map(|plain| plain.left_out)
    }

    /// `initial` for plain clients with the machines that `wanted` wants, under 1 MiB. Where all of them fit, they come
    /// in the order of their names' bytes. Else those come that were heard of last, the newest first, and the document
    /// says how many it leaves out. Takes milliseconds for a large table.
    pub fn make_plain(&self, wanted: &Filter) -> Plain {
        let wanted = self.wanted(wanted);
        let mut rows: Vec<usize> = (0..wanted.len()).map(|index| wanted.at(index)).collect();
        if rows.iter().map(|row| self.row(*row).len() + 1).sum::<usize>() > PLAIN_BYTES_MAX {
            // Stable: those that were heard of in one turn stay in the order of their names.
            rows.sort_by_cached_key(|row| Reverse(self.heard(*row)));
            let mut room = PLAIN_BYTES_MAX;
            let fits = |row: &&usize| {
                let bytes = self.row(**row).len() + 1;
                let fits = bytes <= room;
                room = room.saturating_sub(bytes);
                fits
            };
            let fitting = rows.iter().take_while(fits).count();
            rows.truncate(fitting);
        }
        let left_out = wanted.len() - rows.len();
        let mut json = b"{\"type\":\"initial\",\"machines\":[".to_vec();
        self.put(&mut json, rows.iter().copied(), left_out);
        Plain {
            chunk: Arc::new(Chunk::message(&json)),
            left_out,
        }
    }

    /// Part `part` of `initial` as of event `as_of` for clients without a filter, as `make` makes it, or as another
    /// client has it still. The threads that ask for it at once wait for each other, some 0.1 ms each.
    pub fn shared_part(&self, as_of: Seq, part: usize, make: impl FnOnce() -> Chunk) -> Arc<Chunk> {
        let mut parts = lock(&self.parts);
        if parts.0 != as_of {
            *parts = (as_of, Vec::new());
        }
        if parts.1.len() <= part {
            parts.1.resize(part + 1, Weak::new());
        }
        parts.1[part].upgrade().unwrap_or_else(|| {
            let chunk = Arc::new(make());
            parts.1[part] = Arc::downgrade(&chunk);
            chunk
        })
    }

    /// The rows of the machines that `wanted` wants, by their places.
    pub fn wanted(&self, wanted: &Filter) -> Rows {
        let all = 0..self.machines;
        if wanted.is_everything() {
            return Rows::All(all);
        }
        // Every row that we make has a name.
        let wants = |row: &usize| name(self.row(*row)).is_none_or(|name| wanted.wants_machine(&name));
        Rows::Some(all.filter(wants).map(|row| row as u32).collect())
    }

    /// The JSON of the row at a place.
    pub fn row(&self, row: usize) -> &[u8] {
        let (block, row) = self.find(row);
        block.row(row)
    }

    /// When the machine of the row at a place was heard of.
    fn heard(&self, row: usize) -> Instant {
        let (block, row) = self.find(row);
        block.heard(row)
    }

    /// The block of the row at a place, and its number there.
    fn find(&self, row: usize) -> (&Block, usize) {
        let block = self.firsts.partition_point(|first| *first <= row) - 1;
        (&self.blocks[block], row - self.firsts[block])
    }

    /// Appends the rows at these places, with commas between, and the end of the document behind them.
    pub fn put(&self, out: &mut Vec<u8>, rows: impl Iterator<Item = usize> + Clone, left_out: usize) {
        out.reserve(rows.clone().map(|row| self.row(row).len() + 1).sum::<usize>() + END_BYTES);
        for (index, row) in rows.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(self.row(row));
        }
        out.push(b']');
        if left_out > 0 {
            out.extend_from_slice(format!(",\"machines_left_out\":{left_out}").as_bytes());
        }
        out.extend_from_slice(b",\"timestamp\":");
        out.extend_from_slice(self.timestamp.as_bytes());
        out.push(b'}');
    }
}

/// Rows of a snapshot, in its order.
#[derive(Clone, Debug)]
pub enum Rows {
    All(Range<usize>),
    /// Those at these places.
    Some(Box<[u32]>),
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Rows::All(all) => all.len(),
            Rows::Some(rows) => rows.len(),
        }
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of the row that is number `index` of these.
    pub fn at(&self, index: usize) -> usize {
        match self {
            Rows::All(all) => all.start + index,
            Rows::Some(rows) => rows[index] as usize,
        }
    }
}

/// The name of the machine whose row this is. Copied only where JSON has it escaped.
fn name(row: &[u8]) -> Option<Cow<'_, str>> {
    let string = row.strip_prefix(ROW_START)?;
    let mut escaped = false;
    let end = string.iter().skip(1).position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })?;
    let string = &string[..end + 2];
    if string.contains(&b'\\') {
        return serde_json::from_slice(string).ok().map(Cow::Owned);
    }
    std::str::from_utf8(&string[1..=end]).ok().map(Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::super::blocks::Blocks;
    use super::super::row::Row;
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// The names of an `initial`, and how many it leaves out.
    fn names(plain: &Plain) -> (Vec<String>, Option<u64>) {
        let document: serde_json::Value = serde_json::from_slice(plain.chunk.payload(0)).unwrap();
        let rows = document["machines"].as_array().unwrap();
        let name = |row: &serde_json::Value| row["machine_name"].as_str().unwrap().to_owned();
        (rows.iter().map(name).collect(), document["machines_left_out"].as_u64())
    }

    /// Of machines with these names, each heard of a second before the one that follows it.
    fn snapshot(machines: &[&str], metadata_bytes: usize) -> Snapshot {
        let (begun, mut rows) = (Instant::now(), BTreeMap::new());
        let now = begun + Duration::from_secs(machines.len() as u64);
        for (name, second) in machines.iter().zip(0..) {
            let mut row = Row::new(now);
            row.event = Some(begun + Duration::from_secs(second));
            row.metadata = Some("x".repeat(metadata_bytes).into());
            row.encode(name);
            rows.insert((*name).into(), row);
        }
        Snapshot::of(Blocks::default().copy(&rows), 2.5)
    }

    #[test]
    fn where_all_fits_rows_come_by_name_and_nothing_is_left_out() {
        let snapshot = snapshot(&["c", "a", "b"], 1000);
        assert_eq!(
            names(snapshot.plain()),
            (["a", "b", "c"].map(str::to_owned).to_vec(), None)
        );
        assert_eq!(snapshot.plain().left_out, 0);
        assert!(Arc::ptr_eq(&snapshot.plain().chunk, &snapshot.plain().chunk));
    }

    #[test]
    fn where_not_all_fits_the_newest_come_first_and_the_rest_is_counted() {
        let snapshot = snapshot(&["d", "a", "c", "b", "e"], 300_000);
        let plain = snapshot.plain();
        assert_eq!(names(plain), (["e", "b", "c"].map(str::to_owned).to_vec(), Some(2)));
        assert_eq!(plain.left_out, 2);
        assert!(plain.chunk.payload(0).len() < 1024 * 1024);
        let wanted = |list| names(&snapshot.make_plain(&Filter::from_lists(Some(list), None).unwrap()));
        assert_eq!(wanted("d,a,c"), (["a", "c", "d"].map(str::to_owned).to_vec(), None));
        assert_eq!(
            wanted("d,a,c,b"),
            (["b", "c", "a"].map(str::to_owned).to_vec(), Some(1))
        );
        assert_eq!(wanted("nobody"), (Vec::new(), None));
    }

    #[test]
    fn a_name_is_read_from_its_row_however_it_is_spelt() {
        for text in ["m", "", "a\"b", "\\", "ends with \\", "ä\u{1}\n", "🚀", "a\\\"b"] {
            let mut row = Row::new(Instant::now());
            row.encode(text);
            assert_eq!(name(&row.json).as_deref(), Some(text));
        }
        for damaged in [
            "",
            "{}",
            "{\"machine_name\":",
            "{\"machine_name\":\"a",
            "{\"machine_name\":\"a\\\"",
        ] {
            assert_eq!(name(damaged.as_bytes()), None, "{damaged}");
        }
    }
}
