//! A pool: a request gets what it asked for, from the smallest tier that has it, and a refusal says why.

#![cfg(not(loom))] // tokio has a loom of its own under that flag

pub mod common;

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::waiting::{FOR_EVER, Wakes, block_on, poll, wait_until};
use common::{accounted, panics};
use tierpool::{
    AllocateError, AsyncResourcePool, Decision, Memory, MemoryTier, Pool, PoolError, QuotaError, Reason, Request,
    RequestError, Resource, ResourcePool, ResourceRequest, Scrub, Spill, Tenant, Tier, TierKind, TierMetrics,
};

/// Three sizes of two slots each, and a tier of numbers.
fn pool() -> Pool {
    let numbers = Tier::builder("numbers").capacity(2).build_with(|| 7u64).unwrap();
    Pool::builder()
        .memory("large", 4096, 2)
        .memory("small", 64, 2)
        .memory("middle", 512, 2)
        .tier(numbers)
        .tenant("md")
        .tenant("orders")
        .build()
        .unwrap()
}

fn served_by(lease: &tierpool::Lease<Memory>) -> usize {
    lease.capacity()
}

fn free(pool: &Pool, tier: &str) -> usize {
    pool.monitor().tier(tier).unwrap().snapshot.free
}

// Routing.

#[test]
fn the_smallest_tier_that_fits_serves_every_size() {
    let pool = pool();
    for (bytes, capacity) in [(0, 64), (1, 64), (64, 64), (65, 512), (512, 512), (513, 4096), (4096, 4096)] {
        let lease = pool.try_allocate(Request::memory(bytes)).unwrap();
        assert_eq!((lease.len(), served_by(&lease)), (bytes, capacity));
    }
    let error = pool.try_allocate(Request::memory(4097)).unwrap_err();
    assert_eq!(error, RequestError::TooLarge { wanted: 4097, largest: 4096, tier: "large" });
    assert!(error.to_string().contains("4097 bytes") && error.to_string().contains("\"large\" with 4096"), "{error}");
}

#[test]
fn a_named_tier_serves_its_own_type_only() {
    let pool = pool();
    assert_eq!(*pool.try_allocate(Request::of::<u64>("numbers")).unwrap(), 7);
    let whole = pool.try_allocate(Request::of::<Memory>("middle")).unwrap();
    assert_eq!(whole.len(), 512, "by name, all its bytes");

    let error = pool.try_allocate(Request::of::<u32>("numbers")).unwrap_err();
    assert_eq!(error, RequestError::OtherKind { tier: "numbers", wanted: "u32", is: "u64" });
    let error = pool.try_allocate(Request::of::<u64>("number")).unwrap_err();
    assert!(matches!(error, RequestError::NoTier { name } if name.as_str() == "number"), "{error}");
    let long = "é".repeat(50);
    let error = pool.try_allocate(Request::of::<u64>(&long)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the pool has no tier \"{}\"…; `monitor()` names those it has", "é".repeat(20))
    );
}

#[test]
fn all_forms_refuse_what_could_never_be_served() {
    let pool = pool();
    let too_large = || Request::memory(9999);
    let expected = RequestError::TooLarge { wanted: 9999, largest: 4096, tier: "large" };
    assert_eq!(pool.prepare(too_large()).unwrap_err(), expected);
    assert_eq!(pool.try_allocate(too_large()).unwrap_err(), expected);
    assert_eq!(pool.allocate(too_large()).unwrap_err(), expected);
    assert_eq!(pool.allocate_timeout(too_large(), FOR_EVER).unwrap_err(), expected);
    assert_eq!(block_on(pool.allocate_async(too_large())).unwrap_err(), expected);
    assert_eq!(pool.reserve(too_large(), 1).unwrap_err(), expected);
    assert_eq!(pool.allocate_group((too_large(),)).unwrap_err(), expected);
    let numbers = Pool::builder().tier(Tier::builder("n").capacity(1).build_with(|| 0u8).unwrap()).build().unwrap();
    assert_eq!(numbers.try_allocate(Request::memory(1)).unwrap_err(), RequestError::NoMemoryTier);
}

#[test]
fn a_tenant_is_known_by_name_and_by_number() {
    let pool = pool();
    let orders = pool.tenant("orders").unwrap();
    assert_eq!((orders.number(), pool.tenant_name(orders)), (2, Some("orders")));
    assert_eq!((pool.tenant("nobody"), pool.tenant_name(Tenant::NOBODY)), (None, None));
    assert_eq!(pool.prepare(Request::memory(1).tenant("orders")).unwrap().tenant(), orders);
    assert_eq!(pool.prepare(Request::memory(1).tenant(orders)).unwrap().tenant(), orders);

    let error = pool.try_allocate(Request::memory(1).tenant("order")).unwrap_err();
    assert!(matches!(error, RequestError::NoTenant { name } if name.as_str() == "order"), "{error}");
    let other = Pool::builder().memory("m", 64, 1).tenant("md").build().unwrap();
    let error = other.try_allocate(Request::memory(1).tenant(orders)).unwrap_err();
    assert_eq!(error, RequestError::ForeignTenant { tenant: orders });
}

// What is shown.

