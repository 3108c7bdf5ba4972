//! A million handles are past their deadline, and one pass releases their slots.

use std::time::Duration;

use tierpool::Tier;

use super::{Chore, Load, SLOTS, build, let_pass, walk};

/// More than the walkers can hold.
const SPARE: usize = 4 * walk::HELD;

/// How long a handle lives.
const LIFE: Duration = Duration::from_secs(1);

pub struct Expire {
    tier: Tier<Load>,
}

impl Chore for Expire {
    const WALKERS: usize = 2;

    fn new() -> Self {
        Self { tier: build("expire", SLOTS + SPARE, SLOTS + SPARE) }
    }

    fn tier(&self) -> &Tier<Load> {
        &self.tier
    }

    fn prepare(&mut self) {
        for _ in 0..SLOTS {
            self.tier.try_allocate().expect("a free slot").detach_for(LIFE);
        }
        let_pass(2 * LIFE);
    }

    fn work(&self) {
        assert_eq!(self.tier.reclaim().expired, SLOTS as u64);
    }
}
