//! Handles: a copy of one never comes back to life, whatever happens to the slot, and a refusal says what happened.

pub mod common;

use std::sync::Barrier;
use std::thread;

use common::{Census, accounted};
use tierpool::{Handle, HandleError, Tier};

fn tier(name: &str, capacity: usize) -> Tier<u64> {
    Tier::builder(name).capacity(capacity).build_with(|| 0).unwrap()
}

/// TORTURE 1, met in Netty (pull request 15512): released twice, and the error did not say who had been first.
#[test]
fn a_second_release_names_the_first_and_the_allocation() {
    let tier = tier("frames", 1);
    let handle = tier.try_allocate().unwrap().detach();
    let allocated = line!() - 1;
    tier.release(handle).unwrap();
    let released = line!() - 1;

    let error = tier.release(handle).unwrap_err();

    let HandleError::Stale { handle: named, tier: name, allocated_at, released_at } = error else {
        panic!("not stale: {error:?}");
    };
    assert_eq!((named, name), (handle, "frames"));
    let here = |site: Option<&'static std::panic::Location<'static>>| {
        let site = site.expect("the line is still known");
        assert!(site.file().ends_with("handles.rs"), "{site}");
        site.line()
    };
    assert_eq!((here(allocated_at), here(released_at)), (allocated, released));
    let text = error.to_string();
    for part in ["\"frames\"", "is stale", &format!("handles.rs:{allocated}:"), &format!("handles.rs:{released}:")] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert_eq!(accounted(&tier).free, 1);
}

/// TORTURE 1: what is not known is not invented. A dropped lease names no line, and a slot that was allocated again
/// says nothing of the use before.
#[test]
fn a_stale_handle_names_no_line_that_is_not_its_own() {
    let tier = tier("frames", 1);
    let handle = tier.try_allocate().unwrap().detach();
    drop(tier.attach(handle).unwrap());
    let HandleError::Stale { allocated_at, released_at, .. } = tier.release(handle).unwrap_err() else { panic!() };
    assert!(allocated_at.is_some());
    assert_eq!(released_at, None);

    let later = tier.try_allocate().unwrap();
    let HandleError::Stale { allocated_at, released_at, .. } = tier.release(handle).unwrap_err() else { panic!() };
    assert_eq!((allocated_at, released_at), (None, None));
    later.release();
    let HandleError::Stale { allocated_at, released_at, .. } = tier.release(handle).unwrap_err() else { panic!() };
    assert_eq!((allocated_at, released_at), (None, None));
}

/// TORTURE 2, the classic: the slot already has a third holder when the second release comes.
#[test]
fn a_second_release_does_not_touch_the_next_holder() {
    let tier = tier("frames", 1);
    let handle = tier.try_allocate().unwrap().detach();
    tier.release(handle).unwrap();

    let mut third = tier.try_allocate().unwrap();
    *third = 3;
    thread::scope(|threads| {
        threads.spawn(|| assert!(matches!(tier.release(handle), Err(HandleError::Stale { .. }))));
        threads.spawn(|| assert!(matches!(tier.attach(handle), Err(HandleError::Stale { .. }))));
    });
    assert_eq!(*third, 3);
    assert_eq!(accounted(&tier).leased, 1);
    assert!(tier.try_allocate().is_err(), "the second release made the slot free under its holder");

    // The same when the third holder has only the name of the slot.
    let theirs = third.detach();
    assert!(matches!(tier.release(handle), Err(HandleError::Stale { .. })));
    assert_eq!(*tier.attach(theirs).unwrap(), 3);
    assert_eq!(accounted(&tier).releases, 2);
}

