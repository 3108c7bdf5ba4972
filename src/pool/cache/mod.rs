//! The keyed cache: slots that keep their content between uses, and are found again by key.
//!
//! Read in this order: [`lease`] (what it gives), [`key`] and [`shelf`] (where entries stand, and which goes), [`fill`] (a miss, in all forms), [`counts`], [`error`],
//! [`builder`]. How slots come back when others want them is told in [`keepers`](super::keepers).
//!
//! **An entry is a shared lease** of which the cache has one and each user one more. So it lives as long as anybody uses it, whatever becomes
//! of the cache; and it is pinned while the cache's is not the only one.
//!
//! **Nothing is kept of a tier that is closed.** Who closes a pool has its caches give up all they have ([`Keeper::give_up_all`]), after the tiers
//! are closed; who has an entry initialised looks, after it stands in its place, whether the tier was closed meanwhile. Both go through the
//! lock of that place: one of them finds it.

pub(crate) mod builder;
pub(crate) mod counts;
pub(crate) mod error;
mod fill;
mod key;
pub(crate) mod lease;
mod shelf;

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;
use quick_cache::DefaultHashBuilder;

use self::builder::CacheBuilder;
use self::counts::{CacheSnapshot, Counts, Rare};
use self::key::{Id, Sought, hash_of};
use self::lease::CacheLease;
use self::shelf::{Entry, Gone, Part, Shelf};
use super::error::RequestError;
use super::keepers::Keeper;
use super::prepared::Prepared;
use super::request::TenantName;
use super::{Pool, no_tenant};
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::tier::core::{Core, flags};

/// What a caller says that an entry weighs.
type Weigher<K, T> = Box<dyn Fn(&K, &T) -> u64 + Send + Sync>;

impl Pool {
    /// Begins a cache of this pool's slots, found by keys of type `K`: see [`Cache`]. Unless a [request](CacheBuilder::request) is given, its
    /// entries are slots of the tier that has the cache's name. The name stands in reports; as for a tier's, of 1 to 128 bytes.
    pub fn cache<'p, K, T>(&'p self, name: &'p str) -> CacheBuilder<'p, K, T>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        T: Send + Sync + 'static,
    {
        CacheBuilder::new(self, name)
    }
}

/// Slots of a [`Pool`] that keep their content between uses, and are found again by key: parsed configurations, compiled regular
/// expressions, decoded pictures, pages of a file.
///
/// ```
/// use tierpool::{Pool, Tier};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let books: Tier<Vec<u8>> = Tier::builder("books").capacity(64).build_with(|| Vec::with_capacity(4096))?;
/// let pool = Pool::builder().tier(books).tenant("md").tenant("risk").build()?;
///
/// let cache = pool.cache::<String, Vec<u8>>("books").build()?;
/// let load = |book: &mut Vec<u8>| -> std::io::Result<()> {
///     book.clear();                                        // it may hold what an entry before it has left
///     book.extend_from_slice(b"bid 99, ask 101");          // the slow part
///     Ok(())
/// };
/// let book = cache.get_or_allocate("EURUSD", load)?;       // a miss: initialised, once, whoever asks at the same time
/// let again = cache.get_or_allocate("EURUSD", load)?;      // a hit: it is there
/// assert_eq!(&again[..6], b"bid 99");
/// assert_eq!(cache.snapshot().hit_rate(), 0.5);
///
/// let risk = cache.tenant("risk")?;                        // the same cache for somebody else
/// assert!(risk.get("EURUSD").is_none(), "tenants do not see each other's entries");
///
/// drop((book, again));
/// println!("{}", cache.snapshot());
/// pool.close_and_wait(std::time::Duration::from_secs(1))?; // its entries have gone with it
/// # Ok(()) }
/// ```
///
/// **What it promises.** Of several who miss the same key, one initialises the entry and the others wait for it; if that fails or panics, its slot goes
/// back and the next one tries. An entry in use is never evicted. Which of the others goes is decided by `quick_cache`, which
/// beats LRU on most traffic. A slot that an entry takes and nobody uses counts as one that can be had: whoever requests one from the same pool,
/// for this cache or not, gets it before he is refused or waits. (Groups and reservations, which take several at once, do not; nor do those
/// who use the tier without the pool.) A closed pool's caches are empty.
///
/// **What it costs.** A hit is a look-up in a hash table under a read lock of one of some parts, and an atomic addition when it comes and when it
/// goes; a miss also searches for what is to go, and allocates. So, unlike a tier, it may wait for another thread: for one that holds
/// such a lock, for some tens of nanoseconds at a time. Of foreign code only the key's `Eq` and `Clone` run under one, which shall use neither the cache nor its pool. The initialiser, the
/// weigher, and what ends a value's use run under none; an initialiser that asks for its own key waits for itself.
///
/// **What it is not.** A cache that is asked by no key needs none: slots that come back are at hand for the next allocation anyway, in
/// the thread's magazine. How often that is enough says [`Snapshot::hit_rate`](crate::Snapshot::hit_rate). A tier that reports [leaks](crate::TierBuilder::leak_after) reports
/// entries that are kept for that long, too; a tier of their own without it is the better place for them.
///
/// A clone is another reference to the same cache. It keeps the pool open as a clone of that would; with the last, its entries go, but for
/// those in use.
pub struct Cache<K, T: Send + 'static> {
    inner: Arc<Inner<K, T>>,
    /// The tenant's.
    shelf: Arc<Shelf<K, T>>,
    prepared: Prepared<T>,
    /// Whose entries this sees: a tenant's number.
    namespace: u16,
}

