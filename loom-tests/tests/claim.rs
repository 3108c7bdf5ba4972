//! A slot is never in two hands (guarantee 1), whoever claims it and by whatever hint.
#![cfg(loom)]

use tierpool_loom::{Census, assert_quiet, explore, spawn, take};

/// Guarantee 1. The owner pops a hint of its magazine while another thread finds the same slot, by looking into that
/// magazine or by the slot's word: one has it.
///
/// Guards the exchange in `Header::compare_exchange`, through which `allocate::claim` goes.
#[test]
fn an_owners_claim_against_anothers() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(1);
        drop(take(&tier).unwrap()); // the hint stays in this thread's magazine
        let other = {
            let tier = tier.clone();
            spawn(move || usize::from(take(&tier).is_some()))
        };
        let mine = usize::from(take(&tier).is_some());
        let theirs = other.join().unwrap();
        assert!(mine + theirs >= 1, "whoever comes first is not refused");
        assert_quiet(&tier, 1 + mine + theirs);
    });
}

/// Guarantee 1. A hint that is left of a use long gone (here: of a slot that has been through another's hands meanwhile, and
/// is back at a later generation, or is still held) claims nothing.
///
/// Guards that `allocate::claim` asks the word, and does not believe the hint.
#[test]
fn a_stale_hint_claims_nothing() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        drop(take(&tier).unwrap()); // the hint stays in this thread's magazine
        let other = {
            let tier = tier.clone();
            spawn(move || {
                let held = take(&tier);
                let taken = usize::from(held.is_some());
                (held, taken)
            })
        };
        let mine = take(&tier);
        let (theirs, taken) = other.join().unwrap();
        assert!(mine.is_none() || theirs.is_none(), "one slot, two leases");
        assert!(mine.is_some() || theirs.is_some(), "nobody held it, and both were refused");
        let taken = 1 + taken + usize::from(mine.is_some());
        drop((mine, theirs));
        assert_quiet(&tier, taken);
    });
}

/// Guarantees 1 and 2. Two threads, one slot, no hint at hand: exactly one has it, the other is refused.
///
/// Guards the exchange in `Header::compare_exchange` from the other side: the two meet at the depot, at each other's
/// magazine and at the word.
#[test]
fn the_last_slot_goes_to_one() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(1);
        let other = {
            let tier = tier.clone();
            spawn(move || take(&tier))
        };
        let leases: Vec<_> = [take(&tier), other.join().unwrap()].into_iter().flatten().collect();
        assert_eq!(leases.len(), 1, "one slot, one lease");
        drop(leases);
        assert_quiet(&tier, 1);
    });
}
