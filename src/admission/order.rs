//! Hold and wait: who holds a slot of one tier and waits for one of another does so in one order of tiers.
//!
//! If nobody waits for a tier while holding a slot of the same or a later one, no ring of waiters can close: in a ring
//! somebody would have to wait for a tier that is not later than what it holds (Havender, 1968). The check comes before
//! the wait, and names both lines. Who needs several slots of one tier takes them at once, as a group; who cannot name an
//! order claims a maximum beforehand, as the [banker](super::banker) demands.
//!
//! A holder is a session, not a thread, since leases travel between threads.

use std::panic::Location;

/// A tier by its place in the global order.
pub type TierIndex = usize;

/// What a session holds: each tier that it has slots of, and where it took them.
///
/// ```
/// use std::panic::Location;
/// use tierpool::Holdings;
///
/// let mut session = Holdings::default();
/// session.check_wait(2, Location::caller())?;
/// session.add(2, Location::caller());
/// assert!(session.check_wait(3, Location::caller()).is_ok());
/// let error = session.check_wait(1, Location::caller()).unwrap_err();
/// assert_eq!((error.held, error.wanted), (2, 1));
/// # Ok::<(), tierpool::OrderError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    /// In the order in which they were taken. A session holds few.
    holds: Vec<(TierIndex, &'static Location<'static>)>,
}

impl Holdings {
    /// Whether the session may wait for a slot of this tier, at this line. Steps: one for each slot that it holds.
    ///
    /// # Errors
    /// It holds a slot of this tier or of a later one; the error names the last of these, and where it was taken.
    pub fn check_wait(&self, tier: TierIndex, site: &'static Location<'static>) -> Result<(), OrderError> {
        // Of the latest tier, the slot that was taken first: its line is where the order went wrong.
        match self.holds.iter().rev().max_by_key(|(held, _)| *held) {
            Some(&(held, held_at)) if held >= tier => Err(OrderError { held, held_at, wanted: tier, wanted_at: site }),
            _ => Ok(()),
        }
    }

    /// The session has taken a slot of this tier, at this line. May allocate memory.
    pub fn add(&mut self, tier: TierIndex, site: &'static Location<'static>) {
        self.holds.push((tier, site));
    }

    /// It has given a slot of this tier back that it took at this line; false if it held none such.
    pub fn remove(&mut self, tier: TierIndex, site: &'static Location<'static>) -> bool {
        let place = self.holds.iter().rposition(|&(held, at)| held == tier && at == site);
        place.map(|place| self.holds.remove(place)).is_some()
    }

    /// What it holds: a tier and a line for each slot, in the order in which they were taken.
    pub fn iter(&self) -> impl Iterator<Item = (TierIndex, &'static Location<'static>)> {
        self.holds.iter().copied()
    }
}

/// A session would wait against the order of tiers. It has not waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "waiting for tier {wanted} at {wanted_at} while holding a slot of tier {held}, taken at {held_at}, is against the order \
     of tiers and could deadlock: take the slots in the order of tiers, or both at once as a group"
)]
#[non_exhaustive]
pub struct OrderError {
    /// The latest tier of which the session holds a slot.
    pub held: TierIndex,
    /// Where it took that slot.
    pub held_at: &'static Location<'static>,
    /// The tier that it would wait for.
    pub wanted: TierIndex,
    /// Where it would wait.
    pub wanted_at: &'static Location<'static>,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::super::waits_for::WaitsFor;
    use super::*;

    #[track_caller]
    fn here() -> &'static Location<'static> {
        Location::caller()
    }

    #[test]
    fn who_waits_up_the_order_may_and_who_waits_down_or_level_may_not() {
        let mut session = Holdings::default();
        assert_eq!(session.check_wait(0, here()), Ok(()));
        session.add(1, here());
        for (tier, allowed) in [(0, false), (1, false), (2, true)] {
            assert_eq!(session.check_wait(tier, here()).is_ok(), allowed, "tier {tier}");
        }
    }

    #[test]
    fn the_error_names_the_first_line_of_the_latest_tier_and_the_waiting_line() {
        let mut session = Holdings::default();
        let (low, first, second, wait) = (here(), here(), here(), here());
        session.add(3, first);
        session.add(1, low);
        session.add(3, second);
        let error = session.check_wait(2, wait).unwrap_err();
        assert_eq!(error, OrderError { held: 3, held_at: first, wanted: 2, wanted_at: wait });
        let text = error.to_string();
        assert!(text.contains(&first.to_string()) && text.contains(&wait.to_string()), "{text}");
    }

    #[test]
    fn what_is_given_back_is_held_no_more() {
        let mut session = Holdings::default();
        let (here, there) = (here(), here());
        session.add(2, here);
        assert!(!session.remove(2, there) && !session.remove(1, here), "it holds no such slot");
        assert!(session.check_wait(1, here).is_err());
        assert!(session.remove(2, here) && !session.remove(2, here));
        assert_eq!(session.check_wait(1, here), Ok(()));
        assert_eq!(session.iter().count(), 0);
    }

    proptest! {
        /// Sessions take and wait at random, each wait if the check lets it. (Without the check, most of these end in a ring.)
        #[test]
        fn waits_that_pass_the_check_make_no_ring(
            takes in prop::collection::vec((0..4u64, 0..4usize), 0..12), waits in prop::collection::vec((0..4u64, 0..4usize), 4),
        ) {
            let mut sessions = vec![Holdings::default(); 4];
            let mut graph = WaitsFor::default();
            for (session, tier) in takes {
                sessions[session as usize].add(tier, here());
                graph.add_hold(session, tier, here());
            }
            for (session, tier) in waits {
                if sessions[session as usize].check_wait(tier, here()).is_ok() {
                    graph.add_wait(session, tier, here());
                }
            }
            prop_assert_eq!(graph.ring(), None);
        }
    }
}
