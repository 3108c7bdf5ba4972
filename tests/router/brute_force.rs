//! Random nodes, use, and tasks: the router beside what the pools really do when each is asked in turn.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tierpool::{
    Health, Lease, Limit, MemoryTier, Node, Policy, Pool, Priority, Resource, ResourceRequest, RouteRule, Spill, Task,
    TaskRouter, TenantRules, Tier, Wanted, Watermarks, WhyNot,
};

const SIZES: [usize; 3] = [64, 512, 4096];
const NAMES: [&str; 3] = ["small", "middle", "large"];

/// A pool, and what is done with it before.
#[derive(Debug, Clone)]
struct Setting {
    /// Slots of each size; 0: no such tier.
    slots: [usize; 3],
    numbers: usize,
    overflow: bool,
    marks: bool,
    /// Hard limits of `a`, and of its child `b`.
    quota: Option<(u64, u64)>,
    health: u8,
    used: Vec<Want>,
}

/// What is wanted: which tier or size, and how it spills.
#[derive(Debug, Clone)]
struct Want {
    what: usize,
    spill: Option<u8>,
}

#[derive(Debug, Clone)]
struct Order {
    wants: Vec<Want>,
    tenant: usize,
    priority: usize,
}

const TENANTS: [Option<&str>; 4] = [None, Some("a"), Some("b"), Some("nobody")];

impl Setting {
    fn pool(&self) -> Pool {
        let mut builder = Pool::builder();
        // In an order that is not that of their sizes: groups take them as they were built.
        for tier in [1, 0, 2].into_iter().filter(|&tier| self.slots[tier] > 0) {
            let slots = self.slots[tier];
            let high = if self.marks { slots - 1 } else { 0 };
            let marks = Watermarks { min: high / 2, low: high.min(1).max(high / 2), high };
            builder = builder.memory_tier(MemoryTier::new(NAMES[tier], SIZES[tier], slots).watermarks(marks));
        }
        let memory: usize = self.slots.iter().sum();
        if self.overflow && memory > 0 {
            builder = builder.overflow(2);
        }
        builder = builder.tier(Tier::builder("numbers").capacity(self.numbers).build_with(|| 7u64).unwrap());
        if let Some((a, b)) = self.quota {
            let most = (memory + self.numbers) as u64;
            let (a, b) = (a.min(most), b.min(a).min(most));
            builder = builder.tenant(TenantRules::new("a").hard(Limit::slots(a)));
            builder = builder.tenant(TenantRules::new("b").parent("a").hard(Limit::slots(b)));
        }
        builder.build().unwrap()
    }

    fn health(&self) -> Health {
        [Health::Healthy, Health::Healthy, Health::Degraded, Health::Unhealthy][usize::from(self.health)]
    }
}

impl Want {
    fn request(&self) -> ResourceRequest {
        let request = match self.what {
            0..4 => ResourceRequest::memory([40, 64, 500, 4000][self.what]),
            4 => ResourceRequest::of("numbers"),
            5 => ResourceRequest::memory(10_000),
            _ => ResourceRequest::of("small"),
        };
        match self.spill {
            None => request,
            Some(0) => request.spill(Spill::Refuse),
            Some(1) => request.spill(Spill::System),
            Some(_) => request.spill(Spill::NextLarger),
        }
    }
}

impl Order {
    fn task(&self) -> Task {
        let task = self.wants.iter().fold(Task::new("t"), |task, want| task.needs(want.request()));
        let task = task.priority(Priority::ALL[self.priority]);
        match TENANTS[self.tenant] {
            Some(tenant) => task.tenant(tenant),
            None => task,
        }
    }
}

fn want() -> impl Strategy<Value = Want> {
    (prop_oneof![10 => 0..5usize, 1 => 5..7usize], option::weighted(0.3, 0..4u8))
        .prop_map(|(what, spill)| Want { what, spill })
}

