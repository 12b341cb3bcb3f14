//! How many datagrams were dropped, by cause.

use crate::process::tally::{Counted, Tally};
use crate::stream::event::DropCause;

const CAUSES: usize = DropCause::TABLE.len();

/// How many datagrams were dropped, by cause.
pub type DropTally = Tally<DropCause, CAUSES>;

impl Counted<CAUSES> for DropCause {
    fn names() -> [&'static str; CAUSES] {
        DropCause::TABLE.map(|(_, name, _)| name)
    }

    fn place(self) -> usize {
        self as usize
    }
}
