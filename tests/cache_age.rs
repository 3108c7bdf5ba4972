//! Entries that grow too old. In a process of its own: it moves the clock.

#![cfg(all(feature = "cache", not(loom)))]

use std::convert::Infallible;
use std::time::{Duration, Instant};

use tierpool::{Pool, Tier, clock};

#[test]
fn an_entry_that_is_too_old_is_initialised_anew() {
    let numbers = Tier::builder("numbers").capacity(4).build_with(|| 0u64).unwrap();
    let pool = Pool::builder().tier(numbers).build().unwrap();
    let free = || pool.monitor().tier("numbers").unwrap().snapshot.free;
    let minute = Duration::from_secs(60);
    let cache = pool.cache::<u64, u64>("numbers").time_to_live(minute).build().unwrap();
    let put = |key: u64, value: u64| {
        let fill = |slot: &mut u64| {
            *slot = value;
            Ok::<(), Infallible>(())
        };
        cache.get_or_allocate(&key, fill).unwrap()
    };
    // So far ahead that real time, which passes too, does not matter.
    let mut now = Instant::now() + Duration::from_secs(3600);
    let mut wait = |time: Duration| {
        now += time;
        clock::tick_to(now);
    };
    wait(Duration::ZERO);

    assert_eq!(*put(1, 10), 10);
    wait(Duration::from_secs(59));
    assert_eq!(*put(1, 11), 10, "young enough");
    wait(Duration::from_secs(1));
    assert!(!cache.contains(&1));
    let old = put(2, 20);
    assert_eq!(*put(1, 12), 12, "too old, replaced");
    assert_eq!((cache.len(), free()), (2, 2), "its slot went back");

    wait(minute);
    assert!(cache.get(&1).is_none(), "too old, and taken out");
    assert_eq!((cache.len(), free()), (1, 3));
    assert_eq!((*old, *put(2, 21)), (20, 21), "who uses it keeps it");
    assert_eq!((cache.len(), free()), (1, 2));
    drop(old);

    wait(minute);
    assert!(!cache.remove(&2), "what is too old is not there");
    drop((put(3, 30), put(4, 40)));
    wait(minute);
    assert_eq!((cache.len(), free()), (2, 2));
    pool.reclaim();
    assert_eq!((cache.len(), free()), (0, 4), "the reclaimer's pass takes out what is too old");
    let snapshot = cache.snapshot();
    assert_eq!((snapshot.expirations, snapshot.insertions, snapshot.evictions), (6, 6, 0), "{snapshot:?}");
}
