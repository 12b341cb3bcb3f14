//! How one client sees the stream: in which protocol, and through which filter.
//!
//! The fan-out encodes for clients that keep up, once for all that see the same; a client that catches up encodes for
//! itself, on its own thread.

use crate::stream::batch::{Batch, Item, Numbered};
use crate::stream::chunk::{Chunk, ChunkBuilder};
use crate::stream::event::{Seq, is_own};
use crate::stream::filter::Filter;
use crate::stream::initial::Initial;
use crate::stream::machines::Snapshot;
use crate::stream::protocol::{Protocol, v1};
use std::sync::Arc;
use std::time::Duration;

/// What `threadcast.v1` adds to an event, about: its number, the names of its keys, machine and type.
const WRAPPING_BYTES: usize = 96;

/// One way of seeing the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub protocol: Protocol,
    pub filter: Filter,
    /// It gets at most one state per machine in this time; what it gets it gets once in this time.
    pub conflate: Option<Duration>,
    /// A plain client sees the server's own events too (`--plain-notices`). One of `threadcast.v1` does anyway.
    pub plain_notices: bool,
}

impl View {
    /// Returns whether it sees every event byte for byte, and nothing else.
    pub fn is_plain_whole(&self) -> bool {
        self.protocol == Protocol::Plain && self.filter.is_everything()
    }

    /// Returns whether it sees this event of `batch`.
    pub fn wants(&self, batch: &Batch, event: &Numbered<'_>) -> bool {
        let is_hidden = || !self.sees_own(batch) && is_own(event.kind, event.payload);
        self.filter.wants(event.machine, event.kind) && !is_hidden()
    }

    /// Returns whether it sees the server's own events in `batch`, if there are any.
    fn sees_own(&self, batch: &Batch) -> bool {
        !batch.has_own() || self.plain_notices || self.protocol == Protocol::V1
    }

    /// What of `batch` after number `after` it sees, ready for the socket; `None` for nothing.
    pub fn encode(&self, batch: &Batch, after: Seq) -> Option<Arc<Chunk>> {
        self.encode_without(batch, after, &[])
    }

    /// The same without the events of these numbers, which are in their order.
    pub fn encode_without(&self, batch: &Batch, after: Seq, left_out: &[Seq]) -> Option<Arc<Chunk>> {
        if self.is_plain_whole() && left_out.is_empty() && after < batch.seqs().start && self.sees_own(batch) {
            return (batch.events() > 0).then(|| Arc::clone(batch.chunk()));
        }
        let mut builder: Option<ChunkBuilder> = None;
        let whole = (batch.events(), batch.chunk().bytes().len());
        let mut scratch = Vec::new();
        for item in batch.items_after(after) {
            match item {
                Item::Event(event) if !self.wants(batch, &event) => {}
                Item::Event(event) if left_out.binary_search(&event.seq).is_ok() => {}
                Item::Event(event) => {
                    let builder = builder.get_or_insert_with(|| self.builder(whole));
                    match self.protocol {
                        Protocol::Plain => builder.push(event.payload),
                        Protocol::V1 => {
                            scratch.clear();
                            v1::put_event(&mut scratch, &event);
                            builder.push(&scratch);
                        }
                    }
                }
                // A loss has no machine and no type, so it concerns everybody; plain clients have no words for it.
                Item::Loss(_) if self.protocol == Protocol::Plain => {}
                Item::Loss(loss) => builder
                    .get_or_insert_with(|| self.builder(whole))
                    .push_message(v1::gap_of(&loss).as_bytes()),
            }
        }
        let chunk = builder?.finish(batch.published_us(), batch.last());
        Some(Arc::new(chunk))
    }

    /// With room for what it becomes; of a filter that is not known, and grows.
    fn builder(&self, (events, bytes): (usize, usize)) -> ChunkBuilder {
        match (self.protocol, self.filter.is_everything()) {
            (_, false) => ChunkBuilder::new(1, 256),
            (Protocol::Plain, true) => ChunkBuilder::new(events, bytes),
            (Protocol::V1, true) => ChunkBuilder::new(events, bytes + events * WRAPPING_BYTES),
        }
    }

