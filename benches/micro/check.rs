//! The check of a datagram.

use crate::events::{change, filled};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use std::fmt;
use threadcast::stream::event::{DropCause, check};

/// A datagram and what becomes of it.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    /// Its machine, or why it is refused.
    outcome: Result<&'static str, DropCause>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn cases() -> Vec<Case> {
    let good = |name, text: String| Case {
        name,
        bytes: text.into_bytes(),
        outcome: Ok("worker-0007"),
    };
    let bad = |name, text: String, cause| Case {
        name,
        bytes: text.into_bytes(),
        outcome: Err(cause),
    };
    let older = r#"{"event_type":"state_change","machine_name":"worker-0007","payload":{"to_state":"working","#;
    let document =
        r#"{"type":"state_change","machine_id":"worker-0007","state":"working","timestamp":1795393481.5,"data":{"#;
    let one_text = r#"{"machine_name":"worker-0007","type":"activity_log","payload":{"message":""#;
    let mut not_utf8 = bad("bad: not UTF-8 at its end, 2 KB", change(7, 2000), DropCause::NotUtf8);
    not_utf8.bytes[1990] = 0xff;
    vec![
        good("shipped, 200 B", change(7, 200)),
        good("older, 200 B", filled(older.to_owned(), "}}", 200)),
        good("document, 200 B", filled(document.to_owned(), "}}", 200)),
        good("shipped, 2 KB", change(7, 2000)),
        good("shipped, 50 KB", change(7, 50_000)),
        good(
            "one text, 50 KB",
            format!("{one_text}{}\"}}}}", "x".repeat(50_000 - 3 - one_text.len())),
        ),
        bad(
            "bad: reserved type, 200 B",
            change(7, 208).replace("state_change", "ping"),
            DropCause::ReservedType,
        ),
        bad(
            "bad: cut, 2 KB",
            change(7, 2001).split_at(2000).0.to_owned(),
            DropCause::NotJson,
        ),
        bad(
            "bad: an array, 2 KB",
            format!("[{}]", change(7, 1998)),
            DropCause::NotAnObject,
        ),
        not_utf8,
    ]
}

#[divan::bench(args = cases(), sample_size = 50)]
fn datagram(bencher: Bencher<'_, '_>, case: &Case) {
    let seen = check(&case.bytes).map(|event| event.machine.unwrap_or_default().into_owned());
    assert_eq!(seen.as_deref().map_err(|cause| *cause), case.outcome, "{case}");
    bencher
        .counter(BytesCount::of_slice(&case.bytes))
        .bench_local(|| check(black_box(&case.bytes)));
}
