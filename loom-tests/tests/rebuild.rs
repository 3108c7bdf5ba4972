//! Slots without a value: lost to nobody (guarantee 4), whoever quarantines, rebuilds or closes.
#![cfg(loom)]

use tierpool_loom::{Census, explore, spawn, take};

/// Guarantee 4. A value is discarded, and the factory fails, while the tier is closed: the slot ends once.
///
/// Guards the light fence and the look at CLOSED in `rebuild::quarantine`, the exchange in `close::bury_vacant`, and that
/// `close::sweep` takes quarantined slots.
#[test]
fn quarantine_against_close() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier_failing(1, |attempt| attempt > 0);
        let held = take(&tier).unwrap();
        let other = spawn(move || held.discard());
        tier.close();
        other.join().unwrap();
        let end = tier.snapshot();
        assert_eq!((end.absent, end.quarantined), (1, 0));
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantees 1 and 4. A quarantined slot is rebuilt while the tier is closed: it is held or gone, never both, and gone in the
/// end.
///
/// Guards the exchange in `rebuild::one`.
#[test]
fn rebuild_against_close() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier_failing(1, |attempt| attempt == 1);
        take(&tier).unwrap().discard();
        assert_eq!(tier.snapshot().quarantined, 1);
        let other = {
            let tier = tier.clone();
            spawn(move || take(&tier))
        };
        tier.close();
        drop(other.join().unwrap());
        assert_eq!(tier.snapshot().absent, 1);
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 2. A discarded value is replaced while another thread enters scarcity: the slot that comes back is found.
///
/// Guards that `rebuild::vacate` gives the slot back as any release does.
#[test]
fn a_rebuilt_slot_can_be_had() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        let other = spawn(move || held.discard());
        drop(take(&tier));
        other.join().unwrap();
        assert!(take(&tier).is_some(), "refused although the slot was free");
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantees 1 and 4. The same with a pass of the reclaimer that rebuilds: the slot is free or gone, and gone in the end.
///
/// Guards the exchange in `rebuild::one`, and that `rebuild::all` gives the slot back as any release does.
#[test]
fn rebuild_in_a_pass_against_close() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier_failing(1, |attempt| attempt == 1);
        take(&tier).unwrap().discard();
        let other = {
            let tier = tier.clone();
            spawn(move || tier.reclaim())
        };
        tier.close();
        other.join().unwrap();
        assert_eq!(tier.snapshot().absent, 1);
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 1. The reclaimer and an allocation meet at one quarantined slot: one of them rebuilds it.
///
/// Guards the exchange in `rebuild::one`.
#[test]
fn rebuild_in_a_pass_against_an_allocation_that_rebuilds() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier_failing(1, |attempt| attempt == 1);
        take(&tier).unwrap().discard();
        let other = {
            let tier = tier.clone();
            spawn(move || tier.reclaim().rebuilt)
        };
        let mine = take(&tier);
        let rebuilt = other.join().unwrap();
        assert!(rebuilt == 1 || mine.is_some(), "somebody has rebuilt the slot");
        drop(mine);
        let now = tier.snapshot();
        assert_eq!((now.free, now.quarantined), (1, 0), "{now:?}");
        drop(tier);
        census.assert_ended();
    });
}