#[test]
fn the_line_that_called_is_the_holder_in_all_forms() {
    let pool = pool();
    let number = || Request::of::<u64>("numbers");
    let prepared = pool.prepare(number()).unwrap();
    let resources: &dyn ResourcePool = &pool;
    let here = |lines: &[u32], what: &str| {
        let at = pool.holders();
        let at: Vec<_> = at.iter().map(|holder| holder.site.map(|site| (site.file(), site.line()))).collect();
        let expected: Vec<_> = lines.iter().map(|line| Some((file!(), *line))).collect();
        assert_eq!(at, expected, "{what}");
    };
    let (lease, line) = (pool.try_allocate(number()).unwrap(), line!());
    here(&[line], "try_allocate");
    drop(lease);
    let (lease, line) = (pool.allocate(number()).unwrap(), line!());
    here(&[line], "allocate");
    drop(lease);
    let (lease, line) = (pool.allocate_timeout(number(), FOR_EVER).unwrap(), line!());
    here(&[line], "allocate_timeout");
    drop(lease);
    let (lease, line) = (block_on(pool.allocate_async(number())).unwrap(), line!());
    here(&[line], "allocate_async");
    drop(lease);
    let (lease, line) = (prepared.try_allocate().unwrap(), line!());
    here(&[line], "prepared");
    drop(lease);
    let (lease, line) = (pool.allocate_group((number(), number())).unwrap(), line!());
    here(&[line, line], "group");
    drop(lease);
    let (lease, line) = (block_on(pool.allocate_group_async((number(),))).unwrap(), line!());
    here(&[line], "group, async");
    drop(lease);
    let (reservation, line) = (pool.reserve(number(), 2).unwrap(), line!());
    here(&[line, line], "reservation");
    drop(reservation);
    let (request, line) = (ResourceRequest::of("numbers"), line!());
    let lease = resources.allocate(&request).unwrap();
    here(&[line], "dynamic");
    drop(lease);
}

#[test]
fn monitor_shows_every_tier_and_prints_a_table() {
    let pool = Pool::builder()
        .memory("packets", 2048, 8)
        .memory("frames", 65536, 4)
        .overflow(3)
        .tier(Tier::builder("numbers").capacity(2).build_with(|| 0u64).unwrap())
        .build()
        .unwrap();
    let packet = pool.try_allocate(Request::memory(1)).unwrap();
    let huge = pool.try_allocate(Request::memory(1 << 20).spill(Spill::System)).unwrap();
    let status = pool.monitor();
    let kinds: Vec<_> = status.tiers.iter().map(|tier| (tier.name, tier.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("packets", TierKind::Memory { bytes: 2048 }),
            ("frames", TierKind::Memory { bytes: 65536 }),
            ("overflow", TierKind::Overflow),
            ("numbers", TierKind::Custom { type_name: "u64" }),
        ]
    );
    let packets = status.tier("packets").unwrap();
    assert_eq!((packets.held(), packets.snapshot.free, packets.min_capacity), (1, 7, 8));
    assert_eq!((status.overflowed(), status.tier("overflow").unwrap().held()), (1, 1));
    let text = status.to_string();
    let lines: Vec<_> = text.lines().collect();
    for (line, begins) in lines.iter().zip([
        "tier      holds",
        "packets   2 KiB ",
        "frames    64 KiB ",
        "overflow  system ",
        "numbers   u64 ",
    ]) {
        assert!(line.starts_with(begins), "{text}");
    }
    assert!(lines[1].contains(" 12 %"), "1 of 8 is held: {text}");
    let widths: Vec<_> = lines[..5].iter().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "columns stand under each other: {text}");
    drop((packet, huge));
}

#[test]
fn a_refusal_names_the_tier_and_is_counted_there() {
    let pool = pool();
    let _held: Vec<_> = (0..2).map(|_| pool.try_allocate(Request::memory(1)).unwrap()).collect();
    let error = pool.try_allocate(Request::memory(1)).unwrap_err();
    let RequestError::Tier(AllocateError::Exhausted(why)) = error else { panic!("{error}") };
    assert_eq!((why.tier, why.capacity), ("small", 2));
    assert_eq!(pool.monitor().tier("small").unwrap().snapshot.refusals, 1);
    assert_eq!(pool.monitor().absorbed, 0);
}

// Spilling.

#[test]
fn a_request_spills_to_the_next_larger_tiers_only_if_it_may() {
    let pool = pool();
    let request = Request::memory(10);
    let mut held: Vec<_> = (0..2).map(|_| pool.try_allocate(request).unwrap()).collect();
    assert!(pool.try_allocate(request).is_err());
    for capacity in [512, 512, 4096, 4096] {
        let lease = pool.try_allocate(request.spill(Spill::NextLarger)).unwrap();
        assert_eq!((lease.len(), served_by(&lease)), (10, capacity));
        held.push(lease);
    }
    let error = pool.try_allocate(request.spill(Spill::NextLarger)).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::Exhausted(why)) if why.tier == "small"), "{error}");

    let now = pool.monitor();
    let spilled: Vec<_> = ["small", "middle", "large"].map(|name| now.tier(name).unwrap().spilled_here).into();
    assert_eq!(spilled, [0, 2, 2]);
    assert_eq!(now.tier("numbers").unwrap().snapshot.free, 2, "not to tiers of another kind");
    let metrics = pool.metrics();
    let refused: u64 = metrics.tiers.iter().map(|tier| tier.refusals).sum();
    assert_eq!(refused - now.absorbed, 2, "two requests were refused; all other refusals were made good");
    assert!((metrics.failure_rate - 2.0 / 8.0).abs() < 1e-9, "{metrics:?}");
}

