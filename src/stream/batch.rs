//! The events of one turn, numbered and indexed: what the history keeps, what the journal writes, and what every way of
//! looking at the stream is made of.

use crate::stream::chunk::{Chunk, ChunkBuilder};
use crate::stream::event::{Seq, is_own};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

/// Numbered events and losses that follow each other, immutable and shared.
#[derive(Debug)]
pub struct Batch {
    /// Every event's original bytes, as frames.
    chunk: Arc<Chunk>,
    entries: Box<[Entry]>,
    /// Machine names and types; an entry says which part is its own.
    names: Box<str>,
    seqs: Range<Seq>,
    /// Nobody knows how many of some of the numbers were used.
    uncertain: bool,
    has_recovered: bool,
    has_own: bool,
    published_us: u64,
    time: f64,
}

/// What has a number.
#[derive(Clone, Copy, Debug)]
enum Entry {
    Event {
        seq: Seq,
        machine: Name,
        kind: Name,
        recovered: Option<NonZeroU64>,
    },
    Loss(Loss),
}

/// A part of the batch's names; no name is [`NO_NAME`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    start: u32,
    len: u32,
}

const NO_NAME: Name = Name {
    start: u32::MAX,
    len: 0,
};

/// What a batch costs besides its parts, rounded up: the structures themselves, their counts, and the history's slot.
const BATCH_OVERHEAD_BYTES: usize = 256;

/// Numbers that no client will ever see an event for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    pub from: Seq,
    /// Inclusive.
    pub to: Seq,
    /// How many events are missing; `None` when nobody knows how many of the numbers were used.
    pub count: Option<u64>,
    /// A [`DropCause`](crate::stream::event::DropCause)'s name, or `restart`.
    pub cause: &'static str,
}

impl Loss {
    /// The part of it behind number `after`, which lies before its last number.
    fn after(self, after: Seq) -> Loss {
        if self.from > after {
            return self;
        }
        Loss {
            from: after + 1,
            // A count that is known is the length of the range.
            count: self.count.map(|_| self.to - after),
            ..self
        }
    }
}

/// One entry of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    Event(Numbered<'a>),
    Loss(Loss),
}

/// An event with its number, and what it was mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered<'a> {
    pub seq: Seq,
    pub machine: Option<&'a str>,
    /// Its type.
    pub kind: Option<&'a str>,
    /// Its engine could not send it: it comes from this row of that one's database, later than what came after it.
    pub recovered: Option<NonZeroU64>,
    /// The bytes as they came: one JSON object in UTF-8.
    pub payload: &'a [u8],
}

impl Batch {
    /// The numbers that it covers, those of losses included; never empty.
    pub fn seqs(&self) -> Range<Seq> {
        self.seqs.clone()
    }

    /// Its last number.
    pub fn last(&self) -> Seq {
        self.seqs.end - 1
    }

