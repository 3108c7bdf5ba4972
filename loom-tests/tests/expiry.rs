//! Handles with a deadline: of expiry and the handle's user exactly one wins (guarantee 1), and no deadline is forgotten (4).
#![cfg(loom)]

use std::time::Duration;

use tierpool::internals::set_clock;
use tierpool_loom::{Census, explore, spawn, take};

const PATIENCE: Duration = Duration::from_millis(10);

/// Guarantee 1. A handle is brought after its deadline, while a pass looks for such handles: it is leased or it has expired.
///
/// Guards the exchange in `expire::all` from one side, and that in `handles::attach` from the other.
#[test]
fn expiry_against_attach() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let handle = take(&tier).unwrap().detach_for(PATIENCE);
        set_clock(100);
        let other = {
            let tier = tier.clone();
            spawn(move || tier.reclaim().expired)
        };
        let mut mine = tier.attach(handle).ok();
        mine.iter_mut().for_each(|lease| lease.touch());
        let expired = other.join().unwrap();
        assert_eq!(mine.is_some(), expired == 0, "one of the two wins");
        assert_eq!(take(&tier).is_some(), expired == 1, "and the slot is free, if it was the expiry");
        drop(mine);
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantees 1 and 4. The same with a user who releases by the handle: the slot is released once.
///
/// Guards the exchange in `expire::all`.
#[test]
fn expiry_against_release() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let handle = take(&tier).unwrap().detach_for(PATIENCE);
        set_clock(100);
        let other = {
            let tier = tier.clone();
            spawn(move || tier.reclaim().expired)
        };
        let released = tier.release(handle).is_ok();
        let expired = other.join().unwrap();
        assert_eq!(u64::from(released) + expired, 1, "one of the two wins");
        let now = tier.snapshot();
        assert_eq!((now.free, now.releases), (1, 1), "one release: {now:?}");
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantees 4 and 5. A handle expires while the tier is closed, and the last `Tier` goes: its value is dropped once.
///
/// Guards that an expiry gives the slot back as any release does.
#[test]
fn expiry_against_close() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        take(&tier).unwrap().detach_for(PATIENCE);
        set_clock(100);
        let other = {
            let tier = tier.clone();
            spawn(move || tier.reclaim().expired)
        };
        tier.close(); // which leaves the slot to its handle
        assert_eq!(other.join().unwrap(), 1);
        assert_eq!(tier.snapshot().absent, 1);
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 4. A handle gets its deadline while a pass forgets the earlier ones: the pass sees the handle, or a later pass is told
/// of it.
///
/// Guards the place of the swap in `expire::all`, before the look at the words, its Acquire, and the place of
/// `expire::note_deadline`, after the word.
#[test]
fn a_deadline_against_a_pass_that_forgets() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(2);
        let held = take(&tier).unwrap();
        take(&tier).unwrap().detach_for(PATIENCE);
        set_clock(100);
        let other = {
            let tier = tier.clone();
            spawn(move || tier.reclaim().expired)
        };
        held.detach_for(PATIENCE);
        let expired = other.join().unwrap();
        set_clock(200);
        assert_eq!(expired + tier.reclaim().expired, 2, "both handles expire");
        assert_eq!(tier.snapshot().free, 2);
    });
}
