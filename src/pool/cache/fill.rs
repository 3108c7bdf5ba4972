//! A request by key: a hit; or a miss, for which one of those who want the entry gets a slot and fills it while the others wait.

use std::borrow::Borrow;
use std::future::Future;
use std::hash::Hash;
use std::panic::Location;
use std::time::{Duration, Instant};

use quick_cache::sync::{EntryAction, EntryResult};

use super::super::error::{RequestError, ShortName};
use super::super::prepared::Wait;
use super::counts::Rare;
use super::error::CacheError;
use super::key::{Id, Sought};
use super::lease::CacheLease;
use super::shelf::{Entry, Gone, Guard};
use super::{Cache, is_closed};
use crate::clock;
use crate::error::AllocateError;
use crate::slot::header::Site;
use crate::tier::lease::Lease;

/// What a look at the place of a missing entry has brought.
type Found<'c, K, T> =
    EntryResult<'c, Id<K>, Entry<T>, super::shelf::AsNoted, super::key::Known, super::shelf::Pins, Entry<T>>;

/// An entry that another has initialised meanwhile stays, unless it is too old, or of a tier that is closed.
fn look<K, T>(_: &Id<K>, entry: &mut Entry<T>) -> EntryAction<Entry<T>> {
    let is_closed = entry.lease.as_ref().is_none_or(|lease| is_closed(lease.core()));
    if is_closed || !entry.is_fresh() { EntryAction::ReplaceWithGuard } else { EntryAction::Retain(entry.clone()) }
}

