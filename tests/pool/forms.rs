//! Every form of allocation, of one or of several, waiting or not: it refuses at once what could never be served, names the line
//! that called, and keeps nothing.

use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tierpool::{Pool, Request, RequestError, ResourcePool, ResourceRequest, Spill, Tier};

use crate::common::waiting::{FOR_EVER, block_on, poll};
use crate::pool;

#[test]
fn all_forms_refuse_what_could_never_be_served() {
    let pool = pool();
    let too_large = || Request::memory(9999);
    let expected = RequestError::TooLarge { wanted: 9999, largest: 4096, tier: "large" };
    assert_eq!(pool.prepare(too_large()).unwrap_err(), expected);
    assert_eq!(pool.try_allocate(too_large()).unwrap_err(), expected);
    assert_eq!(pool.allocate(too_large()).unwrap_err(), expected);
    assert_eq!(pool.allocate_timeout(too_large(), FOR_EVER).unwrap_err(), expected);
    assert_eq!(block_on(pool.allocate_async(too_large())).unwrap_err(), expected);
    assert_eq!(pool.reserve(too_large(), 1).unwrap_err(), expected);
    assert_eq!(pool.allocate_group((too_large(),)).unwrap_err(), expected);
    let numbers = Pool::builder().tier(Tier::builder("n").capacity(1).build_with(|| 0u8).unwrap()).build().unwrap();
    assert_eq!(numbers.try_allocate(Request::memory(1)).unwrap_err(), RequestError::NoMemoryTier);
}

#[test]
fn the_line_that_called_is_the_holder_in_all_forms() {
    let pool = pool();
    let number = || Request::of::<u64>("numbers");
    let prepared = pool.prepare(number()).unwrap();
    let resources: &dyn ResourcePool = &pool;
    let here = |lines: &[u32], what: &str| {
        let at = pool.holders();
        let at: Vec<_> = at.iter().map(|holder| holder.site.map(|site| (site.file(), site.line()))).collect();
        let expected: Vec<_> = lines.iter().map(|line| Some((file!(), *line))).collect();
        assert_eq!(at, expected, "{what}");
    };
    let (lease, line) = (pool.try_allocate(number()).unwrap(), line!());
    here(&[line], "try_allocate");
    drop(lease);
    let (lease, line) = (pool.allocate(number()).unwrap(), line!());
    here(&[line], "allocate");
    drop(lease);
    let (lease, line) = (pool.allocate_timeout(number(), FOR_EVER).unwrap(), line!());
    here(&[line], "allocate_timeout");
    drop(lease);
    let (lease, line) = (block_on(pool.allocate_async(number())).unwrap(), line!());
    here(&[line], "allocate_async");
    drop(lease);
    let (lease, line) = (prepared.try_allocate().unwrap(), line!());
    here(&[line], "prepared");
    drop(lease);
    let (lease, line) = (pool.allocate_group((number(), number())).unwrap(), line!());
    here(&[line, line], "group");
    drop(lease);
    let (lease, line) = (block_on(pool.allocate_group_async((number(),))).unwrap(), line!());
    here(&[line], "group, async");
    drop(lease);
    let (reservation, line) = (pool.reserve(number(), 2).unwrap(), line!());
    here(&[line, line], "reservation");
    drop(reservation);
    let (request, line) = (ResourceRequest::of("numbers"), line!());
    let lease = resources.allocate(&request).unwrap();
    here(&[line], "dynamic");
    drop(lease);
}

/// Panics, time-outs, dropped futures and threads: whatever was taken through a pool comes back.
#[test]
fn nothing_is_lost_under_load() {
    let pool = Pool::builder()
        .memory("small", 64, 3)
        .memory("large", 256, 3)
        .overflow(2)
        .tenant("a")
        .tenant("b")
        .build()
        .unwrap();
    thread::scope(|scope| {
        for seed in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut kept = Vec::new();
                for _ in 0..3000 {
                    let spill = [Spill::Refuse, Spill::NextLarger, Spill::System][random.usize(..3)];
                    let request =
                        Request::memory(random.usize(..300)).spill(spill).tenant(["a", "b"][random.usize(..2)]);
                    match random.u8(..8) {
                        0 => kept.extend(pool.try_allocate(request)),
                        1 => kept.extend(pool.allocate_timeout(request, Duration::from_micros(50))),
                        2 => drop(poll(pin!(pool.allocate_async(request)), &Arc::default())),
                        3 => drop(pool.reserve(request, random.usize(..3)).map(|reservation| reservation.draw())),
                        4 => drop(pool.try_allocate_group((request, Request::memory(1)))),
                        5 => drop(pool.allocate_group_timeout(vec![request; 2], Duration::from_micros(50))),
                        _ => {
                            kept.truncate(random.usize(..3));
                        }
                    }
                    kept.truncate(2);
                }
            });
        }
    });
    for tier in pool.monitor().tiers {
        assert_eq!((tier.snapshot.free, tier.snapshot.waiting), (tier.snapshot.capacity, 0), "{}", tier.name);
    }
    assert!(pool.holders().is_empty());
}