/// Where a shelf stands when somebody has come for it.
type Place<K, T> = OnceLock<Arc<Shelf<K, T>>>;

/// What the references to a cache share.
struct Inner<K, T: 'static> {
    name: String,
    hasher: DefaultHashBuilder,
    /// One for all, or one for each tenant, made when he first comes.
    shelves: Box<[Place<K, T>]>,
    /// Of each shelf.
    shelf_entries: u64,
    shelf_weight: u64,
    /// Of all together.
    capacity: u64,
    /// What there is in each namespace.
    held: Box<[Held]>,
    /// What all entries weigh.
    total: CachePadded<AtomicU64>,
    weigher: Option<Weigher<K, T>>,
    /// In ticks.
    time_to_live: Option<u64>,
    counts: Counts,
    /// Where to look first for an entry to be given up.
    turn: CachePadded<AtomicUsize>,
}

/// Relaxed throughout: added when an entry has come, subtracted when it has gone, in any order.
#[derive(Default)]
struct Held {
    entries: AtomicU64,
    weight: AtomicU64,
}

impl<K, T> Cache<K, T>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    fn new(inner: Arc<Inner<K, T>>, prepared: Prepared<T>) -> Self {
        let tenant = prepared.tenant().index();
        let at = |all: usize| if all == 1 { 0 } else { tenant };
        let (namespace, shelf) = (at(inner.held.len()) as u16, at(inner.shelves.len()));
        let new = || Arc::new(Shelf::new(inner.shelf_entries, inner.shelf_weight));
        let shelf = Arc::clone(inner.shelves[shelf].get_or_init(new));
        Cache { inner, shelf, prepared, namespace }
    }

    /// The same cache on behalf of a tenant of the pool: it sees his entries only, unless the cache is [shared](CacheBuilder::shared_by_tenants),
    /// and what it has initialised is on his account.
    ///
    /// # Errors
    /// [`RequestError::NoTenant`], [`RequestError::ForeignTenant`].
    pub fn tenant<'n>(&self, tenant: impl Into<TenantName<'n>>) -> Result<Cache<K, T>, RequestError> {
        let name = tenant.into();
        let tenant = self.prepared.pool().find_tenant(name).ok_or_else(|| no_tenant(name))?;
        Ok(Cache::new(Arc::clone(&self.inner), self.prepared.for_tenant(tenant)))
    }

    /// The entry of that key, if it is there. As any use of an entry, it makes it less likely to be evicted.
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<CacheLease<T>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.find(&self.sought(key));
        if found.is_none() {
            self.inner.counts.note(Rare::Miss);
        }
        found
    }

    /// Whether the entry of that key is there. Counts as no use of it.
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let sought = self.sought(key);
        let entry = self.shelf.part(sought.hash).quick.peek(&sought);
        entry.is_some_and(|entry| entry.is_fresh())
    }

    /// Takes the entry of that key out of the cache; its slot goes back when nobody uses it any more. False if it was not there. One that is
    /// being initialised at this moment is given to those who wait for it, and not kept.
    ///
    /// # Panics
    /// As [`Lease::release`](crate::Lease::release).
    pub fn remove<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let sought = self.sought(key);
        let removed = self.shelf.part(sought.hash).quick.remove(&sought);
        removed.is_some_and(|(id, entry)| {
            let was_fresh = entry.is_fresh();
            self.inner.note_gone(id.tenant(), &entry, if was_fresh { Rare::Removal } else { Rare::Expiration });
            was_fresh
        })
    }

    /// Takes those entries out of the cache of which this says no: of all that it sees, one after the other, with nothing locked. Those that come meanwhile, or are being
    /// initialised, may stay.
    ///
    /// # Panics
    /// As [`Lease::release`](crate::Lease::release).
    pub fn retain(&self, mut keep: impl FnMut(&K, &T) -> bool) {
        self.inner.remove_those(|id, entry| match (id, &entry.lease) {
            (Id::Of { tenant, key, .. }, Some(lease)) if *tenant == self.namespace => {
                (!keep(key, lease)).then_some(Rare::Removal)
            }
            _ => None,
        });
    }

    /// Takes all entries that it sees out of the cache; see [`retain`](Self::retain).
    pub fn clear(&self) {
        self.retain(|_, _| false);
    }

    /// How many entries it sees. One load; exact at a quiet point.
    pub fn len(&self) -> usize {
        self.inner.held[usize::from(self.namespace)].entries.load(Ordering::Relaxed) as usize
    }

    /// Whether it sees none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the entries that it sees weigh. One load; exact at a quiet point.
    pub fn weight(&self) -> u64 {
        self.inner.held[usize::from(self.namespace)].weight.load(Ordering::Relaxed)
    }

    /// How the cache stands, all tenants together. A look at each entry, to see whether it is in use.
    pub fn snapshot(&self) -> CacheSnapshot {
        self.inner.status(self.prepared.tier_name())
    }

    /// The name that it was given.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    #[inline(always)]
    fn sought<'q, Q: Hash + ?Sized>(&self, key: &'q Q) -> Sought<'q, Q> {
        Sought { hash: hash_of(&self.inner.hasher, self.namespace, key), tenant: self.namespace, key }
    }

    /// A hit, which is counted.
    #[inline(always)]
    fn find<Q>(&self, sought: &Sought<'_, Q>) -> Option<CacheLease<T>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let entry = self.shelf.part(sought.hash).quick.get(sought)?;
        if !entry.is_fresh() {
            self.expire(sought);
            return None;
        }
        let lease = entry.lease?;
        if is_closed(lease.core()) {
            self.inner.give_up_all();
            return None;
        }
        self.inner.counts.hit();
        Some(lease)
    }

    #[cold]
    fn expire<Q>(&self, sought: &Sought<'_, Q>)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let too_old = self.shelf.part(sought.hash).quick.remove_if(sought, |entry| !entry.is_fresh());
        if let Some((id, entry)) = too_old {
            self.inner.note_gone(id.tenant(), &entry, Rare::Expiration);
        }
    }
}