fn setting() -> impl Strategy<Value = Setting> {
    let slots = [0..5usize, 0..4, 0..4];
    let quota = option::of((0..6u64, 0..4u64));
    (slots, 1..4usize, any::<bool>(), any::<bool>(), quota, 0..4u8, vec(want(), 0..6)).prop_map(
        |(slots, numbers, overflow, marks, quota, health, used)| Setting {
            slots,
            numbers,
            overflow,
            marks,
            quota,
            health,
            used,
        },
    )
}

fn order() -> impl Strategy<Value = Order> {
    (vec(want(), 0..6), 0..4usize, 0..4usize).prop_map(|(wants, tenant, priority)| Order { wants, tenant, priority })
}

/// What a node really has left with the task there: bytes unused, and the least share of slots left as a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Truth {
    waste: u64,
    left: usize,
    of: usize,
}

/// Asks the pool itself.
fn try_on(pool: &Pool, task: &Task) -> Option<Truth> {
    let held = pool.try_allocate_group(task.requirements()).ok()?;
    let (status, class) = (pool.monitor(), task.urgency());
    let waste = held.iter().zip(task.requirements()).map(|(held, request)| match (held, request.wanted()) {
        (Resource::Memory(lease), Wanted::Bytes(wanted)) if held.tier_name() != "overflow" => lease.capacity() - wanted,
        _ => 0,
    });
    let waste = waste.sum::<usize>() as u64;
    let shares = held.iter().map(|held| {
        let now = &status.tier(held.tier_name()).unwrap().snapshot;
        let marks = kept(pool, held.tier_name(), class);
        ((now.free + now.reserved).saturating_sub(marks), now.capacity)
    });
    let (left, of) = shares.min_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1))).unwrap_or((1, 1));
    Some(Truth { waste, left, of })
}

/// How many slots of a tier a priority leaves, by taking all that it can.
fn kept(pool: &Pool, tier: &str, priority: Priority) -> usize {
    if tier == "overflow" {
        return 0;
    }
    let mut held: Vec<Resource> = Vec::new();
    let request = ResourceRequest::of(tier.to_owned()).priority(priority);
    while let Ok(more) = pool.try_allocate_group(&[request.clone()][..]) {
        held.extend(more);
    }
    let now = pool.monitor().tier(tier).unwrap().snapshot;
    now.free + now.reserved
}

fn better(one: &Truth, other: &Truth) -> bool {
    let (a, b) = (one.left * other.of, other.left * one.of);
    (one.waste, a) < (other.waste, b)
}