#[test]
fn the_pool_says_what_requests_by_size_do_that_do_not() {
    let pool = Pool::builder().memory("a", 64, 1).memory("b", 128, 1).spill(Spill::NextLarger).build().unwrap();
    let first = pool.try_allocate(Request::memory(1)).unwrap();
    assert!(pool.try_allocate(Request::memory(1).spill(Spill::Refuse)).is_err());
    assert!(pool.try_allocate(Request::of::<Memory>("a")).is_err(), "who names a tier wants that tier");
    let second = pool.try_allocate(Request::of::<Memory>("a").spill(Spill::NextLarger)).unwrap();
    assert_eq!((second.len(), served_by(&second)), (64, 128));
    drop(second);
    assert_eq!(served_by(&pool.try_allocate(Request::memory(1)).unwrap()), 128);
    drop(first);
}

#[test]
fn the_system_serves_what_spills_to_it_and_gets_it_back() {
    let pool = Pool::builder().memory("small", 64, 1).overflow(2).spill(Spill::System).build().unwrap();
    let _small = pool.try_allocate(Request::memory(1)).unwrap();
    let mut huge = pool.try_allocate(Request::memory(1 << 20)).unwrap();
    assert_eq!((huge.len(), huge.capacity()), (1 << 20, 1 << 20), "larger than any tier");
    huge.fill(7);
    let second = pool.try_allocate(Request::memory(10)).unwrap();
    assert_eq!((second.len(), second.capacity()), (10, 10), "as many as were requested");
    assert!(pool.try_allocate(Request::memory(10)).is_err(), "two at a time");
    assert_eq!(pool.monitor().overflowed(), 2);

    drop(huge);
    let again = pool.try_allocate(Request::memory(1 << 20)).unwrap();
    assert!(again.iter().all(|&byte| byte == 0), "its bytes went back to the system");
    drop((again, second));
    assert_eq!(free(&pool, "overflow"), 2);
    let error = pool.try_allocate(Request::memory(usize::MAX - 1)).unwrap_err();
    assert!(matches!(error, RequestError::System(_)), "{error}");
    assert_eq!(free(&pool, "overflow"), 2, "and no slot is lost by that");

    let without = Pool::builder().memory("small", 64, 1).build().unwrap();
    for bytes in [1, 1000] {
        let error = without.try_allocate(Request::memory(bytes).spill(Spill::System)).unwrap_err();
        assert_eq!(error, RequestError::NoOverflow);
    }
    assert!(pool.try_allocate(Request::of::<Memory>("overflow")).is_err(), "it is no tier that one could name");
}

#[test]
fn a_wait_spills_before_it_waits() {
    let pool = pool();
    let request = Request::memory(10).spill(Spill::NextLarger);
    let _small: Vec<_> = (0..2).map(|_| pool.allocate(Request::memory(10)).unwrap()).collect();
    assert_eq!(served_by(&pool.allocate(request).unwrap()), 512);
    assert_eq!(served_by(&block_on(pool.allocate_async(request)).unwrap()), 512);
    assert_eq!(served_by(&pool.allocate_timeout(request, Duration::ZERO).unwrap()), 512);
}

// Waiting.

#[test]
fn a_blocked_thread_gets_what_is_released_and_its_wait_is_measured() {
    let pool = Pool::builder().memory("m", 64, 1).build().unwrap();
    let _ = pool.metrics();
    let held = pool.allocate(Request::memory(1)).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.allocate(Request::memory(20)).unwrap().len());
        wait_until("the thread waits", || pool.monitor().tiers[0].snapshot.waiting == 1);
        drop(held);
        assert_eq!(waiter.join().unwrap(), 20);
    });
    let metrics = pool.metrics();
    assert!(metrics.average_latency > Duration::ZERO, "{metrics:?}");
    assert_eq!((metrics.failure_rate, metrics.tiers[0].allocations, metrics.tiers[0].releases), (0.0, 2, 2));
}

#[test]
fn patience_ends_a_wait_unless_the_call_says_otherwise() {
    let pool = Pool::builder().memory("m", 64, 1).build().unwrap();
    let _held = pool.allocate(Request::memory(1)).unwrap();
    let request = Request::memory(1).patience(Duration::from_millis(1));
    for error in [
        pool.allocate(request).unwrap_err(),
        pool.prepare(request).unwrap().allocate().unwrap_err(),
        pool.allocate_timeout(Request::memory(1), Duration::from_millis(1)).unwrap_err(),
        pool.allocate_timeout(request.patience(FOR_EVER), Duration::from_millis(1)).unwrap_err(),
    ] {
        assert!(matches!(error, RequestError::Tier(AllocateError::TimedOut { tier: "m", .. })), "{error}");
    }
    let error = pool.allocate(request.patience(Duration::ZERO)).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::Exhausted(_))), "zero is no wait: {error}");
}

