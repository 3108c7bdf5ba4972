//! Many slots at once: no different from one by one (guarantees 1, 2 and 4).
#![cfg(loom)]

use tierpool_loom::{Census, Value, assert_quiet, explore, spawn, take};

/// Guarantees 1 and 4. A bulk of all slots against a single allocation: no slot in two hands; one of the two is served; and a
/// refused bulk gives back what it had.
///
/// Guards the exchange in `allocate::claim` for bulks, and the way back in `bulk::allocate_into`.
#[test]
fn bulk_against_single() {
    explore(1, || {
        let census = Census::default();
        let tier = census.tier(2);
        let other = {
            let tier = tier.clone();
            spawn(move || {
                let mut leases = tier.try_allocate_many(2).ok()?;
                leases.iter_mut().for_each(Value::touch);
                Some(leases)
            })
        };
        let mine = take(&tier);
        let theirs = other.join().unwrap();
        assert_ne!(mine.is_some(), theirs.is_some(), "one is served, and not both");
        drop((mine, theirs));
        assert_eq!(tier.snapshot().free, 2, "every slot is free again");
    });
}

/// Guarantee 2. A bulk is released while another thread enters scarcity: as with single releases, no certificate may stand while
/// slots are free that nobody counted.
///
/// Guards the mark for all (`Magazine::set_bulk`) and its light fence in `release::give_back_many`, and the look at it in
/// `Magazine::in_flight`.
#[test]
fn bulk_release_against_scarcity() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(2);
        let leases = tier.try_allocate_many(2).unwrap();
        let other = spawn(move || leases.release());
        drop(take(&tier));
        other.join().unwrap();
        let all = (take(&tier), take(&tier));
        assert!(all.0.is_some() && all.1.is_some(), "refused although both slots were free");
    });
}

/// Guarantee 4. A bulk is released while the tier is closed: every value is dropped once.
///
/// Guards the second light fence and the look at CLOSED in `release::give_back_many`.
#[test]
fn bulk_release_against_close() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(2);
        let leases = tier.try_allocate_many(2).unwrap();
        let other = spawn(move || leases.release());
        tier.close();
        other.join().unwrap();
        census.assert_all_dropped();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 4. Releases one by one and in bulk by two threads, and everything is there again.
///
/// Guards the counting by `Magazine::note_elsewhere` in `release::give_back_many`.
#[test]
fn bulk_and_single_are_counted_alike() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(3);
        let other = {
            let tier = tier.clone();
            spawn(move || drop(tier.try_allocate_many(2).unwrap()))
        };
        drop(take(&tier).unwrap());
        other.join().unwrap();
        assert_quiet(&tier, 3);
    });
}
