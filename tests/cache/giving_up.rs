//! What nobody uses goes before anybody is refused, waits, or is served from elsewhere.

use tierpool::{Pool, Request, Spill, Tier};

use super::{assert_free, cache, pool, put};

#[test]
fn an_entry_goes_before_a_miss_is_refused() {
    let pool = pool(4);
    let cache = cache(&pool);
    for key in 0..100 {
        assert_eq!(*put(&cache, key).unwrap(), key * 10);
        assert!(cache.len() <= 4);
    }
    let snapshot = cache.snapshot();
    assert_eq!((snapshot.entries, snapshot.insertions, snapshot.evictions), (4, 100, 96), "{snapshot:?}");
    assert_eq!((snapshot.refusals, pool.monitor().tier("numbers").unwrap().snapshot.refusals), (0, 0));
    assert_free(&pool, 0);
}

#[test]
fn an_entry_goes_before_anybody_else_of_the_pool_is_refused() {
    let pool = pool(4);
    let cache = cache(&pool);
    (0..4).for_each(|key| drop(put(&cache, key).unwrap()));
    let used = cache.get(&2).unwrap();
    let prepared = pool.prepare(Request::of::<u64>("numbers").tenant("md")).unwrap();
    let three = [
        pool.try_allocate(Request::of::<u64>("numbers")).unwrap(),
        pool.allocate(Request::of::<u64>("numbers").tenant("risk")).unwrap(),
        prepared.try_allocate().unwrap(),
    ];
    assert_eq!((cache.len(), *used), (1, 20));
    assert_eq!(pool.held(pool.tenant("md").unwrap()).slots, 1, "and it is on his account");
    assert!(pool.try_allocate(Request::of::<u64>("numbers")).is_err(), "the last one is in use");
    drop((used, three));
    assert_free(&pool, 3);
}

#[test]
fn an_entry_goes_before_a_request_spills_over() {
    let pool = Pool::builder().memory("numbers", 64, 2).memory("large", 128, 2).build().unwrap();
    let cache = pool.cache::<u64, tierpool::Memory>("numbers").build().unwrap();
    for key in 0..2 {
        drop(cache.try_get_or_allocate(&key, |_| Ok::<(), ()>(())).unwrap());
    }
    let lease = pool.try_allocate(Request::memory(64).spill(Spill::NextLarger)).unwrap();
    assert_eq!((lease.capacity(), cache.len()), (64, 1));
}

/// What has spilled over lies in another tier, and is no help to who wants this one.
#[test]
fn a_cache_that_spills_over_gives_up_a_slot_of_the_tier_that_is_wanted() {
    let pool = Pool::builder().memory("numbers", 64, 1).memory("large", 128, 8).build().unwrap();
    let request = Request::memory(64).spill(Spill::NextLarger);
    let cache = pool.cache::<u64, tierpool::Memory>("numbers").request(request).capacity(8).build().unwrap();
    // In use all at once, or they would make way for each other.
    drop((0..8).map(|key| cache.try_get_or_allocate(&key, |_| Ok::<(), ()>(())).unwrap()).collect::<Vec<_>>());
    assert_eq!(cache.len(), 8);
    // The only one in the small tier is used most: the last to go.
    (0..16).for_each(|_| drop(cache.get(&0).unwrap()));
    let lease = pool.try_allocate(Request::memory(64).spill(Spill::Refuse)).unwrap();
    assert_eq!(lease.capacity(), 64);
    assert!(cache.len() >= 6 && !cache.contains(&0), "{}: the others stay, but for one", cache.snapshot());
}

#[test]
fn two_caches_of_one_tier_give_way_to_each_other() {
    let pool = pool(4);
    let (one, other) = (cache(&pool), cache(&pool));
    (0..4).for_each(|key| drop(put(&one, key).unwrap()));
    (0..4).for_each(|key| drop(put(&other, key).unwrap()));
    assert_eq!(one.len() + other.len(), 4);
    assert!(!other.is_empty());
    assert_free(&pool, 0);
    drop(one);
    assert_free(&pool, 4 - other.len());
}

#[test]
fn repeated_failures_cost_one_entry_at_most() {
    let pool = pool(8);
    let cache = cache(&pool);
    (0..8).for_each(|key| drop(put(&cache, key).unwrap()));
    for key in 100..200 {
        assert!(cache.try_get_or_allocate(&key, |_| Err(())).is_err());
    }
    assert_eq!(cache.len(), 7);
}

#[test]
fn a_tier_without_a_cache_is_left_alone() {
    let other = Tier::builder("other").capacity(1).build_with(|| 0u64).unwrap();
    let numbers = Tier::builder("numbers").capacity(2).build_with(|| 0u64).unwrap();
    let pool = Pool::builder().tier(other).tier(numbers).build().unwrap();
    let cache = cache(&pool);
    (0..2).for_each(|key| drop(put(&cache, key).unwrap()));
    let _only = pool.try_allocate(Request::of::<u64>("other")).unwrap();
    assert!(pool.try_allocate(Request::of::<u64>("other")).is_err());
    assert_eq!(cache.len(), 2);
}
