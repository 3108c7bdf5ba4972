//! What is counted and timed at the core: exchanges of magazines, labels, reasons of refusals, latencies. None of it depends on how fast
//! the machine is.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tierpool::{
    BreakerRules, Latency, Limit, MemoryTier, Pool, Prepared, Priority, RefusalReason, Request, RequestError,
    TenantRules, Tier, TierStatus, Watermarks,
};

fn tier(slots: usize) -> Tier<u64> {
    Tier::builder("t").capacity(slots).build_with(|| 0).unwrap()
}

/// A pool of one memory tier "m" with tenants "a" and "b".
fn pool(slots: usize) -> Pool {
    let rules = ["a", "b"].map(TenantRules::new);
    rules.into_iter().fold(Pool::builder().memory("m", 64, slots), |pool, one| pool.tenant(one)).build().unwrap()
}

fn status(pool: &Pool) -> TierStatus {
    pool.monitor().tier("m").unwrap().clone()
}

fn told(pool: &Pool) -> Vec<(RefusalReason, u64)> {
    status(pool).reasons.iter().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn magazines_count_what_they_exchange() {
    let tier = tier(256);
    let at_first = tier.snapshot();
    assert_eq!((at_first.refills, at_first.steals, at_first.spills), (0, 0, 0));
    let held = tier.try_allocate_many(200).unwrap();
    let one = tier.try_allocate().unwrap();
    drop(one);
    let singles: Vec<_> = held.into_iter().collect();
    drop(singles);
    let after = tier.snapshot();
    assert!(after.spills > 0, "200 slots do not fit into a magazine: {after:?}");
    let all: Vec<_> = (0..256).map(|_| tier.try_allocate().unwrap()).collect();
    assert!(tier.snapshot().refills > after.refills, "they come back from the depot: {:?}", tier.snapshot());
    drop(all);
}

#[test]
fn hints_that_lie_in_another_threads_magazine_are_stolen() {
    let tier = tier(8);
    let (ready, done) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let held: Vec<_> = (0..8).map(|_| tier.try_allocate().unwrap()).collect();
            drop(held);
            ready.wait();
            done.wait();
        });
        ready.wait();
        assert_eq!(tier.snapshot().steals, 0);
        let lease = tier.try_allocate().unwrap();
        assert_eq!(tier.snapshot().steals, 1, "{:?}", tier.snapshot());
        drop(lease);
        done.wait();
    });
}

#[test]
fn quarantines_and_the_most_in_use_are_remembered() {
    let fails = std::sync::Arc::new(AtomicBool::new(false));
    let failing = std::sync::Arc::clone(&fails);
    let tier: Tier<u64> = Tier::builder("t")
        .capacity(4)
        .try_build_with(move || if failing.load(Ordering::SeqCst) { Err("no") } else { Ok(0u64) })
        .unwrap();
    let held: Vec<_> = (0..3).map(|_| tier.try_allocate().unwrap()).collect();
    assert_eq!(tier.snapshot().high_water, 3);
    drop(held);
    assert_eq!((tier.snapshot().high_water, tier.snapshot().quarantines), (3, 0));
    let held: Vec<_> = (0..4).map(|_| tier.try_allocate().unwrap()).collect();
    assert!(tier.try_allocate().is_err());
    drop(held);
    assert_eq!(tier.snapshot().high_water, 4, "a refusal has seen it");
    fails.store(true, Ordering::SeqCst);
    tier.try_allocate().unwrap().discard();
    let now = tier.snapshot();
    assert_eq!((now.quarantines, now.quarantined), (1, 1));
}