#[test]
fn a_dropped_future_passes_its_slot_on() {
    let pool = Pool::builder().memory("m", 64, 1).build().unwrap();
    let held = pool.allocate(Request::memory(1)).unwrap();
    let wakes = [Arc::<Wakes>::default(), Arc::default()];
    let mut first = Box::pin(pool.allocate_async(Request::memory(1)));
    let mut second = Box::pin(pool.allocate_async(Request::memory(30)));
    assert!(poll(first.as_mut(), &wakes[0]).is_pending());
    assert!(poll(second.as_mut(), &wakes[1]).is_pending());
    drop(held);
    assert_eq!(wakes[0].0.load(Ordering::SeqCst), 1, "it was granted to the first");
    drop(first);
    let Poll::Ready(Ok(lease)) = poll(second.as_mut(), &wakes[1]) else { panic!("it has passed on") };
    assert_eq!(lease.len(), 30);
    drop(lease);
    assert_eq!(free(&pool, "m"), 1);
    let text = panics(|| drop(poll(second.as_mut(), &wakes[1])));
    assert!(text.contains("polled after completion"), "{text}");
}

#[test]
fn futures_of_a_pool_run_under_tokio() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let pool = Pool::builder().memory("m", 64, 2).build().unwrap();
    runtime.block_on(async {
        let tasks = (0..50).map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    let (mut one, two) =
                        pool.allocate_group_async((Request::memory(1), Request::memory(2))).await.unwrap();
                    one[0] = 1;
                    drop(two);
                    tokio::task::yield_now().await;
                    drop(one);
                    let lease = pool.allocate_async(Request::memory(3)).await.unwrap();
                    tokio::task::yield_now().await;
                    drop(lease);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            tokio::time::timeout(FOR_EVER, task).await.expect("in time").unwrap();
        }
        let held = pool.allocate_async(Request::memory(1)).await.unwrap();
        let other = pool.allocate_async(Request::memory(1)).await.unwrap();
        let late = tokio::time::timeout(Duration::from_millis(5), pool.allocate_async(Request::memory(1))).await;
        assert!(late.is_err(), "the runtime's time-out drops it");
        drop((held, other));
    });
    assert_eq!(free(&pool, "m"), 2);
}

// Tenants.

/// TORTURE 26: what a tenant has written is not seen by the next, whichever way it was written and released.
#[test]
fn tenant_data_is_not_seen_by_the_next_tenant() {
    type Way = (&'static str, fn(&mut Memory));
    for scrub in [Scrub::OnChange, Scrub::AfterUse] {
        let tier = MemoryTier::new("m", 8192, 1).scrub(scrub);
        let pool = Pool::builder().memory_tier(tier).tenant("a").tenant("b").build().unwrap();
        let ways: [Way; 5] = [
            ("a mutable view", |memory| memory.fill(7)),
            ("filling", |memory| memory.put_slice(&[7; 100])),
            ("a read into spare room", |memory| {
                memory.spare_mut()[99] = 7;
                memory.advance(10);
            }),
            ("more than was requested", |memory| {
                memory.set_len(8192);
                memory[8191] = 7;
                memory.set_len(1);
            }),
            ("passed over, then filled", |memory| {
                memory.advance(50);
                memory.filled_mut()[49] = 7;
                memory.clear();
            }),
        ];
        for (way, write) in ways {
            for (writer, reader) in [(Some("a"), Some("b")), (None, Some("a")), (Some("b"), None)] {
                let request = |tenant: Option<&'static str>, bytes| {
                    let request = Request::memory(bytes);
                    tenant.map_or(request, |tenant| request.tenant(tenant))
                };
                let mut lease = pool.try_allocate(request(writer, 100)).unwrap();
                write(&mut lease);
                match way {
                    "filling" => pool.release_handle(lease.detach()).unwrap(),
                    "a mutable view" => drop(lease.into_shared()),
                    _ => drop(lease),
                }
                let lease = pool.try_allocate(request(reader, 8192)).unwrap();
                assert!(lease.iter().all(|&byte| byte == 0), "{way}, {scrub:?}, from {writer:?} to {reader:?}");
            }
        }
    }
}

#[test]
fn a_tenants_own_bytes_stay_and_a_tier_may_keep_all() {
    let request = |tenant| Request::memory(64).tenant(tenant);
    for (scrub, own, other) in [(Scrub::OnChange, 7, 0), (Scrub::AfterUse, 0, 0), (Scrub::Keep, 7, 7)] {
        let tier = MemoryTier::new("m", 64, 1).scrub(scrub);
        let pool = Pool::builder().memory_tier(tier).tenant("a").tenant("b").build().unwrap();
        pool.try_allocate(request("a")).unwrap().fill(7);
        pool.reclaim();
        assert_eq!(pool.try_allocate(request("a")).unwrap()[0], own, "{scrub:?}");
        assert_eq!(pool.try_allocate(request("b")).unwrap()[0], other, "{scrub:?}");
    }
}

#[test]
fn reserved_and_granted_and_spilled_memory_is_scrubbed_too() {
    let pool = Pool::builder().memory("a", 64, 1).memory("b", 128, 1).tenant("x").tenant("y").build().unwrap();
    let (x, y) = (Request::memory(64).tenant("x"), Request::memory(64).tenant("y"));
    let clean = |lease: &Memory| assert!(lease.iter().all(|&byte| byte == 0));
    pool.try_allocate(x).unwrap().fill(7);
    clean(&pool.reserve(y, 1).unwrap().draw().unwrap());

    let mut held = pool.try_allocate(x).unwrap();
    held.fill(7);
    let wakes = Arc::default();
    let mut waiter = Box::pin(pool.allocate_async(y));
    assert!(poll(waiter.as_mut(), &wakes).is_pending());
    drop(held);
    let Poll::Ready(Ok(granted)) = poll(waiter.as_mut(), &wakes) else { panic!("granted") };
    clean(&granted);

    pool.try_allocate(Request::memory(128).tenant("x")).unwrap().fill(7);
    clean(&pool.try_allocate(y.spill(Spill::NextLarger)).unwrap());
}

