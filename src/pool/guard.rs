//! A tier's circuit breaker: what it counts as a call, and what passes it.
//!
//! A call is a request that is routed to the tier. It fails if the tier refuses: it has nothing free, nobody gave a slot back in
//! time, or too many wait; not if a quota or the tier's end is the reason. It is slow if it waited for longer than the breaker's rules
//! say. Calls that are served at once are counted by the tier's own counters, and recorded when one fails or is slow.

use std::time::Duration;

use crate::admission::breaker::{Breaker, Outcome, Pass};
use crate::error::AllocateError;
use crate::sync::{AtomicU64, Ordering};
use crate::tier::core::Core;
use crate::tier::report::Totals;

/// See the module's header.
pub(super) struct Guard {
    pub(super) breaker: Breaker,
    /// Allocations of the tier that were recorded.
    seen: AtomicU64,
}

impl Guard {
    pub(super) fn new(breaker: Breaker, core: &Core) -> Self {
        Guard { breaker, seen: AtomicU64::new(Totals::of(core).allocations()) }
    }

    /// How a request ended that was let pass, and waited so long.
    #[cold]
    pub(super) fn note(&self, core: &Core, pass: Pass<'_>, end: Result<(), AllocateError>, waited: Duration) {
        let outcome = match end {
            Ok(()) => Outcome::Success,
            Err(AllocateError::Closed { .. }) => return,
            Err(_) => Outcome::Failure,
        };
        if outcome == Outcome::Success && !pass.is_trial() && !self.breaker.is_slow(waited) {
            return; // the tier has counted it
        }
        let served = Totals::of(core).allocations();
        // Relaxed: whoever comes first records what there is between. A slow call is not also a fast one.
        let before = self.seen.fetch_max(served, Ordering::Relaxed);
        let fast = served.saturating_sub(before).saturating_sub(u64::from(outcome == Outcome::Success));
        if fast > 0 && !pass.is_trial() {
            self.breaker.record_successes(fast);
        }
        pass.record(outcome, waited);
    }
}