#[test]
fn a_tier_in_an_old_control_block_begins_at_zero() {
    // The same size again takes over the block that the first left, unless another test of this process was faster.
    for _ in 0..20 {
        let pool = pool(333);
        let request = pool.prepare(Request::memory(1).tenant("a").tag("old")).unwrap();
        let all: Vec<_> = (0..333).map(|_| request.try_allocate().unwrap()).collect();
        assert!(request.try_allocate().is_err());
        drop(all);
        (0..3000).for_each(|_| drop(request.try_allocate().unwrap()));
        let now = status(&pool);
        assert_eq!(now.uses.len(), 1, "{:?}", now.uses);
        assert_eq!((now.uses[0].allocations, now.snapshot.high_water), (3333, 333), "{:?}", now.snapshot);
        assert!(now.snapshot.refills > 0 && !now.latency.is_empty());
        drop((request, pool));
        let next = Pool::builder().memory("m", 64, 333).build().unwrap();
        let now = status(&next);
        assert!(now.uses.is_empty() && now.latency.is_empty(), "{now:?}");
        assert_eq!((now.snapshot.high_water, now.snapshot.refills, now.snapshot.spills), (0, 0, 0));
    }
}

#[test]
fn uses_are_told_by_tenant_tag_and_priority() {
    let pool = pool(64);
    let request = Request::memory(1);
    let allocate = |request: Request<'_, _>, times: usize| {
        (0..times).for_each(|_| drop(pool.try_allocate(request).unwrap()));
    };
    allocate(request, 3);
    allocate(request.tenant("a").tag("rx"), 5);
    allocate(request.tenant("b").tag("rx"), 4);
    allocate(request.tag("rx").priority(Priority::High), 2);
    allocate(request.priority(Priority::Low), 1);
    let now = status(&pool);
    let uses: Vec<_> = now.uses.iter().map(|it| (it.tenant.as_deref(), it.tag, it.priority, it.allocations)).collect();
    assert_eq!(
        uses,
        [
            (Some("a"), Some("rx"), Priority::Normal, 5),
            (Some("b"), Some("rx"), Priority::Normal, 4),
            (None, None, Priority::Normal, 3),
            (None, Some("rx"), Priority::High, 2),
            (None, None, Priority::Low, 1),
        ]
    );
    let tenants = pool.monitor().tenants;
    assert_eq!(tenants.iter().map(|tenant| tenant.allocations).collect::<Vec<_>>(), [5, 4]);
}

#[test]
fn every_way_to_a_slot_counts_its_label() {
    let pool = pool(4);
    let of_a = Request::memory(1).tenant("a").tag("way");
    let request = pool.prepare(of_a).unwrap();
    drop(request.try_allocate().unwrap());
    drop(request.allocate().unwrap());
    drop(pool.allocate_timeout(of_a, Duration::from_secs(60)).unwrap());
    drop(pool.try_allocate_group((of_a, of_a)).unwrap());
    drop(pool.reserve(of_a, 3).unwrap());
    // By a hand-over, to a thread that waits.
    let held: Vec<_> = (0..4).map(|_| request.try_allocate().unwrap()).collect();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| drop(request.allocate().unwrap()));
        while status(&pool).snapshot.waiting == 0 {
            thread::yield_now();
        }
        drop(held);
        waiter.join().unwrap();
    });
    let now = status(&pool);
    assert_eq!(now.uses.len(), 1, "{:?}", now.uses);
    assert_eq!((now.uses[0].allocations, now.snapshot.allocations), (13, 13));
}

#[test]
fn labels_beyond_those_that_are_told_apart_are_counted_together() {
    let pool = pool(8);
    const TAGS: u64 = 400;
    for round in 0..3 {
        for tag in 0..TAGS {
            let tag = format!("one of many {tag}");
            drop(pool.try_allocate(Request::memory(1).tag(&tag)).unwrap());
        }
        let now = status(&pool);
        assert_eq!(now.uses.len(), 256);
        assert!(now.uses.iter().all(|one| one.allocations == round + 1), "{:?}", now.uses);
        assert_eq!(now.other_uses, (TAGS - 256) * (round + 1));
    }
}