/// The nodes, their pools, and what is held of them past the router.
fn build(settings: &[Setting]) -> (Vec<Node>, Vec<Pool>, Vec<Resource>) {
    let pools: Vec<Pool> = settings.iter().map(Setting::pool).collect();
    let node = |(n, pool): (usize, &Pool)| Node::new(&format!("n{n}"), pool.clone());
    let nodes: Vec<Node> = pools.iter().enumerate().map(node).collect();
    let mut held = Vec::new();
    for ((setting, node), pool) in settings.iter().zip(&nodes).zip(&pools) {
        node.set_health(setting.health());
        for (place, want) in setting.used.iter().enumerate() {
            let request = want.request().priority(Priority::ALL[place % 4]);
            let request = if setting.quota.is_some() && place % 2 == 1 { request.tenant("b") } else { request };
            held.extend(pool.try_allocate_group(&[request][..]).into_iter().flatten());
        }
    }
    (nodes, pools, held)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_task_is_routed_exactly_where_the_pools_would_take_it(
        settings in vec(setting(), 0..6),
        orders in vec(order(), 1..5),
    ) {
        let (nodes, pools, held) = build(&settings);
        nodes.iter().for_each(Node::refresh);
        let mut placed = Vec::new();
        for order in &orders {
            let task = order.task();
            let truth: Vec<Option<Truth>> = pools.iter().map(|pool| try_on(pool, &task)).collect();
            let fitting = |health: Health| -> Vec<usize> {
                (0..nodes.len()).filter(|&n| settings[n].health() == health && truth[n].is_some()).collect()
            };
            let (healthy, degraded) = (fitting(Health::Healthy), fitting(Health::Degraded));
            let candidates = if healthy.is_empty() { &degraded } else { &healthy };
            for policy in [Policy::PowerOfTwo, Policy::BestFit, Policy::LocalityFirst] {
                let router = TaskRouter::new(policy);
                router.sync(&nodes);
                let route = match router.route_task(&task) {
                    Ok(route) => route,
                    Err(why) => {
                        prop_assert!(candidates.is_empty(), "{}, but {:?} can hold it", why, candidates);
                        continue;
                    }
                };
                let chosen = nodes.iter().position(|node| node.name() == route.node.name()).unwrap();
                prop_assert!(candidates.contains(&chosen), "{}, but only {:?} can hold it", route, candidates);
                let truth_of = truth[chosen].unwrap();
                let reason = route.reason;
                prop_assert_eq!((reason.waste, reason.left * truth_of.of), (truth_of.waste, truth_of.left * reason.of), "{}", route);
                prop_assert_eq!(reason.degraded, healthy.is_empty());
                if policy == Policy::BestFit {
                    prop_assert!(!candidates.iter().any(|&n| better(&truth[n].unwrap(), &truth_of)), "{}: {:?}", route, truth);
                }
                if policy == Policy::PowerOfTwo {
                    prop_assert_eq!(reason.rule == RouteRule::Only, nodes.len() == 1 && !reason.degraded, "{}", route);
                }
                if reason.rule == RouteRule::BetterOfTwo {
                    let other = route.rejected.iter().last();
                    match other.map(|other| &other.why) {
                        Some(&WhyNot::Outdone { left, of }) => prop_assert!(reason.left * of >= left * reason.of, "{}", route),
                        _ => prop_assert!(false, "{}", route),
                    }
                }
                prop_assert!(router.validate_resources(&task));
            }
            // So that the next task finds less.
            let router = TaskRouter::default();
            router.sync(&nodes);
            let started = router.start(&task);
            prop_assert_eq!(started.is_ok(), !candidates.is_empty());
            placed.extend(started);
        }
        drop((held, placed));
        prop_assert!(pools.iter().all(crate::is_whole));
    }

    /// Nobody has told the gauges what is held: who starts a task finds the node that has room all the same.
    #[test]
    fn a_task_is_started_wherever_it_fits_though_the_gauges_are_stale(
        settings in vec(setting(), 0..5),
        orders in vec(order(), 1..6),
        policy in 0..3usize,
    ) {
        let (nodes, pools, mut held) = build(&settings);
        let router = TaskRouter::new([Policy::PowerOfTwo, Policy::BestFit, Policy::LocalityFirst][policy]);
        router.sync(&nodes);
        let mut placed = Vec::new();
        for (place, order) in orders.iter().enumerate() {
            let task = order.task();
            let can = |(pool, setting): (&Pool, &Setting)| {
                setting.health() != Health::Unhealthy && pool.try_allocate_group(task.requirements()).is_ok()
            };
            let fits = pools.iter().zip(&settings).any(can);
            let started = router.start(&task);
            prop_assert_eq!(started.is_ok(), fits, "{:?}", started);
            placed.extend(started);
            if place % 2 == 0 {
                held.truncate(held.len() / 2);
            }
        }
    }

    #[test]
    fn what_no_node_could_ever_hold_is_told_from_what_none_can_hold_now(
        settings in vec(setting(), 0..4),
        order in order(),
    ) {
        let unused: Vec<_> = settings.iter().map(|setting| Setting { used: Vec::new(), ..setting.clone() }).collect();
        let (_, empty, _) = build(&unused);
        let (nodes, _pools, _held) = build(&settings);
        let router = TaskRouter::default();
        router.sync(&nodes);
        let task = order.task();
        let ever = empty.iter().any(|pool| pool.try_allocate_group(task.requirements()).is_ok());
        prop_assert_eq!(router.validate_resources(&task), ever);
    }
}

/// That a lease of any kind comes out as it went in is what the above rests on.
#[test]
fn a_resource_knows_its_tier() {
    let pool = Pool::builder().memory("small", 64, 1).build().unwrap();
    let lease: Lease<_> = pool.try_allocate(tierpool::Request::memory(1)).unwrap();
    assert_eq!(Resource::from(lease).tier_name(), "small");
}
