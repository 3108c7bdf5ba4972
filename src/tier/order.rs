//! Who of those who wait is next.
//!
//! Waiters of one class and account form a *flow*, and are served in the order in which they came. Which flow is next is
//! for whoever knows weights and ages to say: the pool that the tier belongs to. In a tier that belongs to none all waiters
//! are of one flow.

/// The waiters of one class and account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    /// Counts down from the most urgent class, so that flows are sorted by urgency.
    pub(crate) behind: u8,
    pub(crate) account: u16,
}

/// Decides between flows. Called under the queue's lock: it must neither wait nor panic, nor run the program's code.
pub(crate) trait Order: Send {
    /// One more waits in the flow.
    fn enters(&mut self, flow: Flow);

    /// Which of these is next. There is at least one; they are sorted.
    fn next(&mut self, flows: &[Flow]) -> usize;

    /// One less waits in the flow: it has gone, or is about to be [served](Self::served).
    fn leaves(&mut self, flow: Flow);

    /// The flow was given a slot.
    fn served(&mut self, flow: Flow);
}
