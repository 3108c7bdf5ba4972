//! Making tiers: bad input is refused with a reason, many tiers live side by side, and those gone leave their place.

pub mod common;

use std::thread;

use common::{Census, accounted, drain};
use tierpool::{BuildError, HandleError, Tier};

fn build(name: &str, capacity: usize) -> Result<Tier<u8>, BuildError> {
    Tier::builder(name).capacity(capacity).build_with(|| 0)
}

/// TORTURE 22: capacities that cannot be.
#[test]
fn capacities_out_of_range_are_refused() {
    for capacity in [0, (1 << 27) + 1, 1 << 32, usize::MAX] {
        let error = build("t", capacity).unwrap_err();
        assert!(matches!(error, BuildError::Capacity { tier: "t", max, .. } if max == 1 << 27), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("\"t\"") && text.contains(&capacity.to_string()) && text.contains("from 1 to"), "{text}");
    }
    assert!(Tier::<u8>::builder("t").build_with(|| 0).is_err(), "there is no default");
    let least = build("t", 1).unwrap();
    assert_eq!((drain(&least), least.capacity()), (1, 1));

    // More bytes than an address space has. A value of this size would pass over the stack.
    let vast = || {
        let error = Tier::<[u8; 1 << 20]>::builder("vast").capacity(1 << 27).build_with(|| unreachable!()).unwrap_err();
        assert!(matches!(error, BuildError::OutOfMemory { slot_bytes, .. } if slot_bytes == 1 << 20), "{error:?}");
        assert!(error.to_string().starts_with("no memory for tier \"vast\": 134217728 slots of"), "{error}");
    };
    thread::Builder::new().stack_size(64 << 20).spawn(vast).unwrap().join().unwrap();
}

/// TORTURE 22: names that would garble a log or a metrics page are refused, and the error shows them escaped.
#[test]
fn names_that_cannot_be_printed_are_refused() {
    let long = "n".repeat(129);
    for (name, problem) in [
        ("", "is empty"),
        (long.as_str(), "longer than 128 bytes"),
        ("a \"quoted\" name", "quotation mark"),
        ("two\nlines", "control character"),
        ("back\\slash", "backslash"),
        ("nul\0", "control character"),
        ("bell\u{7}", "control character"),
        ("next line\u{85}", "control character"),
    ] {
        let error = build(name, 1).unwrap_err();
        let text = error.to_string();
        assert!(matches!(&error, BuildError::Name { name: shown, .. } if shown == name), "{error:?}");
        assert!(text.contains(problem), "{text}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    for name in ["n", &"n".repeat(128), "frames {4 KiB}, für alle 🦀", "a'b", "{name=}", " "] {
        let tier = build(name, 1).unwrap();
        assert_eq!((tier.name(), tier.snapshot().tier), (name, name));
    }
}

/// TORTURE 22: the same name twice is two tiers.
#[test]
fn a_name_that_repeats_is_another_tier() {
    let (one, two) = (build("same", 2).unwrap(), build("same", 3).unwrap());
    assert_eq!((drain(&one), drain(&two)), (2, 3));
    let handle = one.try_allocate().unwrap().detach();
    assert!(matches!(two.attach(handle), Err(HandleError::Foreign { .. })));
    assert!(std::ptr::eq(one.name(), two.name()), "a name is kept once");
    one.release(handle).unwrap();
}

/// More tiers at once than a thread's array has places: the others are found more slowly, and work all the same.
#[test]
fn a_hundred_tiers_at_once_all_work() {
    let census = Census::default();
    let tiers: Vec<_> = (1..=100).map(|capacity| census.tier(capacity)).collect();
    thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                for _ in 0..20 {
                    for tier in &tiers {
                        let lease = tier.try_allocate();
                        drop(tier.try_allocate());
                        drop(lease);
                    }
                }
            });
        }
    });
    for (tier, capacity) in tiers.iter().zip(1..) {
        let held: Vec<_> = std::iter::from_fn(|| tier.try_allocate().ok()).collect();
        assert_eq!(held.len(), capacity);
        drop(held);
        let mut local = tier.local();
        let lease = local.try_allocate().unwrap();
        local.release(lease);
        tier.release(tier.try_allocate().unwrap().detach()).unwrap();
        drop(tier.try_allocate_many(capacity).unwrap());
        let now = accounted(tier);
        assert_eq!((now.free, now.allocations), (capacity, now.releases));
    }
    drop(tiers);
    assert_eq!(census.alive(), 0);
}

/// Two thousand tiers one after the other: the place of each serves the next, and no handle of one opens another.
#[test]
fn tiers_in_sequence_use_the_same_place() {
    // No other test of this file builds tiers of this size.
    const CAPACITY: usize = 700;
    let mut old = Vec::new();
    let mut overhead = None;
    for round in 0..2_000 {
        let tier: Tier<u8> = Tier::builder("sequence").capacity(CAPACITY).build_with(|| 0).unwrap();
        let handle = tier.try_allocate().unwrap().detach();
        for &handle in &old {
            assert!(matches!(tier.attach(handle), Err(HandleError::Stale { .. })), "alive in round {round}");
        }
        if round % 100 == 0 {
            old.push(handle);
        }
        let now = tier.snapshot();
        assert_eq!((now.free, now.allocations, now.releases, now.refusals), (CAPACITY - 1, 1, 0, 0), "counters go on");
        assert_eq!(*overhead.get_or_insert(tier.overhead_bytes()), tier.overhead_bytes(), "round {round}");
        if round % 2 == 0 {
            tier.close();
        }
    }
}
