//! Values of all kinds: dropped exactly once, placed as their type demands, and scrubbed for the next tenant.

pub mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::{Census, accounted, drain};
use tierpool::{Lease, Tier};

/// TORTURE 21, met in carllerche/pool (issue 3): values dropped zeroed, twice or never. Each of the ways in which a
/// value can end is walked, and counted.
#[test]
fn each_value_is_dropped_once_in_every_way_it_can_end() {
    let census = Census::default();
    let tier = census.tier(10);
    assert_eq!((census.made(), census.dropped()), (10, 0));
    drain(&tier);
    assert_eq!((census.made(), census.dropped()), (10, 0), "a release is no end");

    tier.try_allocate().unwrap().discard();
    assert_eq!((census.made(), census.dropped()), (11, 1));
    let taken = tier.try_allocate().unwrap().take();
    assert_eq!((census.made(), census.dropped()), (12, 1));
    drop(taken);
    assert_eq!(census.dropped(), 2);
    // Assigned over: the old value ends, and the new one lives in the slot.
    *tier.try_allocate().unwrap() = census.value();
    assert_eq!((census.made(), census.dropped()), (13, 3));
    let old = std::mem::replace(&mut *tier.try_allocate().unwrap(), census.value());
    assert_eq!((census.made(), census.dropped(), *old.note), (14, 3, 0));
    drop(old);
    assert_eq!(drain(&tier), 10);
    drop(tier);
    assert_eq!((census.made(), census.dropped()), (14, 14));
}

/// TORTURE 21: a type without size still has as many slots as were asked for, and each is dropped once.
#[test]
fn values_without_size_are_counted_too() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    #[derive(Debug)]
    struct Nothing;
    impl Drop for Nothing {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Ordering::SeqCst);
        }
    }
    let tier = Tier::builder("nothing").capacity(7).build_with(|| Nothing).unwrap();
    assert_eq!(drain(&tier), 7);
    let handle = tier.try_allocate().unwrap().detach();
    let lease = tier.attach(handle).unwrap();
    assert!(tier.attach(handle).is_err());
    drop(tier);
    assert_eq!(DROPS.load(Ordering::SeqCst), 6);
    drop(lease);
    assert_eq!(DROPS.load(Ordering::SeqCst), 7);

    // Without size and with an alignment.
    #[repr(align(4096))]
    struct Aligned;
    let tier = Tier::builder("aligned nothing").capacity(3).build_with(|| Aligned).unwrap();
    let leases = tier.try_allocate_many(3).unwrap();
    assert!(leases.iter().all(|value| std::ptr::from_ref(value).addr().is_multiple_of(4096)));
}

/// TORTURE 21: a page's alignment, kept for each slot.
#[test]
fn values_lie_as_their_type_demands() {
    #[repr(align(4096))]
    struct Page(u8);
    let tier = Tier::builder("pages").capacity(9).build_with(|| Page(1)).unwrap();
    let mut pages = tier.try_allocate_many(9).unwrap();
    let mut addresses: Vec<_> = pages.iter().map(|page| std::ptr::from_ref(page).addr()).collect();
    assert!(addresses.iter().all(|address| address.is_multiple_of(4096)), "{addresses:x?}");
    addresses.sort_unstable();
    assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] >= 4096), "slots overlap");
    pages.iter_mut().for_each(|page| page.0 += 1);
    assert!(pages.iter().all(|page| page.0 == 2));
}

/// TORTURE 21: 64 MiB a value.
#[test]
fn values_of_many_megabytes_work() {
    const SIZE: usize = 64 << 20;
    let work = || {
        let tier: Tier<[u8; SIZE]> = Tier::builder("huge").capacity(2).build_with(|| [7; SIZE]).unwrap();
        let (mut one, two) = (tier.try_allocate().unwrap(), tier.try_allocate().unwrap());
        assert!(tier.try_allocate().is_err());
        one.fill(1);
        assert_eq!((one[0], one[SIZE - 1], two[0], two[SIZE - 1]), (1, 1, 7, 7));
        one.discard();
        let one = tier.try_allocate().unwrap();
        assert_eq!((one[0], one[SIZE - 1]), (7, 7), "rebuilt");
    };
    // A value passes over the stack on its way from the factory, several times without optimization.
    thread::Builder::new().stack_size(20 * SIZE).spawn(work).unwrap().join().unwrap();
}

