//! The rows as clients' threads get them: copied in blocks, of which only those are copied anew that have changed.
//!
//! A client that reads slowly holds the copy that it began with. Without blocks, 1,000 of them would hold 1,000 copies
//! of a whole table that changes all the time; so they share what has not changed between.

use super::row::Row;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

/// Rows of a block when it is made: some 10 KiB, so that a change of one machine costs the fan-out a microsecond, and a
/// large table has some hundred blocks.
const BLOCK_ROWS: usize = 64;

/// Some rows that follow each other, at one moment.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Their JSON, one after the other, in the order of the names' bytes.
    json: Vec<u8>,
    places: Vec<Place>,
}

/// One row of a block.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Where it ends.
    end: u32,
    /// When its machine was heard of.
    heard: Instant,
}

impl Block {
    fn push(&mut self, row: &Row) {
        self.json.extend_from_slice(&row.json);
        self.places.push(Place {
            end: self.json.len() as u32,
            // After a restart only the last event tells when a machine was heard of.
            heard: row.event.unwrap_or(row.heard),
        });
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The JSON of its row number `row`.
    pub(super) fn row(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.places[row - 1].end };
        &self.json[start as usize..self.places[row].end as usize]
    }

    /// When the machine of its row number `row` was heard of.
    pub(super) fn heard(&self, row: usize) -> Instant {
        self.places[row].heard
    }
}

/// The blocks of the table. Empty as long as nobody asks for copies; then a change costs nothing here.
#[derive(Debug, Default)]
pub(super) struct Blocks(Vec<Kept>);

/// A block, and the name with which it begins. It ends where the next one begins; the first one begins before all
/// names.
#[derive(Debug)]
struct Kept {
    first: Box<str>,
    /// `None`: some of its rows have changed.
    block: Option<Arc<Block>>,
}

impl Blocks {
    /// The row of `machine` has changed, has come or has gone. Takes some 50 ns for a large table.
    pub(super) fn change(&mut self, machine: &str) {
        let behind = self.0.partition_point(|kept| &*kept.first <= machine);
        if let Some(kept) = self.0.get_mut(behind.saturating_sub(1)) {
            kept.block = None;
        }
    }

    /// Lets go of all blocks.
    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    /// Copies what has changed of `rows`, about 10 ns a row. Returns all blocks in their order.
    pub(super) fn copy(&mut self, rows: &BTreeMap<Box<str>, Row>) -> Vec<Arc<Block>> {
        let kept = std::mem::take(&mut self.0);
        let mut kept = kept.into_iter().peekable();
        if kept.peek().is_none() {
            self.copy_from(rows, "", None);
        }
        while let Some(next) = kept.next() {
            if next.block.is_some() {
                self.0.push(next);
                continue;
            }
            // Neighbours that have changed become new blocks together, so that none stays small for long.
            while kept.next_if(|next| next.block.is_none()).is_some() {}
            let first = if self.0.is_empty() { "" } else { &*next.first };
            self.copy_from(rows, first, kept.peek().map(|next| &*next.first));
        }
        self.0.iter().filter_map(|kept| kept.block.clone()).collect()
    }

    /// Adds blocks of the rows from `first` on, up to `end`.
    fn copy_from(&mut self, rows: &BTreeMap<Box<str>, Row>, first: &str, end: Option<&str>) {
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = rows.range::<str, _>((Bound::Included(first), end)).peekable();
        let mut first: Box<str> = first.into();
        loop {
            let mut block = Block::default();
            for (_, row) in rows.by_ref().take(BLOCK_ROWS) {
                block.push(row);
            }
            if block.len() == 0 {
                return;
            }
            let next = rows.peek().map(|(name, _)| (*name).clone());
            self.0.push(Kept {
                first,
                block: Some(Arc::new(block)),
            });
            match next {
                Some(name) => first = name,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, state: &str) -> Row {
        let mut row = Row::new(Instant::now());
        row.current_state = Some(state.into());
        row.encode(name);
        row
    }

    /// What the blocks have, and what is in the table.
    fn copied(blocks: &mut Blocks, rows: &BTreeMap<Box<str>, Row>) -> Vec<Arc<Block>> {
        let copied = blocks.copy(rows);
        let texts = |block: &Arc<Block>| (0..block.len()).map(|row| block.row(row).to_vec()).collect::<Vec<_>>();
        let copies: Vec<Vec<u8>> = copied.iter().flat_map(texts).collect();
        assert!(
            copies.iter().eq(rows.values().map(|row| &row.json)),
            "{} rows",
            rows.len()
        );
        copied
    }

    #[test]
    fn only_what_has_changed_is_copied_anew() {
        let name = |number: usize| -> Box<str> { format!("m{number:04}").into() };
        let mut rows: BTreeMap<Box<str>, Row> = (0..1000)
            .map(|number| (name(number), row(&name(number), "a")))
            .collect();
        let mut blocks = Blocks::default();
        let before = copied(&mut blocks, &rows);
        assert_eq!(before.len(), 1000_usize.div_ceil(BLOCK_ROWS));
        let same = copied(&mut blocks, &rows);
        assert!(before.iter().zip(&same).all(|(one, other)| Arc::ptr_eq(one, other)));
        rows.insert(name(500), row(&name(500), "b"));
        blocks.change(&name(500));
        let after = copied(&mut blocks, &rows);
        let anew = before
            .iter()
            .zip(&after)
            .filter(|(one, other)| !Arc::ptr_eq(one, other));
        assert_eq!((after.len(), anew.count()), (before.len(), 1));
    }

    #[test]
    fn whatever_comes_and_goes_the_copy_is_the_table() {
        let (mut rows, mut blocks) = (BTreeMap::<Box<str>, Row>::new(), Blocks::default());
        let mut random = 7_u64;
        for round in 0..300 {
            for _ in 0..round % 40 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let name: Box<str> = format!("{}", (random >> 33) % 500).into();
                if (random >> 20).is_multiple_of(3) {
                    rows.remove(&name);
                } else {
                    rows.insert(name.clone(), row(&name, &round.to_string()));
                }
                blocks.change(&name);
            }
            let copied = copied(&mut blocks, &rows);
            assert!(copied.len() <= 1 + rows.len() / 4, "{} blocks", copied.len());
            if round == 200 {
                blocks.clear();
            }
        }
        for name in rows.keys().cloned().collect::<Vec<_>>() {
            rows.remove(&name);
            blocks.change(&name);
        }
        assert!(copied(&mut blocks, &rows).is_empty());
        rows.insert("a".into(), row("a", "b"));
        blocks.change("a");
        assert_eq!(copied(&mut blocks, &rows).len(), 1);
    }
}
