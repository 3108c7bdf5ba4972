//! The caches that a trace goes through, each as its users use it: look up, and put in what is not there.

use std::convert::Infallible;
use std::num::NonZeroUsize;

use tierpool::{Pool, Tier};

use super::belady;
use super::keys::Keys;

/// A cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A pool's, over as many slots as its capacity.
    Tierpool,
    /// The crate `lru`: whatever was used last longest ago goes.
    Lru,
    /// The crate `quick_cache`.
    QuickCache,
    /// The crate `moka`: TinyLFU.
    Moka,
    /// The optimum.
    Belady,
}

impl Policy {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Policy; 5] = [Policy::Tierpool, Policy::Lru, Policy::QuickCache, Policy::Moka, Policy::Belady];

    /// Its name in the output.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Tierpool => "tierpool",
            Policy::Lru => "lru",
            Policy::QuickCache => "quick_cache",
            Policy::Moka => "moka",
            Policy::Belady => "belady",
        }
    }

    /// How many requests hit in a cache of so many entries.
    ///
    /// # Errors
    /// A sentence, if there is no memory for a cache of that size.
    pub fn hits(self, keys: &Keys, capacity: NonZeroUsize, progress: &dyn Fn(f64)) -> Result<u64, String> {
        let count = |hit: &mut dyn FnMut(u32) -> bool| {
            let mut hits = 0;
            for (at, &key) in keys.requests().iter().enumerate() {
                hits += u64::from(hit(key));
                if at % (1 << 14) == 0 {
                    progress(at as f64 / keys.requests().len() as f64);
                }
            }
            hits
        };
        Ok(match self {
            Policy::Tierpool => return tierpool(keys, capacity, &count),
            Policy::Lru => {
                let mut cache = lru::LruCache::new(capacity);
                count(&mut |key| cache.put(key, ()).is_some())
            }
            Policy::QuickCache => {
                let cache = quick_cache::sync::Cache::new(capacity.get());
                count(&mut |key| {
                    let hit = cache.get(&key).is_some();
                    if !hit {
                        cache.insert(key, ());
                    }
                    hit
                })
            }
            Policy::Moka => {
                let cache = moka::sync::Cache::new(capacity.get() as u64);
                let (mut puts, slack) = (0_usize, (capacity.get() / 1000).max(1));
                count(&mut |key| {
                    let hit = cache.get(&key).is_some();
                    if !hit {
                        cache.insert(key, ());
                        puts += 1;
                        // It evicts some time later, by itself or when it is told: before it has a thousandth more than it may.
                        if puts.is_multiple_of(slack) {
                            cache.run_pending_tasks();
                        }
                    }
                    hit
                })
            }
            Policy::Belady => belady::hits(keys.requests(), keys.distinct(), capacity.get(), progress),
        })
    }
}

/// Counts the requests of which something says that they hit.
type Count<'a> = dyn Fn(&mut dyn FnMut(u32) -> bool) -> u64 + 'a;

fn tierpool(keys: &Keys, capacity: NonZeroUsize, count: &Count<'_>) -> Result<u64, String> {
    let entries = Tier::builder("entries").capacity(capacity.get()).build_with(|| 0u32);
    let pool = Pool::builder().tier(entries.map_err(|error| error.to_string())?).build();
    let pool = pool.map_err(|error| error.to_string())?;
    let cache = pool.cache::<u32, u32>("entries").build().map_err(|error| error.to_string())?;
    let mut refused = None;
    let hits = count(&mut |key| {
        let mut hit = true;
        let fill = |value: &mut u32| {
            (*value, hit) = (key, false);
            Ok::<(), Infallible>(())
        };
        match cache.try_get_or_allocate(&key, fill) {
            Ok(entry) => debug_assert_eq!(*entry, key),
            Err(why) => refused = Some(why.to_string()),
        }
        hit
    });
    let snapshot = cache.snapshot();
    debug_assert!((snapshot.hits, snapshot.hits + snapshot.misses) == (hits, keys.requests().len() as u64));
    match refused {
        // Every entry is out of use when the next is asked for.
        Some(why) => Err(format!("the pool has refused a request, which it must not: {why}")),
        None => Ok(hits),
    }
}
