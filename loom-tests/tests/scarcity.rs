//! No false exhaustion (guarantee 2), least of all by the cheap refusal: count and certificate.
#![cfg(loom)]

use tierpool_loom::{Census, assert_quiet, explore, spawn, take};

/// Guarantee 2. A thread enters scarcity while another releases: if the release did not see the flag, the certificate must
/// not stand, or the slot would be free and every later refusal false.
///
/// Guards the mark and its light fence (`release::mark`), the heavy fence and `Magazine::in_flight` in
/// `scarcity::find_or_refuse`.
#[test]
fn scarcity_is_entered_against_a_release() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        let releaser = spawn(move || drop(held));
        let early = take(&tier);
        let taken = usize::from(early.is_some());
        drop(early);
        releaser.join().unwrap();
        // Free, and seen so through the join; and nobody else allocates.
        let late = take(&tier);
        assert!(late.is_some(), "refused although the only slot was free");
        drop(late);
        assert_quiet(&tier, 2 + taken);
    });
}
