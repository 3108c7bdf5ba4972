//! The reserve is exact (guarantee 8): who is not urgent cannot have it, and what was taken from it comes back.
#![cfg(loom)]

use tierpool::internals::{allocate_as, set_marks};
use tierpool_loom::{Census, explore, spawn};

const LOW: u8 = 0;
const HIGH: u8 = 2;

/// Guarantee 8. Of two slots one is reserved. However an urgent thread takes and gives back, another that is not urgent never
/// has both; and in the end one is reserved again.
///
/// Guards the order in `reserve::take` (owed before it is in anybody's hands), the flag in `reserve::owe`, and the look at
/// REFILLS in `release::attempt`.
#[test]
fn the_reserve_is_never_lent_to_who_is_not_urgent() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(2);
        set_marks(&tier, [1, 1, 0, 0]);
        let urgent = {
            let tier = tier.clone();
            spawn(move || {
                let both = (allocate_as(&tier, HIGH), allocate_as(&tier, HIGH));
                drop(both);
            })
        };
        let (one, two) = (allocate_as(&tier, LOW), allocate_as(&tier, LOW));
        assert!(one.is_none() || two.is_none(), "who is not urgent has the reserve");
        drop((one, two));
        urgent.join().unwrap();
        let now = tier.snapshot();
        assert_eq!((now.free, now.reserved), (1, 1));
    });
}

/// Guarantee 8. Two urgent threads compete for one reserved slot while the other is held: exactly one gets it, and the next
/// one after it has come back.
///
/// Guards the right in `Reserve::right`, and that a slot is in the chain before there is a right to it (`reserve::put`).
#[test]
fn a_right_to_each_slot() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(2);
        set_marks(&tier, [1, 1, 0, 0]);
        let held = allocate_as(&tier, LOW);
        let other = {
            let tier = tier.clone();
            spawn(move || drop(allocate_as(&tier, HIGH)))
        };
        drop(allocate_as(&tier, HIGH));
        other.join().unwrap();
        let again = allocate_as(&tier, HIGH).expect("it has come back");
        assert!(allocate_as(&tier, HIGH).is_none(), "one was reserved");
        drop((held, again));
        let now = tier.snapshot();
        assert_eq!((now.free, now.reserved), (1, 1));
    });
}

/// Guarantee 8. The reserve is full again, and while the flag that says otherwise is being cleared a slot is taken once more:
/// its release finds the flag all the same.
///
/// Guards the epoch in `reserve::owe` and the exchange in `reserve::settle`.
#[test]
fn the_flag_is_cleared_only_if_nothing_is_due() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(2);
        set_marks(&tier, [1, 1, 0, 0]);
        let (held, reserved) = (allocate_as(&tier, LOW), allocate_as(&tier, HIGH));
        let other = spawn(move || drop(reserved));
        drop(allocate_as(&tier, HIGH));
        other.join().unwrap();
        drop(held);
        let now = tier.snapshot();
        assert_eq!((now.free, now.reserved), (1, 1));
    });
}

/// A tier that keeps all of so many slots back is closed while one that was taken comes back.
fn close_against_a_release(slots: u32) {
    explore(3, move || {
        let census = Census::default();
        let tier = census.tier(slots as usize);
        set_marks(&tier, [slots, slots, 0, 0]);
        let held = allocate_as(&tier, HIGH).unwrap();
        let other = spawn(move || drop(held));
        tier.close();
        other.join().unwrap();
        census.assert_all_dropped();
    });
}

/// Guarantee 4. A slot comes back to the reserve while the tier is closed: its value is dropped, once.
///
/// Guards the look at CLOSED in `reserve::refill`, and `reserve::bury_all` in the sweep of `close`.
#[test]
fn close_against_a_refill() {
    close_against_a_release(1);
}

/// Guarantee 4. The same with another slot in the reserve. The closer may have the slot that came back for the right to the
/// other, which then is the release's to drop.
///
/// Guards `reserve::bury_all` in `reserve::refill`.
#[test]
fn close_against_a_refill_of_a_reserve() {
    close_against_a_release(2);
}
