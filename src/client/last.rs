//! Where the stream of a client begins that asks for the last events (`?last=N`).
//!
//! Called by the client's own thread, which holds the filter against the history, a part at a time; the fan-out only
//! hands out its batches. So a search through a large history delays nobody else.

use crate::fanout::requests::{FanoutHandle, Unanswered};
use crate::liveness::beat::Beat;
use crate::stream::batch::{Batch, Item};
use crate::stream::event::Seq;
use crate::stream::position::Position;
use crate::stream::view::View;
use std::time::{Duration, Instant};

/// Longest search. The largest history in memory is looked through in less, unless the host is overloaded.
const SEARCH_MAX: Duration = Duration::from_secs(10);

/// The number after which the last `wanted` events (at least 1) that `view` shows begin; where the history has fewer,
/// that after which the history begins. Blocks 10 s, and 4 s for the fan-out's last answer, at most.
///
/// # Errors
/// The fan-out gives no answer, or the search takes over 10 s. The caller refuses the client, which may come again.
pub fn start_of_last(
    fanout: &FanoutHandle,
    view: &View,
    wanted: u64,
    beat: &'static Beat,
) -> Result<Position, Unanswered> {
    let end = Instant::now() + SEARCH_MAX;
    let (mut before, mut missing) = (Seq::MAX, wanted);
    while Instant::now() < end {
        let page = fanout.past(before)?;
        let position = |seq| Position { epoch: page.epoch, seq };
        let Some(oldest) = page.batches.first() else {
            return Ok(position(page.reaches));
        };
        before = oldest.seqs().start;
        for batch in page.batches.iter().rev() {
            beat.step();
            match step_back(batch, view, missing) {
                Ok(found) => missing -= found,
                Err(first) => return Ok(position(first - 1)),
            }
        }
    }
    Err(Unanswered::Late)
}

/// How many events of `batch` the view shows; or the number of the one that makes `missing` of them, counted from the
/// end.
fn step_back(batch: &Batch, view: &View, missing: u64) -> Result<u64, Seq> {
    let wanted: Vec<Seq> = batch
        .items()
        .filter_map(|item| match item {
            Item::Event(event) if view.wants(batch, &event) => Some(event.seq),
            Item::Event(_) | Item::Loss(_) => None,
        })
        .collect();
    let found = wanted.len() as u64;
    match found.checked_sub(missing) {
        Some(surplus) => Err(wanted[surplus as usize]),
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::batch::BatchBuilder;
    use crate::stream::filter::Filter;

    #[test]
    fn what_is_not_wanted_or_lost_does_not_count() {
        let mut builder = BatchBuilder::new(11, 6, 12);
        for machine in ["a", "b", "a"] {
            builder.push(b"{}", Some(machine), None);
        }
        builder.lose(5, "too_large");
        builder.push(b"{}", Some("a"), None);
        builder.push(b"{}", Some("b"), None);
        let batch = builder.finish(0, 0.0).unwrap();
        let of_a = View {
            filter: Filter::from_lists(Some("a"), None).unwrap(),
            ..View::default()
        };
        let back = |view: &View, missing| step_back(&batch, view, missing);
        assert_eq!(back(&of_a, 1), Err(19));
        assert_eq!(back(&of_a, 2), Err(13));
        assert_eq!(back(&of_a, 3), Err(11));
        assert_eq!(back(&of_a, 4), Ok(3));
        assert_eq!(back(&View::default(), 2), Err(19));
        assert_eq!(back(&View::default(), 6), Ok(5));
    }
}