// Giving back.

#[test]
fn a_lease_is_released_into_its_own_pool_only() {
    let (one, two) = (pool(), pool());
    let lease = one.try_allocate(Request::memory(1)).unwrap();
    let error = two.release(lease).unwrap_err();
    assert_eq!(error.tier, "small");
    assert!(error.to_string().contains("\"small\""), "{error}");
    one.release(error.lease).unwrap();
    assert_eq!(free(&one, "small"), 2);
}

#[test]
fn a_handle_finds_its_tier_in_the_pool() {
    let (pool, other) = (pool(), pool());
    let handle = pool.try_allocate(Request::memory(100)).unwrap().detach();
    assert_eq!(
        pool.attach::<u64>(handle).unwrap_err(),
        RequestError::OtherKind { tier: "middle", wanted: "u64", is: "tierpool::resource::memory::Memory" }
    );
    assert_eq!(other.attach::<Memory>(handle).unwrap_err(), RequestError::ForeignHandle { handle });
    assert_eq!(other.release_handle(handle).unwrap_err(), RequestError::ForeignHandle { handle });
    let lease = pool.attach::<Memory>(handle).unwrap();
    assert_eq!(lease.len(), 100);
    let handle = lease.detach();
    pool.release_handle(handle).unwrap();
    let again = pool.release_handle(handle).unwrap_err();
    assert!(again.to_string().contains(file!()), "it names who was first: {again}");
}

#[test]
fn leases_outlive_the_pool_and_prepared_requests_keep_it_open() {
    let pool = pool();
    let prepared = pool.prepare(Request::memory(1)).unwrap();
    drop(pool);
    let lease = prepared.clone().try_allocate().unwrap();
    assert_eq!(prepared.tier_name(), "small");
    drop(prepared);
    assert_eq!(lease.len(), 1);
}

#[test]
fn a_closed_pool_serves_nothing_and_says_who_still_holds() {
    let pool = pool();
    let lease = pool.try_allocate(Request::memory(1)).unwrap();
    let error = pool.close_and_wait(Duration::from_millis(1)).unwrap_err();
    assert_eq!((error.tier, error.holders.len()), ("small", 1));
    let error = pool.try_allocate(Request::memory(1)).unwrap_err();
    assert_eq!(error, RequestError::Tier(AllocateError::Closed { tier: "small" }));
    assert!(pool.monitor().to_string().contains("closed: small, middle, large, numbers"));
    drop(lease);
    pool.close_and_wait(Duration::from_millis(1)).unwrap();
}

#[test]
fn a_tier_in_a_pool_can_be_used_beside_it() {
    let tier = Tier::builder("numbers").capacity(2).build_with(|| 7u64).unwrap();
    let pool = Pool::builder().tier(tier.clone()).build().unwrap();
    let (one, two) = (tier.try_allocate().unwrap(), pool.try_allocate(Request::of::<u64>("numbers")).unwrap());
    assert!(tier.try_allocate().is_err());
    pool.release(one).unwrap();
    drop(two);
    assert_eq!(accounted(&tier).free, 2);
    // Memory of the program's own, too.
    let tier = Tier::builder("own").capacity(1).build_with(|| Memory::new(100).unwrap()).unwrap();
    let pool = Pool::builder().tier(tier).memory("m", 64, 1).build().unwrap();
    assert_eq!(pool.try_allocate(Request::of::<Memory>("own")).unwrap().len(), 100);
    assert!(pool.try_allocate(Request::memory(65)).is_err(), "by size, only what was declared by size");
}

// Reservations.

#[test]
fn nobody_else_can_take_what_is_reserved() {
    let pool = pool();
    let reservation = pool.reserve(Request::memory(10), 2).unwrap();
    assert!(pool.try_allocate(Request::memory(10)).is_err());
    let first = reservation.draw().unwrap();
    assert_eq!((first.len(), reservation.left(), reservation.reserved()), (10, 1, 2));
    drop(first);
    let taken = pool.try_allocate(Request::memory(10)).unwrap();
    let second = reservation.draw().expect("whoever takes what");
    assert_eq!(reservation.draw().unwrap_err(), RequestError::Spent { tier: "small", reserved: 2 });
    assert_eq!(reservation.left(), 0);
    drop((reservation, second, taken));
    assert_eq!(free(&pool, "small"), 2);
}

#[test]
fn a_reservation_is_all_or_nothing_and_gives_back_the_rest() {
    let pool = pool();
    let held = pool.try_allocate(Request::memory(1)).unwrap();
    assert!(pool.reserve(Request::memory(1), 2).is_err());
    assert_eq!(free(&pool, "small"), 1);
    let larger = pool.reserve(Request::memory(1).spill(Spill::NextLarger), 2).unwrap();
    assert_eq!(larger.tier_name(), "middle");
    let drawn = larger.draw().unwrap();
    assert_eq!((drawn.len(), served_by(&drawn)), (1, 512));
    drop(larger);
    assert_eq!(free(&pool, "middle"), 1, "one is drawn, one went back");
    drop((held, drawn));
    assert!(pool.reserve(Request::memory(1), 3).is_err(), "more than there are");
    let none = pool.reserve(Request::memory(1), 0).unwrap();
    assert!(matches!(none.draw(), Err(RequestError::Spent { reserved: 0, .. })));
}

