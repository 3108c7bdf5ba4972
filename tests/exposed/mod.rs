//! Pools to expose.

use std::sync::Arc;

use tierpool::{
    Breaker, BreakerRules, Exporter, HealthMonitor, Limit, MemoryTier, Observer, Pool, Request, ResourceDetector,
    TenantRules, Tier,
};

/// An exporter that shows one pool.
pub fn exporter_of(pool: &Pool, name: &str) -> (Exporter, Observer) {
    let exporter = Exporter::new();
    let observer = pool.observe(name).unwrap();
    exporter.add(&observer);
    (exporter, observer)
}

/// A pool that has a sample of every family.
pub fn rich() -> (Pool, Exporter, HealthMonitor) {
    let jobs: Tier<u64> = Tier::builder("jobs").capacity(4).build_with(|| 0).unwrap();
    let pool = Pool::builder()
        .memory_tier(MemoryTier::new("packets", 2048, 8).breaker(BreakerRules::default()))
        .memory("frames", 65536, 4)
        .tier(jobs)
        .cpu("cores")
        .factory_breaker("jobs", &Arc::new(Breaker::new(BreakerRules::default()).unwrap()))
        .tenant(
            TenantRules::new("desk").hard(Limit { slots: 6, bytes: 1 << 17 }).soft(Limit { slots: 4, bytes: 1 << 16 }),
        )
        .overflow(2)
        .build()
        .unwrap();
    let (exporter, observer) = exporter_of(&pool, "gateway");
    let monitor = HealthMonitor::builder(ResourceDetector::new()).no_thresholds().build().unwrap();
    exporter.watch(&monitor);
    let _held = pool.try_allocate(Request::memory(100).tenant("desk").tag("rx")).unwrap();
    #[cfg(feature = "cache")]
    {
        let cache = pool.cache::<u64, u64>("jobs").build().unwrap();
        let init = |_: &mut u64| Ok::<(), std::convert::Infallible>(());
        drop((cache.get_or_allocate(&7, init).unwrap(), cache.get_or_allocate(&7, init).unwrap()));
        // As long as the pool, so that its series do not end.
        std::mem::forget(cache);
    }
    observer.look();
    (pool, exporter, monitor)
}
