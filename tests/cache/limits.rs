//! How much it may hold: entries, weight, a tenant's share; and what cannot be built.

use std::time::Duration;

use tierpool::{CacheBuildError, RequestError};

use super::{assert_free, pool, put};

#[test]
fn it_has_no_more_entries_than_it_may() {
    let pool = pool(100);
    let cache = pool.cache::<u64, u64>("numbers").capacity(10).build().unwrap();
    for key in 0..500 {
        drop(put(&cache, key).unwrap());
        assert!(cache.len() <= 10);
    }
    assert_free(&pool, 90);
    assert_eq!(cache.snapshot().capacity, 10);
}

#[test]
fn it_weighs_no_more_than_it_may() {
    let pool = pool(100);
    let cache = pool.cache::<u64, u64>("numbers").weigher(50, |&key, _| key % 10).build().unwrap();
    for key in 0..500 {
        drop(put(&cache, key).unwrap());
        assert!(cache.weight() <= 50, "{}", cache.snapshot());
    }
    let mut weight = 0;
    cache.retain(|key, _| {
        weight += (key % 10).max(1);
        true
    });
    assert_eq!((weight, cache.snapshot().weight), (cache.weight(), cache.weight()));
    assert!(weight > 30, "and makes use of it: {weight}");
}

#[test]
fn with_a_weigher_entries_are_limited_too() {
    let pool = pool(100);
    let cache = pool.cache::<u64, u64>("numbers").capacity(4).weigher(1000, |_, _| 1).build().unwrap();
    (0..50).for_each(|key| drop(put(&cache, key).unwrap()));
    assert_eq!(cache.len(), 4);
}

#[test]
fn what_is_too_heavy_is_given_and_not_kept() {
    let pool = pool(4);
    let cache = pool.cache::<u64, u64>("numbers").weigher(10, |&key, _| key).build().unwrap();
    (1..4).for_each(|key| drop(put(&cache, key).unwrap()));
    assert_eq!(*put(&cache, 11).unwrap(), 110);
    drop(put(&cache, 1).unwrap());
    assert!(!cache.contains(&11) && cache.weight() <= 10);
    assert_free(&pool, 4 - cache.len());
}

#[test]
fn a_tenant_evicts_his_own_entries_first() {
    let pool = pool(100);
    let cache = pool.cache::<u64, u64>("numbers").capacity(40).tenant_share(0.5).build().unwrap();
    let (md, risk) = (cache.tenant("md").unwrap(), cache.tenant("risk").unwrap());
    (0..10).for_each(|key| drop(put(&risk, key).unwrap()));
    for key in 0..500 {
        drop(put(&md, key).unwrap());
        assert!(md.len() <= 20);
    }
    assert!((0..10).all(|key| risk.contains(&key)), "the other's are all there");
    // Three tenants who want half each: whoever has most gives way.
    (0..20).for_each(|key| drop(put(&risk, key).unwrap()));
    assert_eq!((md.len(), risk.len()), (20, 20));
    (0..5).for_each(|key| drop(put(&cache, key).unwrap()));
    assert_eq!((cache.len(), md.len() + risk.len()), (5, 35));
    assert!(md.len() >= 17 && risk.len() >= 17, "both give way: {} and {}", md.len(), risk.len());
    assert_free(&pool, 60);
    assert_eq!(cache.snapshot().entries, 40);
}

#[test]
fn what_cannot_be_built_is_refused_with_a_reason() {
    let pool = pool(2);
    let builder = || pool.cache::<u64, u64>("numbers");
    let unknown = pool.cache::<u64, u64>("letters").build().unwrap_err();
    assert!(matches!(unknown, CacheBuildError::Request { source: RequestError::NoTier { .. }, .. }), "{unknown}");
    let other = pool.cache::<u64, String>("numbers").build().unwrap_err();
    assert!(matches!(other, CacheBuildError::Request { source: RequestError::OtherKind { .. }, .. }), "{other}");
    for why in [
        builder().capacity(0).build().unwrap_err(),
        builder().capacity(u64::MAX).build().unwrap_err(),
        builder().weigher(0, |_, _| 1).build().unwrap_err(),
    ] {
        assert!(matches!(why, CacheBuildError::Capacity { .. }), "{why}");
    }
    for share in [0.0, -1.0, 1.01, f64::NAN, f64::INFINITY] {
        let why = builder().tenant_share(share).build().unwrap_err();
        assert!(matches!(why, CacheBuildError::Share { .. }), "{why}");
    }
    let why = builder().time_to_live(Duration::from_millis(9)).build().unwrap_err();
    let text = "cache \"numbers\": a time to live of 9ms is shorter than a tick of the clock; give it 10 ms at least";
    assert_eq!(why.to_string(), text);
    for name in ["", "a\nb", "a\"b"] {
        let why = pool.cache::<u64, u64>(name).build().unwrap_err();
        assert!(matches!(why, CacheBuildError::Name { .. }), "{why}");
    }
    assert_free(&pool, 2);
}

#[test]
fn retain_and_clear_go_through_all() {
    let pool = pool(100);
    let cache = super::cache(&pool);
    (0..100).for_each(|key| drop(put(&cache, key).unwrap()));
    let before = cache.len();
    cache.retain(|key, value| {
        assert_eq!(*value, key * 10);
        key % 2 == 0
    });
    assert!(cache.len() < before && (0..100).all(|key| key % 2 == 0 || !cache.contains(&key)));
    assert_free(&pool, 100 - cache.len());
    cache.clear();
    assert!(cache.is_empty());
    assert_free(&pool, 100);
}