#[inline(always)]
fn is_closed(core: &Core) -> bool {
    core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0
}

impl<K, T> Inner<K, T> {
    fn note_come(&self, namespace: u16, weight: u64) {
        let Held { entries, weight: weighs } = &self.held[usize::from(namespace)];
        entries.fetch_add(1, Ordering::Relaxed);
        weighs.fetch_add(weight, Ordering::Relaxed);
        self.total.fetch_add(weight, Ordering::Relaxed);
        self.counts.note(Rare::Insertion);
    }

    fn note_gone(&self, namespace: u16, entry: &Entry<T>, how: Rare) {
        let Held { entries, weight } = &self.held[usize::from(namespace)];
        entries.fetch_sub(1, Ordering::Relaxed);
        weight.fetch_sub(entry.weight, Ordering::Relaxed);
        self.total.fetch_sub(entry.weight, Ordering::Relaxed);
        self.counts.note(how);
    }

    /// Counts what was evicted, shows its tiers' numbers to `see`, and drops it. False if nothing was.
    fn settle(&self, gone: Gone<K, T>, mut see: impl FnMut(u32)) -> bool {
        let any = !gone.is_empty();
        gone.into_entries().for_each(|(id, entry)| {
            self.note_gone(id.tenant(), &entry, Rare::Eviction);
            if let Some(lease) = entry.lease {
                see(lease.core().id);
                lease.end_untold();
            }
        });
        any
    }

    fn shelves(&self) -> impl Iterator<Item = &Arc<Shelf<K, T>>> {
        self.shelves.iter().filter_map(OnceLock::get)
    }

    fn parts(&self) -> impl Iterator<Item = &Part<K, T>> {
        self.shelves().flat_map(|shelf| &shelf.parts)
    }
}

impl<K: Hash + Eq + Clone, T> Inner<K, T> {
    /// Takes those entries out of which this says why. Nothing is locked while it is asked.
    fn remove_those(&self, mut why: impl FnMut(&Id<K>, &Entry<T>) -> Option<Rare>) {
        for part in self.parts() {
            for (id, entry) in part.quick.iter() {
                let Some(how) = why(&id, &entry) else { continue };
                if let Some((id, entry)) = part.quick.remove_if(&id, |now| now.is(&entry)) {
                    self.note_gone(id.tenant(), &entry, how);
                }
            }
        }
    }

