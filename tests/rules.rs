//! Who gets what when a pool has not enough: priorities, quotas, turns, circuit breakers.
#![cfg(not(loom))]

pub mod common;

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use common::waiting::{FOR_EVER, wait_until};
use common::ways::each_way_back;
use tierpool::{
    AllocateError, BreakerRules, Fairness, Lease, Limit, Memory, Pool, PoolError, Priority, Request, RequestError,
    Spill, TenantRules, Tier, Unit, Watermarks,
};

/// One tier of buffers.
fn pool(slots: usize) -> tierpool::PoolBuilder {
    Pool::builder().memory("buffers", 64, slots)
}

fn request() -> Request<'static, Memory> {
    Request::memory(64)
}

fn quota(held: &RequestError) -> (u64, u64, bool) {
    match held {
        RequestError::Quota { limit, held, soft, .. } => (*limit, *held, *soft),
        other => panic!("another error: {other}"),
    }
}

// Priorities.

/// Each class leaves exactly what its mark says, and what comes back fills the reserve before anything else.
#[test]
fn each_priority_leaves_its_mark() {
    let marks = Watermarks { min: 1, low: 3, high: 6 };
    let pool = pool(10).watermarks("buffers", marks).build().unwrap();
    let take = |priority| pool.try_allocate(request().priority(priority));
    let status = pool.monitor();
    assert_eq!((status.tiers[0].snapshot.free, status.tiers[0].snapshot.reserved), (4, 6));
    let mut held = Vec::new();
    for (priority, takes) in [
        (Priority::Low, 4),
        (Priority::Normal, 3),
        (Priority::Low, 0),
        (Priority::High, 2),
        (Priority::Normal, 0),
        (Priority::Critical, 1),
        (Priority::Critical, 0),
    ] {
        let before = held.len();
        held.extend(std::iter::from_fn(|| take(priority).ok()));
        assert_eq!(held.len() - before, takes, "{priority:?}");
    }
    for n in 1..=6 {
        drop(held.pop());
        let now = pool.monitor().tiers[0].snapshot;
        assert_eq!((now.free, now.reserved), (0, n));
        let error = take(Priority::Low).expect_err("the reserve comes first");
        assert!(error.to_string().contains(&format!("kept for more urgent requests ({n})")), "{error}");
    }
    drop(held.pop());
    drop(take(Priority::Low).expect("the reserve is full"));
    drop(held);
    let now = pool.monitor().tiers[0].snapshot;
    assert_eq!((now.free, now.reserved), (4, 6));
}

/// Guarantee 8, at any interleaving: threads of all classes take and give back; those who are not urgent never hold more
/// than the reserve leaves them.
#[test]
fn the_reserve_is_exact_among_threads() {
    const SLOTS: usize = 6;
    const RESERVED: usize = 2;
    let marks = Watermarks { min: 1, low: RESERVED, high: RESERVED };
    let pool = pool(SLOTS).watermarks("buffers", marks).build().unwrap();
    let low_holds = AtomicUsize::new(0);
    thread::scope(|scope| {
        for seed in 0..4 {
            let (pool, low_holds) = (&pool, &low_holds);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut held: Vec<(bool, Lease<Memory>)> = Vec::new();
                for _ in 0..30_000 {
                    if random.bool() {
                        let low = random.u8(..3) > 0;
                        let priority = if low { Priority::Low } else { Priority::Critical };
                        if let Ok(lease) = pool.try_allocate(request().priority(priority)) {
                            if low {
                                let holds = low_holds.fetch_add(1, Ordering::SeqCst) + 1;
                                assert!(holds <= SLOTS - RESERVED, "the reserve was lent");
                            }
                            held.push((low, lease));
                        }
                    } else if !held.is_empty() {
                        let (low, lease) = held.swap_remove(random.usize(..held.len()));
                        if low {
                            low_holds.fetch_sub(1, Ordering::SeqCst);
                        }
                        drop(lease);
                    }
                }
                for (low, lease) in held {
                    if low {
                        low_holds.fetch_sub(1, Ordering::SeqCst);
                    }
                    drop(lease);
                }
            });
        }
    });
    let now = pool.monitor().tiers[0].snapshot;
    assert_eq!((now.free, now.reserved), (SLOTS - RESERVED, RESERVED));
}

