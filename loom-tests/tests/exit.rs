//! A thread that exits returns its magazine (guarantee 6), and its counters are not lost (guarantee 4).
#![cfg(loom)]

use loom::thread;
use tierpool_loom::{Census, assert_quiet, explore, spawn, take};

/// Guarantees 2 and 6. A thread exits with a hint in its magazine while another allocates, and finds the slot wherever its hint is.
///
/// The thread's locals are destroyed by loom itself here, as part of the thread.
///
/// Guards the search by words in `scarcity::find_or_refuse`: what `Magazine::leave` does to a hint takes no slot away.
#[test]
fn thread_exit_against_a_claim() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(2);
        let exiting = {
            let tier = tier.clone();
            thread::spawn(move || assert!(take(&tier).is_some(), "at most one of two is held"))
        };
        let mine = take(&tier);
        assert!(mine.is_some(), "refused although at most one of two was held");
        exiting.join().unwrap();
        let theirs = take(&tier);
        assert!(theirs.is_some(), "refused although one of two was free");
    });
}

/// Guarantees 4 and 6. A magazine is left while another thread looks for one: it has one owner at a time, who goes on from
/// where the last one left its counters.
///
/// Guards the exchange in `Magazine::adopt`, and its Acquire with the Release in `Magazine::leave`.
#[test]
fn a_magazine_is_adopted_by_one() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(2);
        drop(tier.local()); // one magazine, left
        let other = {
            let tier = tier.clone();
            spawn(move || {
                let mut local = tier.local();
                let lease = local.try_allocate().unwrap();
                local.release(lease);
            })
        };
        let mut local = tier.local();
        let lease = local.try_allocate().unwrap();
        local.release(lease);
        drop(local);
        other.join().unwrap();
        assert_quiet(&tier, 2);
    });
}

/// Guarantee 4. Two threads meet a tier for the first time: no magazine is used without being counted, or scarcity would be
/// entered without looking there for releases in flight.
///
/// Guards the exchange on the number of magazines in `Core::claim_magazine`.
#[test]
fn every_magazine_in_use_is_counted() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(1);
        let other = {
            let tier = tier.clone();
            spawn(move || drop(tier.local()))
        };
        let first = tier.local();
        let mut second = tier.local();
        drop(first);
        let lease = second.try_allocate().unwrap();
        second.release(lease);
        other.join().unwrap();
        assert_eq!(tier.snapshot().magazines, 1);
        drop(second);
        assert_quiet(&tier, 1);
    });
}
