//! Who holds how much: holders counted by line, tenant, tag and priority; what has grown; and the priority of each holder, whichever
//! way it came to its slot.

pub mod common;

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::waiting::wait_until;
use tierpool::{HoldersBySite, Limit, Pool, Priority, Request, TenantRules, Tier, Watermarks};

fn tier(name: &str, capacity: usize) -> Tier<u64> {
    Tier::builder(name).capacity(capacity).build_with(|| 0).unwrap()
}

fn counts(now: &HoldersBySite) -> Vec<(u32, usize)> {
    now.sites.iter().map(|site| (site.site.line(), site.count)).collect()
}

#[test]
fn sites_are_sorted_by_what_they_hold_and_say_what_grew() {
    let tier = tier("jobs", 64);
    assert_eq!(tier.holders_by_site().held(), 0);
    assert_eq!(tier.holders_by_site().to_string(), "nothing is held");
    let few = line!() + 1;
    let mut held: Vec<_> = (0..3).map(|_| tier.try_allocate().unwrap()).collect();
    let many = line!() + 1;
    let _handles: Vec<_> = (0..5).map(|_| tier.try_allocate().unwrap().detach()).collect();
    let before = tier.holders_by_site();
    assert_eq!((counts(&before), before.held()), (vec![(many, 5), (few, 3)], 8));
    let first = &before.sites[0];
    assert_eq!(
        (first.tier, first.tag, first.tenant.as_deref(), first.priority),
        ("jobs", None, None, Priority::Normal)
    );
    assert_eq!(first.threads, [thread::current().name().unwrap()[..32].to_owned()]);
    assert!(before.to_string().starts_with(&format!("5 held from tests/holders_by_site.rs:{many}:")), "{before}");

    held.pop();
    let grown = line!() + 1;
    let more: Vec<_> = (0..4).map(|_| tier.try_allocate().unwrap()).collect();
    let since = tier.holders_by_site().since(&before);
    let sites: Vec<_> = since.sites.iter().map(|site| (site.now.site.line(), site.before, site.grown())).collect();
    assert_eq!(sites, [(grown, 0, 4)], "what has shrunk or stayed is left out");
    assert!(since.to_string().contains("+4: 4 held from"), "{since}");
    drop(more);
    assert!(tier.holders_by_site().since(&before).to_string().ends_with("nothing has grown"));
}

/// Tenants, tags, priorities and tiers that have the same name are told apart.
#[test]
fn groups_are_by_tier_tenant_tag_and_priority() {
    let pool =
        Pool::builder().memory("bytes", 64, 64).tier(tier("words", 8)).tenant("md").tenant("oms").build().unwrap();
    let mut held = Vec::new();
    for (tenant, tag, priority, count) in [
        ("md", "rx", Priority::High, 4),
        ("md", "tx", Priority::High, 3),
        ("oms", "rx", Priority::High, 2),
        ("md", "rx", Priority::Low, 5),
    ] {
        let request = Request::memory(10).tenant(tenant).tag(tag).priority(priority);
        held.extend((0..count).map(|_| pool.try_allocate(request).unwrap()));
    }
    let _word = pool.try_allocate(Request::of::<u64>("words")).unwrap();
    let now = pool.holders_by_site();
    let groups: Vec<_> =
        now.sites.iter().map(|it| (it.tier, it.tenant.as_deref(), it.tag, it.priority, it.count)).collect();
    let md = Some("md");
    assert_eq!(
        groups,
        [
            ("bytes", md, Some("rx"), Priority::Low, 5),
            ("bytes", md, Some("rx"), Priority::High, 4),
            ("bytes", md, Some("tx"), Priority::High, 3),
            ("bytes", Some("oms"), Some("rx"), Priority::High, 2),
            ("words", None, None, Priority::Normal, 1),
        ]
    );
    let line = now.sites[1].to_string();
    assert!(line.contains("for \"rx\" on behalf of \"md\" at priority High, the oldest for "), "{line}");
}

