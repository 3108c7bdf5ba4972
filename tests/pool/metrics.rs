//! What a pool shows: the table of its tiers, refusals where they were made, and rates of the time between two looks.

use std::time::Duration;

use tierpool::{AllocateError, Pool, Request, RequestError, Spill, Tier, TierKind};

use crate::pool;

#[test]
fn monitor_shows_every_tier_and_prints_a_table() {
    let pool = Pool::builder()
        .memory("packets", 2048, 8)
        .memory("frames", 65536, 4)
        .overflow(3)
        .tier(Tier::builder("numbers").capacity(2).build_with(|| 0u64).unwrap())
        .build()
        .unwrap();
    let packet = pool.try_allocate(Request::memory(1)).unwrap();
    let huge = pool.try_allocate(Request::memory(1 << 20).spill(Spill::System)).unwrap();
    let status = pool.monitor();
    let kinds: Vec<_> = status.tiers.iter().map(|tier| (tier.name, tier.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("packets", TierKind::Memory { bytes: 2048 }),
            ("frames", TierKind::Memory { bytes: 65536 }),
            ("overflow", TierKind::Overflow),
            ("numbers", TierKind::Custom { type_name: "u64" }),
        ]
    );
    let packets = status.tier("packets").unwrap();
    assert_eq!((packets.held(), packets.snapshot.free, packets.min_capacity), (1, 7, 8));
    assert_eq!((status.overflowed(), status.tier("overflow").unwrap().held()), (1, 1));
    let text = status.to_string();
    let lines: Vec<_> = text.lines().collect();
    for (line, begins) in lines.iter().zip([
        "tier      holds",
        "packets   2 KiB ",
        "frames    64 KiB ",
        "overflow  system ",
        "numbers   u64 ",
    ]) {
        assert!(line.starts_with(begins), "{text}");
    }
    assert!(lines[1].contains(" 12 %"), "1 of 8 is held: {text}");
    let widths: Vec<_> = lines[..5].iter().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "columns stand under each other: {text}");
    drop((packet, huge));
}

#[test]
fn a_refusal_names_the_tier_and_is_counted_there() {
    let pool = pool();
    let _held: Vec<_> = (0..2).map(|_| pool.try_allocate(Request::memory(1)).unwrap()).collect();
    let error = pool.try_allocate(Request::memory(1)).unwrap_err();
    let RequestError::Tier(AllocateError::Exhausted(why)) = error else { panic!("{error}") };
    assert_eq!((why.tier, why.capacity), ("small", 2));
    assert_eq!(pool.monitor().tier("small").unwrap().snapshot.refusals, 1);
    assert_eq!(pool.monitor().absorbed, 0);
}

#[test]
fn metrics_are_of_the_interval_between_two_looks() {
    let pool = pool();
    let before = pool.monitor();
    let held = pool.try_allocate(Request::of::<u64>("numbers")).unwrap();
    for _ in 0..9 {
        drop(pool.try_allocate(Request::memory(1)).unwrap());
    }
    let metrics = pool.metrics();
    assert!((metrics.utilization_rate - 1.0 / 8.0).abs() < 1e-9, "{metrics:?}");
    let seconds = metrics.interval.as_secs_f64();
    assert!((metrics.allocation_rate * seconds - 10.0).abs() < 1e-6, "{metrics:?}");
    assert!((metrics.release_rate * seconds - 9.0).abs() < 1e-6, "{metrics:?}");
    assert_eq!((metrics.failure_rate, metrics.average_latency), (0.0, Duration::ZERO));
    // Half a slot on average, 9 releases.
    let hold = metrics.average_hold.unwrap().as_secs_f64();
    assert!((hold - seconds * 0.5 / 9.0).abs() < 1e-6, "{metrics:?}");
    drop(held);
    let next = pool.metrics();
    assert_eq!((next.allocation_rate, next.tiers[3].releases, next.utilization_rate), (0.0, 1, 0.0));
    let all = pool.monitor().since(&before);
    assert_eq!((all.tiers[0].allocations, all.tiers[3].allocations, all.tiers[3].releases), (9, 1, 1));
}
