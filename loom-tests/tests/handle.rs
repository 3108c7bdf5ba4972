//! A handle acts on its own generation or returns an error (guarantee 1).
#![cfg(loom)]

use std::sync::{Arc, Mutex};

use loom::sync::atomic::{AtomicBool, Ordering};
use tierpool::{Handle, HandleError, Tier};
use tierpool_loom::{Census, Value, assert_quiet, explore, spawn, take};

/// Attaches, writes to the value, and releases; whether the handle won.
fn use_up(tier: &Tier<Value>, handle: Handle) -> bool {
    tier.attach(handle).map(|mut lease| lease.touch()).is_ok()
}

/// Guarantee 1. Two copies of a handle are attached at once: exactly one wins.
///
/// Guards the exchange in `handles::attach`.
#[test]
fn attach_against_attach() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let handle = take(&tier).unwrap().detach();
        let other = {
            let tier = tier.clone();
            spawn(move || use_up(&tier, handle))
        };
        let mine = use_up(&tier, handle);
        assert_ne!(mine, other.join().unwrap(), "exactly one attaches");
        assert_quiet(&tier, 1);
    });
}

/// Guarantee 1. One copy is attached, another released: exactly one wins, and what is attached stays so.
///
/// Guards that `Tier::release` goes through the exchange in `handles::attach` too.
#[test]
fn attach_against_release() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let handle = take(&tier).unwrap().detach();
        let other = {
            let tier = tier.clone();
            spawn(move || tier.release(handle).is_ok())
        };
        let lease = tier.attach(handle).ok();
        let (attached, released) = (lease.is_some(), other.join().unwrap());
        assert_ne!(attached, released, "exactly one wins");
        assert_eq!(tier.snapshot().leased, usize::from(attached), "what is attached is held");
        drop(lease);
        assert_quiet(&tier, 1);
    });
}

/// Guarantee 1. Two copies are released at once: one wins; and an error that names lines names the right ones.
///
/// Guards that `release::give` stores the line before the word.
#[test]
fn double_release() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let allocated = line!() + 1;
        let handle = tier.try_allocate().unwrap().detach();
        let lines = [line!() + 3, line!() + 5];
        let other = {
            let tier = tier.clone();
            spawn(move || tier.release(handle))
        };
        let mine = tier.release(handle);
        let results = [other.join().unwrap(), mine];
        let winner = results.iter().position(Result::is_ok).unwrap();
        for error in results.into_iter().filter_map(Result::err).chain([tier.release(handle).unwrap_err()]) {
            match error {
                HandleError::InUse { .. } => {}
                HandleError::Stale { allocated_at: None, released_at: None, .. } => {}
                HandleError::Stale { allocated_at, released_at, .. } => {
                    assert_eq!(allocated_at.map(|at| at.line()), Some(allocated), "the line that allocated");
                    assert_eq!(released_at.map(|at| at.line()), Some(lines[winner]), "the line that released first");
                }
                other => panic!("{other}"),
            }
        }
        assert_quiet(&tier, 1);
    });
}

/// Guarantee 1, TORTURE 2. A handle is released a second time while somebody may hold its slot again: nothing happens to
/// the new holder.
///
/// Guards the step of the generation in `Word::next`, by which every release makes older handles stale.
#[test]
fn a_second_release_leaves_the_next_holder_alone() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let handle = take(&tier).unwrap().detach();
        tier.release(handle).unwrap();
        let other = {
            let tier = tier.clone();
            spawn(move || take(&tier).unwrap().detach())
        };
        assert!(tier.release(handle).is_err(), "used up long ago");
        let theirs = other.join().unwrap();
        assert_eq!(tier.snapshot().detached, 1);
        assert!(use_up(&tier, theirs), "the new holder's handle is good");
    });
}

/// Guarantee 1. A slot is attached and detached again: the new handle is good, and copies of the old one stay dead.
///
/// Guards the step of the generation in `Lease::detach`.
#[test]
fn a_handle_detached_again_is_another() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let old = take(&tier).unwrap().detach();
        let other = {
            let tier = tier.clone();
            spawn(move || use_up(&tier, old))
        };
        if let Ok(lease) = tier.attach(old) {
            let new = lease.detach();
            assert!(!other.join().unwrap(), "the old handle was used up");
            assert!(use_up(&tier, new), "the new one is good");
        } else {
            assert!(other.join().unwrap(), "one wins");
        }
        assert_quiet(&tier, 1);
    });
}

/// Guarantee 1. A handle comes to another thread by a way that orders nothing: who attaches it finds the value as who detached
/// it left it.
///
/// Guards the Release in `Header::give` and the Acquire in `Header::compare_exchange`.
#[test]
fn a_handle_brings_its_value() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        // The handle lies where loom sees no order; the flag makes it look at both turns.
        let (place, there) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let other = {
            let (tier, place, there) = (tier.clone(), Arc::clone(&place), Arc::clone(&there));
            spawn(move || {
                let handle = if there.load(Ordering::Relaxed) { *place.lock().unwrap() } else { None };
                handle.is_some_and(|handle| use_up(&tier, handle))
            })
        };
        let handle = take(&tier).unwrap().detach();
        *place.lock().unwrap() = Some(handle);
        there.store(true, Ordering::Relaxed);
        let theirs = other.join().unwrap();
        assert_ne!(use_up(&tier, handle), theirs, "exactly one attaches");
        assert_quiet(&tier, 1);
    });
}
