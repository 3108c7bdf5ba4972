//! Threads that idle, that are many, and that live shortly: none of them hides a slot or leaves something behind.

pub mod common;

use std::sync::{Arc, Barrier};
use std::thread;

use common::{Census, accounted, drain};
use tierpool::Tier;

/// TORTURE 4, met in odp-dpdk 194, gatekeeper 145 and ODP 1463: free slots sit in the caches of idle threads while
/// another is refused. Here idle threads stand parked with full magazines, and one thread gets every slot.
#[test]
fn slots_in_idle_threads_magazines_can_be_had() {
    for (idle, capacity) in [(1, 40), (1, 64), (3, 150), (8, 400)] {
        let tier: Tier<u8> = Tier::builder("idle").capacity(capacity).build_with(|| 0).unwrap();
        let (filled, done) = (Barrier::new(idle + 1), Barrier::new(idle + 1));
        thread::scope(|threads| {
            for _ in 0..idle {
                threads.spawn(|| {
                    let mine: Vec<_> = (0..capacity / idle).map(|_| tier.try_allocate().unwrap()).collect();
                    // All have their slots now, so that each fills its own magazine.
                    filled.wait();
                    drop(mine);
                    filled.wait();
                    // Idle, with a magazine full of hints, in the middle of its life.
                    done.wait();
                });
            }
            filled.wait();
            filled.wait();
            assert_eq!(accounted(&tier).free, capacity);
            for _ in 0..3 {
                assert_eq!(drain(&tier), capacity, "{idle} idle threads hide slots");
            }
            assert_eq!(tier.try_allocate_many(capacity).unwrap().len(), capacity);
            let mut local = tier.local();
            let leases: Vec<_> = std::iter::from_fn(|| local.try_allocate().ok()).collect();
            assert_eq!(leases.len(), capacity);
            done.wait();
        });
    }
}

/// TORTURE 4 with an owned magazine, and with one that was forgotten and will never be given back.
#[test]
fn slots_in_a_forgotten_local_can_be_had() {
    let tier: Tier<u8> = Tier::builder("forgotten").capacity(60).build_with(|| 0).unwrap();
    let mut local = tier.local();
    let leases: Vec<_> = (0..60).map(|_| local.try_allocate().unwrap()).collect();
    leases.into_iter().for_each(|lease| local.release(lease));
    assert_eq!(drain(&tier), 60);
    std::mem::forget(local);
    assert_eq!(drain(&tier), 60);
    thread::scope(|threads| {
        threads.spawn(|| assert_eq!(drain(&tier), 60));
    });
}

/// Ten thousand threads, one after the other, use the one magazine that the first of them left.
#[test]
fn short_lived_threads_in_sequence_share_a_magazine() {
    let census = Census::default();
    let tier = Arc::new(census.tier(10));
    let mut after_first = None;
    for _ in 0..if cfg!(debug_assertions) { 2_000 } else { 10_000 } {
        let theirs = tier.clone();
        thread::spawn(move || {
            let lease = theirs.try_allocate().unwrap();
            drop(theirs.try_allocate().unwrap());
            drop(lease);
        })
        .join()
        .unwrap();
        assert_eq!(*after_first.get_or_insert(tier.overhead_bytes()), tier.overhead_bytes());
    }
    let now = accounted(&tier);
    // Threads of other tests may have used a former tier in the same place, and not have exited yet.
    assert!(now.magazines < 20, "magazines of threads long gone: {now:?}");
    assert_eq!(drain(&tier), 10);
}

/// Five hundred threads at once, in waves: the second wave needs no magazine that the first has not left.
#[test]
fn many_threads_at_once_leave_their_magazines_to_the_next() {
    const THREADS: usize = if cfg!(debug_assertions) { 150 } else { 500 };
    let tier: Tier<usize> = Tier::builder("waves").capacity(2 * THREADS).build_with(|| 0).unwrap();
    let mut bytes = Vec::new();
    for _ in 0..4 {
        let all = Barrier::new(THREADS);
        thread::scope(|threads| {
            let workers: Vec<_> = (0..THREADS)
                .map(|me| {
                    let (tier, all) = (&tier, &all);
                    threads.spawn(move || {
                        let mut mine = tier.try_allocate_many(2).expect("two for each");
                        mine.iter_mut().for_each(|value| *value = me);
                        all.wait();
                        if me == 0 {
                            assert_eq!(tier.snapshot().leased, 2 * THREADS);
                            assert!(tier.snapshot().magazines >= THREADS);
                            assert!(tier.try_allocate().is_err());
                        }
                        all.wait();
                        assert!(mine.iter().all(|value| *value == me));
                    })
                })
                .collect();
            workers.into_iter().for_each(|worker| worker.join().unwrap());
        });
        assert!(accounted(&tier).magazines < 20, "magazines of threads long gone");
        assert_eq!(accounted(&tier).free, 2 * THREADS);
        bytes.push(tier.overhead_bytes());
    }
    assert!(bytes[3] - bytes[0] < 64 * 1024, "each wave costs memory: {bytes:?}");
}