#[test]
fn the_sum_over_labels_is_exact_after_a_storm() {
    const EACH: usize = 20_000;
    let pool = pool(16);
    let tenants = [None, Some("a"), Some("b")];
    let prepare = |number: usize| -> Prepared<_> {
        let request = Request::memory(1).priority(Priority::ALL[number % 4]);
        let tag = format!("storm {}", number % 10);
        let request = tenants[number % 3].map_or(request, |tenant| request.tenant(tenant));
        pool.prepare(if number.is_multiple_of(10) { request } else { request.tag(&tag) }).unwrap()
    };
    let requests: Vec<_> = (0..60).map(prepare).collect();
    // 60 numbers are all combinations of 3, 4 and 10 that occur, each once.
    let served: Vec<Vec<u64>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4usize)
            .map(|thread| {
                let requests = &requests;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(thread as u64);
                    let mut served = vec![0; requests.len()];
                    let mut held = Vec::new();
                    for _ in 0..EACH {
                        let number = random.usize(..requests.len());
                        if let Ok(lease) = requests[number].try_allocate() {
                            served[number] += 1;
                            held.push(lease);
                        }
                        if random.bool() || held.len() > 5 {
                            held.clear();
                        }
                    }
                    served
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut expected: Vec<u64> = (0..60).map(|number| served.iter().map(|one| one[number]).sum()).collect();
    let now = status(&pool);
    let sum: u64 = now.uses.iter().map(|one| one.allocations).sum();
    assert_eq!((sum, now.other_uses), (now.snapshot.allocations, 0));
    let mut counted: Vec<_> = now.uses.iter().map(|one| one.allocations).collect();
    expected.retain(|&count| count > 0);
    expected.sort_unstable();
    counted.sort_unstable();
    assert_eq!(counted, expected);
}

#[test]
fn each_request_is_refused_for_one_reason() {
    let pool = pool(1);
    let request = Request::memory(1);
    let held = pool.try_allocate(request).unwrap();
    assert!(pool.try_allocate(request).is_err());
    assert_eq!(told(&pool), [(RefusalReason::Exhausted, 1)]);
    assert!(pool.allocate_timeout(request, Duration::from_millis(1)).is_err());
    assert_eq!(told(&pool), [(RefusalReason::Exhausted, 1), (RefusalReason::TimedOut, 1)]);
    // A group is tried, and then waits: one refusal.
    assert!(pool.allocate_group_timeout((request,), Duration::from_millis(1)).is_err());
    assert!(pool.try_allocate_group((request,)).is_err());
    assert_eq!(told(&pool), [(RefusalReason::Exhausted, 2), (RefusalReason::TimedOut, 2)]);
    assert!(pool.try_allocate_group((request, request)).is_err());
    assert!(pool.reserve(request, 1).is_err());
    assert!(pool.session().try_allocate(request).is_err());
    assert!(pool.session().allocate_timeout(request, Duration::from_millis(1)).is_err());
    let expected = [(RefusalReason::Exhausted, 4), (RefusalReason::TimedOut, 3), (RefusalReason::Group, 1)];
    assert_eq!(told(&pool), expected);
    drop(held);
    pool.close();
    assert!(pool.try_allocate(request).is_err());
    assert!(pool.allocate(request).is_err());
    assert_eq!(status(&pool).reasons[RefusalReason::Closed], 2);
    assert_eq!(status(&pool).reasons.all(), 10);
}

#[test]
fn quotas_reserves_breakers_and_full_queues_have_reasons_of_their_own() {
    let tier =
        MemoryTier::new("m", 64, 2).watermarks(Watermarks { min: 0, low: 0, high: 1 }).breaker(BreakerRules::default());
    let pool = Pool::builder().memory_tier(tier).tenant(TenantRules::new("a").hard(Limit::slots(1))).build().unwrap();
    let request = Request::memory(1);
    let one = pool.try_allocate(request.tenant("a")).unwrap();
    assert!(matches!(pool.try_allocate(request.tenant("a")), Err(RequestError::Quota { .. })));
    assert!(pool.try_allocate(request.priority(Priority::Low)).is_err());
    assert_eq!(told(&pool), [(RefusalReason::Reserved, 1), (RefusalReason::Quota, 1)]);
    let tenant = pool.monitor().tenant("a").unwrap().clone();
    assert_eq!((tenant.allocations, tenant.refusals), (1, 1));
    pool.breaker("m").unwrap().force_open();
    assert!(matches!(pool.try_allocate(request), Err(RequestError::Open { .. })));
    assert!(pool.allocate(request).is_err());
    assert_eq!(status(&pool).reasons[RefusalReason::Breaker], 2);
    drop(one);

    let full: Tier<u64> = Tier::builder("m").capacity(1).max_waiters(0).build_with(|| 0).unwrap();
    let pool = Pool::builder().tier(full).build().unwrap();
    let held = pool.try_allocate(Request::of::<u64>("m")).unwrap();
    assert!(pool.allocate(Request::of::<u64>("m")).is_err());
    assert_eq!(told(&pool), [(RefusalReason::QueueFull, 1)]);
    drop(held);
}

#[test]
fn what_is_made_good_is_no_refusal() {
    let pool = Pool::builder().memory("m", 64, 1).memory("larger", 128, 1).build().unwrap();
    let request = Request::memory(1).spill(tierpool::Spill::NextLarger);
    let _one = pool.try_allocate(request).unwrap();
    let _two = pool.try_allocate(request).unwrap();
    assert_eq!(told(&pool), []);
    assert!(pool.try_allocate(request).is_err());
    assert_eq!(told(&pool), [(RefusalReason::Exhausted, 1)]);
    assert_eq!(pool.monitor().tier("larger").unwrap().reasons.all(), 0, "it is that of the tier it was routed to");
}

#[test]
fn a_reason_has_a_name_of_its_own() {
    let mut names: Vec<_> = RefusalReason::ALL.iter().map(ToString::to_string).collect();
    for (at, reason) in RefusalReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, at, "in their order");
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), RefusalReason::ALL.len());
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
}