/// Marks are changed while slots are held: nothing is lost, and the new ones hold as slots come back.
#[test]
fn watermarks_change_at_run_time() {
    let pool = pool(8).build().unwrap();
    let held: Vec<_> = (0..6).map(|_| pool.try_allocate(request()).unwrap()).collect();
    pool.set_watermarks("buffers", Watermarks { min: 0, low: 4, high: 4 }).unwrap();
    let now = pool.monitor().tiers[0].snapshot;
    assert_eq!((now.free, now.reserved), (0, 2), "two were free, two more are due");
    drop(held);
    let now = pool.monitor().tiers[0].snapshot;
    assert_eq!((now.free, now.reserved), (4, 4));
    let all: Vec<_> = (0..8).map(|_| pool.try_allocate(request().priority(Priority::High)).unwrap()).collect();
    pool.set_watermarks("buffers", Watermarks { min: 0, low: 1, high: 1 }).unwrap();
    drop(all);
    let now = pool.monitor().tiers[0].snapshot;
    assert_eq!((now.free, now.reserved), (7, 1));
    assert_eq!((now.allocations, now.releases), (14, 14), "setting slots apart is no use of them");
    let error = pool.set_watermarks("buffers", Watermarks { min: 2, low: 1, high: 3 }).unwrap_err();
    assert!(error.to_string().contains("`min` is above `low`"), "{error}");
    assert!(matches!(pool.set_watermarks("none", Watermarks::default()), Err(PoolError::UnknownTier { .. })));
}

/// A closed pool drops what it has kept back too.
#[test]
fn close_takes_the_reserve() {
    let census = common::Census::default();
    let made = census.clone();
    let tier = Tier::builder("kept").capacity(4).build_with(move || made.value()).unwrap();
    let pool = Pool::builder().tier(tier).watermarks("kept", Watermarks { min: 1, low: 2, high: 3 }).build().unwrap();
    pool.close_and_wait(FOR_EVER).unwrap();
    drop(pool);
    assert_eq!((census.made(), census.alive()), (4, 0));
}

/// TORTURE 17: the more urgent is served first, and yet everybody at last.
#[test]
fn the_urgent_are_served_first_and_nobody_starves() {
    let pool = pool(1).ageing(Duration::from_secs(3600)).build().unwrap();
    let held = pool.try_allocate(request()).unwrap();
    let order = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for (n, priority) in [Priority::Low, Priority::Normal, Priority::Critical, Priority::High, Priority::Critical]
            .into_iter()
            .enumerate()
        {
            let (pool, order) = (&pool, &order);
            scope.spawn(move || {
                let lease = pool.allocate(request().priority(priority)).unwrap();
                order.lock().unwrap().push((n, priority));
                drop(lease);
            });
            wait_until("it waits", || pool.monitor().tiers[0].snapshot.waiting == n + 1);
        }
        drop(held);
    });
    use Priority::*;
    assert_eq!(order.into_inner().unwrap(), [(2, Critical), (4, Critical), (3, High), (1, Normal), (0, Low)]);

    // With ageing, a stream of urgent requests cannot keep a low one out.
    let pool = self::pool(1).ageing(Duration::from_millis(10)).build().unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let lease = pool.allocate(request().priority(Critical)).unwrap();
                    thread::sleep(Duration::from_micros(200));
                    drop(lease);
                }
            });
        }
        wait_until("they contend", || pool.monitor().tiers[0].snapshot.waiting == 2);
        let lease = pool.allocate_timeout(request().priority(Low), FOR_EVER);
        over.store(true, Ordering::Relaxed);
        assert!(lease.is_ok(), "{lease:?}");
    });
}

