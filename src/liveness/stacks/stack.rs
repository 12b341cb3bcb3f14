//! The frames of one thread, and how much is known about their addresses.

/// The frames of one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stack {
    /// Addresses inside the calling instructions, the innermost first.
    pub(super) pcs: Vec<u64>,
    /// Down to where the thread began.
    pub(super) complete: bool,
    /// The thread was asked and did not answer, or could not be asked.
    pub(super) unanswered: bool,
    /// What to know about this stack.
    pub(super) note: Option<&'static str>,
    /// What follows from it.
    pub(super) hint: Option<&'static str>,
}

/// How much is known about the addresses of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbols {
    /// Function, file and line.
    Lines,
    /// The function.
    Names,
    /// Module and offset.
    ModulesOnly,
}
