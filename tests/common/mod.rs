//! What several test files share: values that count themselves, and the sum that must always come out.
//!
//! A file takes it in by `pub mod common;`: each uses a part of it, and the rest is not dead code where it is public.

pub mod process;
#[cfg(target_os = "linux")]
pub mod system;
pub mod waiting;
pub mod ways;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tierpool::{Snapshot, Tier};

/// How many values of one test were made and dropped.
#[derive(Debug, Clone, Default)]
pub struct Census(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    made: AtomicUsize,
    dropped: AtomicUsize,
}

impl Census {
    /// A value that is counted now, and once more when it is dropped.
    pub fn value(&self) -> Citizen {
        self.0.made.fetch_add(1, Ordering::SeqCst);
        Citizen { census: self.clone(), dropped: AtomicBool::new(false), note: Box::new(0) }
    }

    /// How many there ever were.
    pub fn made(&self) -> usize {
        self.0.made.load(Ordering::SeqCst)
    }

    /// How many of them were dropped.
    pub fn dropped(&self) -> usize {
        self.0.dropped.load(Ordering::SeqCst)
    }

    /// How many are left.
    pub fn alive(&self) -> usize {
        self.made() - self.dropped()
    }

    /// A tier of counted values.
    pub fn tier(&self, capacity: usize) -> Tier<Citizen> {
        let census = self.clone();
        Tier::builder("citizens").capacity(capacity).build_with(move || census.value()).unwrap()
    }
}

/// A value that knows whether it was dropped before.
#[derive(Debug)]
pub struct Citizen {
    census: Census,
    dropped: AtomicBool,
    /// On the heap, so that a sanitizer sees a use after the drop.
    pub note: Box<u64>,
}

impl Drop for Citizen {
    fn drop(&mut self) {
        assert!(!self.dropped.swap(true, Ordering::SeqCst), "a value is dropped twice");
        self.census.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// The snapshot of a quiet tier, whose states must add up to the capacity.
#[track_caller]
pub fn accounted<T: Send + 'static>(tier: &Tier<T>) -> Snapshot {
    let now = tier.snapshot();
    let sum = now.free + now.leased + now.detached + now.claimed + now.quarantined + now.absent;
    assert_eq!(sum, now.capacity, "a slot is lost: {now:?}");
    assert_eq!(now.claimed, 0, "nobody is at work: {now:?}");
    now
}

/// Allocates until the tier refuses, holds everything for a moment, and says how much it was.
pub fn drain<T: Send + 'static>(tier: &Tier<T>) -> usize {
    let mut leases = Vec::new();
    while let Ok(lease) = tier.try_allocate() {
        leases.push(lease);
    }
    leases.len()
}

/// Runs what is expected to panic, and returns the message.
#[track_caller]
pub fn panics(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("this should have panicked");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => other.downcast_ref::<&str>().map_or(String::new(), |text| (*text).to_owned()),
    }
}