/// An urgent request that waits behind others who may not have the reserve is served from it.
#[test]
fn who_waits_is_served_from_the_reserve() {
    let marks = Watermarks { min: 0, low: 1, high: 1 };
    let pool = pool(2).watermarks("buffers", marks).build().unwrap();
    let ordinary = pool.try_allocate(request().priority(Priority::Low)).unwrap();
    let reserved = pool.try_allocate(request().priority(Priority::High)).unwrap();
    thread::scope(|scope| {
        let low = scope.spawn(|| drop(pool.allocate(request().priority(Priority::Low)).unwrap()));
        wait_until("low waits", || pool.monitor().tiers[0].snapshot.waiting == 1);
        let high = scope.spawn(|| pool.allocate(request().priority(Priority::High)).unwrap());
        wait_until("high waits", || pool.monitor().tiers[0].snapshot.waiting == 2);
        drop(reserved);
        let second = high.join().unwrap();
        assert_eq!(pool.monitor().tiers[0].snapshot.waiting, 1, "the reserve is not for who is not urgent");
        // Comes while only the other waits: a reserved slot is free, and for this one alone.
        drop(second);
        wait_until("it is back", || pool.monitor().tiers[0].snapshot.reserved == 1);
        drop(pool.allocate_timeout(request().priority(Priority::Critical), FOR_EVER).unwrap());
        drop(ordinary);
        low.join().unwrap();
    });
}

// Tenants.

/// What is held on an account comes back on it, whichever way the use of the slot ends.
#[test]
fn a_quota_comes_back_whichever_way_a_use_ends() {
    each_way_back(8, |way, give_back, reset, tier| {
        let rules = TenantRules::new("t").hard(Limit::slots(2));
        let pool = Pool::builder().tier(tier.clone()).tenant(rules).build().unwrap();
        let (request, t) = (Request::<Memory>::of::<u64>("ways").tenant("t"), pool.tenant("t").unwrap());
        for round in 0..5 {
            let one = pool.try_allocate(request).unwrap();
            let two = pool.allocate(request).unwrap();
            assert_eq!(pool.held(t).slots, 2, "{way}, reset {reset:?}, round {round}");
            let error = pool.try_allocate(request).unwrap_err();
            assert_eq!(quota(&error), (2, 2, false), "{way}");
            assert!(error.to_string().contains("tenant \"t\" holds 2 slots of the 2"), "{error}");
            give_back(&tier, one);
            assert_eq!(pool.held(t).slots, 1, "{way}, reset {reset:?}, round {round}");
            give_back(&tier, two);
            assert_eq!(pool.held(t).slots, 0, "{way}, reset {reset:?}, round {round}");
        }
    });
}

/// A wait that comes to nothing costs no quota: time-out, a dropped future, a group that is not served, a full tier.
#[test]
fn a_quota_comes_back_from_a_wait_in_vain() {
    let rules = [TenantRules::new("t").hard(Limit::slots(2)), TenantRules::new("u")];
    let [t, u] = rules;
    let pool = pool(2).tenant(t).tenant(u).build().unwrap();
    let others = [pool.try_allocate(request().tenant("u")).unwrap(), pool.try_allocate(request().tenant("u")).unwrap()];
    let mine = request().tenant("t");
    let t = pool.tenant("t").unwrap();
    assert!(matches!(pool.try_allocate(mine), Err(RequestError::Tier(AllocateError::Exhausted(_)))));
    assert_eq!(pool.held(t).slots, 0);
    let waited = pool.allocate_timeout(mine, Duration::from_millis(5));
    assert!(matches!(waited, Err(RequestError::Tier(AllocateError::TimedOut { .. }))), "{waited:?}");
    assert_eq!(pool.held(t).slots, 0);
    {
        let mut future = pin!(pool.allocate_async(mine));
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(pool.held(t).slots, 1, "who waits has paid");
    }
    assert_eq!(pool.held(t).slots, 0);
    assert!(pool.try_allocate_group(vec![mine; 2]).is_err());
    assert!(pool.reserve(mine, 2).is_err());
    assert_eq!(pool.held(t).slots, 0);
    drop(others);
    let reserved = pool.reserve(mine, 2).unwrap();
    assert_eq!(pool.held(t).slots, 2);
    assert_eq!(quota(&pool.try_allocate(mine).unwrap_err()), (2, 2, false));
    let drawn = reserved.draw().unwrap();
    drop(reserved);
    assert_eq!(pool.held(t).slots, 1);
    drop(drawn);
    assert_eq!((pool.held(t).slots, pool.held(pool.tenant("u").unwrap()).slots), (0, 0));
}

