//! What is in use stays, whatever happens.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tierpool::Request;

use super::common::waiting::Watchdog;
use super::{assert_free, cache, fill, pool, put};

#[test]
fn an_entry_in_use_is_not_evicted() {
    let pool = pool(4);
    let cache = cache(&pool);
    let used = put(&cache, 0).unwrap();
    let clone = used.clone();
    drop(used);
    for key in 1..200 {
        drop(put(&cache, key).unwrap());
        assert!(cache.contains(&0));
    }
    assert_eq!((*clone, cache.snapshot().pinned), (0, 1));
    drop(clone);
    assert_eq!(cache.snapshot().pinned, 0);
    let all = [(); 4].map(|()| pool.try_allocate(Request::of::<u64>("numbers")).unwrap());
    assert!(!cache.contains(&0) && cache.is_empty(), "now it may go");
    drop(all);
    assert_free(&pool, 4);
}

#[test]
fn entries_in_use_may_be_more_than_the_capacity() {
    let pool = pool(4);
    let cache = pool.cache::<u64, u64>("numbers").capacity(2).build().unwrap();
    let all: Vec<_> = (0..4).map(|key| put(&cache, key).unwrap()).collect();
    assert_eq!((cache.len(), all.iter().map(|lease| **lease).sum::<u64>()), (4, 60));
    assert!(put(&cache, 4).is_err());
    drop(all);
    drop(put(&cache, 5).unwrap());
    assert!(cache.len() <= 2, "{}", cache.snapshot());
}

#[test]
fn what_was_removed_stays_with_its_users() {
    let pool = pool(2);
    let cache = cache(&pool);
    let used = put(&cache, 1).unwrap();
    assert!(cache.remove(&1) && !cache.contains(&1));
    assert_free(&pool, 1);
    assert_eq!((*used, *put(&cache, 1).unwrap()), (10, 10), "a new entry beside the old one");
    assert_free(&pool, 0);
    drop(used);
    assert_free(&pool, 1);
    let snapshot = cache.snapshot();
    assert_eq!((snapshot.removals, snapshot.insertions, snapshot.entries), (1, 2, 1));
}

#[test]
fn what_is_removed_while_it_is_initialised_is_given_and_not_kept() {
    let pool = pool(2);
    let cache = cache(&pool);
    let lease = cache
        .get_or_allocate(&1, |value| {
            assert!(!cache.remove(&1));
            *value = 10;
            Ok::<(), Infallible>(())
        })
        .unwrap();
    assert_eq!((*lease, cache.len(), cache.contains(&1)), (10, 0, false));
    drop(lease);
    assert_free(&pool, 2);
}

/// Values tell their key; a reader that finds another's has been evicted under his hands.
#[test]
fn nobody_finds_anothers_value_under_load() {
    let _watchdog = Watchdog::new("nobody_finds_anothers_value_under_load");
    let pool = pool(16);
    let cache = cache(&pool);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..3 {
            let (cache, stop) = (&cache, &stop);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut held = Vec::new();
                for round in 0..4000 {
                    let key = random.u64(..64);
                    match random.u8(..10) {
                        0 => drop(cache.remove(&key)),
                        1 => held.clear(),
                        _ => {
                            if let Ok(lease) = cache.try_get_or_allocate(&key, fill(key)) {
                                assert_eq!(*lease, key, "in round {round}");
                                if held.len() < 4 {
                                    held.push((key, lease));
                                }
                            }
                        }
                    }
                    assert!(held.iter().all(|(key, lease)| **lease == *key), "in round {round}");
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
        let (pool, stop) = (&pool, &stop);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                drop(pool.try_allocate(Request::of::<u64>("numbers")));
                thread::yield_now();
            }
        });
    });
    let snapshot = cache.snapshot();
    assert_eq!(snapshot.pinned, 0, "{snapshot:?}");
    assert_eq!(snapshot.entries, snapshot.insertions - snapshot.evictions - snapshot.removals);
    assert_eq!(cache.len() as u64, snapshot.entries);
    assert_free(&pool, 16 - cache.len());
    cache.clear();
    assert_free(&pool, 16);
}
