//! The dynamic interface: pools behind `dyn ResourcePool` and `dyn AsyncResourcePool`, resources of any type.

use std::sync::Arc;
use std::time::Duration;

use tierpool::{
    AllocateError, AsyncResourcePool, Request, RequestError, Resource, ResourcePool, ResourceRequest, Spill,
};

use crate::common::waiting::{block_on, poll};
use crate::pool;

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

#[test]
fn requests_of_any_kinds_are_a_group() {
    let pool = pool();
    let requests =
        [ResourceRequest::of("numbers"), ResourceRequest::memory(1), ResourceRequest::memory(100).tenant("md")];
    let made = line!();
    let names = |group: &[Resource]| group.iter().map(Resource::tier_name).collect::<Vec<_>>();
    let one = pool.try_allocate_group(&requests[..]).unwrap();
    assert_eq!(names(&one), ["numbers", "small", "middle"]);
    let two = pool.allocate_group_timeout(&requests[..], Duration::from_secs(1)).unwrap();
    let mut lines: Vec<_> = pool.holders().iter().map(|holder| holder.site.unwrap().line()).collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 6);
    assert!(*lines.last().unwrap() < made, "the lines that made the requests: {lines:?}");
    let error = pool.try_allocate_group(&requests[..]).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::Exhausted(_))), "{error}");

    // Waits for all of them, and gives back those it has if one does not come.
    let wakes = Arc::default();
    let mut waits = pool.allocate_group_async(&requests[..]);
    assert!(poll(waits.as_mut(), &wakes).is_pending());
    drop(one);
    assert_eq!(names(&block_on(waits).unwrap()), ["numbers", "small", "middle"]);
    let error =
        pool.allocate_group_timeout(&[requests.clone(), requests.clone()].concat()[..], Duration::from_millis(1));
    assert!(matches!(error, Err(RequestError::Tier(AllocateError::TimedOut { .. }))), "{error:?}");
    drop(two);
    assert_eq!(pool.monitor().tiers.iter().map(|tier| tier.held()).sum::<usize>(), 0);
    let too_many = [&requests[..], &requests[..], &requests[..]].concat();
    assert!(matches!(pool.allocate_group(&too_many[..]), Err(RequestError::GroupTooLarge { .. })));
    assert!(matches!(pool.try_allocate_group(&[ResourceRequest::of("none")][..]), Err(RequestError::NoTier { .. })));
    assert!(pool.allocate_group(&[][..] as &[ResourceRequest]).unwrap().is_empty());
}