    /// `initial` as it sees it: the state as of event `as_of`. Takes milliseconds for a large table.
    pub fn initial(&self, snapshot: Arc<Snapshot>, as_of: Seq) -> Initial {
        Initial::new(self.protocol, &self.filter, snapshot, as_of)
    }
}

/// The views of the clients that are there, each with what it sees of the batch in work. Owned by thread `fanout`.
#[derive(Debug, Default)]
pub struct Views {
    cells: Vec<Cell>,
}

#[derive(Debug)]
struct Cell {
    view: Arc<View>,
    /// The last number of the batch that `chunk` was made of.
    made_of: Seq,
    chunk: Option<Arc<Chunk>>,
}

impl Views {
    /// The place of a view that equals `view`, and the view that all of them share.
    pub fn place(&mut self, view: &View) -> (usize, Arc<View>) {
        if let Some(place) = self.cells.iter().position(|cell| *cell.view == *view) {
            return (place, Arc::clone(&self.cells[place].view));
        }
        let cell = Cell {
            view: Arc::new(view.clone()),
            made_of: 0,
            chunk: None,
        };
        let shared = Arc::clone(&cell.view);
        // One that nobody else holds any more gives its place.
        let place = self.cells.iter().position(|cell| Arc::strong_count(&cell.view) == 1);
        match place {
            Some(place) => {
                self.cells[place] = cell;
                (place, shared)
            }
            None => {
                self.cells.push(cell);
                (self.cells.len() - 1, shared)
            }
        }
    }

    /// What the view at `place` sees of `batch`, encoded at most once.
    pub fn encoded(&mut self, place: usize, batch: &Batch) -> Option<&Arc<Chunk>> {
        let cell = &mut self.cells[place];
        if cell.made_of != batch.last() {
            cell.chunk = cell.view.encode(batch, 0);
            cell.made_of = batch.last();
        }
        cell.chunk.as_ref()
    }

