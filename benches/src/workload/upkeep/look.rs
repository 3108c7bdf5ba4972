//! Somebody looks at a tier of a million slots, of which most are held: how many are in which state, and who holds how many of them.

use std::hint::black_box;

use tierpool::{Lease, Tier};

use super::walk::HELD;
use super::{Chore, Load, SLOTS, build};

/// How many threads allocate meanwhile.
const WALKERS: usize = 2;

/// A tier that is nearly all held.
struct Full {
    tier: Tier<Load>,
    _held: Vec<Lease<Load>>,
}

impl Full {
    fn new(name: &str) -> Self {
        let tier = build(name, SLOTS, SLOTS);
        let mut held: Vec<_> =
            tier.try_allocate_many(SLOTS - 2 * WALKERS * HELD).expect("there are more").into_iter().collect();
        // Two lines take turns, as seldom as a program's do.
        for block in held.chunks_mut(64).step_by(2) {
            for lease in block {
                *lease = swapped(&tier);
            }
        }
        Full { tier, _held: held }
    }
}

#[inline(never)]
fn swapped(tier: &Tier<Load>) -> Lease<Load> {
    tier.try_allocate().expect("a free slot")
}

/// The states are counted.
pub struct Snapshot(Full);

impl Chore for Snapshot {
    const WALKERS: usize = WALKERS;

    fn new() -> Self {
        Snapshot(Full::new("snapshot"))
    }

    fn tier(&self) -> &Tier<Load> {
        &self.0.tier
    }

    fn prepare(&mut self) {}

    fn work(&self) {
        let now = black_box(self.0.tier.snapshot());
        assert_eq!(now.capacity, SLOTS);
    }
}

/// The holders are counted by line.
pub struct BySite(Full);

impl Chore for BySite {
    const WALKERS: usize = WALKERS;

    fn new() -> Self {
        BySite(Full::new("by site"))
    }

    fn tier(&self) -> &Tier<Load> {
        &self.0.tier
    }

    fn prepare(&mut self) {}

    fn work(&self) {
        let now = black_box(self.0.tier.holders_by_site());
        assert!(now.held() >= SLOTS - 2 * WALKERS * HELD && now.sites.len() >= 2);
    }
}
