//! `Pool::optimize` moves what a tier keeps back for urgent requests, within the bounds that it was given.

use std::sync::{Arc, Mutex};

use tierpool::{Change, Decision, Memory, MemoryTier, Pool, PoolError, Priority, Reason, Request, Watermarks};

const LEAST: Watermarks = Watermarks { min: 0, low: 0, high: 1 };
const MOST: Watermarks = Watermarks { min: 2, low: 4, high: 5 };

fn request(priority: Priority) -> Request<'static, Memory> {
    Request::memory(64).priority(priority)
}

/// The watermarks that a decision leads to.
fn to(decision: &Decision) -> Watermarks {
    let Change::Watermarks { to, .. } = decision.change else { panic!("{decision}") };
    to
}

/// Urgent requests that were refused raise the reserve, up to its most; when only others are refused it goes down; each is told,
/// takes effect, and can be undone.
#[test]
fn a_reserve_follows_who_is_refused_within_its_bounds() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let tier = MemoryTier::new("buffers", 64, 8).watermarks(LEAST).watermarks_up_to(MOST);
    let pool = Pool::builder().memory_tier(tier).on_decision(move |it| log.lock().unwrap().push(it.clone()));
    let pool = pool.build().unwrap();
    let kept = || pool.monitor().tiers[0].snapshot.reserved;
    let refuse = |priority| {
        let all: Vec<_> = std::iter::from_fn(|| pool.try_allocate(request(priority)).ok()).collect();
        assert!(pool.try_allocate(request(priority)).is_err());
        drop(all);
    };
    assert!(pool.optimize(&pool.metrics()).is_empty());
    for high in [2, 3, 4, 5] {
        refuse(Priority::High);
        let [decision] = &pool.optimize(&pool.metrics())[..] else { panic!("one tier may move") };
        assert!(matches!(decision.reason, Reason::Starved { refusals: 2 }), "{decision}");
        assert_eq!((to(decision).high, kept()), (high, high), "{decision}");
    }
    refuse(Priority::Critical);
    assert!(pool.optimize(&pool.metrics()).is_empty(), "there is no more to be had");
    let mut lowered = Vec::new();
    for _ in 0..3 {
        refuse(Priority::Low);
        lowered = pool.optimize(&pool.metrics());
    }
    let [decision] = &lowered[..] else { panic!("three times in a row only Low ones were refused") };
    assert!(matches!(decision.reason, Reason::Idle { calls: 3, .. }), "{decision}");
    assert!(matches!(decision.change, Change::Watermarks { from: MOST, to: Watermarks { high: 4, .. } }), "{decision}");
    assert_eq!(kept(), 4);
    let undone = pool.undo(decision).unwrap();
    assert_eq!((undone.reason, to(&undone), kept()), (Reason::Undone, MOST, 5));
    let told = told.lock().unwrap().clone();
    assert_eq!((told.len(), &pool.decisions()), (6, &told));
    assert!(undone.to_string().contains("keeps back 1, 3 and 4 slots"), "{undone}");

    // What is set by hand it does not go below.
    pool.set_watermarks("buffers", Watermarks { min: 1, low: 1, high: 3 }).unwrap();
    for _ in 0..10 {
        refuse(Priority::Low);
        pool.optimize(&pool.metrics());
    }
    assert_eq!(kept(), 3);
}

/// Who has not said that it may move has it left alone, and bounds that contradict each other are refused.
#[test]
fn bounds_are_said_and_make_sense() {
    let pool = Pool::builder().memory("buffers", 64, 8).watermarks("buffers", LEAST).build().unwrap();
    let _all: Vec<_> = std::iter::from_fn(|| pool.try_allocate(request(Priority::Critical)).ok()).collect();
    assert!(pool.optimize(&pool.metrics()).is_empty());

    let build = |from, to| {
        Pool::builder().memory("buffers", 64, 8).watermarks("buffers", from).watermarks_up_to("buffers", to).build()
    };
    let error = build(MOST, LEAST).unwrap_err();
    assert!(matches!(error, PoolError::Watermarks { .. }) && error.to_string().contains("go up to less"), "{error}");
    assert!(build(LEAST, Watermarks { high: 8, ..MOST }).is_err(), "nothing is left for Low ones");
    let unknown = Pool::builder().memory("buffers", 64, 8).watermarks_up_to("x", MOST).build();
    assert!(matches!(unknown, Err(PoolError::UnknownTier { .. })));
}

/// The same from TOML.
#[test]
#[cfg(feature = "config")]
fn bounds_from_toml() {
    let text = |high| {
        format!(
            "[[memory]]\nname = \"buffers\"\nbytes = 64\nslots = 8\nwatermarks = {{ min = 0, low = 0, high = 1 }}\n\
             watermarks_up_to = {{ min = 0, low = 0, high = {high} }}\n"
        )
    };
    let pool = Pool::from_toml(&text(5)).unwrap();
    let _all: Vec<_> = std::iter::from_fn(|| pool.try_allocate(request(Priority::Critical)).ok()).collect();
    assert_eq!(to(&pool.optimize(&pool.metrics())[0]).high, 2);
    let error = Pool::from_toml(&text(0)).unwrap_err().to_string();
    assert!(error.contains("line 1") && error.contains("buffers"), "{error}");
}
