//! Taking what a task needs, and falling back to the next best node.

use tierpool::{Health, Policy, Request, Resource, ResourceRequest, Task, WhyNot};

use crate::{is_whole, pool, router, task};

#[test]
fn a_task_holds_all_it_needs_for_its_life() {
    let (router, nodes) = router(Policy::PowerOfTwo, &[3]);
    let task =
        Task::new("t").needs(ResourceRequest::memory(10)).needs_several(ResourceRequest::memory(4096), 2).tenant("md");
    let mut held = router.start(&task).unwrap();
    let Resource::Memory(packet) = &mut held.resources_mut()[0] else { panic!("{held:?}") };
    packet[9] = 1;
    assert_eq!((nodes[0].free("packets"), nodes[0].free("blocks"), nodes[0].free("none")), (Some(5), Some(1), None));
    assert!(router.start(&task).is_err(), "all or nothing");
    assert_eq!((nodes[0].free("packets"), nodes[0].free("blocks")), (Some(5), Some(1)));
    drop(held);
    assert_eq!((nodes[0].free("packets"), nodes[0].free("blocks")), (Some(6), Some(3)));
    drop(router.route_task(&task).unwrap().take().unwrap());
}

#[test]
fn who_has_run_out_meanwhile_is_passed_and_says_so_if_nobody_is_left() {
    let pools = [pool(2), pool(2), pool(2)];
    for policy in [Policy::PowerOfTwo, Policy::BestFit, Policy::LocalityFirst] {
        let (router, _) = router(policy, &[]);
        for (place, pool) in pools.iter().enumerate() {
            router.add(tierpool::Node::new(&format!("n{place}"), pool.clone()));
        }
        router.nodes()[2].set_health(Health::Degraded);
        // The gauges know nothing of these.
        let mut past = vec![pools[0].try_allocate(Request::memory(4000)).unwrap()];
        past.push(pools[1].try_allocate(Request::memory(4000)).unwrap());
        let first = router.start(&task(2)).unwrap();
        assert_eq!(first.node().name(), "n2", "{policy:?}: the only one with two");
        let _second = router.start(&task(1)).unwrap();
        let _third = router.start(&task(1)).unwrap();
        assert!(pools.iter().all(|pool| pool.try_allocate(Request::memory(4000)).is_err()));
        let error = router.start(&task(1)).unwrap_err();
        assert_eq!(error.rejected().len(), 3, "{error}");
        past.clear();
        assert!(router.start(&task(1)).is_ok(), "{policy:?}: what came back past the router is found");
    }
    assert!(pools.iter().all(is_whole));
}

#[test]
fn a_route_whose_node_has_run_out_is_refused_with_the_pools_reason() {
    let pool = pool(1);
    let (router, _) = router(Policy::PowerOfTwo, &[]);
    router.add(tierpool::Node::new("n", pool.clone()));
    let task = task(1);
    let route = router.route_task(&task).unwrap();
    let _past = pool.try_allocate(Request::memory(4000)).unwrap();
    let error = route.take().unwrap_err();
    assert!(matches!(error.rejected()[0].why, WhyNot::Refused(_)), "{error}");
    assert!(error.to_string().contains("\"n\", which has refused: tier \"blocks\""), "{error}");
    assert_eq!(router.nodes()[0].free("blocks"), Some(0), "refreshed");
}

#[test]
fn a_placement_outlives_node_and_router() {
    let pool = pool(1);
    let (router, _) = router(Policy::PowerOfTwo, &[]);
    router.add(tierpool::Node::new("n", pool.clone()));
    let held = router.start(&task(1)).unwrap();
    assert_eq!(router.remove("n").unwrap().name(), "n");
    assert!(router.remove("n").is_none());
    assert!(router.start(&task(1)).is_err());
    drop(router);
    assert!(!is_whole(&pool));
    drop(held);
    assert!(is_whole(&pool));
}