/// Never exceeded, and no credit lost, whatever threads of several tenants do; a parent's limit is that of its children together.
#[test]
fn quotas_hold_among_threads() {
    let desk = TenantRules::new("desk").hard(Limit::slots(10));
    let md = TenantRules::new("md").parent("desk").hard(Limit::slots(7));
    let orders = TenantRules::new("orders").parent("desk");
    let bytes = TenantRules::new("bytes").hard(Limit::bytes(5 * 64));
    let pool = pool(32).memory("large", 256, 8).tenant(desk).tenant(md).tenant(orders).tenant(bytes).build().unwrap();
    let holds: HashMap<&str, AtomicUsize> = ["md", "orders", "bytes"].map(|name| (name, AtomicUsize::new(0))).into();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for seed in 0..4 {
            let (pool, holds, start) = (&pool, &holds, &start);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let prepared =
                    ["md", "orders", "bytes"].map(|name| (name, pool.prepare(request().tenant(name)).unwrap()));
                let mut held: Vec<(&str, Lease<Memory>)> = Vec::new();
                start.wait();
                for _ in 0..30_000 {
                    if random.u8(..5) < 3 {
                        let (name, prepared) = &prepared[random.usize(..3)];
                        if let Ok(lease) = prepared.try_allocate() {
                            let now = holds[name].fetch_add(1, Ordering::SeqCst) + 1;
                            let most = match *name {
                                "md" => 7,
                                "orders" => 10,
                                _ => 5,
                            };
                            assert!(now <= most, "{name} holds {now}");
                            held.push((*name, lease));
                        }
                    } else if !held.is_empty() {
                        let (name, lease) = held.swap_remove(random.usize(..held.len()));
                        holds[name].fetch_sub(1, Ordering::SeqCst);
                        drop(lease);
                    }
                }
                for (name, lease) in held {
                    holds[name].fetch_sub(1, Ordering::SeqCst);
                    drop(lease);
                }
            });
        }
    });
    for name in ["desk", "md", "orders", "bytes"] {
        assert_eq!(pool.held(pool.tenant(name).unwrap()), Limit { slots: 0, bytes: 0 }, "{name}");
    }
    // What threads have kept for themselves is found by who needs it.
    let all: Vec<_> = (0..7).map(|_| pool.try_allocate(request().tenant("md")).unwrap()).collect();
    assert_eq!(quota(&pool.try_allocate(request().tenant("md")).unwrap_err()), (7, 7, false));
    let rest: Vec<_> = (0..3).map(|_| pool.try_allocate(request().tenant("orders")).unwrap()).collect();
    let error = pool.try_allocate(request().tenant("orders")).unwrap_err();
    assert!(
        matches!(error, RequestError::Quota { tenant, limit: 10, held: 10, unit: Unit::Slots, .. } if tenant.as_str() == "desk")
    );
    drop((all, rest));
    // Bytes are counted over tiers.
    let _one = pool.try_allocate(Request::memory(200).tenant("bytes")).unwrap();
    let _two = pool.try_allocate(request().tenant("bytes")).unwrap();
    let error = pool.try_allocate(request().tenant("bytes")).unwrap_err();
    assert!(matches!(error, RequestError::Quota { unit: Unit::Bytes, limit: 320, held: 320, .. }), "{error}");
}

/// A slot whose value does not pass, and is not replaced, gives back what was paid for it, once: the limit is still exact.
#[test]
fn a_value_that_does_not_pass_gives_its_credit_back_once() {
    let bad = std::sync::Arc::new(AtomicBool::new(false));
    let (check, factory) = (bad.clone(), bad.clone());
    let tier = Tier::builder("checked")
        .capacity(4)
        .validate_on_allocate(move |_: &mut u64| !check.load(Ordering::Relaxed))
        .try_build_with(move || if factory.load(Ordering::Relaxed) { Err("none") } else { Ok(0) })
        .unwrap();
    let pool = Pool::builder().tier(tier).tenant(TenantRules::new("t").hard(Limit::slots(2))).build().unwrap();
    let (t, mine) = (pool.tenant("t").unwrap(), Request::<Memory>::of::<u64>("checked").tenant("t"));
    let one = pool.try_allocate(mine).unwrap();
    bad.store(true, Ordering::Relaxed);
    assert!(pool.try_allocate(mine).is_err());
    assert_eq!(pool.held(t).slots, 1);
    drop(one);
    assert_eq!(pool.held(t).slots, 0);
}

