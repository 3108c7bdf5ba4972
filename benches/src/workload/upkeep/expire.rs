//! A million handles are past their deadline, and one pass releases their slots.

use std::time::{Duration, Instant};

use tierpool::{Tier, clock};

use super::{Chore, Load, SLOTS, build, walk};

/// More than the walkers can hold.
const SPARE: usize = 4 * walk::HELD;

/// How long a handle lives.
const LIFE: Duration = Duration::from_secs(1);

pub struct Expire {
    tier: Tier<Load>,
    now: Instant,
}

impl Chore for Expire {
    const WALKERS: usize = 2;

    fn new() -> Self {
        Self { tier: build("expire", SLOTS + SPARE, SLOTS + SPARE), now: Instant::now() }
    }

    fn tier(&self) -> &Tier<Load> {
        &self.tier
    }

    fn prepare(&mut self) {
        for _ in 0..SLOTS {
            self.tier.try_allocate().expect("a free slot").detach_for(LIFE);
        }
        self.now = self.now.max(Instant::now()) + 2 * LIFE;
        clock::tick_to(self.now);
    }

    fn work(&self) {
        assert_eq!(self.tier.reclaim().expired, SLOTS as u64);
    }
}