    /// The shelf that takes most of its share; shares are equal.
    fn fullest(&self) -> Option<&Shelf<K, T>> {
        let weight = |shelf: &OnceLock<_>, held: &Held| shelf.get().map(|_| held.weight.load(Ordering::Relaxed));
        let fullest = self.shelves.iter().zip(&self.held).max_by_key(|(shelf, held)| weight(shelf, held))?;
        fullest.0.get().map(|shelf| &**shelf)
    }

    /// Has an entry of the shelf go that nobody uses. False if it has none.
    fn give_up_of(&self, shelf: &Shelf<K, T>, mut see: impl FnMut(u32)) -> bool {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let parts = shelf.parts.len();
        (0..parts).any(|at| self.settle(shelf.parts[first.wrapping_add(at) % parts].make_room(), &mut see))
    }

    /// Has an entry go of which this says yes and that nobody uses, whichever comes first. False if there is none.
    fn give_up_where(&self, mut is_wanted: impl FnMut(&Id<K>, &CacheLease<T>) -> bool) -> bool {
        self.parts().any(|part| {
            part.quick.iter().any(|(id, entry)| {
                if !entry.lease.as_ref().is_some_and(|lease| is_wanted(&id, lease)) {
                    return false;
                }
                // What `iter` gave is a use like any other.
                let is_idle = |now: &Entry<T>| now.is(&entry) && now.lease.as_ref().is_some_and(|it| it.sharers() <= 2);
                let gone = part.quick.remove_if(&id, is_idle);
                gone.inspect(|(id, entry)| self.note_gone(id.tenant(), entry, Rare::Eviction)).is_some()
            })
        })
    }

    /// While all entries together are too much: has those go of whoever has most.
    fn keep_to_capacity(&self, coming: u64) {
        if self.shelves.len() > 1 {
            while self.total.load(Ordering::Relaxed).saturating_add(coming) > self.capacity
                && self.give_up_one_of_any(|_| ())
            {}
        }
    }

    fn give_up_one_of_any(&self, mut see: impl FnMut(u32)) -> bool {
        let fullest = if self.shelves.len() > 1 { self.fullest() } else { None };
        fullest.is_some_and(|shelf| self.give_up_of(shelf, &mut see))
            || self.shelves().any(|shelf| self.give_up_of(shelf, &mut see))
    }

    fn give_up_all(&self) {
        for part in self.parts() {
            let entries = part.quick.drain().filter(|(_, entry)| entry.lease.is_some());
            entries.for_each(|(id, entry)| self.note_gone(id.tenant(), &entry, Rare::Removal));
        }
    }
}

impl<K, T> Keeper for Inner<K, T>
where
    K: Hash + Eq + Clone + Send + Sync,
    T: Send + Sync,
{
    fn give_up_one(&self, tier: u32) -> bool {
        let mut found = false;
        let any = self.give_up_one_of_any(|of| found |= of == tier);
        // What goes first may be of another tier, if the cache's request spills over: then one goes that is of this.
        found || any && self.give_up_where(|_, lease| lease.core().id == tier)
    }

    fn give_up_old(&self) {
        if self.time_to_live.is_some() {
            self.remove_those(|_, entry| (!entry.is_fresh()).then_some(Rare::Expiration));
        }
    }

    fn give_up_all(&self) {
        Inner::give_up_all(self);
    }

    fn status(&self, tier: &'static str) -> CacheSnapshot {
        let Inner { counts, held, total, .. } = self;
        let in_use = |part: &Part<K, T>| {
            // The one that is looked at is one more.
            let used = |lease: &CacheLease<T>| lease.sharers() > 2;
            part.quick.iter().filter(|(_, entry)| entry.lease.as_ref().is_some_and(used)).count() as u64
        };
        CacheSnapshot {
            name: self.name.clone(),
            tier,
            hits: counts.hits(),
            misses: counts.of(Rare::Miss),
            insertions: counts.of(Rare::Insertion),
            evictions: counts.of(Rare::Eviction),
            expirations: counts.of(Rare::Expiration),
            removals: counts.of(Rare::Removal),
            refusals: counts.of(Rare::Refusal),
            failures: counts.of(Rare::Failure),
            entries: held.iter().map(|held| held.entries.load(Ordering::Relaxed)).sum(),
            pinned: self.parts().map(in_use).sum(),
            weight: total.load(Ordering::Relaxed),
            capacity: self.capacity,
        }
    }
}

impl<K, T: Send + 'static> Clone for Cache<K, T> {
    fn clone(&self) -> Self {
        let (inner, shelf) = (Arc::clone(&self.inner), Arc::clone(&self.shelf));
        Cache { inner, shelf, prepared: self.prepared.clone(), namespace: self.namespace }
    }
}

impl<K, T: Send + 'static> fmt::Debug for Cache<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("name", &self.inner.name)
            .field("tier", &self.prepared.tier_name())
            .finish_non_exhaustive()
    }
}
