//! One initialises, the others wait for it; what failed leaves nothing behind.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;

use tierpool::{CacheError, Pool, Tier};

use super::common::waiting::Watchdog;
use super::{assert_free, cache, fill, pool, put};

#[test]
fn an_entry_is_initialised_once_and_found_again() {
    let pool = pool(4);
    let cache = cache(&pool);
    let made = cache.get_or_allocate(&7, fill(70)).unwrap();
    let found = cache.get_or_allocate(&7, |_| -> Result<(), Infallible> { panic!("it is there") }).unwrap();
    assert_eq!((*made, *found, cache.get(&7).as_deref().copied()), (70, 70, Some(70)));
    assert_eq!(made.handle(), found.handle(), "the same slot");
    assert!(cache.contains(&7) && !cache.contains(&8) && cache.get(&8).is_none());
    assert_eq!((cache.len(), cache.weight(), cache.is_empty()), (1, 1, false));
    let snapshot = cache.snapshot();
    assert_eq!((snapshot.hits, snapshot.misses, snapshot.insertions), (2, 2, 1), "{snapshot:?}");
    assert!((snapshot.hit_rate() - 0.5).abs() < 1e-9);
    assert_free(&pool, 3);
}

#[test]
fn many_who_want_the_same_entry_have_it_initialised_once() {
    let _watchdog = Watchdog::new("many_who_want_the_same_entry_have_it_initialised_once");
    const THREADS: usize = 8;
    const KEYS: u64 = 40;
    let pool = pool(64);
    let cache = cache(&pool);
    let (calls, barrier) = (AtomicUsize::new(0), Barrier::new(THREADS));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for key in 0..KEYS {
                    barrier.wait();
                    let init = |value: &mut u64| {
                        calls.fetch_add(1, Ordering::Relaxed);
                        thread::yield_now();
                        *value = key;
                        Ok::<(), Infallible>(())
                    };
                    assert_eq!(*cache.get_or_allocate(&key, init).unwrap(), key);
                }
            });
        }
    });
    assert_eq!(calls.into_inner(), KEYS as usize);
    let snapshot = cache.snapshot();
    assert_eq!((snapshot.insertions, snapshot.misses, snapshot.pinned), (KEYS, KEYS, 0), "{snapshot:?}");
    assert_eq!(snapshot.hits, (THREADS as u64 - 1) * KEYS, "who waits for another's entry has a hit");
    assert_free(&pool, 24);
}

#[test]
fn what_fails_leaves_no_entry_and_gives_its_slot_back() {
    let pool = pool(1);
    let cache = cache(&pool);
    for _ in 0..3 {
        assert_eq!(cache.get_or_allocate(&1, |_| Err("no such page")).unwrap_err(), CacheError::Init("no such page"));
        assert_free(&pool, 1);
    }
    assert!(cache.is_empty() && !cache.contains(&1));
    assert_eq!(*put(&cache, 1).unwrap(), 10, "the next one tries");
    assert_eq!(cache.snapshot().failures, 3);
    let text = CacheError::Init("no such page").to_string();
    assert_eq!(text, "the entry could not be initialised: no such page");
}

#[test]
fn what_panics_leaves_no_entry_and_gives_its_slot_back() {
    let pool = pool(1);
    let cache = cache(&pool);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _ = cache.get_or_allocate(&1, |_| -> Result<(), Infallible> { panic!("broken") });
    }));
    assert!(panic.is_err() && cache.is_empty());
    assert_free(&pool, 1);
    assert_eq!(*put(&cache, 1).unwrap(), 10);
    assert_eq!(cache.snapshot().failures, 1);
}

#[test]
fn who_waits_for_one_that_fails_tries_himself() {
    let _watchdog = Watchdog::new("who_waits_for_one_that_fails_tries_himself");
    let pool = pool(2);
    let cache = cache(&pool);
    let (begun, has_begun) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    thread::scope(|scope| {
        let cache = &cache;
        scope.spawn(move || {
            let init = |_: &mut u64| {
                begun.send(()).unwrap();
                may_go.recv().unwrap();
                Err(())
            };
            assert_eq!(cache.get_or_allocate(&1, init).unwrap_err(), CacheError::Init(()));
        });
        has_begun.recv().unwrap();
        let second = scope.spawn(|| *cache.get_or_allocate(&1, fill(5)).unwrap());
        go.send(()).unwrap();
        assert_eq!(second.join().unwrap(), 5);
    });
    assert_free(&pool, 1);
}

#[test]
fn a_panic_in_a_weigher_leaves_nothing() {
    let pool = pool(2);
    let weigher = |key: &u64, _: &u64| if *key == 13 { panic!("unlucky") } else { 1 };
    let cache = pool.cache::<u64, u64>("numbers").weigher(10, weigher).build().unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(put(&cache, 13)))).is_err());
    assert!(cache.is_empty());
    assert_free(&pool, 2);
    drop(put(&cache, 1).unwrap());
    assert_free(&pool, 1);
}

#[test]
fn a_panic_in_a_keys_code_poisons_nothing() {
    #[derive(Hash, PartialEq, Eq)]
    struct Key(u64);
    impl Clone for Key {
        fn clone(&self) -> Self {
            assert_ne!(self.0, 13, "unlucky");
            Key(self.0)
        }
    }
    let pool = pool(2);
    let cache = pool.cache::<Key, u64>("numbers").build().unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(cache.get_or_allocate(&Key(13), fill(0))))).is_err());
    drop(cache.get_or_allocate(&Key(1), fill(1)).unwrap());
    assert!(cache.contains(&Key(1)) && cache.remove(&Key(1)));
    assert_free(&pool, 2);
}

#[test]
fn keys_are_found_by_what_they_borrow_as() {
    let names = Tier::<String>::builder("names").capacity(2).build_with(String::new).unwrap();
    let pool = Pool::builder().tier(names).build().unwrap();
    let cache = pool.cache::<String, String>("names").build().unwrap();
    let init = |name: &mut String| {
        name.push_str("euro");
        Ok::<(), Infallible>(())
    };
    drop(cache.get_or_allocate("EUR", init).unwrap());
    assert_eq!(cache.get("EUR").unwrap().as_str(), "euro");
    assert!(cache.remove("EUR") && !cache.remove("EUR"));
}
