//! Allocate, write one byte, release, through a pool with plenty of slots, beside the tier alone: what the pool adds.

use tierpool::Memory;

use super::pair::{self, Alone, Together};
use super::{CAPACITY, floor};
use crate::ours::Tierpool;
use crate::pooled::{Full, MEBIBYTE, Mebibytes, Plain, Scrubbing};
use crate::roster::Visit;
use crate::run::cast::Cast;
use crate::subject::Subject;

/// The workload's name.
pub const NAME: &str = "pool-pair";
/// Slots, of a MiB each.
const FEW: usize = 16;
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

/// One thread, with buffers of a MiB: all subjects of [`pair`](super::pair), and a pool.
pub fn mebibyte_alone(cast: &mut Cast) {
    Alone(cast).visit::<Mebibytes<FEW>>();
    pair::alone::<MEBIBYTE, FEW>(cast);
}

/// Two threads, likewise.
pub fn mebibyte_together(cast: &mut Cast) {
    Together(cast).visit::<Mebibytes<FEW>>();
    pair::together::<MEBIBYTE, FEW>(cast);
}

fn each(visit: &mut impl Visit) {
    visit.visit::<Tierpool<Memory, CAPACITY>>();
    visit.visit::<Plain<CAPACITY>>();
    visit.visit::<Full<CAPACITY>>();
    visit.visit::<Scrubbing<CAPACITY>>();
}
