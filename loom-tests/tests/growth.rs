//! Slots that come and go: each is built for one (guarantee 1), and none is lost or dropped twice (4), whoever grows, shrinks,
//! allocates or closes.
#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use loom::cell::UnsafeCell;
use tierpool::Tier;
use tierpool::internals::{Spots, Users, build};
use tierpool_loom::{Census, Value, explore, spawn, take};

/// A tier that begins without slots.
fn tier(census: &Census, capacity: usize) -> Tier<Value> {
    census.tier_of(Tier::builder("model").capacity(capacity).min_capacity(0))
}

/// Guarantee 1. Two threads find nothing free, and one slot that is absent: one builds it, the other is refused.
///
/// Guards the exchange in `grow::claim_in`.
#[test]
fn growth_against_growth_at_capacity() {
    explore(3, || {
        let census = Census::default();
        let tier = tier(&census, 1);
        let other = {
            let tier = tier.clone();
            spawn(move || build(&tier))
        };
        let mine = build(&tier);
        let theirs = other.join().unwrap();
        assert_ne!(mine.is_some(), theirs.is_some(), "one slot, one lease");
        drop((mine, theirs));
        let now = tier.snapshot();
        assert_eq!((now.free, now.absent), (1, 0), "{now:?}");
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantees 1 and 2. The same with two slots that are absent: each has one.
///
/// Guards that `grow::claim_in` goes on to the next slot when it has lost one.
#[test]
fn growth_against_growth() {
    explore(2, || {
        let census = Census::default();
        let tier = tier(&census, 2);
        let other = {
            let tier = tier.clone();
            spawn(move || build(&tier))
        };
        let mine = build(&tier);
        let theirs = other.join().unwrap();
        assert!(mine.is_some() && theirs.is_some(), "refused although a slot was absent throughout");
        drop((mine, theirs));
        assert_eq!(tier.snapshot().free, 2);
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantees 4 and 5. A slot is built while the tier is closed: its value is dropped once, and the incarnation waits for it.
///
/// Guards that `grow::claim_in` counts the slot in `live`.
#[test]
fn growth_against_close() {
    explore(3, || {
        let census = Census::default();
        let tier = tier(&census, 1);
        let other = {
            let tier = tier.clone();
            spawn(move || take(&tier))
        };
        tier.close();
        let theirs = other.join().unwrap();
        drop(tier);
        assert_ne!(census.has_ended(), theirs.is_some(), "the incarnation ends after its last slot");
        drop(theirs);
        census.assert_ended();
    });
}

/// Guarantees 4 and 5. The same with a pass that adds slots for others.
///
/// Guards that `grow::up_to` gives its slots out as any release does.
#[test]
fn growth_for_others_against_close() {
    explore(3, || {
        let census = Census::default();
        let tier = tier(&census, 1);
        let other = {
            let tier = tier.clone();
            spawn(move || tier.grow_to(1).is_ok())
        };
        tier.close();
        other.join().unwrap();
        assert_eq!(tier.snapshot().absent, 1);
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 4. A factory fails in one thread while another builds: the slot that has come and gone is counted out once, and
/// can be built again.
///
/// Guards `grow::vanish`.
#[test]
fn growth_that_fails_against_growth() {
    explore(2, || {
        let census = Census::default();
        let builder = Tier::builder("model").capacity(1).min_capacity(0);
        let tier = census.tier_of_failing(builder, |attempt| attempt == 0);
        let other = {
            let tier = tier.clone();
            spawn(move || build(&tier))
        };
        let mine = build(&tier);
        let theirs = other.join().unwrap();
        assert!(mine.is_none() || theirs.is_none(), "one slot, one lease");
        drop((mine, theirs));
        let now = tier.snapshot();
        assert_eq!(now.free + now.absent, 1, "{now:?}");
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantees 1 and 4. A free slot is removed while somebody allocates it: it is held, or gone and built anew.
///
/// Guards the exchange in `grow::remove`.
#[test]
fn shrinking_against_a_claim() {
    explore(3, || {
        let census = Census::default();
        let tier = tier(&census, 1);
        drop(take(&tier));
        let other = {
            let tier = tier.clone();
            spawn(move || tier.shrink_to(0))
        };
        let mine = take(&tier);
        let left = other.join().unwrap();
        assert!(left == 1 || mine.is_none() || tier.snapshot().leased == 1, "what is held is not removed");
        drop(mine);
        let now = tier.snapshot();
        assert_eq!(now.free + now.absent, 1, "{now:?}");
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 4. A free slot is removed while the tier is closed: one of the two drops the value.
///
/// Guards the exchange in `grow::remove`.
#[test]
fn shrinking_against_close() {
    explore(3, || {
        let census = Census::default();
        let tier = tier(&census, 1);
        drop(take(&tier));
        let other = {
            let tier = tier.clone();
            spawn(move || tier.shrink_to(0))
        };
        tier.close();
        other.join().unwrap();
        assert_eq!(tier.snapshot().absent, 1);
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 4. A factory fails in an allocation while the tier is made smaller: what is left is not less than was asked for.
///
/// Guards that `grow::remove` asks for slots that are built.
#[test]
fn a_growth_that_fails_makes_no_room() {
    explore(3, || {
        let census = Census::default();
        let builder = Tier::builder("model").capacity(2).min_capacity(1);
        let tier = census.tier_of_failing(builder, |attempt| attempt > 0);
        let held = take(&tier).unwrap();
        let other = {
            let tier = tier.clone();
            spawn(move || drop(take(&tier)))
        };
        drop(held);
        tier.shrink_to(1);
        other.join().unwrap();
        let now = tier.snapshot();
        assert_eq!((now.free, now.absent), (1, 1), "{now:?}");
    });
}

/// Guarantee 1 for memory. Two threads need a segment, and the last to leave takes its memory back while another comes: it
/// stays as long as somebody needs it, and who needs it waits for nothing.
///
/// Guards the word of a segment: the exchange from "nobody" to `TAKING` in `segments::Word::leave`, the look at `TAKING` in
/// `enter`, and the orderings of `enter`, `leave` and `bare`.
#[test]
fn a_segments_memory_stays_while_it_is_needed() {
    explore(3, || {
        let segment = Arc::new(Segment::default());
        let other = {
            let segment = Arc::clone(&segment);
            spawn(move || segment.visit())
        };
        segment.visit();
        segment.visit();
        other.join().unwrap();
        assert!(segment.visit(), "nobody is left who takes the memory");
        assert!(!segment.there.load(Ordering::Relaxed), "the last has taken it");
    });
}

/// A segment whose memory loom watches.
#[derive(Default)]
struct Segment {
    users: Users,
    /// Whether it is there. Giving it twice does no harm, nor does giving it while somebody uses it: so that is no write here.
    there: AtomicBool,
    /// Taking it is one.
    memory: UnsafeCell<()>,
}

// SAFETY: the cell has no content; loom fails the model if the memory is taken while it is given or used.
unsafe impl Sync for Segment {}
// SAFETY: as above.
unsafe impl Send for Segment {}

impl Segment {
    /// Uses the memory, unless it is being taken.
    fn visit(&self) -> bool {
        let Some(there) = self.users.enter() else { return false };
        if !there {
            self.memory.with(|_| self.there.store(true, Ordering::Relaxed));
            self.users.back();
        }
        self.memory.with(|_| assert!(self.there.load(Ordering::Relaxed), "the memory is there while it is needed"));
        if self.users.leave() {
            self.memory.with_mut(|_| self.there.store(false, Ordering::Relaxed));
            self.users.bare();
        }
        true
    }
}

/// Guarantees 1 and 7 for the bytes of memory tiers. Two threads take the only place of a region and give it back: it has one owner at a
/// time, who finds it as the last one left it.
///
/// Guards the orderings and the look at the bit in `places::Places::take`, and the ordering in `give_back`.
#[test]
fn a_place_of_a_region_has_one_owner() {
    explore(3, || {
        let place = Arc::new(Place { spots: Spots::new(1), bytes: UnsafeCell::new(()) });
        let other = {
            let place = Arc::clone(&place);
            spawn(move || place.visit())
        };
        place.visit();
        place.visit();
        other.join().unwrap();
        assert!(place.visit(), "nobody has it");
    });
}

/// A place whose bytes loom watches.
struct Place {
    spots: Spots,
    bytes: UnsafeCell<()>,
}

// SAFETY: the cell has no content; loom fails the model if two write to it at a time.
unsafe impl Sync for Place {}
// SAFETY: as above.
unsafe impl Send for Place {}

impl Place {
    /// Has the place for a while, unless another has it.
    fn visit(&self) -> bool {
        let Some(place) = self.spots.take() else { return false };
        self.bytes.with_mut(|_| assert_eq!(place, 0));
        self.spots.give_back(place);
        true
    }
}

/// Guarantee 4. Somebody is about to build a slot, while another builds it, gives it back and closes the tier: the slot that the
/// close has made absent is not built once more.
///
/// Guards the look at CLOSED in `grow::claim_in`, after the exchange.
#[test]
fn a_closed_tier_builds_nothing() {
    explore(2, || {
        let census = Census::default();
        let tier = tier(&census, 1);
        let other = {
            let tier = tier.clone();
            spawn(move || build(&tier))
        };
        let mine = build(&tier);
        let built = mine.is_some();
        drop(mine);
        tier.close();
        let theirs = other.join().unwrap();
        assert!(!built || theirs.is_none(), "a tier of one slot has made two values");
        drop(theirs);
        drop(tier);
        census.assert_ended();
    });
}
