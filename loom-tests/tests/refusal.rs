//! No false exhaustion (guarantee 2): the exact refusal, and the cheap one by count and certificate.
#![cfg(loom)]

use tierpool::internals::{scan, search};
use tierpool_loom::{Census, assert_quiet, explore, spawn, take};

/// Guarantee 2. Two slots, of which one is always free, though not always the same: a search that looks at one after the other
/// must not take them both for held.
///
/// Guards the second collect of `scarcity::scan` and its comparison with the first.
#[test]
fn a_refusal_only_when_nothing_was_free() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(2);
        let (mut one, mut two) = (tier.local(), tier.local());
        let first = one.try_allocate().unwrap();
        let second = two.try_allocate().unwrap();
        two.release(second);
        let other = {
            let tier = tier.clone();
            spawn(move || assert!(scan(&tier).is_some(), "refused although one slot of two was always free"))
        };
        // The free slot moves: now the first is free, then the second is held, by a hint that only `two` has.
        one.release(first);
        let second = two.try_allocate().unwrap();
        other.join().unwrap();
        drop(second);
    });
}

/// Guarantee 2. The same when the count decides: one look at the words is enough, and the count of what has become free since
/// it began must be zero, in the scarcity in which it began.
///
/// Guards `scarcity::none_counted` in `scarcity::scan`: the count, and the look at the flags after it.
#[test]
fn a_refusal_by_one_look_and_the_count() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(3);
        let mut local = tier.local();
        let (a, b, c) = (take(&tier).unwrap(), take(&tier).unwrap(), take(&tier).unwrap());
        assert!(take(&tier).is_none(), "all are held"); // from here on the count decides
        drop(c); // counted
        let other = {
            let tier = tier.clone();
            spawn(move || assert!(scan(&tier).is_some(), "refused although one slot of three was always free"))
        };
        drop(a); // counted, and the end of scarcity
        drop(b); // not counted; its hint in this thread's magazine
        let held = (local.try_allocate(), local.try_allocate()); // what was counted
        other.join().unwrap();
        drop(held);
    });
}

/// Guarantee 2. A thread enters scarcity while another releases: if the release did not see the flag, the certificate must
/// not stand, or the slot would be free and every later refusal false.
///
/// Guards the mark and its light fence in `release::attempt`; the heavy fence, `Magazine::in_flight` and the scan
/// before the certificate in `scarcity::find_or_refuse`.
#[test]
fn scarcity_is_entered_against_a_release() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap(); // so this thread has a magazine, and takes the hot path
        let other = {
            let tier = tier.clone();
            spawn(move || drop(take(&tier)))
        };
        drop(held);
        other.join().unwrap();
        // Free, and seen so by its releaser; and nobody else allocates.
        let mut local = tier.local(); // whose magazine has no hint
        assert!(local.try_allocate().is_ok(), "refused although the only slot was free");
    });
}

/// Guarantee 2. The same with a thread that releases before it has a magazine.
///
/// Guards the mark and its light fence in `release::give_back`.
#[test]
fn scarcity_is_entered_against_a_first_release() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(1);
        let mut local = tier.local();
        let held = local.try_allocate().unwrap();
        let releaser = spawn(move || drop(held));
        let early = take(&tier);
        let taken = usize::from(early.is_some());
        drop(early);
        releaser.join().unwrap();
        let late = take(&tier);
        assert!(late.is_some(), "refused although the only slot was free");
        drop(late);
        drop(local);
        assert_quiet(&tier, 2 + taken);
    });
}

/// Guarantee 2. Under a certificate, a slot that somebody has seen free can be had, wherever its releaser stands.
///
/// Guards that `release::give_counted` counts a slot before it gives it.
#[test]
fn a_slot_seen_free_can_be_had() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        assert!(take(&tier).is_none(), "held");
        assert!(tier.snapshot().scarce);
        let releaser = spawn(move || drop(held));
        if tier.snapshot().free == 1 {
            assert!(take(&tier).is_some(), "refused although the slot was seen free");
        }
        releaser.join().unwrap();
        assert!(take(&tier).is_some(), "refused although the slot was free");
    });
}

/// Guarantee 2. A slot that is counted stays in the count until it is claimed: the count may be too large for a moment, and
/// never too small.
///
/// Guards the place of `scarcity::count_claim` in `allocate::claim`, after the exchange, its Release, and the Acquire of the count in
/// `scarcity::is_known_empty`.
#[test]
fn a_claim_leaves_the_count_last() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        assert!(take(&tier).is_none(), "held");
        drop(held); // counted
        let other = {
            let tier = tier.clone();
            spawn(move || take(&tier))
        };
        let mine = take(&tier);
        if mine.is_none() {
            // The other keeps its lease, so a slot that is free now was free all along.
            assert_eq!(tier.snapshot().free, 0, "refused although the slot was free");
        }
        let theirs = other.join().unwrap();
        assert_ne!(mine.is_some(), theirs.is_some(), "one slot, one lease");
    });
}

/// Guarantee 2. A refusal by the count holds for the scarcity in which it was read: if that has ended since, slots may be free
/// that nobody counted.
///
/// Guards that `scarcity::is_known_empty` reads the flags again after the count.
#[test]
fn a_certificate_is_for_one_scarcity() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(3);
        let mut local = tier.local();
        let (a, b, c) = (take(&tier).unwrap(), take(&tier).unwrap(), take(&tier).unwrap());
        assert!(take(&tier).is_none(), "all are held");
        drop(a); // counted
        let other = {
            let tier = tier.clone();
            spawn(move || assert!(take(&tier).is_some(), "refused although one slot of three was always free"))
        };
        drop(b); // counted, and the end of scarcity
        drop(c); // not counted; its hint in this thread's magazine
        let (a, b) = (local.try_allocate().unwrap(), local.try_allocate().unwrap());
        other.join().unwrap();
        drop((a, b));
        drop(local);
        assert_quiet(&tier, 6);
    });
}

/// Guarantee 2. A thread that found nothing free may be stopped before it certifies, until that scarcity has ended and another
/// begun: then its certificate is void.
///
/// Guards the epoch that `scarcity::end_if_plenty` adds to the flags.
#[test]
fn a_late_certificate_is_void() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(2);
        let (a, b) = (take(&tier).unwrap(), take(&tier).unwrap());
        let others = {
            let tier = tier.clone();
            spawn(move || {
                // One step as far as the searches can see: what matters is where they stand before it and after.
                loom::stop_exploring();
                drop((a, b)); // counted, and the end of scarcity, if that had begun
                let (a, b) = (take(&tier), take(&tier));
                loom::explore();
                let second = {
                    let tier = tier.clone();
                    spawn(move || drop(search(&tier)))
                };
                drop(b);
                second.join().unwrap();
                a
            })
        };
        drop(search(&tier));
        let held = others.join().unwrap();
        assert!(take(&tier).is_some(), "refused although one slot of two was free");
        drop(held);
    });
}