    /// Lets go of what was made, so that nothing of it outlives the clients' queues.
    pub fn clear(&mut self) {
        for cell in &mut self.cells {
            cell.chunk = None;
            cell.made_of = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::batch::BatchBuilder;
    use crate::stream::event::check;
    use crate::stream::machines::Machines;
    use std::time::Instant;

    fn batch() -> Batch {
        let mut builder = BatchBuilder::new(5, 3, 100);
        builder.push(br#"{"n":5}"#, Some("worker-\"1\""), Some("error"));
        builder.lose(2, "too_large");
        builder.push(b"{\"n\":8}\n", None, None);
        builder.finish(3, 1.5).unwrap()
    }

    fn view(protocol: Protocol, machines: Option<&str>) -> View {
        View {
            protocol,
            filter: Filter::from_lists(machines, None).unwrap(),
            conflate: None,
            plain_notices: false,
        }
    }

    fn frames(chunk: Option<Arc<Chunk>>) -> Vec<String> {
        let chunk = chunk.as_deref();
        let count = chunk.map_or(0, Chunk::frames);
        let frame = |index| chunk.unwrap().payload(index).to_vec();
        (0..count)
            .map(|index| String::from_utf8(frame(index)).unwrap())
            .collect()
    }

    #[test]
    fn plain_clients_see_the_bytes_and_nothing_else() {
        let (batch, view) = (batch(), View::default());
        let all = view.encode(&batch, 0);
        assert!(Arc::ptr_eq(all.as_ref().unwrap(), batch.chunk()));
        assert_eq!(frames(view.encode(&batch, 5)), ["{\"n\":8}\n"]);
        assert_eq!(frames(view.encode(&batch, 8)), [""; 0]);
    }

    #[test]
    fn numbered_clients_see_numbers_and_losses() {
        assert_eq!(
            frames(view(Protocol::V1, None).encode(&batch(), 0)),
            [
                r#"{"seq":5,"machine":"worker-\"1\"","type":"error","event":{"n":5}}"#,
                r#"{"type":"gap","from":6,"to":7,"count":2,"cause":"too_large"}"#,
                "{\"seq\":8,\"machine\":null,\"type\":null,\"event\":{\"n\":8}\n}",
            ]
        );
    }

    #[test]
    fn a_client_is_not_told_of_the_part_of_a_loss_that_it_has_passed() {
        let seen = view(Protocol::V1, Some("other")).encode(&batch(), 6);
        let gap = r#"{"type":"gap","from":7,"to":7,"count":1,"cause":"too_large"}"#;
        assert_eq!(frames(seen), [gap]);
    }

    #[test]
    fn a_filter_leaves_out_events_and_rows_but_no_loss() {
        let batch = batch();
        assert_eq!(frames(view(Protocol::Plain, Some("other")).encode(&batch, 0)), [""; 0]);
        assert_eq!(
            frames(view(Protocol::Plain, Some("worker*")).encode(&batch, 0)),
            [r#"{"n":5}"#]
        );
        assert_eq!(frames(view(Protocol::V1, Some("other")).encode(&batch, 0)).len(), 1);
        let mut machines = Machines::default();
        for name in ["a", "b\\u0041"] {
            let text = format!(r#"{{"machine_id":"{name}","type":"state_change","state":"s","timestamp":1.5}}"#);
            machines.apply(&check(text.as_bytes()).unwrap(), Instant::now(), 1.5);
        }
        let snapshot = machines.snapshot(Instant::now(), 2.5);
        let text = |view: View| {
            let chunk = view.initial(Arc::clone(&snapshot), 17).next().unwrap();
            String::from_utf8(chunk.payload(0).to_vec()).unwrap()
        };
        let row = |name| {
            format!(
                r#"{{"machine_name":"{name}","current_state":"s","last_activity":1.5,"metadata":null,"config_type":null,"id":"{name}"}}"#
            )
        };
        assert_eq!(
            text(view(Protocol::Plain, Some("bA"))),
            format!(r#"{{"type":"initial","machines":[{}],"timestamp":2.5}}"#, row("bA"))
        );
        assert_eq!(
            text(view(Protocol::V1, Some("a"))),
            format!(
                r#"{{"type":"initial","seq":17,"part":1,"parts":1,"machines":[{}],"timestamp":2.5}}"#,
                row("a")
            )
        );
    }

    #[test]
    fn plain_clients_see_the_servers_own_events_only_where_that_is_set() {
        let own = br#"{"machine_name":"m","type":"machine_stuck","server":true}"#;
        let mut builder = BatchBuilder::new(5, 2, 100);
        builder.push(own, Some("m"), Some("machine_stuck"));
        builder.push(b"{}", Some("m"), None);
        let batch = builder.finish(3, 1.5).unwrap();
        let count = |view: View| frames(view.encode(&batch, 0)).len();
        for (protocol, plain_notices, events) in [
            (Protocol::Plain, false, 1),
            (Protocol::Plain, true, 2),
            (Protocol::V1, false, 2),
        ] {
            for machines in [None, Some("m")] {
                let filter = Filter::from_lists(machines, None).unwrap();
                let view = View {
                    protocol,
                    filter,
                    conflate: None,
                    plain_notices,
                };
                assert_eq!(count(view), events);
            }
        }
    }

    #[test]
    fn equal_views_are_encoded_once_and_places_are_used_again() {
        let mut views = Views::default();
        let (first, held) = views.place(&view(Protocol::V1, Some("a")));
        assert_eq!(views.place(&view(Protocol::V1, Some("a"))).0, first);
        let (second, other) = views.place(&view(Protocol::V1, Some("b")));
        assert_ne!(first, second);
        drop((held, other));
        assert!(views.place(&view(Protocol::V1, Some("c"))).0 <= second);
        let batch = batch();
        let made = Arc::clone(views.encoded(first, &batch).unwrap());
        assert!(Arc::ptr_eq(&made, views.encoded(first, &batch).unwrap()));
    }
}