/// A soft limit may be exceeded while nobody wants the slots; from then on its tenant gets no more.
#[test]
fn a_soft_limit_holds_while_others_want_theirs() {
    let one = TenantRules::new("one").soft(Limit::slots(2));
    let two = TenantRules::new("two").soft(Limit::slots(2));
    let pool = pool(4).tenant(one).tenant(two).build().unwrap();
    let mut held: Vec<_> = (0..4).map(|_| pool.try_allocate(request().tenant("one")).unwrap()).collect();
    assert!(pool.try_allocate(request().tenant("two")).is_err(), "all are taken");
    held.pop();
    let error = pool.try_allocate(request().tenant("one")).unwrap_err();
    assert_eq!(quota(&error), (2, 3, true));
    let _mine = pool.try_allocate(request().tenant("two")).unwrap();
}

/// A limit that is lowered takes nothing away, and refuses until it is kept.
#[test]
fn a_quota_changes_at_run_time() {
    let pool = pool(8).tenant("t").build().unwrap();
    let (t, mine) = (pool.tenant("t").unwrap(), request().tenant("t"));
    let mut held: Vec<_> = (0..5).map(|_| pool.try_allocate(mine).unwrap()).collect();
    pool.set_quota(t, Limit::slots(3), Limit::NONE).unwrap();
    for left in (3..=5).rev() {
        assert_eq!(quota(&pool.try_allocate(mine).unwrap_err()), (3, left, false));
        held.pop();
    }
    held.push(pool.try_allocate(mine).unwrap());
    assert!(pool.set_quota(t, Limit::slots(9), Limit::NONE).is_err(), "more than the pool has");
    assert!(pool.try_allocate(mine).is_err());
}

/// Who has it? The tenant and what it is for stand beside the line, for as long as the slot is held.
#[test]
fn holders_are_known_by_tenant_and_tag() {
    let pool = pool(2).tenant("md").build().unwrap();
    let _held = pool.try_allocate(request().tenant("md").tag("rx")).unwrap();
    let waited = pool.allocate(request().tenant("md").tag("tx")).unwrap().detach();
    let holders = pool.holders();
    let known: Vec<_> = holders.iter().map(|holder| (holder.tenant.as_deref(), holder.tag)).collect();
    assert!(known.contains(&(Some("md"), Some("rx"))) && known.contains(&(Some("md"), Some("tx"))), "{known:?}");
    let text = holders[0].to_string();
    assert!(text.contains("for \"rx\"") || text.contains("for \"tx\""), "{text}");
    assert!(text.contains("on behalf of \"md\""), "{text}");
    pool.release_handle(waited).unwrap();
}

/// Tenants that wait get turns by their weights.
#[test]
fn turns_go_by_weight() {
    let tenant = |name, weight| TenantRules::new(name).weight(weight);
    let pool = pool(1).tenant(tenant("a", 3)).tenant(tenant("b", 1)).ageing(FOR_EVER).build().unwrap();
    let held = pool.try_allocate(request()).unwrap();
    let order = Mutex::new(String::new());
    thread::scope(|scope| {
        for (waiting, name) in ["a", "b"].into_iter().cycle().take(16).enumerate() {
            let (pool, order) = (&pool, &order);
            scope.spawn(move || {
                let lease = pool.allocate(request().tenant(name)).unwrap();
                order.lock().unwrap().push_str(name);
                drop(lease);
            });
            wait_until("it waits", || pool.monitor().tiers[0].snapshot.waiting == waiting + 1);
        }
        drop(held);
    });
    let order = order.into_inner().unwrap();
    let first = &order[..8];
    assert_eq!(first.matches('a').count(), 6, "three of four turns while both wait: {order}");
}

