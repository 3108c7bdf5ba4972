//! Shared slots: nobody reads a value that was dropped or handed out again (guarantee 1), and each comes back once (guarantees 4, 5).
#![cfg(loom)]

use tierpool::internals::{Block, handle, recycle};
use tierpool::{Handle, Tier};
use tierpool_loom::{Census, Value, assert_quiet, explore, spawn, take};

/// Reads under a pin, if the handle is shared still. True if it was.
fn look(tier: &Tier<Value>, handle: Handle) -> bool {
    let pin = tier.pin();
    let value = tier.read(handle, &pin);
    value.is_some_and(|value| value.look() == 1)
}

/// Retires the slot and has it again if it can, to write to it and to give it back.
fn retire_and_reuse(tier: &Tier<Value>, handle: Handle) {
    tier.retire(handle).unwrap();
    if let Some(mut lease) = recycle(tier) {
        lease.touch();
    }
}

/// At the end nothing is in the way.
fn assert_recycled(tier: &Tier<Value>) {
    drop(recycle(tier));
    assert_eq!(tier.snapshot().free, 1, "what is retired comes back");
}

/// Guarantee 1. A value is read while its slot is retired and used again: whoever has read it under a pin comes before the next
/// use, or the slot waits.
///
/// Guards the light fence in `Pin::new`, the heavy fence and the step of the epoch in `epoch::seal`, the look at the pins in
/// `pin::are_gone`, and the Release in `Pins::set` with the Acquire in `Pins::standing`.
#[test]
fn a_reader_against_the_next_use() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let handle = take(&tier).unwrap().share();
        let other = {
            let tier = tier.clone();
            spawn(move || {
                drop(tier.pin()); // so this thread has a magazine, and takes the hot path
                look(&tier, handle)
            })
        };
        retire_and_reuse(&tier, handle);
        other.join().unwrap();
        assert_recycled(&tier);
    });
}

/// Guarantee 1. The same with a thread that pins before it has a magazine.
///
/// Guards the light fence in `pin::pin_slow`.
#[test]
fn a_first_reader_against_the_next_use() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let handle = take(&tier).unwrap().share();
        let other = {
            let tier = tier.clone();
            spawn(move || look(&tier, handle))
        };
        retire_and_reuse(&tier, handle);
        other.join().unwrap();
        assert_recycled(&tier);
    });
}

/// Guarantee 1. The same with a thread that has no magazine, since all are taken.
///
/// Guards the count of `unlisted_pins`: its Release in `pin::unpin_slow` and its Acquire in `pin::are_gone`.
#[test]
fn a_reader_without_magazine_against_the_next_use() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let handle = take(&tier).unwrap().share();
        let _magazines = (tier.local(), tier.local());
        let other = {
            let tier = tier.clone();
            spawn(move || look(&tier, handle))
        };
        retire_and_reuse(&tier, handle);
        other.join().unwrap();
        assert_recycled(&tier);
    });
}

/// Guarantee 1. A reader pins, unpins, and pins once more: its second pin, of the new epoch, is not in the way, and still says that
/// the first is over.
///
/// Guards that the store that notes a pin is a Release too.
#[test]
fn a_later_pin_stands_for_the_end_of_the_earlier() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let handle = take(&tier).unwrap().share();
        let other = {
            let tier = tier.clone();
            spawn(move || {
                look(&tier, handle);
                let pin = tier.pin();
                if let Some(value) = tier.read(handle, &pin) {
                    value.look();
                }
                std::mem::forget(pin); // stands until the end
            })
        };
        retire_and_reuse(&tier, handle);
        other.join().unwrap();
    });
}

/// Guarantee 1. A reader retires what it reads, and reads on, while another frees what is retired.
///
/// Guards that `epoch::free_all` takes the retired slots before it seals them.
#[test]
fn a_reader_that_retires_what_it_reads() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(2);
        let handle = take(&tier).unwrap().share();
        tier.retire(take(&tier).unwrap().share()).unwrap(); // so there is something to free
        let other = {
            let tier = tier.clone();
            spawn(move || {
                let pin = tier.pin();
                let value = tier.read(handle, &pin).unwrap();
                tier.retire(handle).unwrap();
                value.look();
            })
        };
        for _ in 0..2 {
            if let Some(mut lease) = recycle(&tier) {
                lease.touch();
            }
        }
        other.join().unwrap();
        drop(recycle(&tier));
        assert_eq!(tier.snapshot().free, 2, "what is retired comes back");
    });
}

/// Guarantee 1. A pin that is nested in another ends first.
///
/// Guards the count of pins in `Pins::end`.
#[test]
fn a_nested_pin_does_not_end_the_outer_one() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let handle = take(&tier).unwrap().share();
        let other = {
            let tier = tier.clone();
            spawn(move || {
                let outer = tier.pin();
                let value = tier.read(handle, &outer);
                drop(tier.pin());
                value.is_some_and(|value| value.look() == 1)
            })
        };
        retire_and_reuse(&tier, handle);
        other.join().unwrap();
        assert_recycled(&tier);
    });
}

/// Guarantee 1. A value is read by whoever was told its handle after it was shared, with what the sharer did to it.
///
/// Guards the Release in `Header::give` and the Acquire in `Header::word`, with which `epoch::is_readable` asks.
#[test]
fn a_handle_shows_what_its_sharer_did() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let mut lease = take(&tier).unwrap();
        // What `share` will give.
        let name = lease.handle().to_bits() + (1 << 64);
        let other = {
            let tier = tier.clone();
            spawn(move || {
                let pin = tier.pin();
                if let Some(value) = tier.read(handle(name), &pin) {
                    assert_eq!(value.look(), 2, "both writes are seen");
                }
            })
        };
        lease.touch();
        assert_eq!(lease.share().to_bits(), name);
        other.join().unwrap();
    });
}

