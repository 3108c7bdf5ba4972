//! Who gets what, and what is respected.

use std::time::{Duration, Instant};

use tierpool::{
    BreakerRules, BreakerState, Health, Limit, MemoryTier, Node, Outcome, Policy, Pool, Priority, Request,
    ResourceRequest, RouteRule, Task, TaskRouter, TenantRules, Tier, Watermarks,
};

use crate::{router, task};

/// The tier that [`task`] takes from.
const BLOCKS: &str = "blocks";

#[test]
fn of_two_nodes_the_emptier_is_taken() {
    let (router, nodes) = router(Policy::PowerOfTwo, &[8, 8]);
    let held: Vec<_> = (0..4).map(|_| router.start(&task(1)).unwrap()).collect();
    let on = |node: &Node| held.iter().filter(|it| it.node().name() == node.name()).count();
    assert_eq!((on(&nodes[0]), on(&nodes[1])), (2, 2));
}

#[test]
fn best_fit_fills_the_fullest_and_wastes_the_fewest_bytes() {
    let (router, nodes) = router(Policy::BestFit, &[8, 4, 6]);
    let held: Vec<_> = (0..5).map(|_| router.start(&task(1)).unwrap()).collect();
    let names: Vec<_> = held.iter().map(|it| it.node().name()).collect();
    assert_eq!(names, ["n1", "n1", "n1", "n1", "n2"]);
    assert_eq!(nodes[1].free("blocks"), Some(0));

    let snug = Pool::builder().memory("pages", 4000, 64).build().unwrap();
    router.add(Node::new("snug", snug));
    let task = task(1);
    let route = router.route_task(&task).unwrap();
    assert_eq!((route.node.name(), route.reason.waste, route.reason.rule), ("snug", 0, RouteRule::Tightest));
}

#[test]
fn a_task_goes_where_it_prefers_then_near_its_data_then_anywhere() {
    let router = TaskRouter::new(Policy::LocalityFirst);
    for (name, label) in [("a0", "a"), ("a1", "a"), ("b0", "b"), ("b1", "b")] {
        router.add(Node::with_labels(name, [label, label], crate::pool(1)));
    }
    let task = task(1).near("b").prefers("b1");
    let held: Vec<_> = (0..4).map(|_| router.start(&task).unwrap()).collect();
    let names: Vec<_> = held.iter().map(|it| it.node().name()).collect();
    assert_eq!(names[..2], ["b1", "b0"]);
    assert!(names[2..].iter().all(|name| name.starts_with('a')), "{names:?}");
    assert!(router.start(&task).is_err());
    drop(held);

    assert_eq!(router.route_task(&task).unwrap().reason.rule, RouteRule::Preferred);
    router.nodes().iter().find(|node| node.name() == "b1").unwrap().set_health(Health::Degraded);
    let route = router.route_task(&task).unwrap();
    assert_eq!((route.node.name(), route.reason.rule), ("b0", RouteRule::Near));
    router.nodes().iter().for_each(|node| node.set_health(Health::Degraded));
    let route = router.route_task(&task).unwrap();
    assert!(route.node.name().starts_with('b') && route.reason.degraded, "{route}");
}

#[test]
fn an_unhealthy_node_gets_nothing_and_a_degraded_one_what_no_healthy_one_can_hold() {
    for policy in [Policy::PowerOfTwo, Policy::BestFit, Policy::LocalityFirst] {
        let (router, nodes) = router(policy, &[1, 8, 2]);
        nodes[0].set_health(Health::Unhealthy);
        nodes[1].set_health(Health::Degraded);
        let held: Vec<_> = (0..10).map(|_| router.start(&task(1)).unwrap()).collect();
        let names: Vec<_> = held.iter().map(|it| it.node().name()).collect();
        assert_eq!(names, ["n2", "n2", "n1", "n1", "n1", "n1", "n1", "n1", "n1", "n1"], "{policy:?}");
        assert!(router.start(&task(1)).is_err());
        assert!(router.validate_resources(&task(1)), "health passes");
        nodes[0].set_health(Health::Healthy);
        assert_eq!(router.start(&task(1)).unwrap().node().name(), "n0");
    }
}

#[test]
fn a_healthy_node_whose_gauges_are_stale_goes_before_a_degraded_one() {
    let (router, nodes) = router(Policy::PowerOfTwo, &[]);
    let pool = crate::pool(2);
    let held: Vec<_> = (0..2).map(|_| pool.try_allocate(Request::memory(4000)).unwrap()).collect();
    router.add(Node::new("stale", pool));
    router.add(Node::new("degraded", crate::pool(2)));
    router.nodes()[1].set_health(Health::Degraded);
    assert_eq!(router.route_task(&task(1)).unwrap().node.name(), "degraded");
    drop(held);
    assert_eq!(router.nodes()[0].free("blocks"), Some(0));
    assert_eq!(router.route_task(&task(1)).unwrap().node.name(), "stale");
    assert!(nodes.is_empty());
}

