//! Where entries stand: in parts, each a `quick_cache` of its own with one lock.
//!
//! `quick_cache` decides which entry goes (a Clock-PRO with ghosts, much like S3-FIFO), finds the others, and lets one of those who miss the
//! same key initialise it. What is added here: entries in use are pinned; room is made for an entry before its slot is asked for; and an
//! entry that goes is dropped when no lock is held, since that gives its slot back and may run the program's code.

use quick_cache::sync::{Cache as QuickCache, PlaceholderGuard};
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::key::{Id, Known};
use super::lease::CacheLease;
use crate::clock;

/// What stands under a key.
pub(super) struct Entry<T: 'static> {
    /// None in what only makes room.
    pub(super) lease: Option<CacheLease<T>>,
    pub(super) weight: u64,
    /// The tick from which on it is too old; `u64::MAX` for never.
    pub(super) until: u64,
}

// Derived, it would want `T: Clone`.
impl<T> Clone for Entry<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        Entry { lease: self.lease.clone(), weight: self.weight, until: self.until }
    }
}

impl<T> Entry<T> {
    /// Whether it is not too old. Reads the system's clock if it can become so: nothing else may have advanced the coarse one.
    #[inline(always)]
    pub(super) fn is_fresh(&self) -> bool {
        self.until == u64::MAX || {
            clock::tick();
            clock::ticks() < self.until
        }
    }

    /// Whether it is the same entry, by its slot's generation.
    pub(super) fn is(&self, other: &Entry<T>) -> bool {
        self.lease.as_ref().map(CacheLease::handle) == other.lease.as_ref().map(CacheLease::handle)
    }
}

/// Weighs an entry by what it says.
#[derive(Clone)]
pub(super) struct AsNoted;

impl<K, T> Weighter<Id<K>, Entry<T>> for AsNoted {
    #[inline(always)]
    fn weight(&self, _: &Id<K>, entry: &Entry<T>) -> u64 {
        entry.weight
    }
}

/// Pins entries in use, and collects those that go.
#[derive(Clone)]
pub(super) struct Pins;

/// Entries that have gone; to be dropped when no lock is held. The first, usually the only one, needs no allocation.
pub(super) struct Gone<K, T: 'static> {
    first: Option<(Id<K>, Entry<T>)>,
    more: Vec<(Id<K>, Entry<T>)>,
}

impl<K, T> Default for Gone<K, T> {
    fn default() -> Self {
        Gone { first: None, more: Vec::new() }
    }
}

impl<K, T> Gone<K, T> {
    fn push(&mut self, id: Id<K>, entry: Entry<T>) {
        match self.first {
            None => self.first = Some((id, entry)),
            Some(_) => self.more.push((id, entry)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = (Id<K>, Entry<T>)> {
        self.first.into_iter().chain(self.more)
    }
}

impl<K, T> Lifecycle<Id<K>, Entry<T>> for Pins {
    type RequestState = Gone<K, T>;

    fn is_pinned(&self, _: &Id<K>, entry: &Entry<T>) -> bool {
        // Whoever has one of its leases beside the cache's may clone it; who has none gets one only under the lock that is held here.
        entry.lease.as_ref().is_none_or(|lease| lease.sharers() > 1)
    }

    fn on_evict(&self, gone: &mut Gone<K, T>, id: Id<K>, entry: Entry<T>) {
        if entry.lease.is_some() {
            gone.push(id, entry);
        }
    }
}

/// See the module's header.
pub(super) type Quick<K, T> = QuickCache<Id<K>, Entry<T>, AsNoted, Known, Pins>;

/// The right to initialise an entry, and the duty to those who wait for it.
pub(super) type Guard<'c, K, T> = PlaceholderGuard<'c, Id<K>, Entry<T>, AsNoted, Known, Pins>;

/// Entries under one lock.
pub(super) struct Part<K, T: 'static> {
    pub(super) quick: Quick<K, T>,
    entries: u64,
    weight: u64,
}

impl<K: std::hash::Hash + Eq + Clone, T> Part<K, T> {
    /// Whether one more entry, of the least weight, would be too much.
    pub(super) fn is_full(&self) -> bool {
        // With a weigher both count.
        self.quick.weight() >= self.weight || self.entries < self.weight && self.quick.len() as u64 >= self.entries
    }

    /// Has one entry go that is not in use, or a few, by the rules by which they go when an entry comes. Empty if all are in use.
    ///
    /// Something that is not an entry, and weighs as much as there is room and a bit more, comes and goes: `quick_cache` has no other word
    /// for this. (A change of its capacity would cost it some of its memory of what has gone.)
    pub(super) fn make_room(&self) -> Gone<K, T> {
        let mut gone = Gone::default();
        let weight = self.quick.weight();
        if weight > 0 {
            let room = Entry { lease: None, weight: self.weight.saturating_sub(weight) + 1, until: u64::MAX };
            self.quick.insert_with_lifecycle(Id::Room, room, &mut gone);
            self.quick.remove(&Id::Room);
        }
        gone
    }
}

/// The entries of all, or of one tenant who has a share of his own.
pub(super) struct Shelf<K, T: 'static> {
    pub(super) parts: Box<[Part<K, T>]>,
    mask: usize,
}

/// As many as `quick_cache` would take for so many entries: enough that threads seldom meet at a lock, and none too small to tell entries apart.
fn parts_for(entries: u64) -> u64 {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let mut parts = (threads as u64 * 4).next_power_of_two();
    while parts > 1 && entries.div_ceil(parts) < 32 {
        parts /= 2;
    }
    parts
}

impl<K: std::hash::Hash + Eq + Clone, T> Shelf<K, T> {
    /// Room for so many entries of so much weight in all; neither is zero.
    pub(super) fn new(entries: u64, weight: u64) -> Self {
        let parts = parts_for(entries.min(weight));
        let of = |whole: u64, at: u64| (whole / parts + u64::from(at < whole % parts)).max(1);
        let part = |at: u64| {
            let (entries, weight) = (of(entries, at), of(weight, at));
            let mut options = OptionsBuilder::new();
            options.shards(1).estimated_items_capacity(entries as usize).weight_capacity(weight);
            let options = options.build().expect("all that is needed is said");
            Part { quick: Quick::with_options(options, AsNoted, Known::default(), Pins), entries, weight }
        };
        Shelf { parts: (0..parts).map(part).collect(), mask: parts as usize - 1 }
    }

    /// Where a key with that hash stands.
    #[inline(always)]
    pub(super) fn part(&self, hash: u64) -> &Part<K, T> {
        // Bits that the part's own table does not use.
        &self.parts[hash.rotate_right(32) as usize & self.mask]
    }
}
