//! Looking at a pool again and again: what it does over time, which no single look can tell.
//!
//! An [`Observer`] looks once a second, on the reclaimer's thread, and keeps what it has found as one [`Observation`]: exporters and pages show
//! that, however many ask and however often, and cost the pool nothing more.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

#[cfg(all(feature = "cache", not(loom)))]
use super::cache::counts::CacheSnapshot;
use super::history::{History, MINUTE, Rates};
use super::monitor::ResourceStatus;
use super::{Pool, WeakPool};
use crate::tier::census::{HoldersBySite, HoldersGrowth};
use crate::tier::chores::{self, Chore};
use crate::tier::suspect::Suspect;

/// Looks at a pool once a second: [`Pool::observe`].
///
/// A clone is another reference to the same. Keeps the pool neither open nor busy: a look is a pass over the headers of its slots, and one
/// that took long is followed by a longer rest. In the child of a fork, begin another.
///
/// ```
/// use tierpool::{Pool, Request};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder().memory("packets", 2048, 64).build()?;
/// let observer = pool.observe("gateway")?;
/// let _packet = pool.try_allocate(Request::memory(1500))?;
/// let seen = observer.look();                          // the reclaimer's thread does it every second
/// let packets = &seen.tiers[0];
/// println!("{}: {:.0} allocations/s over the last minute", packets.name, packets.allocations.minute);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Observer {
    inner: Arc<Inner>,
}

/// What an [`Observer`] has seen at its last look, and over time.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Observation {
    /// The name that the observer was given: the pool's, for whoever reads it.
    pub pool: String,
    /// When it was made.
    pub at: SystemTime,
    /// The how-manieth it is, from 1.
    pub number: u64,
    /// How long the look took.
    pub took: Duration,
    /// How the pool stood.
    pub status: ResourceStatus,
    /// What each tier did over time; in the order of `status.tiers`.
    pub tiers: Vec<TierTrend>,
    /// Who holds how much, by line.
    pub holders: HoldersBySite,
    /// Which lines hold more than a minute ago, to some seconds; or than at the first look, as long as that is not so long ago.
    pub growth: HoldersGrowth,
    /// Which lines hold slots for too long, and whether that is a leak: [`Pool::leaks`].
    pub leaks: Vec<Suspect>,
    /// How the caches of its tiers stand: [`Pool::caches`].
    #[cfg(all(feature = "cache", not(loom)))]
    pub caches: Vec<CacheSnapshot>,
}

/// What a tier did over time.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct TierTrend {
    /// The tier's name.
    pub name: &'static str,
    /// Allocations a second that it served.
    pub allocations: Rates,
    /// Leases a second that came back.
    pub releases: Rates,
    /// Requests a second that were refused: by it, or by a quota or its circuit breaker before it was asked.
    pub refusals: Rates,
    /// Allocations a second from look to look within the last minute, the oldest first: a curve.
    pub recent: Vec<f64>,
    /// The most slots that were held at a look of the last minute.
    pub most_held: usize,
}

/// What is kept of each look.
struct Counts {
    allocations: u64,
    releases: u64,
    refusals: u64,
    held: usize,
}

struct Inner {
    pool: WeakPool,
    latest: ArcSwap<Observation>,
    past: Mutex<Past>,
    /// There is a later one.
    next: Condvar,
}

struct Past {
    /// One a tier, in its order.
    tiers: Vec<History<Counts>>,
    /// Who held how much at looks of the last minute, [`APART`].
    holders: VecDeque<HoldersBySite>,
    /// When the reclaimer's thread may look again: so all looks take a small part of a core.
    rest_until: Instant,
}

/// How often the reclaimer's thread looks.
const PERIOD: Duration = Duration::from_secs(1);
/// A look that took some time is followed by a rest of so many times that.
const REST: u32 = 32;
/// How far those looks are apart of which the holders are kept.
const APART: Duration = Duration::from_secs(5);

impl Pool {
    /// Begins to observe the pool under a name, which is what exporters and pages show. The first look is made at once, the others every
    /// second by the reclaimer's thread, as long as the observer or a clone of it lives.
    ///
    /// # Errors
    /// If that thread could not be started.
    pub fn observe(&self, name: impl Into<String>) -> std::io::Result<Observer> {
        let observer = Observer::new(self, name.into());
        let inner: Weak<Inner> = Arc::downgrade(&observer.inner);
        chores::every(PERIOD, inner)?;
        Ok(observer)
    }
}