/// Guarantees 1 and 4. Two retire one handle: one wins, and the slot comes back once.
///
/// Guards the exchange in `epoch::retire`.
#[test]
fn retire_against_retire() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let handle = take(&tier).unwrap().share();
        let other = {
            let tier = tier.clone();
            spawn(move || tier.retire(handle).is_ok())
        };
        let mine = tier.retire(handle).is_ok();
        assert_ne!(mine, other.join().unwrap(), "exactly one wins");
        assert_recycled(&tier);
        assert_quiet(&tier, 2);
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantees 1 and 4. An allocation frees two retired slots, keeps one and gives the other to all: another may have that one only.
///
/// Guards that `epoch::try_collect` gives back all slots but the one it keeps.
#[test]
fn an_allocation_keeps_one_of_what_it_frees() {
    explore(1, || {
        let census = Census::default();
        let tier = census.tier(2);
        let handles = (take(&tier).unwrap().share(), take(&tier).unwrap().share());
        tier.retire(handles.0).unwrap();
        tier.retire(handles.1).unwrap();
        let other = {
            let tier = tier.clone();
            spawn(move || take(&tier))
        };
        let mut mine = recycle(&tier);
        if let Some(lease) = &mut mine {
            lease.touch();
        }
        drop((mine, other.join().unwrap()));
        drop(recycle(&tier));
        assert_eq!(tier.snapshot().free, 2);
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 4. While a batch waits for a pin, no other takes its place.
///
/// Guards the exchange of the pass's lock in `Pass::try_lock`.
#[test]
fn one_pass_at_a_time_fills_limbo() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(2);
        let handles = (take(&tier).unwrap().share(), take(&tier).unwrap().share());
        tier.retire(handles.0).unwrap();
        let pin = tier.pin();
        let other = {
            let tier = tier.clone();
            spawn(move || {
                assert!(recycle(&tier).is_none(), "a pin is in the way");
                tier.retire(handles.1).unwrap();
            })
        };
        assert!(recycle(&tier).is_none(), "a pin is in the way");
        other.join().unwrap();
        drop(pin);
        drop((recycle(&tier), recycle(&tier)));
        assert_eq!(tier.snapshot().free, 2, "nothing is lost");
    });
}

/// Guarantees 4 and 5. The last `Tier` goes while the reclaimer frees what was retired: the value is dropped once.
///
/// Guards the exchange in `epoch::refit`.
#[test]
fn the_last_tier_against_a_pass() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        tier.retire(take(&tier).unwrap().share()).unwrap();
        let other = {
            let block = Block::of(&tier);
            spawn(move || block.collect())
        };
        drop(tier);
        other.join().unwrap();
        census.assert_ended();
    });
}

/// Guarantee 5. The last two `Tier`s go, and nobody has freed what was retired.
///
/// Guards that `close::sweep` takes retired slots.
#[test]
fn the_last_tier_takes_what_is_retired() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let handle = take(&tier).unwrap().share();
        let other = {
            let tier = tier.clone();
            spawn(move || tier.retire(handle).unwrap())
        };
        drop(tier);
        other.join().unwrap();
        census.assert_ended();
    });
}

/// Guarantee 5. The last `Tier` goes while a slot is shared: nobody can read or retire it any more, so the value goes.
///
/// Guards the light fence and the look at ORPHANED in `Lease::leave`, the heavy fence in `close::orphan`, and that its sweep takes
/// shared slots.
#[test]
fn the_last_tier_against_share() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        let other = spawn(move || held.share());
        drop(tier);
        other.join().unwrap();
        census.assert_ended();
    });
}

/// Guarantees 1 and 4. Shared leases are dropped by two threads: the last gives the slot back, once, after all uses.
///
/// Guards the exchange in `Header::count_sharer_out`, and its Release.
#[test]
fn the_last_shared_lease_gives_the_slot_back() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let shared = take(&tier).unwrap().into_shared();
        let other = {
            let (tier, clone) = (tier.clone(), shared.clone());
            spawn(move || {
                clone.look();
                drop(clone);
                drop(take(&tier));
            })
        };
        shared.look();
        drop(shared);
        other.join().unwrap();
        assert_eq!(tier.snapshot().free, 1);
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 1. The only one left becomes a lease, which may write.
///
/// Guards the Acquire in `Header::sharers`.
#[test]
fn the_only_shared_lease_becomes_a_lease_again() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let shared = take(&tier).unwrap().into_shared();
        let clone = shared.clone();
        let other = spawn(move || {
            clone.look();
            drop(clone);
        });
        match shared.into_lease() {
            Ok(mut lease) => lease.touch(),
            Err(shared) => assert_eq!(shared.look(), 1),
        }
        other.join().unwrap();
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantee 5. The last `Tier` goes while shared leases are held and dropped: they stay valid, and the value goes with the last.
///
/// Guards that `close::sweep` leaves slots alone that are held by shared leases.
#[test]
fn the_last_tier_against_shared_leases() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let shared = take(&tier).unwrap().into_shared();
        let other = spawn(move || {
            let clone = shared.clone();
            drop(shared);
            assert_eq!(clone.look(), 1);
        });
        drop(tier);
        other.join().unwrap();
        census.assert_ended();
    });
}
