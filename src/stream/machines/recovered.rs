//! How far events that engines could not send have been recovered from their database.

/// How far the engine's refused events have been taken from its database. Kept in the state file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredTo {
    /// Device and inode of the database, in a text; empty where only the journal knows of it.
    pub file: String,
    /// The last row.
    pub id: u64,
    /// Stands for the event in that row, by which a copy of the table is known, and another one in its place;
    /// [`mark`] of its datagram, or empty when there was no such row.
    pub mark: String,
}

/// What stands for an event: FNV-1a of its datagram.
pub fn mark(datagram: &[u8]) -> String {
    let hash = datagram.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
