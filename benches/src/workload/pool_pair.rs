//! Allocate, write one byte, release, through a pool with plenty of slots, beside the tier alone: what the pool adds.

use tierpool::Memory;

use super::pair::{Alone, Together};
use super::{CAPACITY, floor};
use crate::ours::Tierpool;
use crate::pooled::{Full, Plain, Scrubbing};
use crate::roster::Visit;
use crate::run::cast::Cast;
use crate::subject::Subject;

/// The workload's name.
pub const NAME: &str = "pool-pair";
/// How a row compares with [`TIER`], in the rows.
pub const RATIO: &str = "ratio_to_tier";
/// The tier alone.
pub const TIER: &str = Tierpool::<Memory, CAPACITY>::NAME;
/// A pool of which nothing is said.
pub const PLAIN: &str = Plain::<CAPACITY>::NAME;
/// A pool with everything configured.
pub const FULL: &str = Full::<CAPACITY>::NAME;

/// One thread.
pub fn alone(cast: &mut Cast) {
    each(&mut Alone(cast));
    floor::atomic_add(cast);
}

/// Two threads on one pool.
pub fn together(cast: &mut Cast) {
    each(&mut Together(cast));
    floor::atomic_add(cast);
}

fn each(visit: &mut impl Visit) {
    visit.visit::<Tierpool<Memory, CAPACITY>>();
    visit.visit::<Plain<CAPACITY>>();
    visit.visit::<Full<CAPACITY>>();
    visit.visit::<Scrubbing<CAPACITY>>();
}
