//! Any 128 bits as a handle: on tiers that live, are closed, or are gone. Nothing panics, and nothing changes unless the
//! bits are those of a handle that holds a slot.
#![no_main]

use std::cell::RefCell;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tierpool::{Handle, HandleError, Lease, Tier};

/// Some tiers, and a handle of each kind.
struct World {
    open: Tier<u64>,
    other: Tier<u64>,
    closed: Tier<u64>,
    /// Holds a slot of `open`.
    _leased: Lease<u64>,
    /// The first is of `open` and detached, the second of `closed` and detached; the others hold nothing: attached,
    /// released, of a tier that is gone.
    known: [Handle; 5],
}

impl World {
    fn new() -> Self {
        let tier = |name| Tier::builder(name).capacity(5).build_with(|| 7).unwrap();
        let (open, other, closed, gone) = (tier("open"), tier("other"), tier("closed"), tier("gone"));
        let attached = open.try_allocate().unwrap().detach();
        let leased = open.attach(attached).unwrap();
        let released = open.try_allocate().unwrap().detach();
        open.release(released).unwrap();
        let of_gone = gone.try_allocate().unwrap().detach();
        drop(gone);
        let (mine, of_closed) = (open.try_allocate().unwrap().detach(), closed.try_allocate().unwrap().detach());
        closed.close();
        World { open, other, closed, _leased: leased, known: [mine, of_closed, attached, released, of_gone] }
    }
}

thread_local! {
    /// Lives until a handle was used up; then another takes its place in the same memory, and old handles are stale.
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

#[derive(Debug, Arbitrary)]
enum Bits {
    Any(u128),
    /// A known handle with some bits changed.
    Near {
        which: u8,
        flips: [u8; 3],
        count: u8,
    },
    /// Plausible parts.
    Made {
        tier: u8,
        slot: u16,
        generation: u16,
        mark: bool,
    },
}

impl Bits {
    fn bits(&self, world: &World) -> u128 {
        match *self {
            Bits::Any(bits) => bits,
            Bits::Near { which, flips, count } => {
                let bits = world.known[which as usize % world.known.len()].to_bits();
                flips.iter().take(count as usize % 4).fold(bits, |bits, &flip| bits ^ (1 << (flip % 128)))
            }
            Bits::Made { tier, slot, generation, mark } => {
                let mark = if mark { 0b1010 << 124 } else { 0 };
                mark | (u128::from(generation) << 64) | (u128::from(tier) << 32) | u128::from(slot)
            }
        }
    }
}

/// Uses the bits in every way. Returns whether they were a handle that held a slot, and holds it no more.
fn try_bits(world: &World, bits: u128) -> bool {
    let tiers = [&world.open, &world.other, &world.closed];
    let before = tiers.map(Tier::snapshot);
    let handle = match Handle::from_bits(bits) {
        Ok(handle) => handle,
        Err(error) => {
            assert!(matches!(error, HandleError::Forged { handle } if handle.to_bits() == bits), "{error:?}");
            assert!(!error.to_string().is_empty());
            assert!(!world.known.iter().any(|known| known.to_bits() == bits), "a handle that did exist is refused");
            return false;
        }
    };
    assert_eq!(handle.to_bits(), bits);
    let homes = [Some(world.known[0]), None, Some(world.known[1])];
    for (tier, home) in tiers.into_iter().zip(homes) {
        match tier.attach(handle) {
            Ok(lease) => {
                assert_eq!(Some(handle), home, "bits that were no handle hold a slot");
                assert_eq!(*lease, 7);
                return true;
            }
            Err(error) => assert!(!error.to_string().is_empty() && Some(handle) != home, "{error}"),
        }
        assert!(tier.release(handle).is_err());
    }
    assert_eq!(tiers.map(Tier::snapshot), before);
    false
}

fuzz_target!(|bits: Bits| {
    WORLD.with_borrow_mut(|world| {
        let present = world.get_or_insert_with(World::new);
        let bits = bits.bits(present);
        if try_bits(present, bits) {
            *world = None;
        }
    });
});
