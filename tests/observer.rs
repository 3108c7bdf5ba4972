//! What an observer sees of a pool over time.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tierpool::{Pool, Request};

type Any = Box<dyn std::error::Error>;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn pool() -> Pool {
    Pool::builder().memory("packets", 2048, 8).memory("blocks", 65536, 4).build().expect("a pool")
}

#[test]
fn a_look_tells_what_went_on_since_the_last() -> Result<(), Any> {
    let pool = pool();
    let observer = pool.observe("gateway")?;
    let before = observer.latest();
    assert_eq!((before.pool.as_str(), before.tiers.len()), ("gateway", 2));
    for _ in 0..100 {
        drop(pool.try_allocate(Request::memory(1500))?);
    }
    let held = pool.try_allocate_group(vec![Request::memory(50_000); 4])?;
    assert!(pool.try_allocate(Request::memory(50_000)).is_err());
    let seen = observer.look();
    assert!(seen.number > before.number);
    let [packets, blocks] = &seen.tiers[..] else { panic!("{:?}", seen.tiers) };
    assert_eq!((packets.name, blocks.name), ("packets", "blocks"));
    // Whatever the time between the looks was, it is the same for all.
    let seconds = 100.0 / packets.allocations.minute;
    assert!((packets.releases.minute * seconds - 100.0).abs() < 1e-6);
    assert!((blocks.allocations.minute * seconds - 4.0).abs() < 1e-6);
    assert!((blocks.refusals.minute * seconds - 1.0).abs() < 1e-6);
    assert_eq!((packets.most_held, blocks.most_held), (0, 4));
    drop(held);
    assert_eq!(observer.look().tiers[1].most_held, 4, "the most of the last minute");
    Ok(())
}

#[test]
fn the_reclaimers_thread_looks_by_itself() -> Result<(), Any> {
    let pool = pool();
    let observer = pool.observe("gateway")?;
    let first = observer.latest();
    let later = observer.wait_for_later(first.number, PATIENCE).expect("a look");
    assert!(later.number > first.number);
    Ok(())
}

#[test]
fn whoever_waits_is_told_of_a_look() -> Result<(), Any> {
    let pool = pool();
    let observer = pool.observe("gateway")?;
    // The thread may look as well; so the waiter asks for a number that only our own looks make it to in time.
    let wanted = observer.latest().number + 50;
    let waiter = thread::spawn({
        let observer = observer.clone();
        move || observer.wait_for_later(wanted, PATIENCE).map(|seen| seen.number)
    });
    while observer.latest().number <= wanted {
        observer.look();
    }
    assert!(waiter.join().expect("the waiter").is_some_and(|number| number > wanted));
    Ok(())
}

#[test]
fn a_pool_that_is_gone_is_not_kept_open() -> Result<(), Any> {
    let pool = pool();
    let observer = pool.observe("gateway")?;
    drop(pool);
    assert!(observer.pool().is_none());
    let last = observer.latest();
    assert!(Arc::ptr_eq(&last, &observer.look()), "nothing is seen any more");
    assert!(observer.wait_for_later(last.number, Duration::ZERO).is_none());
    Ok(())
}
