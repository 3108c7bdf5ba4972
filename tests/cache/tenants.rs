//! Whose entries are seen by whom, and who pays for them.

use tierpool::{Pool, Request, RequestError, TenantRules};

use super::{assert_free, cache, fill, pool, put};

#[test]
fn tenants_do_not_see_each_others_entries() {
    let pool = pool(8);
    let cache = cache(&pool);
    let (md, risk) = (cache.tenant("md").unwrap(), cache.tenant(pool.tenant("risk").unwrap()).unwrap());
    assert_eq!(*md.get_or_allocate(&1, fill(111)).unwrap(), 111);
    assert_eq!(*risk.get_or_allocate(&1, fill(222)).unwrap(), 222);
    assert!(!cache.contains(&1) && cache.get(&1).is_none());
    assert_eq!((*md.get(&1).unwrap(), *risk.get(&1).unwrap()), (111, 222));
    assert_eq!((md.len(), risk.len(), cache.len(), cache.snapshot().entries), (1, 1, 0, 2));
    md.clear();
    assert!(!md.contains(&1) && risk.contains(&1));
    assert!(!md.remove(&1) && risk.remove(&1));
    assert_free(&pool, 8);
}

#[test]
fn who_had_it_initialised_pays_for_it() {
    let pool = pool(8);
    let cache = cache(&pool);
    let md = cache.tenant("md").unwrap();
    let number = pool.tenant("md").unwrap();
    (0..3).for_each(|key| drop(put(&md, key).unwrap()));
    assert_eq!(pool.held(number).slots, 3);
    let holders = pool.holders();
    assert!(holders.iter().all(|holder| holder.tag == Some("numbers")), "{holders:?}");
    md.clear();
    assert_eq!(pool.held(number).slots, 0);
}

#[test]
fn a_quota_stands_against_a_miss() {
    let numbers = tierpool::Tier::builder("numbers").capacity(8).build_with(|| 0u64).unwrap();
    let rules = TenantRules::new("md").hard(tierpool::Limit::slots(2));
    let pool = Pool::builder().tier(numbers).tenant(rules).build().unwrap();
    let cache = pool.cache::<u64, u64>("numbers").request(Request::of::<u64>("numbers").tenant("md")).build().unwrap();
    let _two = [put(&cache, 1).unwrap(), put(&cache, 2).unwrap()];
    let why = put(&cache, 3).unwrap_err();
    assert!(matches!(why, tierpool::CacheError::NoSlot { why: RequestError::Quota { held: 2, .. }, .. }), "{why}");
}

#[test]
fn what_a_tenant_keeps_and_does_not_use_goes_before_his_quota_stands_against_a_miss() {
    let numbers = tierpool::Tier::builder("numbers").capacity(8).build_with(|| 0u64).unwrap();
    let rules = TenantRules::new("md").hard(tierpool::Limit::slots(2));
    let pool = Pool::builder().tier(numbers).tenant(rules).tenant("risk").build().unwrap();
    let cache = cache(&pool);
    let (md, risk) = (cache.tenant("md").unwrap(), cache.tenant("risk").unwrap());
    drop(put(&risk, 7).unwrap());
    let used = put(&md, 1).unwrap();
    for key in 2..6 {
        drop(put(&md, key).unwrap());
    }
    assert_eq!((*used, md.len(), risk.len()), (10, 2, 1), "the one in use stays, and so does the other tenant's");
    assert_eq!(pool.held(pool.tenant("md").unwrap()).slots, 2);
    let status = pool.monitor();
    let served = |name: &str| status.tenant(name).unwrap().allocations;
    assert_eq!((served("md"), served("risk")), (5, 1), "each is counted for whom it was");
}

#[test]
fn a_shared_cache_shows_all_to_all() {
    let pool = pool(8);
    let cache = pool.cache::<u64, u64>("numbers").shared_by_tenants().build().unwrap();
    let (md, risk) = (cache.tenant("md").unwrap(), cache.tenant("risk").unwrap());
    drop(put(&md, 1).unwrap());
    assert_eq!((*risk.get(&1).unwrap(), cache.len(), risk.len()), (10, 1, 1));
    assert_eq!(pool.held(pool.tenant("md").unwrap()).slots, 1);
}

#[test]
fn unknown_tenants_are_refused() {
    let pool = pool(8);
    let cache = cache(&pool);
    let why = cache.tenant("nobody we know").unwrap_err();
    assert!(matches!(why, RequestError::NoTenant { .. }), "{why}");
    let other = Pool::builder().memory("m", 8, 1).tenant("a").tenant("b").tenant("c").build().unwrap();
    let why = cache.tenant(other.tenant("c").unwrap()).unwrap_err();
    assert!(matches!(why, RequestError::ForeignTenant { .. }), "{why}");
}
