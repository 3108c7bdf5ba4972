//! What answers and refusals say.

use tierpool::{Health, Limit, Node, Policy, Pool, ResourceRequest, Task, TaskRouter, TenantRules};

use crate::{pool, router, task};

#[test]
fn a_route_says_why_this_node_and_why_not_the_others() {
    let (router, nodes) = router(Policy::PowerOfTwo, &[8, 4]);
    let _held = router.start(&task(3)).unwrap();
    let name = |route: &tierpool::Route<'_>| route.node.name().to_owned();
    let task = task(1);
    let route = router.route_task(&task).unwrap();
    let other = if name(&route) == "n0" { "\"n1\"" } else { "\"n0\"" };
    let text = route.to_string();
    assert!(text.starts_with("task \"task\" goes to node \"n"), "{text}");
    assert!(text.contains("which is the emptier of two drawn at random: "), "{text}");
    assert!(text.contains(&format!("; not to {other}, which would have ")), "{text}");

    nodes[0].set_health(Health::Unhealthy);
    let text = router.route_task(&task).unwrap().to_string();
    assert!(text.contains("which is the one of two drawn at random that can hold it"), "{text}");
    assert!(text.ends_with("; not to \"n0\", which is unhealthy"), "{text}");
    nodes[1].set_health(Health::Degraded);
    let text = router.route_task(&task).unwrap().to_string();
    assert!(text.contains("left with it there (degraded; no healthy node can hold it); not to \"n0\""), "{text}");
}

#[test]
fn best_fit_names_four_and_counts_the_rest() {
    let (router, _) = router(Policy::BestFit, &[9, 8, 7, 6, 5, 4, 3, 1]);
    let task = task(2);
    let route = router.route_task(&task).unwrap();
    assert_eq!((route.node.name(), route.reason.left, route.reason.of), ("n6", 1, 3));
    assert_eq!((route.rejected.iter().count(), route.rejected.others()), (4, 3));
    let text = route.to_string();
    assert!(text.contains("which is the one that it fits the tightest: 1 of 3 slots left"), "{text}");
    assert!(text.contains("not to \"n0\", which would have 7 of 9 slots left"), "{text}");
    assert!(text.ends_with("; nor to 3 more"), "{text}");
}

#[test]
fn a_refusal_says_of_each_node_why() {
    let router = TaskRouter::default();
    let task = task(2).tenant("md");
    let error = router.route_task(&task).unwrap_err().to_string();
    assert_eq!(error, "task \"task\" goes nowhere: the router has no nodes; give it one with `add` or `sync`");

    let small = Pool::builder().memory("small", 64, 4).build().unwrap();
    let stranger = Pool::builder().memory("blocks", 4096, 4).build().unwrap();
    let quota = TenantRules::new("md").hard(Limit::slots(1));
    let bounded = Pool::builder().memory("blocks", 4096, 4).tenant(quota).build().unwrap();
    router.add(Node::new("small", small));
    router.add(Node::new("one", pool(1)));
    router.add(Node::new("stranger", stranger));
    router.add(Node::new("bounded", bounded));
    let error = router.route_task(&task).unwrap_err();
    assert_eq!(error.rejected().len(), 4);
    assert_eq!(
        error.to_string(),
        "task \"task\" is on no node: not on \"small\", which has no memory tier for 4000 bytes; not on \"one\", which can never give \
         2 slots of tier \"blocks\": 1 at this priority; not on \"stranger\", which has no tenant \"md\"; not on \"bounded\", which lets \
         tenant \"md\" hold 1 slots, and 0 are held; none could hold it if it were empty: need less, or add a node that can"
    );

    router.add(Node::new("busy", pool(2)));
    router.add(Node::new("ill", pool(2)));
    router.nodes()[5].set_health(Health::Unhealthy);
    let _held = router.start(&task).unwrap();
    let error = router.route_task(&task).unwrap_err().to_string();
    assert!(error.contains("not on \"busy\", which has 0 of 2 slots of tier \"blocks\" free"), "{error}");
    assert!(error.contains("not on \"ill\", which is unhealthy; try again when"), "{error}");

    let named = Task::new("named").needs(ResourceRequest::of("gpus"));
    let error = router.route_task(&named).unwrap_err().to_string();
    assert!(error.contains("which has no tier \"gpus\" as requested"), "{error}");
}
