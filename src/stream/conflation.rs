//! What a client is not sent that wants at most one state per machine and period.
//!
//! Runs on the client's own thread, which looks at all events of a period before it encodes the first.

use crate::process::values::duration;
use crate::stream::batch::{Batch, Item};
use crate::stream::event::{Seq, check};
use crate::stream::filter::Filter;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Shortest period that a client may ask for.
const PERIOD_MIN: Duration = Duration::from_millis(100);
/// Longest period that a client may ask for.
const PERIOD_MAX: Duration = Duration::from_secs(60);
/// Events that end a period early, in bytes of memory: their batches are kept as long as the client's thread has not
/// seen them all, also after the history has let go of them.
pub const WINDOW_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Reads a period.
///
/// # Errors
/// It is no duration from 100 ms to 60 s; the text says what would be right.
pub fn period(text: &str) -> Result<Duration, String> {
    duration(text, PERIOD_MIN, PERIOD_MAX)
}

/// The numbers of the events after number `after` that are left out of `batches`, in their order: those that `wanted`
/// wants, have a state, and are followed by another one that does, of the same machine. A registration, an end, and an
/// event recovered from the engine's database are never left out. Takes about a microsecond an event.
pub fn left_out<'a>(batches: impl Iterator<Item = &'a Arc<Batch>>, after: Seq, wanted: &Filter) -> Vec<Seq> {
    let mut last: HashMap<&str, (Seq, bool)> = HashMap::new();
    let mut left_out = Vec::new();
    for item in batches.flat_map(|batch| batch.items_after(after)) {
        // What was recovered is older than what came before it, so it takes nothing's place.
        let Item::Event(event) = item else { continue };
        let Some(machine) = event.machine.filter(|_| event.recovered.is_none()) else {
            continue;
        };
        if !wanted.wants(event.machine, event.kind) || event.kind == Some("machine_terminated") {
            continue;
        }
        if !check(event.payload).is_ok_and(|event| event.state.is_some()) {
            continue;
        }
        let may_go = event.kind != Some("machine_registered");
        if let Some((seq, true)) = last.insert(machine, (event.seq, may_go)) {
            left_out.push(seq);
        }
    }
    left_out.sort_unstable();
    left_out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::batch::BatchBuilder;
    use std::num::NonZeroU64;

    #[test]
    fn of_each_machine_the_last_state_stays_and_whatever_is_no_state() {
        let mut builder = BatchBuilder::new(1, 0, 0);
        let state = r#"{"type":"state_change","payload":{"to_state":"s"}}"#.as_bytes();
        let change = Some("state_change");
        builder.push(state, Some("a"), change);
        builder.push(state, Some("b"), change);
        builder.push(b"{}", Some("a"), Some("note"));
        builder.lose(2, "too_large");
        builder.push(state, Some("a"), change);
        let registered = br#"{"type":"machine_registered","payload":{"current_state":"s"}}"#;
        builder.push(registered, Some("a"), Some("machine_registered"));
        builder.push(state, None, change);
        builder.push(state, None, change);
        let first = Arc::new(builder.finish(0, 0.0).unwrap());
        let mut builder = BatchBuilder::new(10, 0, 0);
        builder.push(
            br#"{"type":"machine_terminated"}"#,
            Some("a"),
            Some("machine_terminated"),
        );
        builder.push(state, Some("a"), change);
        builder.push_as(NonZeroU64::new(1), state, Some("a"), change);
        builder.push(state, Some("b"), Some("other"));
        let batches = [first, Arc::new(builder.finish(0, 0.0).unwrap())];
        let of = |after, filter: &Filter| left_out(batches.iter(), after, filter);
        assert_eq!(of(0, &Filter::default()), [1, 2, 6]);
        assert_eq!(of(1, &Filter::default()), [2, 6]);
        assert_eq!(of(6, &Filter::default()), [0; 0], "a registration stays");
        let changes = Filter::from_lists(None, Some("state_change")).unwrap();
        assert_eq!(of(0, &changes), [1, 6], "what is not wanted takes nothing's place");
    }

    #[test]
    fn a_period_has_bounds() {
        assert_eq!(period("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(period("100ms"), Ok(PERIOD_MIN));
        for text in ["99ms", "61s", "", "1", "never"] {
            period(text).unwrap_err();
        }
    }
}
