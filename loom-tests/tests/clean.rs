//! Cleaning that is put off: each value is cleaned once before its next use, by whoever comes first, and no slot is lost on the way.
#![cfg(loom)]

use tierpool::internals::scan;
use tierpool::{Lease, Tier};
use tierpool_loom::{Census, Value, explore, spawn, take};

/// A tier that cleans its values; cleaning one that nobody has used fails the model.
fn tier(census: &Census, capacity: usize) -> Tier<Value> {
    census.tier_of(Tier::builder("model").capacity(capacity).clean(Value::clean))
}

/// As [`take`]; a value that is not clean fails the model.
#[track_caller]
fn take_clean(tier: &Tier<Value>) -> Option<Lease<Value>> {
    tier.try_allocate().ok().map(use_clean)
}

fn use_clean(mut lease: Lease<Value>) -> Lease<Value> {
    lease.use_clean();
    lease
}

/// Guarantees 1 and 4. The reclaimer and an allocation that helps it meet at one dirty slot: one of them cleans it, and the
/// next holder has it clean.
///
/// Guards that an allocation that helps goes through `clean::clean`, and that `clean::all` gives back what it has cleaned.
#[test]
fn a_pass_against_an_allocation_that_helps() {
    explore(3, || {
        let census = Census::default();
        let tier = tier(&census, 1);
        drop(take_clean(&tier)); // dirty
        let other = {
            let tier = tier.clone();
            spawn(move || tier.reclaim().cleaned)
        };
        let mine = take_clean(&tier);
        let cleaned = other.join().unwrap();
        assert!(cleaned == 1 || mine.is_some(), "somebody has cleaned the slot");
        if mine.is_none() {
            assert!(take_clean(&tier).is_some(), "refused although the slot was free");
        }
        drop(mine);
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 4. A release puts its slot's cleaning off while a pass cleans: whoever takes the slot off the chain sees that it is
/// dirty, or it would never be seen again.
///
/// Guards the Release in `chain::Chain::add` and the Acquire in `take`, by which the word comes before the slot's place in
/// the chain.
#[test]
fn a_release_that_puts_off_against_a_pass() {
    explore(3, || {
        let census = Census::default();
        let tier = tier(&census, 1);
        let held = take_clean(&tier).unwrap();
        let other = spawn(move || drop(held));
        tier.reclaim();
        other.join().unwrap();
        assert!(take_clean(&tier).is_some(), "refused although the slot was free or dirty");
        let now = tier.snapshot();
        assert_eq!((now.allocations, now.releases), (2, 2), "every use is counted, and no cleaning: {now:?}");
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantees 4 and 5. A release puts its slot's cleaning off while the tier is closed: one of them drops the value.
///
/// Guards the light fence and the look at CLOSED in `clean::put_off`, and `clean::bury_all`.
#[test]
fn a_release_that_puts_off_against_close() {
    explore(3, || {
        let census = Census::default();
        let tier = tier(&census, 1);
        let held = take_clean(&tier).unwrap();
        let other = spawn(move || drop(held));
        tier.close();
        other.join().unwrap();
        assert_eq!(tier.snapshot().absent, 1);
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantees 1 and 4. The same, and somebody else has the slot in hand to clean it: either it is given back to a closed
/// tier, or it was gone.
///
/// Guards the exchange of the word in `clean::claim`.
#[test]
fn a_release_that_puts_off_against_close_and_a_pass() {
    explore(2, || {
        let census = Census::default();
        let tier = tier(&census, 1);
        let held = take_clean(&tier).unwrap();
        let releaser = spawn(move || drop(held));
        let cleaner = {
            let tier = tier.clone();
            spawn(move || tier.reclaim())
        };
        tier.close();
        releaser.join().unwrap();
        cleaner.join().unwrap();
        assert_eq!(tier.snapshot().absent, 1);
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 2. Two slots go from dirty to free, one after the other: an allocation that reads the count before, and the chain
/// after, must not take them for held.
///
/// Guards the first look at the chain's head, before the count is read, in `scarcity::nothing_counted`.
#[test]
fn a_slot_that_is_cleaned_meanwhile_is_not_overlooked() {
    explore(1, || {
        let census = Census::default();
        let tier = tier(&census, 2);
        let held = (take_clean(&tier).unwrap(), take_clean(&tier).unwrap());
        assert!(take(&tier).is_none(), "both are held"); // from here on the count decides
        drop(held);
        let other = {
            let tier = tier.clone();
            spawn(move || tier.reclaim())
        };
        assert!(take_clean(&tier).is_some(), "refused although one slot of two was always dirty or free");
        other.join().unwrap();
    });
}

/// Guarantee 2. One slot becomes dirty, and then the free one is taken: a search that has looked at the first must not take both
/// for held.
///
/// Guards the second look at the chain's head, after the words and the count were read, in `scarcity::nothing_counted` and
/// in `scarcity::scan`.
#[test]
fn a_slot_that_becomes_dirty_meanwhile_is_not_overlooked() {
    explore(3, || {
        let census = Census::default();
        let tier = tier(&census, 2);
        let mut local = tier.local();
        let (first, second) = (take_clean(&tier).unwrap(), take_clean(&tier).unwrap());
        assert!(take(&tier).is_none(), "both are held"); // from here on the count decides
        drop(second);
        assert_eq!(tier.reclaim().cleaned, 1); // free, and counted; its hint in the depot
        let other = {
            let tier = tier.clone();
            spawn(move || scan(&tier).map(use_clean))
        };
        drop(first); // dirty
        let mine = local.try_allocate().ok().map(use_clean);
        let theirs = other.join().unwrap();
        assert!(theirs.is_some(), "refused although one slot of two was always dirty or free");
        drop((mine, theirs));
    });
}