    /// Every event as a frame of its own, byte for byte; no frames when there are only losses.
    pub fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }

    /// When it was published, [`monotonic_us`](crate::process::clock::monotonic_us).
    pub fn published_us(&self) -> u64 {
        self.published_us
    }

    /// When it was published, seconds since the epoch.
    pub fn time(&self) -> f64 {
        self.time
    }

    /// Memory that it holds, in bytes.
    pub fn memory_bytes(&self) -> usize {
        BATCH_OVERHEAD_BYTES + self.chunk.memory_bytes() + std::mem::size_of_val(&*self.entries) + self.names.len()
    }

    /// Returns whether an event in it was recovered from the engine's database.
    pub fn has_recovered(&self) -> bool {
        self.has_recovered
    }

    /// Returns whether an event in it is the server's own.
    pub fn has_own(&self) -> bool {
        self.has_own
    }

    /// Number of events.
    pub fn events(&self) -> usize {
        self.chunk.frames()
    }

    /// What it holds, in order.
    pub fn items(&self) -> impl Iterator<Item = Item<'_>> {
        let mut frame = 0;
        self.entries.iter().map(move |entry| match *entry {
            Entry::Loss(loss) => Item::Loss(loss),
            Entry::Event {
                seq,
                machine,
                kind,
                recovered,
            } => {
                frame += 1;
                Item::Event(Numbered {
                    seq,
                    machine: self.name(machine),
                    kind: self.name(kind),
                    recovered,
                    payload: self.chunk.payload(frame - 1),
                })
            }
        })
    }

    /// The last number in it of those of which nobody knows how many were used.
    pub fn last_uncertain(&self) -> Option<Seq> {
        let uncertain = |entry: &Entry| match entry {
            Entry::Loss(loss) if loss.count.is_none() => Some(loss.to),
            _ => None,
        };
        // Such losses come at a start only; a batch of events is not searched.
        self.uncertain.then(|| self.entries.iter().rev().find_map(uncertain))?
    }

    /// What it holds after number `after`, in order. Of a loss that begins before and ends behind it, only the numbers
    /// behind it are given, because the client has been told of the others.
    pub fn items_after(&self, after: Seq) -> impl Iterator<Item = Item<'_>> {
        let items = self.items().skip_while(move |item| item.last() <= after);
        items.map(move |item| match item {
            Item::Loss(loss) => Item::Loss(loss.after(after)),
            event => event,
        })
    }

    fn name(&self, name: Name) -> Option<&str> {
        let start = name.start as usize;
        (name != NO_NAME).then(|| &self.names[start..start + name.len as usize])
    }
}

impl Item<'_> {
    /// Its last number.
    pub fn last(&self) -> Seq {
        match self {
            Item::Event(event) => event.seq,
            Item::Loss(loss) => loss.to,
        }
    }
}

/// Makes a [`Batch`] of what follows each other.
#[derive(Debug)]
pub struct BatchBuilder {
    frames: ChunkBuilder,
    entries: Vec<Entry>,
    names: String,
    /// The last event's: most senders send several in a row.
    last_names: (Name, Name),
    first: Seq,
    next: Seq,
    uncertain: bool,
    has_recovered: bool,
    has_own: bool,
}

impl BatchBuilder {
    /// For about `events` events with `payload_bytes` bytes together; the first number is `first`.
    pub fn new(first: Seq, events: usize, payload_bytes: usize) -> BatchBuilder {
        BatchBuilder {
            frames: ChunkBuilder::new(events, payload_bytes),
            entries: Vec::with_capacity(events),
            names: String::new(),
            last_names: (NO_NAME, NO_NAME),
            first,
            next: first,
            uncertain: false,
            has_recovered: false,
            has_own: false,
        }
    }

    /// The number that the next event gets.
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// Adds an event, which gets the next number. `payload` must be UTF-8.
    pub fn push(&mut self, payload: &[u8], machine: Option<&str>, kind: Option<&str>) {
        self.push_as(None, payload, machine, kind);
    }

    /// The same, of one that may be `recovered` from a row of the engine's database.
    pub fn push_as(
        &mut self,
        recovered: Option<NonZeroU64>,
        payload: &[u8],
        machine: Option<&str>,
        kind: Option<&str>,
    ) {
        self.has_recovered |= recovered.is_some();
        self.has_own |= is_own(kind, payload);
        self.frames.push(payload);
        let machine = self.keep(machine, self.last_names.0);
        let kind = self.keep(kind, self.last_names.1);
        self.last_names = (machine, kind);
        self.entries.push(Entry::Event {
            seq: self.next,
            machine,
            kind,
            recovered,
        });
        self.next += 1;
    }

    /// Adds a loss of `count` events (not 0), which take the next numbers. Losses in a row for the same cause are one.
    pub fn lose(&mut self, count: u64, cause: &'static str) {
        let to = self.next + count - 1;
        match self.entries.last_mut() {
            Some(Entry::Loss(last)) if last.cause == cause && last.count.is_some() => {
                last.to = to;
                last.count = last.count.map(|before| before + count);
            }
            _ => self.entries.push(Entry::Loss(Loss {
                from: self.next,
                to,
                count: Some(count),
                cause,
            })),
        }
        self.next = to + 1;
    }