#[test]
fn a_reservation_lapses_at_its_deadline() {
    let pool = pool();
    let reservation = pool.reserve_for(Request::memory(1), 2, Duration::from_millis(1)).unwrap();
    let drawn = reservation.draw().unwrap();
    wait_until("the deadline is over", || {
        pool.reclaim();
        free(&pool, "small") == 1
    });
    assert_eq!(reservation.draw().unwrap_err(), RequestError::Lapsed { tier: "small", reserved: 2 });
    let other = pool.try_allocate(Request::memory(1)).unwrap();
    drop(reservation);
    assert_eq!(free(&pool, "small"), 0, "what was drawn stays, and what lapsed is another's");
    drop((drawn, other));
}

#[test]
fn threads_draw_each_reserved_slot_once() {
    let pool = Pool::builder().memory("m", 64, 1000).build().unwrap();
    let reservation = pool.reserve(Request::memory(1), 900).unwrap();
    let drawn: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| std::iter::from_fn(|| reservation.draw().ok()).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(drawn.len(), 900);
    assert_eq!(free(&pool, "m"), 100);
    drop((drawn, reservation));
    assert_eq!(free(&pool, "m"), 1000);
}

// The dynamic interface.

#[test]
fn resources_go_through_the_dynamic_interface_and_back() {
    let (one, two) = (pool(), pool());
    let dynamic: &dyn ResourcePool = &one;
    let memory = dynamic.allocate(&ResourceRequest::memory(100).tenant("md")).unwrap();
    assert_eq!(memory.tier_name(), "middle");
    let Resource::Memory(lease) = memory else { panic!("{memory:?}") };
    assert_eq!(lease.len(), 100);
    let number = dynamic.allocate(&ResourceRequest::of(String::from("numbers"))).unwrap();
    let Resource::Custom(mut lease_of_any) = number else { panic!("{number:?}") };
    assert_eq!((lease_of_any.get::<u64>(), lease_of_any.get::<u32>()), (Some(&7), None));
    *lease_of_any.get_mut::<u64>().unwrap() = 8;
    let lease_of_any = lease_of_any.downcast::<u32>().unwrap_err();
    let typed = lease_of_any.downcast::<u64>().unwrap();
    assert_eq!(*typed, 8);

    let error = ResourcePool::release(&two, Resource::from(typed)).unwrap_err();
    assert_eq!((error.tier, error.lease.tier_name()), ("numbers", "numbers"));
    dynamic.release(error.lease).unwrap();
    dynamic.release(lease.into()).unwrap();
    assert_eq!(dynamic.monitor().tiers.iter().map(|tier| tier.held()).sum::<usize>(), 0);
    assert!(dynamic.optimize(&one.metrics()).is_empty(), "nothing here can grow");
}

#[test]
fn the_dynamic_interface_waits_refuses_and_spills_as_it_is_told() {
    let pool = pool();
    let dynamic: &dyn ResourcePool = &pool;
    let _held: Vec<_> = (0..2).map(|_| pool.try_allocate(Request::memory(1)).unwrap()).collect();
    let error = dynamic.allocate(&ResourceRequest::memory(1).patience(Duration::ZERO)).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::Exhausted(_))), "{error}");
    let error = dynamic.allocate(&ResourceRequest::memory(1).patience(Duration::from_millis(1))).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::TimedOut { .. })), "{error}");
    assert_eq!(dynamic.allocate(&ResourceRequest::memory(1).spill(Spill::NextLarger)).unwrap().tier_name(), "middle");
    let error = dynamic.allocate(&ResourceRequest::of("none")).unwrap_err();
    assert!(matches!(error, RequestError::NoTier { .. }), "{error}");
    let error = dynamic.allocate(&ResourceRequest::of("numbers").tenant("none")).unwrap_err();
    assert!(matches!(error, RequestError::NoTenant { .. }), "{error}");
}

#[test]
fn the_async_interface_is_a_future_without_runtime() {
    let (one, two) = (pool(), pool());
    let dynamic: &dyn AsyncResourcePool = &one;
    let request = ResourceRequest::memory(1);
    block_on(async {
        let first = dynamic.allocate(&request).await.unwrap();
        let second = dynamic.allocate(&request).await.unwrap();
        let wakes = Arc::default();
        let mut third = dynamic.allocate(&request);
        assert!(poll(third.as_mut(), &wakes).is_pending());
        dynamic.release(first).await.unwrap();
        let third = third.await.unwrap();
        let error = AsyncResourcePool::release(&two, third).await.unwrap_err();
        dynamic.release(error.lease).await.unwrap();
        dynamic.release(second).await.unwrap();
        assert!(dynamic.allocate(&ResourceRequest::of("none")).await.is_err());
        assert_eq!(dynamic.monitor().await.tiers[0].snapshot.free, 2);
        assert!(dynamic.optimize(&one.metrics()).await.is_empty());
    });
}

// Metrics and what is done by them.

