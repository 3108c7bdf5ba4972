//! Every byte of a tier's payload goes when its last value has gone; what stays, stays once: control blocks, headers and
//! names. Counted by the allocator itself, so one test at a time.

pub mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use common::drain;
use tierpool::{AllocateError, Tier};

struct Counting;

static BYTES: AtomicIsize = AtomicIsize::new(0);
thread_local! {
    static MINE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

fn count(bytes: isize) {
    BYTES.fetch_add(bytes, Ordering::SeqCst);
    let _ = MINE.try_with(|mine| mine.set(mine.get() + 1));
}

// SAFETY: all calls go to the system's allocator as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: by the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: by the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: by the caller's contract.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How much more memory is in use after `f` than before; a first run makes what is made once.
fn growth(mut f: impl FnMut()) -> isize {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    f();
    let before = BYTES.load(Ordering::SeqCst);
    f();
    BYTES.load(Ordering::SeqCst) - before
}

/// What the test harness may allocate meanwhile; far less than any payload here.
const NOISE: isize = 16 << 10;

fn tier(capacity: usize) -> Tier<Vec<u8>> {
    Tier::builder("payload").capacity(capacity).build_with(|| vec![1; 4096]).unwrap()
}

/// TORTURE 6 and 7: payload, values, factory and all are freed, whoever is last.
#[test]
fn a_tier_that_ends_frees_its_payload() {
    let grown = growth(|| {
        let big = vec![0u8; 1 << 20];
        let mut calls = Vec::new();
        for last in ["tier", "lease", "handle", "local", "thread"] {
            let big = big.clone();
            let make = move || vec![big[0]; 4096];
            let tier = Tier::builder("payload").capacity(1_000).build_with(make).unwrap();
            let lease = tier.try_allocate().unwrap();
            match last {
                "lease" => {
                    drop(tier);
                    drop(lease);
                }
                "handle" => {
                    calls.push(lease.detach());
                    drop(tier);
                }
                "local" => {
                    let local = tier.local();
                    drop((lease, tier));
                    drop(local);
                }
                "thread" => {
                    drop(tier);
                    thread::spawn(move || drop(lease)).join().unwrap();
                }
                _ => drop((lease, tier)),
            }
        }
    });
    assert!(grown < NOISE, "{grown} bytes are left");
}

/// A factory that fails leaves nothing either.
#[test]
fn a_tier_that_is_not_built_frees_what_it_had() {
    let grown = growth(|| {
        let calls = AtomicUsize::new(0);
        let make = move || if calls.fetch_add(1, Ordering::SeqCst) == 50 { Err("no") } else { Ok(vec![0u8; 4096]) };
        assert!(Tier::builder("payload").capacity(100).try_build_with(make).is_err());
    });
    assert!(grown < NOISE, "{grown} bytes are left");
}

/// TORTURE 12, met in sharded-slab (issue 56): memory only ever grows. Two thousand tiers and as many threads.
#[test]
fn tiers_and_threads_that_come_and_go_leave_nothing() {
    let grown = growth(|| {
        for _ in 0..1_000 {
            let tier = tier(20);
            drain(&tier);
            let lease = tier.try_allocate().unwrap();
            thread::spawn(move || {
                drop(tier.try_allocate());
                drop(tier);
                drop(lease);
            })
            .join()
            .unwrap();
        }
    });
    assert!(grown < NOISE, "{grown} bytes are left");
}

/// Guarantee 10: a refusal allocates nothing. Nor does any other operation of a thread that has used the tier before.
#[test]
fn operations_allocate_no_memory() {
    growth(|| {
        let tier = tier(100);
        let mut bulk = tierpool::Leases::with_capacity(100);
        let mut leases = Vec::with_capacity(100);
        drain(&tier);
        let before = MINE.get();
        for _ in 0..3 {
            while let Ok(lease) = tier.try_allocate() {
                leases.push(lease);
            }
            assert!(matches!(tier.try_allocate(), Err(AllocateError::Exhausted(_))));
            assert!(tier.try_allocate_into(&mut bulk, 5).is_err());
            leases.clear();
            tier.try_allocate_into(&mut bulk, 90).unwrap();
            bulk.release_all();
            let handle = tier.try_allocate().unwrap().detach();
            tier.release(handle).unwrap();
            assert!(tier.release(handle).is_err());
        }
        assert_eq!(MINE.get() - before, 0, "calls of the allocator");
        assert_eq!(tier.snapshot().free, 100);
    });
}