/// TORTURE 2 under load: of all who release or attach with one handle, exactly one wins.
#[test]
fn one_of_many_racing_uses_of_a_handle_wins() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 2_000;
    let tier = tier("frames", 3);
    let barrier = Barrier::new(THREADS);
    let handles: Vec<_> = (0..3).map(|_| tier.try_allocate().unwrap().detach()).collect();
    let slots = std::sync::Mutex::new(handles);
    thread::scope(|threads| {
        for me in 0..THREADS {
            let (tier, barrier, slots) = (&tier, &barrier, &slots);
            threads.spawn(move || {
                for round in 0..ROUNDS {
                    barrier.wait();
                    let handle = slots.lock().unwrap()[round % 3];
                    barrier.wait();
                    // Half of them attach, half release; the winner leaves a new handle for the next round.
                    let won = if (me + round) % 2 == 0 {
                        tier.attach(handle).map(|lease| lease.detach())
                    } else {
                        tier.release(handle).map(|()| tier.try_allocate().unwrap().detach())
                    };
                    if let Ok(next) = won {
                        let mut slots = slots.lock().unwrap();
                        assert_eq!(slots[round % 3], handle, "two winners");
                        slots[round % 3] = next;
                    }
                    barrier.wait();
                    assert_ne!(slots.lock().unwrap()[round % 3], handle, "no winner");
                }
            });
        }
    });
    assert_eq!(accounted(&tier).detached, 3);
}

/// TORTURE 3, met in sharded-slab 0.1.7: after 8,191 reuses of a slot an old key reads the new owner's data. Here the
/// generation has 60 bits; what stands at 2^13, 2^16 and 2^20 uses are the counters that others wrap.
#[test]
fn an_old_handle_stays_dead_however_often_its_slot_is_used() {
    let tier = tier("hot", 1);
    let old = tier.try_allocate().unwrap().detach();
    tier.release(old).unwrap();
    let born = old.generation();
    let mut suspects = vec![old];
    let mut uses = 0u64;
    for wraps in [1 << 8, 8_191, 8_192, 1 << 16, 1 << 20] {
        while uses < wraps {
            drop(tier.try_allocate().unwrap());
            uses += 1;
        }
        // A detached slot is the one that an old handle could name by mistake.
        let present = tier.try_allocate().unwrap().detach();
        uses += 1;
        for &handle in &suspects {
            assert_ne!(handle, present);
            assert!(matches!(tier.attach(handle), Err(HandleError::Stale { .. })), "alive after {uses} uses");
            assert!(matches!(tier.release(handle), Err(HandleError::Stale { .. })), "alive after {uses} uses");
        }
        assert!(present.generation() >= born + uses, "each use takes a generation of its own");
        tier.release(present).unwrap();
        suspects.push(present);
    }
}

/// TORTURE 3: no bit of the sixty is lost on the way through a number.
#[test]
fn bits_carry_all_of_a_handle() {
    let tier = tier("frames", 3);
    let handle = tier.try_allocate().unwrap().detach();
    assert_eq!(Handle::from_bits(handle.to_bits()).unwrap(), handle);
    // Every single bit matters: with any one of them changed the number names something else, or nothing.
    for bit in 0..128 {
        let bits = handle.to_bits() ^ (1 << bit);
        match Handle::from_bits(bits) {
            Ok(other) => {
                assert_eq!(other.to_bits(), bits);
                assert_ne!(other, handle);
                assert!(tier.attach(other).is_err(), "bit {bit} is ignored");
                assert!(tier.release(other).is_err(), "bit {bit} is ignored");
            }
            Err(HandleError::Forged { handle: shown }) => assert_eq!(shown.to_bits(), bits, "bit {bit}"),
            Err(other) => panic!("bit {bit}: {other:?}"),
        }
    }
    // The generation's upper bits are looked at, too: 2^59 releases have not happened.
    let far = handle.to_bits() | (1 << (64 + 59));
    assert!(matches!(Handle::from_bits(far), Err(HandleError::Forged { .. })));
    tier.release(handle).unwrap();
}

/// TORTURE 23: a handle of another tier that lives is refused by its number, and changes nothing in either.
#[test]
fn a_handle_of_another_tier_is_foreign() {
    let (mine, theirs) = (tier("mine", 4), tier("theirs", 4));
    let handle = theirs.try_allocate().unwrap().detach();
    for error in [mine.attach(handle).unwrap_err(), mine.release(handle).unwrap_err()] {
        assert!(matches!(error, HandleError::Foreign { handle: named, tier: "mine" } if named == handle), "{error:?}");
        assert!(error.to_string().contains("of another tier than \"mine\""), "{error}");
    }
    assert_eq!((accounted(&mine).free, accounted(&theirs).detached), (4, 1));
    theirs.release(handle).unwrap();
}