    /// Leaves out the numbers up to `to` (not below the next one), of which nobody knows how many were used.
    pub fn skip(&mut self, to: Seq, cause: &'static str) {
        self.entries.push(Entry::Loss(Loss {
            from: self.next,
            to,
            count: None,
            cause,
        }));
        self.uncertain = true;
        self.next = to + 1;
    }

    fn name(&self, name: Name) -> &str {
        let start = name.start as usize;
        &self.names[start..start + name.len as usize]
    }

    fn keep(&mut self, name: Option<&str>, last: Name) -> Name {
        let Some(name) = name else {
            return NO_NAME;
        };
        if last != NO_NAME && self.name(last) == name {
            return last;
        }
        // A turn's names are parts of a turn's datagrams, far below 4 GiB.
        let kept = Name {
            start: self.names.len() as u32,
            len: name.len() as u32,
        };
        self.names.push_str(name);
        kept
    }

    /// The finished batch, published now; `None` when it has nothing.
    pub fn finish(self, published_us: u64, time: f64) -> Option<Batch> {
        (self.next > self.first).then(|| Batch {
            chunk: Arc::new(self.frames.finish(published_us, self.next - 1)),
            entries: self.entries.into_boxed_slice(),
            names: self.names.into_boxed_str(),
            seqs: self.first..self.next,
            uncertain: self.uncertain,
            has_recovered: self.has_recovered,
            has_own: self.has_own,
            published_us,
            time,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut builder = BatchBuilder::new(7, 4, 10);
        builder.push(b"{}", Some("m"), Some("t"));
        builder.push(br#"{"a":1}"#, Some("m"), None);
        builder.lose(2, "too_large");
        builder.lose(1, "too_large");
        builder.push(&[b'x'; 70_000], None, Some("t"));
        builder.skip(99, "restart");
        builder.finish(5, 1.5).unwrap()
    }

    #[test]
    fn everything_has_its_number() {
        let batch = batch();
        assert_eq!((batch.seqs(), batch.last(), batch.events()), (7..100, 99, 3));
        let lasts: Vec<Seq> = batch.items().map(|item| item.last()).collect();
        assert_eq!(lasts, [7, 8, 11, 12, 99]);
        let Item::Event(large) = batch.items().nth(3).unwrap() else {
            panic!("the fourth is an event");
        };
        assert_eq!((large.seq, large.machine, large.kind), (12, None, Some("t")));
        assert_eq!(large.payload, [b'x'; 70_000]);
        assert_eq!(batch.last_uncertain(), Some(99));
    }

    #[test]
    fn what_follows_a_number_is_found() {
        let batch = batch();
        let after = |seq| batch.items_after(seq).map(|item| item.last()).next();
        assert_eq!(after(0), Some(7));
        assert_eq!(after(8), Some(11));
        assert_eq!(after(10), Some(11));
        assert_eq!(after(12), Some(99));
        assert_eq!(after(99), None);
    }

    #[test]
    fn of_a_loss_only_what_follows_a_number_is_given() {
        let batch = batch();
        let loss = |seq| match batch.items_after(seq).next() {
            Some(Item::Loss(loss)) => (loss.from, loss.to, loss.count),
            other => panic!("{other:?}"),
        };
        assert_eq!(loss(8), (9, 11, Some(3)));
        assert_eq!(loss(9), (10, 11, Some(2)));
        assert_eq!(loss(10), (11, 11, Some(1)));
        assert_eq!(loss(12), (13, 99, None));
        assert_eq!(loss(50), (51, 99, None));
    }

    #[test]
    fn nothing_is_no_batch() {
        assert!(BatchBuilder::new(1, 0, 0).finish(0, 0.0).is_none());
    }
}
