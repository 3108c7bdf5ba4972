//! Tenants and memory: a tenant is known by its name, and what it has written no other sees. What tenants may hold is in
//! `tests/rules.rs`.

use std::sync::Arc;
use std::task::Poll;

use tierpool::{Memory, MemoryTier, Pool, Request, RequestError, Scrub, Spill, Tenant};

use crate::common::waiting::poll;
use crate::pool;

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