#[test]
fn latency_stands_for_all_allocations() {
    let pool = pool(256);
    let request = pool.prepare(Request::memory(1)).unwrap();
    let before = pool.monitor();
    const PAIRS: u64 = 1 << 18;
    (0..PAIRS).for_each(|_| drop(request.try_allocate().unwrap()));
    let latency = status(&pool).latency;
    let off = latency.count().abs_diff(PAIRS);
    assert!(off <= 2 * 1021, "one in 1,021 counts for as many: {latency:?}");
    // In waves, every slot of each half from the depot.
    let waves = 400;
    for _ in 0..waves {
        let all: Vec<_> = (0..256).map(|_| request.try_allocate().unwrap()).collect();
        drop(all);
    }
    let now = status(&pool);
    let slow = now.snapshot.allocations - now.snapshot.hits;
    assert!(slow > 1000, "{:?}", now.snapshot);
    let all = now.latency.count();
    let served = now.snapshot.allocations;
    assert!(all.abs_diff(served) <= served / 50, "an estimate: {all} of {served}");
    let since = pool.monitor().since(&before);
    assert_eq!(since.tiers[0].latency.p50, now.latency.quantile(0.5));
    assert!(since.latency.p50 <= since.latency.p99 && since.latency.p99 <= since.latency.p999);
    assert!(since.tiers[0].refills > 0 && since.tiers[0].spills > 0);
}

#[test]
fn waits_are_measured_by_priority() {
    let pool = pool(1);
    let held = pool.try_allocate(Request::memory(1)).unwrap();
    let urgent = Request::memory(1).priority(Priority::High);
    for _ in 0..3 {
        assert!(pool.allocate_timeout(urgent, Duration::from_millis(20)).is_err());
    }
    let now = status(&pool);
    let waits = now.wait_latency.of(Priority::High);
    assert_eq!(waits.count(), 3);
    assert!(waits.quantile(0.01) >= Duration::from_millis(19), "{waits:?}: it cannot have been less, to 3 %");
    assert_eq!(waits.cumulative(&[Duration::from_millis(5), Duration::from_secs(3600)]), [0, 3]);
    assert!(now.wait_latency.of(Priority::Normal).is_empty());
    let metrics = pool.metrics();
    assert!(metrics.wait_latency.p50 >= Duration::from_millis(19), "{metrics:?}");
    assert_eq!(metrics.reasons[RefusalReason::TimedOut], 3);
    assert_eq!(pool.metrics().wait_latency, Default::default(), "nobody has waited since");
    drop(held);
    assert_eq!(Latency::default().quantile(0.5), Duration::ZERO);
}