/// However somebody came to a slot, its header says how urgent he was.
#[test]
fn a_holder_has_its_priority_whichever_way_it_came() {
    let marks = Watermarks { min: 1, low: 2, high: 3 };
    let tenant = TenantRules::new("md").hard(Limit::slots(60));
    let pool = Pool::builder()
        .memory_tier(tierpool::MemoryTier::new("bytes", 64, 64).watermarks(marks))
        .tenant(tenant)
        .build()
        .unwrap();
    let shown = |what: &str, priority: Priority| {
        let holders = pool.holders();
        assert!(!holders.is_empty(), "{what}");
        for holder in holders {
            assert_eq!((holder.priority, holder.tag, holder.tier), (priority, Some("it"), "bytes"), "{what}: {holder}");
            assert!(holder.handle.to_string().contains(&format!("#{}@", holder.slot)), "{holder:?}");
        }
    };
    for priority in Priority::ALL {
        let request = Request::memory(10).tenant("md").tag("it").priority(priority);
        let held = pool.try_allocate(request).unwrap();
        shown("tried", priority);
        drop(held);
        let prepared = pool.prepare(request).unwrap();
        let handle = prepared.try_allocate().unwrap().detach();
        shown("prepared and detached", priority);
        pool.release_handle(handle).unwrap();
        let held = pool.allocate_timeout(request, Duration::from_secs(60)).unwrap();
        shown("with time", priority);
        drop(held);
        let reserved = pool.reserve(request, 20).unwrap();
        shown("reserved", priority);
        let drawn = reserved.draw().unwrap();
        shown("drawn", priority);
        drop((drawn, reserved));
        let group = pool.allocate_group((request, request)).unwrap();
        shown("in a group", priority);
        drop(group);
    }
    let request = Request::memory(10).tenant("md").tag("it").priority(Priority::Critical);
    let all: Vec<_> = std::iter::from_fn(|| pool.try_allocate(request).ok()).collect();
    assert_eq!(all.len(), 60, "all that it may have");
    shown("some of the reserve", Priority::Critical);
}

/// Of a slot that a release hands over, the waiter's own mark is in the header, though another thread wrote it.
#[test]
fn a_waiter_brings_its_priority_and_its_tag() {
    let pool = Pool::builder().memory("bytes", 64, 1).build().unwrap();
    let held = pool.try_allocate(Request::memory(10).tag("first").priority(Priority::Low)).unwrap();
    let request = Request::memory(10).tag("second").priority(Priority::Critical);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.allocate(request).unwrap());
        wait_until("it waits", || pool.monitor().tiers[0].snapshot.waiting == 1);
        drop(held);
        let lease = waiter.join().unwrap();
        let now = pool.holders();
        assert_eq!((now.len(), now[0].priority, now[0].tag), (1, Priority::Critical, Some("second")));
        drop(lease);
    });
}

/// Threads that come and go, each at its own line: no count is below what each keeps meanwhile, and at the quiet point
/// counts are exact.
#[test]
fn counts_are_exact_at_a_quiet_point_and_sane_before() {
    const KEPT: [usize; 3] = [40, 25, 10];
    let tier = tier("busy", 512);
    let over = AtomicBool::new(false);
    let lines = [line!() + 4, line!() + 5, line!() + 6];
    let allocate = |way: usize| {
        let tier = &tier;
        match way {
            0 => tier.try_allocate().unwrap(),
            1 => tier.try_allocate().unwrap(),
            _ => tier.try_allocate().unwrap(),
        }
    };
    let all_keep = Barrier::new(4);
    let held = thread::scope(|scope| {
        let (allocate, over, all_keep) = (&allocate, &over, &all_keep);
        let work = |way: usize| {
            move || {
                let kept: Vec<_> = (0..KEPT[way]).map(|_| allocate(way)).collect();
                all_keep.wait();
                let mut brief = Vec::new();
                let mut turn = 0;
                while !over.load(Ordering::Relaxed) {
                    if turn % 20 < 10 {
                        brief.push(allocate(way))
                    } else {
                        drop(brief.pop())
                    }
                    turn += 1;
                }
                kept
            }
        };
        let threads: Vec<_> = (0..3).map(|way| scope.spawn(work(way))).collect();
        all_keep.wait();
        for _ in 0..300 {
            for site in tier.holders_by_site().sites {
                let way = lines.iter().position(|&line| line == site.site.line()).expect("no line but theirs");
                // What is kept does not move, and is counted in every pass.
                assert!((KEPT[way]..=512).contains(&site.count), "{site}");
                assert!(site.threads.len() <= 3 && site.oldest < Duration::from_secs(600), "{site}");
            }
        }
        over.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let expected: HashMap<u32, usize> = lines.into_iter().zip(KEPT).collect();
    let now: HashMap<u32, usize> = counts(&tier.holders_by_site()).into_iter().collect();
    assert_eq!(now, expected);
    let one_by_one = tier.holders().into_iter().fold(HashMap::new(), |mut all: HashMap<u32, usize>, holder| {
        *all.entry(holder.site.unwrap().line()).or_default() += 1;
        all
    });
    assert_eq!(one_by_one, expected);
    drop(held);
    assert_eq!(tier.holders_by_site().held(), 0);
}