/// TORTURE 21: a type with padding, and one whose bit patterns are restricted.
#[test]
fn values_with_padding_and_niches_keep_their_neighbours() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    #[repr(C)]
    struct Padded(u8, u32, u8, Option<char>, bool);
    let tier = Tier::builder("padded").capacity(50).build_with(|| Padded(1, 2, 3, Some('x'), true)).unwrap();
    let mut leases: Vec<_> = tier.try_allocate_many(50).unwrap().into_iter().collect();
    for (number, lease) in leases.iter_mut().enumerate() {
        **lease = Padded(number as u8, number as u32, 0, None, number % 2 == 0);
    }
    for (number, lease) in leases.iter().enumerate() {
        assert_eq!(**lease, Padded(number as u8, number as u32, 0, None, number % 2 == 0));
    }
}

const SECRET: u8 = 0xa5;

/// A tier of buffers that are scrubbed at their release.
fn scrubbed() -> Tier<Vec<u8>> {
    let builder = Tier::builder("buffers").capacity(4).reset(|buffer: &mut Vec<u8>| buffer.fill(0));
    builder.build_with(|| vec![0; 256]).unwrap()
}

/// Writes a secret into a lease.
fn tainted(tier: &Tier<Vec<u8>>) -> Lease<Vec<u8>> {
    let mut lease = tier.try_allocate().unwrap();
    lease.fill(SECRET);
    lease
}

/// TORTURE 26: what the last tenant wrote is never seen by the next, whatever way the slot came back.
#[test]
fn reset_runs_on_every_way_back() {
    type Way = fn(&Tier<Vec<u8>>);
    let ways: [(&str, Way); 10] = [
        ("drop", |tier| drop(tainted(tier))),
        ("release", |tier| tainted(tier).release()),
        ("release of a handle", |tier| tier.release(tainted(tier).detach()).unwrap()),
        ("attached and dropped", |tier| drop(tier.attach(tainted(tier).detach()).unwrap())),
        ("panic while held", |tier| {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                let _lease = tainted(tier);
                panic!("while held");
            }));
        }),
        ("bulk", |tier| {
            let mut bulk = tier.try_allocate_many(4).unwrap();
            bulk.iter_mut().for_each(|buffer| buffer.fill(SECRET));
            bulk.release();
        }),
        ("bulk dropped by an iterator", |tier| {
            let mut bulk = tier.try_allocate_many(4).unwrap();
            bulk.iter_mut().for_each(|buffer| buffer.fill(SECRET));
            drop(bulk.into_iter().next());
        }),
        ("local", |tier| {
            let mut local = tier.local();
            let mut lease = local.try_allocate().unwrap();
            lease.fill(SECRET);
            local.release(lease);
        }),
        ("another thread", |tier| {
            let lease = tainted(tier);
            thread::spawn(move || drop(lease)).join().unwrap();
        }),
        ("under scarcity", |tier| {
            let all: Vec<_> = (0..4).map(|_| tainted(tier)).collect();
            assert!(tier.try_allocate().is_err());
            drop(all);
        }),
    ];
    for (what, way) in ways {
        let tier = scrubbed();
        way(&tier);
        assert_eq!(accounted(&tier).free, 4, "{what}");
        let all = tier.try_allocate_many(4).unwrap();
        assert!(all.iter().flatten().all(|&byte| byte == 0), "{what}: the next tenant sees the last one's data");
    }
}

/// TORTURE 26: tenants on several threads, each of which finds clean buffers only.
#[test]
fn no_tenant_sees_anothers_data() {
    let tier = scrubbed();
    let seen = Mutex::new(Vec::new());
    thread::scope(|threads| {
        for tenant in 1..=3u8 {
            let (tier, seen) = (&tier, &seen);
            threads.spawn(move || {
                for round in 0..3_000 {
                    let Ok(mut lease) = tier.try_allocate() else { continue };
                    if let Some(&byte) = lease.iter().find(|&&byte| byte != 0) {
                        seen.lock().unwrap().push((tenant, byte));
                    }
                    lease.fill(tenant);
                    match round % 3 {
                        0 => drop(lease),
                        1 => tier.release(lease.detach()).unwrap(),
                        _ => lease.release(),
                    }
                }
            });
        }
    });
    assert_eq!(seen.into_inner().unwrap(), [], "a tenant saw what another had written");
}