#[test]
fn watermarks_are_for_the_tasks_priority() {
    let marks = Watermarks { min: 1, low: 2, high: 3 };
    let pool = Pool::builder().memory_tier(MemoryTier::new("blocks", 4096, 4).watermarks(marks)).build().unwrap();
    let router = TaskRouter::default();
    router.add(Node::new("n", pool));
    let of = |priority| task(1).priority(priority);
    let _low = router.start(&of(Priority::Low)).unwrap();
    assert!(router.route_task(&of(Priority::Low)).is_err());
    let _normal = router.start(&of(Priority::Normal)).unwrap();
    assert!(router.route_task(&of(Priority::Normal)).is_err());
    let _high = router.start(&of(Priority::High)).unwrap();
    assert!(router.route_task(&of(Priority::High)).is_err());
    let last = router.start(&of(Priority::Critical)).unwrap();
    assert!(router.route_task(&of(Priority::Critical)).is_err());
    drop(last);
    assert!(router.route_task(&of(Priority::Critical)).is_ok());
    assert!(!router.validate_resources(&task(2).priority(Priority::Low)));
    assert!(router.validate_resources(&task(4).priority(Priority::Critical)));
}

#[test]
fn the_quota_of_a_tenant_and_of_its_parents_is_respected() {
    let desk = TenantRules::new("desk").hard(Limit::slots(3));
    let md = TenantRules::new("md").parent("desk").hard(Limit::bytes(2 * 4096));
    let pool = Pool::builder().memory("blocks", 4096, 8).tenant(desk).tenant(md).build().unwrap();
    let (router, _) = router(Policy::PowerOfTwo, &[]);
    router.add(Node::new("n", pool.clone()));
    let of = |tenant: &'static str, blocks| task(blocks).tenant(tenant);
    assert!(!router.validate_resources(&of("md", 3)));
    let two = router.start(&of("md", 2)).unwrap();
    assert!(router.route_task(&of("md", 1)).is_err());
    assert!(router.route_task(&of("desk", 2)).is_err());
    let one = router.start(&of("desk", 1)).unwrap();
    assert!(router.route_task(&of("desk", 1)).is_err());
    assert!(router.route_task(&of("nobody", 1)).is_err());
    assert!(router.route_task(&task(5)).is_ok(), "without a tenant");
    drop((two, one));
    assert!(router.route_task(&of("md", 2)).is_ok());
    pool.set_quota(pool.tenant("desk").unwrap(), Limit::slots(8), Limit::NONE).unwrap();
    assert!(router.route_task(&of("desk", 8)).is_ok(), "refreshed before it is refused");
}

/// What a tier keeps back changes while it runs; a refusal does not go by what it was.
#[test]
fn watermarks_that_were_lowered_are_seen_before_a_task_is_refused() {
    let router = TaskRouter::default();
    let pool = crate::pool(4);
    let keep = |high| pool.set_watermarks(BLOCKS, Watermarks { min: 0, low: 0, high }).unwrap();
    keep(3);
    router.add(Node::new("n", pool.clone()));
    let low = task(2).priority(Priority::Low);
    assert!(router.route_task(&low).is_err() && !router.validate_resources(&low));
    keep(0);
    assert!(router.validate_resources(&low));
    keep(3);
    assert!(router.start(&low).is_err(), "as it is now");
    assert!(router.route_task(&low).is_err(), "and the gauges know it");
    keep(0);
    assert!(router.route_task(&low).is_ok());
}

/// Slots that only urgent requests may have are there for them, whoever else waits.
#[test]
fn those_who_wait_in_vain_hide_no_reserve() {
    let pool = crate::pool(4);
    pool.set_watermarks(BLOCKS, Watermarks { min: 0, low: 0, high: 2 }).unwrap();
    let router = TaskRouter::default();
    let node = Node::new("n", pool.clone());
    router.add(node.clone());
    let low = || Request::memory(4000).priority(Priority::Low);
    let held: Vec<_> = (0..2).map(|_| pool.try_allocate(low()).unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| pool.allocate(low()).unwrap());
        }
        while pool.monitor().tier(BLOCKS).unwrap().snapshot.waiting < 2 {
            std::thread::yield_now();
        }
        node.refresh();
        assert!(router.start(&task(2).priority(Priority::Critical)).is_ok());
        drop(held);
    });
}

