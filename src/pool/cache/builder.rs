//! Making a cache: what can be wrong is found here.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::super::Pool;
use super::super::request::Request;
use super::counts::Counts;
use super::error::CacheBuildError;
use super::{Cache, Held, Inner, Weigher};
use crate::clock;
use crate::tier::builder::problem_of_name;

/// The largest capacity, in entries or weight: sums of weights never overflow.
pub(super) const MOST: u64 = 1 << 62;

/// What a cache shall be; [`Pool::cache`] starts one.
#[must_use = "a builder does nothing until `build` is called"]
pub struct CacheBuilder<'p, K, T> {
    pool: &'p Pool,
    name: &'p str,
    request: Request<'p, T>,
    capacity: Option<u64>,
    weigher: Option<(u64, Weigher<K, T>)>,
    time_to_live: Option<Duration>,
    tenant_share: Option<f64>,
    shared: bool,
    _key: PhantomData<fn(K)>,
}

impl<'p, K, T> CacheBuilder<'p, K, T>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    pub(super) fn new(pool: &'p Pool, name: &'p str) -> Self {
        CacheBuilder {
            pool,
            name,
            request: Request::<crate::Memory>::of(name),
            capacity: None,
            weigher: None,
            time_to_live: None,
            tenant_share: None,
            shared: false,
            _key: PhantomData,
        }
    }

    /// What an entry is made of, on whose behalf, and how urgently. Default: a slot of the tier that has the cache's name. If the request has no tag,
    /// its slots have the cache's name for one. Requests that spill over are served from other tiers as well; only the slots of the first
    /// come back when that is asked for one.
    pub fn request(mut self, request: Request<'p, T>) -> Self {
        self.request = request;
        self
    }

    /// How many entries it may have, from 1. Default: as many as its tier has slots. Entries in use count, and do not go: while all are in use, there may
    /// be more.
    pub fn capacity(mut self, entries: u64) -> Self {
        self.capacity = Some(entries);
        self
    }

    /// What entries weigh, and how much they may weigh in all, from 1, beside how many they may be. The weigher is called once for each entry, after it was
    /// initialised; what it calls nothing weighs 1. An entry that weighs more than all may (or, of a large cache, than its part of it: at
    /// least 32 entries' worth) is given to who asked for it, and not kept. Default: each weighs 1.
    pub fn weigher(mut self, capacity: u64, weigher: impl Fn(&K, &T) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some((capacity, Box::new(weigher)));
        self
    }

    /// How old an entry may become, from 10 ms; it may be found to be too old up to 10 ms before that. Its slot goes back when it is looked
    /// for then, or has to make room, or in the next [`Pool::reclaim`]. A hit reads the system's clock, for some 25 ns. Default: there is no end.
    pub fn time_to_live(mut self, time_to_live: Duration) -> Self {
        self.time_to_live = Some(time_to_live);
        self
    }

    /// Which part of the capacity a tenant's entries may take, more than 0 and 1 at most. Who has reached it evicts his own entries; if all
    /// together are too many, those who take most of their share do. Default: one capacity for all, and whichever entries are of least use go.
    pub fn tenant_share(mut self, part: f64) -> Self {
        self.tenant_share = Some(part);
        self
    }

    /// All tenants see the same entries, whoever had them initialised: for content that is nobody's secret. Default: each sees his own.
    pub fn shared_by_tenants(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Builds the cache. It holds no slot yet.
    ///
    /// # Errors
    /// [`CacheBuildError`].
    pub fn build(self) -> Result<Cache<K, T>, CacheBuildError> {
        let CacheBuilder { pool, name, mut request, capacity, weigher, time_to_live, tenant_share, shared, .. } = self;
        if let Some(problem) = problem_of_name(name) {
            return Err(CacheBuildError::Name { name: name.to_owned(), problem });
        }
        let named = || name.to_owned();
        request.wants.tag = request.wants.tag.or(Some(name));
        let prepared = pool.prepare(request).map_err(|source| CacheBuildError::Request { name: named(), source })?;
        let slots = prepared.row().tier.capacity() as u64;
        let entries = capacity.unwrap_or(slots);
        let (weight, weigher) = weigher.map_or((entries, None), |(weight, weigher)| (weight, Some(weigher)));
        for capacity in [entries, weight] {
            if !(1..=MOST).contains(&capacity) {
                return Err(CacheBuildError::Capacity { name: named(), capacity });
            }
        }
        if let Some(time_to_live) = time_to_live.filter(|&time| time < clock::TICK) {
            return Err(CacheBuildError::TimeToLive { name: named(), time_to_live });
        }
        if let Some(share) = tenant_share.filter(|&share| !(share > 0.0 && share <= 1.0)) {
            return Err(CacheBuildError::Share { name: named(), share });
        }
        let tenants = pool.inner.accounts.tenants().count() + 1;
        let shelves = if tenant_share.is_some() && !shared { tenants } else { 1 };
        let part_of =
            |whole: u64| tenant_share.map_or(whole, |share| ((whole as f64 * share).ceil() as u64).clamp(1, whole));
        let inner = Arc::new(Inner {
            name: named(),
            hasher: Default::default(),
            shelves: std::iter::repeat_with(OnceLock::new).take(shelves).collect(),
            // No more entries than slots, whatever is said: what is estimated by it is not to be absurd.
            shelf_entries: part_of(entries.min(slots.max(1))),
            shelf_weight: part_of(weight),
            capacity: weight,
            held: std::iter::repeat_with(Held::default).take(if shared { 1 } else { tenants }).collect(),
            total: Default::default(),
            weigher,
            time_to_live: time_to_live.map(clock::whole_ticks),
            counts: Counts::default(),
            turn: Default::default(),
        });
        let keeper = Arc::downgrade(&inner);
        prepared.row().add_keeper(keeper);
        Ok(Cache::new(inner, prepared))
    }
}

impl<K, T> fmt::Debug for CacheBuilder<'_, K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}