impl<K, T> Cache<K, T>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    /// The entry of that key; if it is not there, from a slot that `init` has filled, which the value's last user may have left in any state. The calling line is remembered as the
    /// slot's holder.
    ///
    /// Waits for somebody else who is initialising the entry, and for a slot, if all are in use: at most for the request's
    /// [`patience`](crate::Request::patience). Threads that wait for slots while they hold entries may wait for each other.
    ///
    /// # Errors
    /// [`CacheError`]. Nothing has changed then, but that an entry may have gone to make room.
    ///
    /// # Panics
    /// As `init`; its slot goes back, and the next who wants the entry tries. As [`Lease::release`](crate::Lease::release), of an entry that has to go.
    #[inline]
    #[track_caller]
    pub fn get_or_allocate<Q, E>(
        &self,
        key: &Q,
        init: impl FnOnce(&mut T) -> Result<(), E>,
    ) -> Result<CacheLease<T>, CacheError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let sought = self.sought(key);
        match self.find(&sought) {
            Some(lease) => Ok(lease),
            None => self.fill(&sought, Wait::at_most(self.prepared.patience()), init, Location::caller()),
        }
    }

    /// The same, waiting neither for a slot nor for somebody else's initialisation.
    ///
    /// # Errors
    /// As [`get_or_allocate`](Self::get_or_allocate); [`CacheError::Busy`].
    ///
    /// # Panics
    /// As [`get_or_allocate`](Self::get_or_allocate).
    #[inline]
    #[track_caller]
    pub fn try_get_or_allocate<Q, E>(
        &self,
        key: &Q,
        init: impl FnOnce(&mut T) -> Result<(), E>,
    ) -> Result<CacheLease<T>, CacheError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let sought = self.sought(key);
        match self.find(&sought) {
            Some(lease) => Ok(lease),
            None => self.fill(&sought, Wait::Never, init, Location::caller()),
        }
    }

    /// The same, waiting at most `patience` in all, whatever the request says; `init` is given the time that it takes.
    ///
    /// # Errors
    /// As [`get_or_allocate`](Self::get_or_allocate).
    ///
    /// # Panics
    /// As [`get_or_allocate`](Self::get_or_allocate).
    #[inline]
    #[track_caller]
    pub fn get_or_allocate_timeout<Q, E>(
        &self,
        key: &Q,
        patience: Duration,
        init: impl FnOnce(&mut T) -> Result<(), E>,
    ) -> Result<CacheLease<T>, CacheError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let sought = self.sought(key);
        match self.find(&sought) {
            Some(lease) => Ok(lease),
            None => self.fill(&sought, Wait::at_most(Some(patience)), init, Location::caller()),
        }
    }

    /// The same as a future, with an initialiser that may wait for something itself. Needs no runtime, and has no clock: put the runtime's
    /// time-out around it. May be dropped at any time: the slot goes back, and the next who wants the entry tries.
    ///
    /// ```
    /// # use tierpool::{Pool, Tier};
    /// # async fn fetch(_: u32) -> Result<String, std::io::Error> { Ok("page".to_owned()) }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::builder().tier(Tier::<String>::builder("pages").capacity(4).build_with(String::new)?).build()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// let pages = pool.cache::<u32, String>("pages").build()?;
    /// let load = async |page: &mut String| {
    ///     *page = fetch(17).await?;
    ///     Ok::<(), std::io::Error>(())
    /// };
    /// let page = pages.get_or_allocate_async(&17, load).await?;
    /// # Ok(()) })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`get_or_allocate`](Self::get_or_allocate).
    #[track_caller]
    pub fn get_or_allocate_async<Q, E>(
        &self,
        key: &Q,
        init: impl AsyncFnOnce(&mut T) -> Result<(), E>,
    ) -> impl Future<Output = Result<CacheLease<T>, CacheError<E>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let site = Location::caller();
        async move {
            // What is sought borrows the key, and is not kept over a wait.
            let id = {
                let sought = self.sought(key);
                match self.find(&sought) {
                    Some(lease) => return Ok(lease),
                    None => sought.to_id(),
                }
            };
            clock::tick();
            let guard = match self.arrive(self.quick(&id).entry_async(&id, look).await) {
                Ok(lease) => return Ok(lease),
                // A future has all the time.
                Err(guard) => guard.ok_or_else(|| CacheError::Busy { cache: self.short_name() })?,
            };
            self.prepare_room(&id);
            let mut lease = loop {
                match self.prepared.attempt().allocate_async(site).await {
                    Ok(lease) => break lease,
                    Err(why) if self.makes_way(&why) => {}
                    Err(why) => return Err(self.no_slot(why)),
                }
            };
            let failure = Failure(self);
            init(&mut lease).await.map_err(CacheError::Init)?;
            std::mem::forget(failure);
            Ok(self.put(&id, guard, lease))
        }
    }

    /// A miss.
    #[cold]
    #[inline(never)]
    fn fill<Q, E>(
        &self,
        sought: &Sought<'_, Q>,
        wait: Wait,
        init: impl FnOnce(&mut T) -> Result<(), E>,
        site: Site,
    ) -> Result<CacheLease<T>, CacheError<E>>
    where
        Q: ToOwned<Owned = K> + ?Sized,
    {
        let id = sought.to_id();
        clock::tick();
        let since = Instant::now();
        let patience = match wait {
            Wait::Never => Some(Duration::ZERO),
            Wait::For(patience) => patience,
        };
        let guard = match self.arrive(self.quick(&id).entry(&id, patience, look)) {
            Ok(lease) => return Ok(lease),
            Err(Some(guard)) => guard,
            Err(None) => {
                let cache = self.short_name();
                self.inner.counts.note(Rare::Refusal);
                return Err(match wait {
                    Wait::Never => CacheError::Busy { cache },
                    Wait::For(_) => CacheError::TimedOut { cache, waited: since.elapsed() },
                });
            }
        };
        self.prepare_room(&id);
        let attempt = self.prepared.attempt();
        let left = Wait::at_most(patience.map(|patience| patience.saturating_sub(since.elapsed())));
        // Behind the guard, so that its slot goes back before the next one tries.
        let mut lease = loop {
            match attempt.allocate(left, site) {
                Ok(lease) => break lease,
                Err(why) if self.makes_way(&why) => {}
                Err(why) => return Err(self.no_slot(why)),
            }
        };
        let failure = Failure(self);
        init(&mut lease).map_err(CacheError::Init)?;
        std::mem::forget(failure);
        Ok(self.put(&id, guard, lease))
    }

    fn quick(&self, id: &Id<K>) -> &super::shelf::Quick<K, T> {
        &self.shelf.part(id.hash()).quick
    }

    /// The entry, if it is there now, or the right to initialise it; neither, if the time is over.
    fn arrive<'c>(&self, found: Found<'c, K, T>) -> Result<CacheLease<T>, Option<Guard<'c, K, T>>> {
        let guard = match found {
            EntryResult::Retained(Entry { lease: Some(lease), .. }) => {
                self.inner.counts.hit();
                return Ok(lease);
            }
            EntryResult::Replaced(guard, old) => {
                self.inner.note_gone(self.namespace, &old, Rare::Expiration);
                Some(guard)
            }
            EntryResult::Vacant(guard) => Some(guard),
            EntryResult::Timeout | EntryResult::Retained(_) | EntryResult::Removed(..) => None,
        };
        if guard.is_some() {
            self.inner.counts.note(Rare::Miss);
        }
        Err(guard)
    }

    /// Has an entry go for the one that comes, if there are as many as there may be.
    fn prepare_room(&self, id: &Id<K>) {
        let part = self.shelf.part(id.hash());
        if part.is_full() {
            self.inner.settle(part.make_room(), |_| ());
        }
        self.inner.keep_to_capacity(1);
    }

    /// The entry is there.
    fn put(&self, id: &Id<K>, guard: Guard<'_, K, T>, lease: Lease<T>) -> CacheLease<T> {
        let weight = match (&self.inner.weigher, id) {
            (Some(weigher), Id::Of { key, .. }) => {
                weigher(key, &lease).clamp(1, self.inner.shelf_weight.saturating_add(1))
            }
            _ => 1,
        };
        let until = self.inner.time_to_live.map_or(u64::MAX, |ticks| clock::ticks().saturating_add(ticks));
        let lease = CacheLease::new(lease.into_shared());
        let entry = Entry { lease: Some(lease.clone()), weight, until };
        let mut gone = Gone::default();
        self.inner.note_come(self.namespace, weight);
        // It was taken out before it was there.
        if let Err(entry) = guard.insert_with_lifecycle(entry, &mut gone) {
            self.inner.note_gone(self.namespace, &entry, Rare::Removal);
        }
        self.inner.settle(gone, |_| ());
        self.inner.keep_to_capacity(0);
        if is_closed(lease.core()) {
            self.inner.give_up_all();
        }
        lease
    }

    /// What stands in the way is what the tenant may hold, and one of his own entries, which nobody uses, has gone for it.
    fn makes_way(&self, why: &RequestError) -> bool {
        matches!(why, RequestError::Quota { .. }) && self.inner.give_up_where(|id, _| id.tenant() == self.namespace)
    }

    fn no_slot<E>(&self, why: RequestError) -> CacheError<E> {
        self.inner.counts.note(Rare::Refusal);
        if let RequestError::Tier(AllocateError::Closed { .. }) = why {
            // Who closes a tier without its pool does not know of caches.
            self.inner.give_up_all();
        }
        CacheError::NoSlot { why }
    }

    fn short_name(&self) -> ShortName {
        ShortName::new(&self.inner.name)
    }
}

/// Dropped, an initialiser has failed, or panicked, or its future was dropped.
struct Failure<'c, K, T: Send + 'static>(&'c Cache<K, T>);

impl<K, T: Send + 'static> Drop for Failure<'_, K, T> {
    fn drop(&mut self) {
        self.0.inner.counts.note(Rare::Failure);
    }
}
