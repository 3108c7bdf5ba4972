//! A tier of a million slots becomes one of two million.

use tierpool::Tier;

use super::{Chore, Load, SLOTS, build};

pub struct Grow(Tier<Load>);

impl Chore for Grow {
    const WALKERS: usize = 1;

    fn new() -> Self {
        Self(build("grow", 2 * SLOTS, SLOTS))
    }

    fn tier(&self) -> &Tier<Load> {
        &self.0
    }

    fn prepare(&mut self) {
        assert_eq!(self.0.shrink_to(SLOTS), SLOTS);
    }

    fn work(&self) {
        self.0.grow_to(2 * SLOTS).expect("memory for as many slots again");
    }
}
