//! What a cache counts. Hits, which are frequent, are counted in stripes: threads that hit at the same time seldom write the same line.

use std::cell::Cell;
use std::fmt;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU64, AtomicUsize, Ordering};

const STRIPES: usize = 16;

std::thread_local! { static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) } }

/// The calling thread's.
#[inline(always)]
fn stripe() -> usize {
    match STRIPE.get() {
        usize::MAX => first(),
        stripe => stripe,
    }
}

#[cold]
fn first() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let stripe = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    STRIPE.set(stripe);
    stripe
}

/// Relaxed throughout: numbers for people, exact at a quiet point.
#[derive(Default)]
pub(super) struct Counts {
    hits: [CachePadded<AtomicU64>; STRIPES],
    rare: CachePadded<[AtomicU64; RARE]>,
}

/// What is counted beside hits.
#[derive(Clone, Copy)]
pub(super) enum Rare {
    Miss,
    Insertion,
    Eviction,
    Expiration,
    Removal,
    Refusal,
    Failure,
}

const RARE: usize = 7;

impl Counts {
    #[inline(always)]
    pub(super) fn hit(&self) {
        self.hits[stripe()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note(&self, what: Rare) {
        self.rare[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits.iter().map(|hits| hits.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn of(&self, what: Rare) -> u64 {
        self.rare[what as usize].load(Ordering::Relaxed)
    }
}

/// How a [`Cache`](super::Cache) stands: all tenants' entries together. Its `Display` is a line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheSnapshot {
    /// The cache's name.
    pub name: String,
    /// The name of the tier that its slots are from.
    pub tier: &'static str,
    /// Requests that found their entry, or waited until somebody else had initialised it.
    pub hits: u64,
    /// Requests that did not.
    pub misses: u64,
    /// Entries that were initialised and kept.
    pub insertions: u64,
    /// Entries that were given up to make room for others, or because a slot was wanted.
    pub evictions: u64,
    /// Entries that were found to be older than the time to live.
    pub expirations: u64,
    /// Entries that were removed by [`remove`](super::Cache::remove), [`retain`](super::Cache::retain), [`clear`](super::Cache::clear) or the
    /// end of the tier.
    pub removals: u64,
    /// Misses for which there was no slot, and requests that did not wait long enough for somebody else's initialisation.
    pub refusals: u64,
    /// Initialisers that failed or panicked.
    pub failures: u64,
    /// Entries.
    pub entries: u64,
    /// Those of them that are in use, and cannot be evicted.
    pub pinned: u64,
    /// What the entries weigh: as much as there are, if there is no weigher.
    pub weight: u64,
    /// What they may weigh.
    pub capacity: u64,
}

impl CacheSnapshot {
    /// Hits among all requests that were answered, from 0 to 1; 0 if there was none.
    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / (self.hits + self.misses).max(1) as f64
    }
}

impl fmt::Display for CacheSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CacheSnapshot { name, tier, hits, misses, entries, pinned, weight, capacity, .. } = self;
        write!(f, "cache {name:?} on tier {tier:?}: {entries} entries ({pinned} in use), {weight} of {capacity}; ")?;
        write!(f, "{:.1} % of {} requests hit; ", self.hit_rate() * 100.0, hits + misses)?;
        write!(f, "{} evicted, {} expired, {} refused", self.evictions, self.expirations, self.refusals)
    }
}
