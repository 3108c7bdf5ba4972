//! The end of a tier: every value is dropped once, whoever comes last (guarantees 4 and 5).
#![cfg(loom)]

use tierpool::AllocateError;
use tierpool_loom::{Census, explore, spawn, take};

/// Guarantees 4 and 5. A lease is released while the tier is closed: releaser or closer drops the value.
///
/// Guards the second light fence in `release::attempt` and the look at CLOSED after it, the heavy fence in
/// `close::close`, and the exchange in `close::bury`.
#[test]
fn close_against_release() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap(); // so this thread has a magazine, and takes the hot path
        let other = {
            let tier = tier.clone();
            spawn(move || tier.close())
        };
        drop(held);
        other.join().unwrap();
        assert_eq!(tier.snapshot().absent, 1);
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantees 4 and 5. The same with a thread that releases before it has a magazine.
///
/// Guards the second light fence in `release::give_back` and the look at CLOSED after it.
#[test]
fn close_against_a_first_release() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        let other = spawn(move || drop(held));
        tier.close();
        other.join().unwrap();
        assert_eq!(tier.snapshot().absent, 1);
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantees 1 and 4. A slot is allocated while the tier is closed: it is held or gone, never both, and gone in the end. Who
/// allocates after the close is told so.
///
/// Guards the exchange in `close::sweep`.
#[test]
fn close_against_allocate() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let other = {
            let tier = tier.clone();
            spawn(move || tier.close())
        };
        let mine = take(&tier);
        other.join().unwrap();
        assert!(matches!(tier.try_allocate(), Err(AllocateError::Closed { .. })));
        drop(mine);
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 4. A refused thread certifies scarcity while the tier is closed: CLOSED stays.
///
/// Guards the exchange by which `scarcity::find_or_refuse` sets CERTIFIED.
#[test]
fn close_against_a_scan() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        let other = {
            let tier = tier.clone();
            spawn(move || assert!(take(&tier).is_none(), "held"))
        };
        tier.close();
        other.join().unwrap();
        assert!(tier.snapshot().closed, "closed for ever");
        drop(held);
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 4. Releases end scarcity while the tier is closed: CLOSED stays.
///
/// Guards the exchange in `scarcity::end_if_plenty`, and the light fence and the look at CLOSED in `release::give_counted`.
#[test]
fn close_against_the_end_of_scarcity() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(2);
        let held = (take(&tier).unwrap(), take(&tier).unwrap());
        assert!(take(&tier).is_none(), "both are held");
        let other = spawn(move || drop(held));
        tier.close();
        other.join().unwrap();
        assert!(tier.snapshot().closed, "closed for ever");
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 5. The last `Tier` is dropped while a lease is: the value is dropped once, then the factory, once, after its last
/// use.
///
/// Guards the Release and the Acquire fence in `Core::count_out`.
#[test]
fn the_last_tier_against_a_lease() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        let other = spawn(move || held.discard()); // uses the factory, if the tier is still open
        drop(tier);
        other.join().unwrap();
        census.assert_ended();
    });
}

/// Guarantee 5. The last `Tier` is dropped while a lease is detached: nobody can attach the handle any more, so the value goes.
///
/// Guards the light fence and the look at ORPHANED in `Lease::detach`, the heavy fence in `close::orphan`, and that its sweep
/// takes detached slots.
#[test]
fn the_last_tier_against_detach() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        let other = spawn(move || held.detach());
        drop(tier);
        other.join().unwrap();
        census.assert_ended();
    });
}

/// Guarantee 5. Two threads drop the last two `Tier`s: one closes.
///
/// Guards the single decrement in `Tier`'s `Drop`.
#[test]
fn the_last_of_two_tiers_closes() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let other = {
            let tier = tier.clone();
            spawn(move || drop(take(&tier)))
        };
        drop(tier);
        other.join().unwrap();
        census.assert_ended();
    });
}