/// A breaker whose open time is over lets a call pass to see: somebody has to make it.
#[test]
fn a_breaker_that_is_due_shuts_no_node() {
    let open_min = Duration::from_millis(20);
    let rules = BreakerRules { open_min, ..BreakerRules::default() };
    let pool = Pool::builder().memory(BLOCKS, 4096, 4).breaker(BLOCKS, rules).build().unwrap();
    let breaker = pool.breaker(BLOCKS).unwrap();
    let router = TaskRouter::default();
    router.add(Node::new("n", pool.clone()));
    breaker.force_open();
    assert!(router.start(&task(1)).is_err());
    breaker.reset();
    while breaker.state() == BreakerState::Closed {
        breaker.record(Outcome::Failure, Duration::ZERO);
    }
    let start = Instant::now();
    while router.start(&task(1)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(30), "nobody asks any more");
        std::thread::sleep(open_min / 4);
    }
}

#[test]
fn kinds_and_sizes_that_a_node_has_not_are_not_routed_there() {
    let numbers = Tier::builder("numbers").capacity(2).build_with(|| 7u64).unwrap();
    let router = TaskRouter::default();
    router.add(Node::new("memory", crate::pool(4)));
    router.add(Node::new("both", Pool::builder().memory("small", 64, 4).tier(numbers).build().unwrap()));
    let small_and_number = Task::new("t")
        .needs(ResourceRequest::of("numbers"))
        .needs(ResourceRequest::memory(60))
        .needs(ResourceRequest::of("small"));
    for _ in 0..32 {
        assert_eq!(router.route_task(&small_and_number).unwrap().node.name(), "both");
        assert_eq!(router.route_task(&task(1)).unwrap().node.name(), "memory");
    }
    let large_and_number = task(1).needs(ResourceRequest::of("numbers"));
    assert!(!router.validate_resources(&large_and_number));
    assert!(router.route_task(&large_and_number).is_err());
    assert!(router.route_task(&Task::new("nothing")).is_ok());
}

#[test]
fn cores_and_disk_space_are_kinds_too() {
    let directory = tempfile::tempdir().unwrap();
    let router = TaskRouter::default();
    router.add(Node::new("memory", crate::pool(4)));
    let all = Pool::builder().memory("small", 64, 4).cpu("cores").disk("spill", directory.path(), 4096, 2);
    router.add(Node::new("all", all.build().unwrap()));
    let task = Task::new("t").needs(ResourceRequest::cpu()).needs(ResourceRequest::disk(4000));
    for _ in 0..32 {
        assert_eq!(router.route_task(&task).unwrap().node.name(), "all");
    }
    let placement = router.start(&task.clone().needs(ResourceRequest::disk(1))).unwrap();
    assert_eq!(placement.resources().len(), 3);
    let pinned = |it: &tierpool::Resource| matches!(it, tierpool::Resource::Cpu(core) if core.is_pinned());
    assert!(!placement.resources().iter().any(pinned), "whoever runs it pins himself");
    let text = router.start(&task).unwrap_err().to_string();
    assert!(text.contains("0 of 1 slots of tier \"spill\" free") && text.contains("has no tier of cores"), "{text}");
    drop(placement);
    assert!(router.start(&task).is_ok());
    assert!(!router.validate_resources(&Task::new("t").needs(ResourceRequest::disk(4097))));
}

#[test]
fn a_task_of_many_kinds_is_looked_up_as_a_whole() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let builder = names.iter().fold(Pool::builder(), |builder, name| {
        builder.tier(Tier::builder(name).capacity(2).build_with(|| 0u8).unwrap())
    });
    let router = TaskRouter::default();
    router.add(Node::new("n", builder.build().unwrap()));
    let needs =
        |n| names.iter().cycle().take(n).fold(Task::new("t"), |task, name| task.needs(ResourceRequest::of(*name)));
    let held = router.start(&needs(14)).unwrap();
    let tiers: Vec<_> = held.resources().iter().map(|it| it.tier_name()).collect();
    assert_eq!(tiers, [names, names].concat());
    assert!(router.route_task(&needs(1)).is_err());
    drop(held);
    assert!(!router.validate_resources(&needs(15)));
}

#[test]
fn tenant_and_priority_are_the_tasks_whenever_they_are_said() {
    let request = ResourceRequest::memory(1).tenant("other").priority(Priority::Low);
    let task = Task::new("t").needs(request.clone()).tenant("md").priority(Priority::High).needs_several(request, 2);
    let router = TaskRouter::default();
    let requests = router.get_resource_requirements(&task);
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|it| (it.on_behalf_of(), it.urgency()) == (Some("md"), Priority::High)));
    assert!(requests[0].spills().is_none());
}
