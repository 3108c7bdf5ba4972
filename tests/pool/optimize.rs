//! `optimize`: tiers grow and shrink by what the metrics say, and each decision is told, explained, and can be undone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tierpool::{Change, Decision, MemoryTier, Pool, Reason, Request, Tier, TierMetrics};

fn slots_from(from: usize, to: usize) -> Change {
    Change::Slots { from, to, reached: to }
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
    let Decision { tier, change, reason, .. } = decisions[0];
    assert_eq!((tier, change, reason), ("short", slots_from(4, 6), Reason::Tight { held: 4 }));
    assert_eq!(slots(&pool, "short"), 6);
    for _ in 0..10 {
        assert!(pool.optimize(&metrics).is_empty(), "told the same, it rests");
    }

    drop(held);
    let metrics = pool.metrics();
    assert!((0..2).all(|_| pool.optimize(&metrics).is_empty()));
    let decisions = pool.optimize(&metrics);
    assert_eq!((decisions[0].change, decisions[0].reason), (slots_from(6, 4), Reason::Roomy { held: 0, calls: 3 }));
    assert_eq!(slots(&pool, "short"), 4);

    let undone = pool.undo(&decisions[0]).unwrap();
    assert_eq!((undone.change, undone.reason), (slots_from(4, 6), Reason::Undone));
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
    assert_eq!((decisions[0].tier, decisions[0].change), ("idle", slots_from(4, 67)), "it acts on what it is told");
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
    assert_eq!(decisions[0].change, Change::Slots { from: 2, to: 3, reached: 2 });
    assert!(decisions[0].failure.as_ref().unwrap().contains("no more"), "{decisions:?}");
    assert!(decisions[0].to_string().contains("it has 2"), "{}", decisions[0]);
}