/// The paper's example (NSDI 2011): 9 processors and 18 units of memory; tasks of one tenant need <1, 4>, those of the other
/// <3, 1>. Whoever waits for its next slot is served by dominant shares, and they end with three tasks and two.
#[test]
fn several_kinds_are_shared_by_dominant_shares() {
    let tier = |name, slots| Tier::<u8>::builder(name).capacity(slots).build_with(|| 0).unwrap();
    let pool = Pool::builder().tier(tier("cpu", 9)).tier(tier("mem", 18)).tenant("a").tenant("b");
    let pool = pool.fairness(Fairness::DominantShares).ageing(FOR_EVER).build().unwrap();
    let (cpu, mem) = (Request::<Memory>::of::<u8>("cpu"), Request::<Memory>::of::<u8>("mem"));
    // All is taken, by nobody; each tenant waits with several futures for a processor, which decides.
    let mut cpus: Vec<_> = (0..9).map(|_| pool.try_allocate(cpu).unwrap()).collect();
    let mut waiting: Vec<_> = ["a", "b"]
        .iter()
        .flat_map(|name| (0..9).map(|_| (*name, Box::pin(pool.allocate_async(cpu.tenant(*name))))))
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.iter_mut().all(|(_, future)| future.as_mut().poll(&mut context).is_pending()));
    let mut held = Vec::new();
    let (mut a, mut b) = (0, 0);
    while let Some(one) = cpus.pop() {
        drop(one);
        let served = waiting.iter_mut().position(|(_, future)| match future.as_mut().poll(&mut context) {
            Poll::Ready(lease) => {
                held.push(lease.unwrap());
                true
            }
            Poll::Pending => false,
        });
        let (name, _) = waiting.remove(served.expect("one is served"));
        // Each processor of a task of A comes with four units of memory; the third of one of B with one.
        let units = match name {
            "a" => {
                a += 1;
                4
            }
            _ => {
                b += 1;
                usize::from(b % 3 == 1)
            }
        };
        held.extend((0..units).map_while(|_| pool.try_allocate(mem.tenant(name)).ok()));
    }
    assert_eq!((a, b), (3, 6), "three tasks of one processor, two of three");
}

/// A tier whose slots are counted for the tenants of one pool is in no other that counts too.
#[test]
fn one_pool_keeps_the_accounts() {
    let tier: Tier<u64> = Tier::builder("shared").capacity(2).build_with(|| 0).unwrap();
    let first = Pool::builder().tier(tier.clone()).tenant("a").build().unwrap();
    let second = Pool::builder().tier(tier.clone()).tenant("b").build();
    assert!(matches!(second, Err(PoolError::Governed { tier: "shared" })));
    let third = Pool::builder().tier(tier).build().unwrap();
    let _one = first.try_allocate(Request::<Memory>::of::<u64>("shared").tenant("a")).unwrap();
    let _two = third.try_allocate(Request::<Memory>::of::<u64>("shared")).unwrap();
    assert_eq!(first.held(first.tenant("a").unwrap()).slots, 1);
}

// Bad rules.