impl Observer {
    fn new(pool: &Pool, name: String) -> Self {
        let mut past = Past { tiers: Vec::new(), holders: VecDeque::new(), rest_until: Instant::now() };
        let first = past.look(pool, None, name, 1);
        Observer {
            inner: Arc::new(Inner {
                pool: pool.downgrade(),
                latest: ArcSwap::from_pointee(first),
                past: Mutex::new(past),
                next: Condvar::new(),
            }),
        }
    }

    /// What the last look has found; never waits.
    pub fn latest(&self) -> Arc<Observation> {
        self.inner.latest.load_full()
    }

    /// Looks now. Of a pool that is gone nothing is seen any more; what is returned then is the last look.
    pub fn look(&self) -> Arc<Observation> {
        self.inner.look(false);
        self.latest()
    }

    /// Waits for a look later than the one with that `number`, at most for `patience`. `None` if there was none, as when the pool is gone.
    pub fn wait_for_later(&self, number: u64, patience: Duration) -> Option<Arc<Observation>> {
        let is_old = |_: &mut Past| self.inner.latest.load().number <= number;
        let past = self.inner.past();
        let (past, wait) =
            self.inner.next.wait_timeout_while(past, patience, is_old).unwrap_or_else(PoisonError::into_inner);
        drop(past);
        (!wait.timed_out()).then(|| self.latest())
    }

    /// Whether the pool is gone: nobody has it any more. Its leases may still be out.
    pub fn is_gone(&self) -> bool {
        self.inner.pool.is_gone()
    }

    /// Whether that is a reference to the same.
    #[cfg(feature = "prometheus")]
    pub(crate) fn is(&self, other: &Observer) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The pool, while it is there.
    pub fn pool(&self) -> Option<Pool> {
        self.inner.pool.upgrade()
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latest = self.latest();
        f.debug_struct("Observer").field("pool", &latest.pool).field("looks", &latest.number).finish_non_exhaustive()
    }
}

impl Inner {
    /// A panic of the program's code in a look leaves the history of some tiers a look shorter.
    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, may_rest: bool) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut past = self.past();
        if may_rest && Instant::now() < past.rest_until {
            return;
        }
        let before = self.latest.load();
        let now = past.look(&pool, Some(&before.status), before.pool.clone(), before.number + 1);
        self.latest.store(Arc::new(now));
        drop(past);
        self.next.notify_all();
    }
}

impl Chore for Inner {
    fn run(&self) {
        self.look(true);
    }
}

impl Past {
    fn look(&mut self, pool: &Pool, before: Option<&ResourceStatus>, name: String, number: u64) -> Observation {
        let started = Instant::now();
        let status = match before {
            Some(before) => pool.monitor().not_below(before),
            None => pool.monitor(),
        };
        self.tiers.resize_with(status.tiers.len(), History::new);
        for (history, tier) in self.tiers.iter_mut().zip(&status.tiers) {
            let now = &tier.snapshot;
            history.push(
                status.at,
                Counts {
                    allocations: now.allocations,
                    releases: now.releases,
                    refusals: now.refusals + tier.denied,
                    held: tier.held(),
                },
            );
        }
        let trends = self.tiers.iter().zip(&status.tiers).map(|(history, tier)| TierTrend {
            name: tier.name,
            allocations: history.rates(|counts| counts.allocations),
            releases: history.rates(|counts| counts.releases),
            refusals: history.rates(|counts| counts.refusals),
            recent: history.steps(|counts| counts.allocations),
            most_held: history.within(MINUTE).map(|(_, counts)| counts.held).max().unwrap_or(0),
        });
        let tiers = trends.collect();
        let holders = pool.holders_by_site();
        let growth = self.grown(&holders);
        let leaks = pool.leaks();
        #[cfg(all(feature = "cache", not(loom)))]
        let caches = pool.caches();
        let took = started.elapsed();
        self.rest_until = Instant::now() + took * REST;
        Observation {
            pool: name,
            at: SystemTime::now(),
            number,
            took,
            status,
            tiers,
            holders,
            growth,
            leaks,
            #[cfg(all(feature = "cache", not(loom)))]
            caches,
        }
    }

    /// What has grown in the last minute.
    fn grown(&mut self, now: &HoldersBySite) -> HoldersGrowth {
        let age = |then: &HoldersBySite| now.at.saturating_duration_since(then.at);
        if self.holders.back().is_none_or(|last| age(last) >= APART) {
            self.holders.push_back(now.clone());
        }
        while self.holders.get(1).is_some_and(|second| age(second) >= MINUTE) {
            self.holders.pop_front();
        }
        now.since(&self.holders[0])
    }
}