#[test]
fn metrics_are_of_the_interval_between_two_looks() {
    let pool = pool();
    let before = pool.monitor();
    let held = pool.try_allocate(Request::of::<u64>("numbers")).unwrap();
    for _ in 0..9 {
        drop(pool.try_allocate(Request::memory(1)).unwrap());
    }
    let metrics = pool.metrics();
    assert!((metrics.utilization_rate - 1.0 / 8.0).abs() < 1e-9, "{metrics:?}");
    let seconds = metrics.interval.as_secs_f64();
    assert!((metrics.allocation_rate * seconds - 10.0).abs() < 1e-6, "{metrics:?}");
    assert!((metrics.release_rate * seconds - 9.0).abs() < 1e-6, "{metrics:?}");
    assert_eq!((metrics.failure_rate, metrics.average_latency), (0.0, Duration::ZERO));
    // Half a slot on average, 9 releases.
    let hold = metrics.average_hold.unwrap().as_secs_f64();
    assert!((hold - seconds * 0.5 / 9.0).abs() < 1e-6, "{metrics:?}");
    drop(held);
    let next = pool.metrics();
    assert_eq!((next.allocation_rate, next.tiers[3].releases, next.utilization_rate), (0.0, 1, 0.0));
    let all = pool.monitor().since(&before);
    assert_eq!((all.tiers[0].allocations, all.tiers[3].allocations, all.tiers[3].releases), (9, 1, 1));
}

#[test]
fn optimize_grows_what_is_short_and_shrinks_what_is_not() {
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&log);
    let growable = |name, bytes| MemoryTier::new(name, bytes, 100).with(|tier| tier.min_capacity(4));
    let pool = Pool::builder()
        .memory_tier(growable("short", 64))
        .memory_tier(growable("idle", 128))
        .memory("fixed", 256, 4)
        .on_decision(move |decision| sink.lock().unwrap().push(decision.to_string()))
        .build()
        .unwrap();
    let slots = |pool: &Pool, name| pool.monitor().tier(name).unwrap().snapshot.slots();
    let held: Vec<_> = (0..4).map(|_| pool.try_allocate(Request::memory(64)).unwrap()).collect();
    let _fixed: Vec<_> = (0..4).map(|_| pool.try_allocate(Request::memory(256)).unwrap()).collect();
    let metrics = pool.metrics();
    let decisions = pool.optimize(&metrics);
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    let Decision { tier, from, to, reached, ref reason, .. } = decisions[0];
    assert_eq!((tier, from, to, reached, *reason), ("short", 4, 6, 6, Reason::Tight { held: 4 }));
    assert_eq!(slots(&pool, "short"), 6);
    for _ in 0..10 {
        assert!(pool.optimize(&metrics).is_empty(), "told the same, it rests");
    }

    drop(held);
    let metrics = pool.metrics();
    assert!((0..2).all(|_| pool.optimize(&metrics).is_empty()));
    let decisions = pool.optimize(&metrics);
    assert_eq!((decisions[0].to, decisions[0].reason), (4, Reason::Roomy { held: 0, calls: 3 }));
    assert_eq!(slots(&pool, "short"), 4);

    let undone = pool.undo(&decisions[0]).unwrap();
    assert_eq!((undone.to, undone.reached, undone.reason), (6, 6, Reason::Undone));
    assert!(pool.undo(&decisions[0]).is_none(), "it has that size");
    assert_eq!(pool.decisions().len(), 3);
    let told_to_the_log = std::mem::take(&mut *log.lock().unwrap());
    assert_eq!(told_to_the_log.len(), 3);
    assert_eq!(told_to_the_log[0], "tier \"short\": 4 slots to 6, since 4 are held");

    let mut told = pool.metrics();
    let mut short = TierMetrics::new("idle");
    short.waiting = 50;
    told.tiers = vec![short];
    let decisions = pool.optimize(&told);
    assert_eq!((decisions[0].tier, decisions[0].to), ("idle", 67), "it acts on what it is told");
}

#[test]
fn a_tier_that_cannot_grow_says_why() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let tier: Tier<u8> = Tier::builder("stubborn")
        .capacity(10)
        .min_capacity(2)
        .try_build_with(move || if count.fetch_add(1, Ordering::SeqCst) < 2 { Ok(0) } else { Err("no more") })
        .unwrap();
    let pool = Pool::builder().tier(tier).build().unwrap();
    let _held: Vec<_> = (0..2).map(|_| pool.try_allocate(Request::of::<u8>("stubborn")).unwrap()).collect();
    let decisions = pool.optimize(&pool.metrics());
    assert_eq!((decisions[0].to, decisions[0].reached), (3, 2));
    assert!(decisions[0].failure.as_ref().unwrap().contains("no more"), "{decisions:?}");
    assert!(decisions[0].to_string().contains("it has 2"), "{}", decisions[0]);
}

// Making pools.