/// Bad rules are refused before anything is built, with what and where.
#[test]
fn rules_that_cannot_hold_are_refused() {
    let limits = |hard| TenantRules::new("t").hard(hard);
    let cases: [(tierpool::PoolBuilder, &str); 9] = [
        (pool(4).watermarks("buffers", Watermarks { min: 2, low: 1, high: 3 }), "`min` is above `low`"),
        (pool(4).watermarks("buffers", Watermarks { min: 1, low: 3, high: 2 }), "`low` is above `high`"),
        (pool(4).watermarks("buffers", Watermarks { min: 1, low: 3, high: 4 }), "`high` leaves nothing"),
        (pool(4).watermarks("none", Watermarks::default()), "no tier \"none\""),
        (pool(4).tenant(limits(Limit::slots(5))), "the pool has only 4"),
        (
            pool(4).tenant(TenantRules::new("a").parent("b")).tenant(TenantRules::new("b").parent("a")),
            "its own ancestor",
        ),
        (pool(4).tenant(TenantRules::new("a").weight(0)), "weight 0"),
        (
            pool(4).breaker("buffers", BreakerRules { failure_rate: 50.0, ..BreakerRules::default() }),
            "`failure_rate` is 50",
        ),
        (pool(4).ageing(Duration::ZERO), "too short"),
    ];
    for (builder, expected) in cases {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
}

/// A build that fails leaves the tiers that it was given as they were.
#[test]
fn a_failed_build_leaves_its_tiers_alone() {
    let tier: Tier<u64> = Tier::builder("mine").capacity(2).build_with(|| 0).unwrap();
    let builder = || Pool::builder().tier(tier.clone()).tenant("t");
    assert!(builder().watermarks("other", Watermarks::default()).build().is_err());
    assert!(builder().breaker("mine", BreakerRules { slow_rate: 0.0, ..BreakerRules::default() }).build().is_err());
    let pool = builder().build().expect("nothing is left of the others");
    drop(pool.try_allocate(Request::<Memory>::of::<u64>("mine").tenant("t")).unwrap());
}

/// A group that could never have what its priority has to leave is refused, not made to wait for ever.
#[test]
fn a_group_that_can_never_be_served_is_refused() {
    let pool = pool(2).watermarks("buffers", Watermarks { min: 0, low: 1, high: 1 }).build().unwrap();
    let group = |priority| vec![request().priority(priority); 2];
    let error = pool.allocate_group(group(Priority::Normal)).unwrap_err();
    assert!(matches!(error, RequestError::GroupTooLarge { wanted: 2, capacity: 1, .. }), "{error}");
    assert_eq!(pool.allocate_group(group(Priority::High)).unwrap().len(), 2);
    let session = pool.session();
    assert!(matches!(session.claim(&[("buffers", 2)]), Err(RequestError::Claim { .. })), "one is kept back");
}

/// An urgent reservation may have the reserve, also when the tier is known to have nothing else.
#[test]
fn a_reservation_finds_the_reserve_under_scarcity() {
    let pool = pool(4).watermarks("buffers", Watermarks { min: 0, low: 2, high: 2 }).build().unwrap();
    let _low = [pool.try_allocate(request()).unwrap(), pool.try_allocate(request()).unwrap()];
    assert!(pool.try_allocate(request()).is_err(), "scarce from here on");
    let reserved = pool.reserve(request().priority(Priority::Critical), 2).unwrap();
    assert_eq!(reserved.left(), 2);
}

/// A slot that is free ends no use when it is set apart: its last tenant gets nothing back twice.
#[test]
fn setting_free_slots_apart_gives_no_credit_back() {
    let pool = pool(8).tenant(TenantRules::new("t").hard(Limit::slots(4))).build().unwrap();
    let mine = request().tenant("t");
    let t = pool.tenant("t").unwrap();
    for size in [6, 0, 5, 2] {
        drop((0..4).map(|_| pool.try_allocate(mine).unwrap()).collect::<Vec<_>>());
        pool.set_watermarks("buffers", Watermarks { min: 0, low: 0, high: size }).unwrap();
        assert_eq!(pool.held(t).slots, 0);
        let held: Vec<_> = std::iter::from_fn(|| pool.try_allocate(mine).ok()).collect();
        assert_eq!(held.len(), 4, "{size}");
    }
}

/// The same whatever else takes free slots aside: a look at all of them, for one.
#[test]
fn a_look_at_free_slots_gives_no_credit_back() {
    let tier: Tier<u64> = Tier::builder("looked").capacity(8).build_with(|| 0).unwrap();
    let pool = Pool::builder().tier(tier.clone()).tenant(TenantRules::new("t").hard(Limit::slots(2))).build().unwrap();
    let mine = Request::<Memory>::of::<u64>("looked").tenant("t");
    for _ in 0..3 {
        drop([pool.try_allocate(mine).unwrap(), pool.try_allocate(mine).unwrap()]);
        tier.retain(|_| true);
    }
    assert_eq!(std::iter::from_fn(|| pool.try_allocate(mine).ok()).collect::<Vec<_>>().len(), 2);
}

/// Ageing holds beside a reserve too: while urgent requests wait all the time, the low one is served, from what is not reserved.
#[test]
fn the_urgent_do_not_keep_the_reserve_turning_past_who_has_waited() {
    let marks = Watermarks { min: 2, low: 2, high: 2 };
    let pool = pool(4).watermarks("buffers", marks).ageing(Duration::from_millis(10)).build().unwrap();
    let urgent = request().priority(Priority::Critical);
    let mut held: Vec<_> = (0..4).map(|_| pool.try_allocate(urgent).unwrap()).collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut low = pin!(pool.allocate_async(request().priority(Priority::Low)));
    assert!(low.as_mut().poll(&mut context).is_pending());
    let mut waiting = Vec::new();
    let served = (0..40).any(|_| {
        waiting.push(Box::pin(pool.allocate_async(urgent)));
        waiting.iter_mut().for_each(|future| {
            if let Poll::Ready(lease) = future.as_mut().poll(&mut context) {
                held.push(lease.unwrap());
            }
        });
        thread::sleep(Duration::from_millis(15));
        drop((!held.is_empty()).then(|| held.remove(0)));
        waiting.clear();
        low.as_mut().poll(&mut context).is_ready()
    });
    assert!(served, "passed for 40 releases and 60 ageing times");
}

/// What a quota refuses is a failure of the pool like any other, and stands in its row; what is kept back stands there too.
#[test]
fn refusals_before_the_tier_are_counted() {
    let pool = pool(8).tenant(TenantRules::new("t").hard(Limit::slots(1)));
    let pool = pool.watermarks("buffers", Watermarks { min: 0, low: 2, high: 2 }).build().unwrap();
    pool.metrics();
    let _held = pool.try_allocate(request().tenant("t")).unwrap();
    assert!((0..3).all(|_| pool.try_allocate(request().tenant("t")).is_err()));
    let status = pool.monitor();
    assert_eq!((status.tiers[0].denied, status.tiers[0].snapshot.refusals), (3, 0));
    assert_eq!(pool.metrics().failure_rate, 0.75);
    let table = status.to_string();
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..6], ["buffers", "64", "B", "8", "5", "2"], "name, size, slots, free, kept: {table}");
}

