//! The first byte written to each page of a memory tier's slots: of slots that nobody has used (`tierpool-first-touch`), and of the same slots
//! once more (`tierpool-warm`), which is what prefaulting is to make of them; and of a tier without it (`tierpool-first-touch-lazy`). Before each
//! pass other memory goes through the caches, so that none of it is there. Nanoseconds a page.

use std::time::{Duration, Instant};

use tierpool::{Lease, Memory, MemoryTier, Pool, Request};

use super::floor;
use crate::machine::cores;
use crate::run::cast::Cast;
use crate::subject::Kind;

/// The workload's name.
pub const NAME: &str = "touch";
/// Slots that nobody has used.
pub const FIRST: &str = "tierpool-first-touch";
/// The same slots once more.
pub const WARM: &str = "tierpool-warm";

const SLOTS: usize = 64;
const BYTES: usize = 1 << 20;
const PAGE: usize = 4096;
const LINE: usize = 64;

/// All subjects.
pub fn fill(cast: &mut Cast) {
    add(cast, FIRST, true, 1);
    add(cast, WARM, true, 2);
    add(cast, "tierpool-first-touch-lazy", false, 1);
    floor::atomic_add(cast);
}

/// The time of the last of so many passes over a new tier's slots.
fn add(cast: &mut Cast, name: &'static str, prefault: bool, passes: usize) {
    cast.add(name, Kind::Ours, move |orders| {
        cores::pin(0);
        let mut other = vec![1; SLOTS * BYTES];
        let pages = (SLOTS * BYTES / PAGE) as u64;
        orders.serve(pages, move |tiers| (0..tiers).map(|_| touch(prefault, passes, &mut other)).sum());
    });
}

fn touch(prefault: bool, passes: usize, other: &mut [u8]) -> Duration {
    let pool = Pool::builder().memory_tier(MemoryTier::new("touched", BYTES, SLOTS).prefault(prefault)).build();
    let pool = pool.expect("a pool of a known tier");
    let slot = |_| pool.try_allocate(Request::memory(BYTES)).expect("a slot for each");
    let mut slots: Vec<Lease<Memory>> = (0..SLOTS).map(slot).collect();
    let mut last = Duration::ZERO;
    for _ in 0..passes {
        other.iter_mut().step_by(LINE).for_each(|byte| *byte = byte.wrapping_add(1));
        let start = Instant::now();
        for slot in &mut slots {
            slot.iter_mut().step_by(PAGE).for_each(|byte| *byte = byte.wrapping_add(1));
        }
        last = start.elapsed();
    }
    last
}