/// TORTURE 23: a tier long gone, whose place in memory a tier of another type has taken.
#[test]
fn a_handle_of_a_tier_long_gone_is_refused_by_its_successor() {
    // No other test of this file builds tiers of this size, so that the successor takes the very place.
    let census = Census::default();
    let gone = census.tier(1000);
    let mut leases: Vec<_> = gone.try_allocate_many(1000).unwrap().into_iter().collect();
    let released = leases.pop().unwrap().detach();
    gone.release(released).unwrap();
    // All slots, those included that the smaller successor does not have.
    let mut handles: Vec<_> = leases.into_iter().map(|lease| lease.detach()).collect();
    handles.push(released);
    drop(gone);
    assert_eq!(census.alive(), 0);

    let successor = tier("successor", 600);
    let held: Vec<_> = successor.try_allocate_many(300).unwrap().into_iter().map(|lease| lease.detach()).collect();
    for &handle in &handles {
        let error = successor.attach(handle).unwrap_err();
        assert!(matches!(error, HandleError::Stale { tier: "successor", .. }), "{error:?}");
        let error = successor.release(handle).unwrap_err();
        assert!(matches!(error, HandleError::Stale { allocated_at: None, released_at: None, .. }), "{error:?}");
        assert_eq!(Handle::from_bits(handle.to_bits()).unwrap(), handle, "it did exist");
    }
    assert_eq!(accounted(&successor).detached, held.len());
    assert!(held.into_iter().all(|handle| successor.release(handle).is_ok()));
}

/// TORTURE 23: numbers that name nothing that ever existed.
#[test]
fn forged_bits_are_told_from_stale_ones() {
    let tier = tier("frames", 4);
    let real = tier.try_allocate().unwrap().detach();
    let bits = real.to_bits();
    let slot = |bits: u128| bits & u128::from(u64::MAX);
    let mark_and_generation = |bits: u128| bits & !u128::from(u64::MAX);
    let forged = [
        ("nothing", 0),
        ("everything", u128::MAX),
        ("no generation", slot(bits) | (0b1010 << 124)),
        ("no mark", bits & !(0b1111 << 124)),
        ("a tier that never was", mark_and_generation(bits) | (0xffff << 32)),
        ("a tier out of range", mark_and_generation(bits) | (0xffff_ffff << 32)),
        ("a slot out of range", bits | 0xffff_ffff),
        ("a generation to come", bits + (1 << 64)),
    ];
    for (what, bits) in forged {
        let error = Handle::from_bits(bits).expect_err(what);
        assert!(matches!(error, HandleError::Forged { handle } if handle.to_bits() == bits), "{what}: {error:?}");
        assert!(error.to_string().contains("names nothing that ever existed"), "{what}: {error}");
    }
    assert_eq!(accounted(&tier).detached, 1);

    // What was once true and is over is stale. A lease's name shows a generation that no handle ever had.
    tier.release(real).unwrap();
    assert!(matches!(tier.attach(Handle::from_bits(bits).unwrap()), Err(HandleError::Stale { .. })));
    let lease = tier.try_allocate().unwrap();
    let name = Handle::from_bits(lease.handle().to_bits()).unwrap();
    assert!(matches!(tier.attach(name), Err(HandleError::InUse { .. })));
    assert!(matches!(tier.release(name), Err(HandleError::InUse { .. })));
    assert_eq!(accounted(&tier).leased, 1);
}

/// TORTURE 23: who holds a handle whose copy was attached is told so, and after the close, that all is over.
#[test]
fn every_kind_of_refusal_says_what_happened() {
    let tier = tier("frames", 4);
    let handle = tier.try_allocate().unwrap().detach();
    let lease = tier.attach(handle).unwrap();
    let error = tier.attach(handle).unwrap_err();
    assert!(matches!(error, HandleError::InUse { tier: "frames", state: tierpool::State::Leased, .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("handle {handle} of tier \"frames\" is attached already: its slot is leased")
    );

    // A close leaves what is under way: a detached slot can still be attached.
    let handle = lease.detach();
    tier.close();
    let lease = tier.attach(handle).unwrap();
    let handle = lease.detach();
    tier.release(handle).unwrap();
    let error = tier.attach(handle).unwrap_err();
    assert!(matches!(error, HandleError::Closed { tier: "frames", .. }), "{error:?}");
    assert!(error.to_string().starts_with(&format!("handle {handle} is dead: tier \"frames\" is closed")), "{error}");
    assert_eq!(accounted(&tier).absent, 4);
}
