//! A value that many threads read and nobody changes: looked up by its name, protected, a byte read, let go; routes, prices,
//! configuration. Sixteen values, read in turn.
//!
//! Under a pin taken for each read, and under one that stands for the whole batch; beside them what others do for the same
//! safety: sharded-slab's `get` (a reference count in the slot), crossbeam-epoch's pin and `Atomic::load` (no count, and no
//! name that could be stale), arc-swap's `load` (a debt noted in a thread's list).

use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam_epoch::Atomic;
use sharded_slab::Pool;
use tierpool::{Handle, Pin, Tier};

use crate::machine::cores;
use crate::ours;
use crate::payload::{Bytes, Payload};
use crate::peers::sharded_slab::{Kept, OnePage};
use crate::run::cast::Cast;
use crate::run::duet::Duet;
use crate::run::orders::Orders;
use crate::subject::Kind;

use super::{CAPACITY, floor};

type Value = Bytes<4096>;

/// Values that are read in turn.
const VALUES: usize = 16;

/// Something whose values can be read while others might take them away.
trait Shared: Send + Sync + 'static {
    /// Its name in the output.
    const NAME: &'static str;
    /// What it is.
    const KIND: Kind;
    /// What one thread works with.
    type Hand<'a>;
    fn new() -> Self;
    fn hand(&self) -> Self::Hand<'_>;
    fn read(hand: &Self::Hand<'_>, number: usize) -> u8;
}

/// One thread.
pub fn alone(cast: &mut Cast) {
    fn add<S: Shared>(cast: &mut Cast) {
        cast.add(S::NAME, S::KIND, serve_alone::<S>);
    }
    add::<Pinning>(cast);
    add::<Pinned>(cast);
    add::<Slab>(cast);
    add::<Epoch>(cast);
    add::<Swap>(cast);
    floor::atomic_add(cast);
}

/// Two threads that read the same values.
pub fn together(cast: &mut Cast) {
    fn add<S: Shared>(cast: &mut Cast) {
        cast.add(S::NAME, S::KIND, serve_together::<S>);
    }
    add::<Pinning>(cast);
    add::<Pinned>(cast);
    add::<Slab>(cast);
    add::<Epoch>(cast);
    add::<Swap>(cast);
    floor::atomic_add(cast);
}

fn serve_alone<S: Shared>(orders: Orders) {
    cores::pin(0);
    let shared = S::new();
    orders.serve(1, |reads| {
        let start = Instant::now();
        run(&shared, reads);
        start.elapsed()
    });
}

fn serve_together<S: Shared>(orders: Orders) {
    let shared = S::new();
    let shared = &shared;
    let duet = Duet::new();
    let reader = || move |reads| run(shared, reads);
    thread::scope(|scope| duet.run(scope, reader, reader, |batch| orders.serve(1, batch)));
}

#[inline(never)]
fn run<S: Shared>(shared: &S, reads: u64) {
    let hand = shared.hand();
    for number in 0..reads {
        black_box(S::read(&hand, number as usize % VALUES));
    }
}

fn fresh() -> Value {
    let mut value = Value::fresh();
    value.touch();
    value
}

/// tierpool, pinned for each read.
struct Pinning(Tier<Value>, [Handle; VALUES]);

impl Shared for Pinning {
    const NAME: &'static str = "tierpool";
    const KIND: Kind = Kind::Ours;
    type Hand<'a> = &'a Self;

    fn new() -> Self {
        let tier = ours::tier::<Value, CAPACITY>();
        let share = |_| {
            let mut lease = tier.try_allocate().expect("a free slot");
            lease.touch();
            lease.share()
        };
        let handles = std::array::from_fn(share);
        Self(tier, handles)
    }

    fn hand(&self) -> Self::Hand<'_> {
        self
    }

    #[inline(always)]
    fn read(hand: &Self::Hand<'_>, number: usize) -> u8 {
        let pin = hand.0.pin();
        hand.0.read(hand.1[number], &pin).expect("a shared value").byte()
    }
}

/// tierpool, under a pin that stands.
struct Pinned(Pinning);

impl Shared for Pinned {
    const NAME: &'static str = "tierpool-pinned";
    const KIND: Kind = Kind::Ours;
    type Hand<'a> = (&'a Pinning, Pin<'a, Value>);

    fn new() -> Self {
        Self(Pinning::new())
    }

    fn hand(&self) -> Self::Hand<'_> {
        (&self.0, self.0.0.pin())
    }

    #[inline(always)]
    fn read((shared, pin): &Self::Hand<'_>, number: usize) -> u8 {
        shared.0.read(shared.1[number], pin).expect("a shared value").byte()
    }
}

/// sharded-slab: the keys of slots, each read under a guard that counts.
struct Slab(Pool<Kept<Value>, OnePage<CAPACITY>>, [usize; VALUES]);

impl Shared for Slab {
    const NAME: &'static str = "sharded-slab";
    const KIND: Kind = Kind::Pool;
    type Hand<'a> = &'a Self;

    fn new() -> Self {
        let pool = Pool::new_with_config();
        let keys =
            std::array::from_fn(|_| pool.create_with(|kept: &mut Kept<Value>| kept.touch()).expect("a free slot"));
        Self(pool, keys)
    }

    fn hand(&self) -> Self::Hand<'_> {
        self
    }

    #[inline(always)]
    fn read(hand: &Self::Hand<'_>, number: usize) -> u8 {
        hand.0.get(hand.1[number]).expect("a value").byte()
    }
}

/// crossbeam-epoch: pointers, read under a pin for each.
struct Epoch([Atomic<Value>; VALUES]);

impl Shared for Epoch {
    const NAME: &'static str = "crossbeam-epoch";
    const KIND: Kind = Kind::Pool;
    type Hand<'a> = &'a Self;

    fn new() -> Self {
        Self(std::array::from_fn(|_| Atomic::new(fresh())))
    }

    fn hand(&self) -> Self::Hand<'_> {
        self
    }

    #[inline(always)]
    fn read(hand: &Self::Hand<'_>, number: usize) -> u8 {
        let guard = crossbeam_epoch::pin();
        let value = hand.0[number].load(Ordering::Acquire, &guard);
        // SAFETY: it was made by `Atomic::new` and is taken away only in `drop`, when nobody reads.
        unsafe { value.deref() }.byte()
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        for value in &mut self.0 {
            // SAFETY: whoever drops this has it alone, and each value is dropped once.
            drop(unsafe { std::mem::replace(value, Atomic::null()).into_owned() });
        }
    }
}

/// arc-swap: counted pointers, read without counting.
struct Swap([ArcSwap<Value>; VALUES]);

impl Shared for Swap {
    const NAME: &'static str = "arc-swap";
    const KIND: Kind = Kind::Pool;
    type Hand<'a> = &'a Self;

    fn new() -> Self {
        Self(std::array::from_fn(|_| ArcSwap::from_pointee(fresh())))
    }

    fn hand(&self) -> Self::Hand<'_> {
        self
    }

    #[inline(always)]
    fn read(hand: &Self::Hand<'_>, number: usize) -> u8 {
        hand.0[number].load().byte()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::TOUCHED;

    fn check<S: Shared>() {
        let shared = S::new();
        let hand = shared.hand();
        assert!((0..VALUES).all(|number| S::read(&hand, number) == TOUCHED), "{}", S::NAME);
    }

    #[test]
    fn every_subject_reads_what_was_written() {
        check::<Pinning>();
        check::<Pinned>();
        check::<Slab>();
        check::<Epoch>();
        check::<Swap>();
    }
}
