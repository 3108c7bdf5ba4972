//! What the models in `loom-tests` reach beside the public surface. In the loom build only.

use crate::tier::attach;
use crate::tier::depot::Depot;

/// Ends the calling thread's use of all tiers, as its exit does.
pub fn exit_thread() {
    attach::exit();
}

/// A depot alone.
pub struct Hints(Depot);

impl Hints {
    /// A depot for the hints of `slots` slots.
    pub fn new(slots: usize) -> Option<Self> {
        Depot::new(slots).map(Hints)
    }

    /// Stores one hint; false if there was no room.
    pub fn store(&self, hint: u32) -> bool {
        self.0.store(std::iter::once(hint))
    }

    /// Takes one hint.
    pub fn take(&self) -> Option<u32> {
        let mut taken = None;
        self.0.take(|hint| taken = Some(hint));
        taken
    }
}