/// A lowered limit in bytes says nothing of what has none, and stops nobody for ever.
#[test]
fn what_has_no_bytes_is_had_beyond_a_limit_in_bytes() {
    let system = || request().spill(Spill::System).tenant("t");
    let all = |limit: TenantRules| pool(2).overflow(2).tenant(limit).tenant("other").build().unwrap();
    let lowered = all(TenantRules::new("t"));
    let held: Vec<_> = (0..2).map(|_| lowered.try_allocate(system()).unwrap()).collect();
    lowered.set_quota(lowered.tenant("t").unwrap(), Limit::bytes(64), Limit::NONE).unwrap();
    let large = || Request::memory(65).spill(Spill::System).tenant("t");
    drop(lowered.try_allocate(large()).unwrap());
    drop(held);
    drop(lowered.try_allocate(large()).unwrap());

    let soft = all(TenantRules::new("t").soft(Limit::bytes(64)));
    let _held: Vec<_> = (0..2).map(|_| soft.try_allocate(system()).unwrap()).collect();
    assert!(soft.try_allocate(request().tenant("other")).is_err(), "others want it from now on");
    drop(soft.try_allocate(large()).unwrap());
}

/// What has no bytes does not make up for too many: a lowered limit in bytes holds on.
#[test]
fn a_limit_in_bytes_stays_lowered_after_what_has_none() {
    let pool = pool(4).overflow(2).tenant("t").build().unwrap();
    let mine = || request().tenant("t");
    let mut held: Vec<_> = (0..3).map(|_| pool.try_allocate(mine()).unwrap()).collect();
    pool.set_quota(pool.tenant("t").unwrap(), Limit::bytes(64), Limit::NONE).unwrap();
    let _none = pool.try_allocate(Request::memory(65).spill(Spill::System).tenant("t")).unwrap();
    held.pop();
    assert_eq!(quota(&pool.try_allocate(mine()).unwrap_err()), (64, 128, false));
}