#[test]
fn what_cannot_be_a_pool_is_refused_with_the_reason() {
    let numbers = |name: &str| Tier::builder(name).capacity(1).build_with(|| 0u8).unwrap();
    let refusals = [
        (Pool::builder(), "no tiers"),
        (Pool::builder().memory("m", 0, 1), "memory tier \"m\" cannot have slots of 0 bytes"),
        (Pool::builder().memory("m", usize::MAX, 1), "cannot have slots of 18446744073709551615 bytes"),
        (Pool::builder().memory("m", 64, 0), "tier \"m\" cannot have 0 slots"),
        (Pool::builder().memory("m", 64, 1 << 32), "tier \"m\" cannot have 4294967296 slots"),
        (Pool::builder().memory("a", 64, 1).memory("b", 64, 1), "\"a\" and \"b\" both have slots of 64 bytes"),
        (Pool::builder().memory("a", 64, 1).spill(Spill::System), "no overflow"),
        (Pool::builder().memory("a", 64, 1).overflow(0), "tier \"overflow\" cannot have 0 slots"),
        (Pool::builder().tier(numbers("n")).spill(Spill::NextLarger), "no memory tier"),
        (Pool::builder().tier(numbers("n")).overflow(1), "no memory tier"),
        (Pool::builder().memory("a", 64, 1).overflow(1).tier(numbers("overflow")), "named \"overflow\""),
        (Pool::builder().memory("a", 64, 1).tenant(""), "tenant name \"\" is empty"),
        (Pool::builder().memory("a", 64, 1).tenant("a\nb"), "tenant name \"a\\nb\" holds a control character"),
        (Pool::builder().memory("a", 64, 1).tenant("a").tenant("a"), "tenant \"a\" is there twice"),
        (
            Pool::builder().memory_tier(MemoryTier::new("m", 64, 4).with(|tier| tier.min_capacity(5))),
            "smallest size is larger",
        ),
    ];
    for (builder, reason) in refusals {
        let error = builder.build().unwrap_err();
        assert!(error.to_string().contains(reason), "{error} should say {reason}");
    }
    let crowd = (0..4096).fold(Pool::builder().memory("m", 64, 1), |pool, n| pool.tenant(n.to_string().as_str()));
    assert!(matches!(crowd.build().unwrap_err(), PoolError::Quota(QuotaError::TooMany { tenants: 4096 })));
}

/// TORTURE 22: names of tiers that are empty, that would garble a log or a metrics page, or that repeat.
#[test]
fn tier_names_that_are_no_use_are_refused() {
    for name in ["", "a \"quoted\" name", "two\nlines", "back\\slash", "nul\0", &"n".repeat(129)] {
        let error = Pool::builder().memory(name, 64, 1).build().unwrap_err();
        assert!(matches!(error, PoolError::Tier(tierpool::BuildError::Name { .. })), "{error:?}");
        assert!(!error.to_string().chars().any(char::is_control), "{error}");
    }
    let same = || Tier::builder("same").capacity(1).build_with(|| 0u8).unwrap();
    for builder in [
        Pool::builder().memory("same", 64, 1).memory("same", 128, 1),
        Pool::builder().memory("same", 64, 1).tier(same()),
        Pool::builder().tier(same()).tier(same()),
    ] {
        let error = builder.build().unwrap_err();
        assert!(matches!(&error, PoolError::DuplicateTier { name } if name == "same"), "{error:?}");
    }
    let odd = "frames {4 KiB}, für alle 🦀";
    let pool = Pool::builder().memory(odd, 64, 1).build().unwrap();
    assert!(pool.try_allocate(Request::of::<Memory>(odd)).is_ok());
}

#[test]
fn options_of_a_memory_tier_reach_it() {
    let tier = MemoryTier::new("m", 64, 8).with(|tier| tier.min_capacity(2)).with(|tier| tier.max_waiters(0));
    let pool = Pool::builder().memory_tier(tier).build().unwrap();
    let now = pool.monitor();
    assert_eq!((now.tiers[0].snapshot.slots(), now.tiers[0].snapshot.capacity), (2, 8));
    let _held: Vec<_> = (0..8).map(|_| pool.try_allocate(Request::memory(1)).unwrap()).collect();
    let error = pool.allocate(Request::memory(1)).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::QueueFull { .. })), "{error}");
}

/// Panics, time-outs, dropped futures and threads: whatever was taken through a pool comes back.
#[test]
fn nothing_is_lost_under_load() {
    let pool = Pool::builder()
        .memory("small", 64, 3)
        .memory("large", 256, 3)
        .overflow(2)
        .tenant("a")
        .tenant("b")
        .build()
        .unwrap();
    thread::scope(|scope| {
        for seed in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut kept = Vec::new();
                for _ in 0..3000 {
                    let spill = [Spill::Refuse, Spill::NextLarger, Spill::System][random.usize(..3)];
                    let request =
                        Request::memory(random.usize(..300)).spill(spill).tenant(["a", "b"][random.usize(..2)]);
                    match random.u8(..8) {
                        0 => kept.extend(pool.try_allocate(request)),
                        1 => kept.extend(pool.allocate_timeout(request, Duration::from_micros(50))),
                        2 => drop(poll(pin!(pool.allocate_async(request)), &Arc::default())),
                        3 => drop(pool.reserve(request, random.usize(..3)).map(|reservation| reservation.draw())),
                        4 => drop(pool.try_allocate_group((request, Request::memory(1)))),
                        5 => drop(pool.allocate_group_timeout(vec![request; 2], Duration::from_micros(50))),
                        _ => {
                            kept.truncate(random.usize(..3));
                        }
                    }
                    kept.truncate(2);
                }
            });
        }
    });
    for tier in pool.monitor().tiers {
        assert_eq!((tier.snapshot.free, tier.snapshot.waiting), (tier.snapshot.capacity, 0), "{}", tier.name);
    }
    assert!(pool.holders().is_empty());
}
