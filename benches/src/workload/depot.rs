//! An experiment behind tierpool's design: how should threads exchange half magazines (30 hints of 4 bytes)? A batch put
//! and taken by one thread, or put by one and taken by another; nanoseconds a batch.
//!
//! Candidates: a tagged Treiber stack of whole batches in preallocated nodes (lock-free, nothing waits, no allocation);
//! crossbeam's deque, one a thread, its stealers in an arc-swapped list (lock-free, grows); `ArrayQueue` (a thread stopped
//! between its two stores makes others wait); `SegQueue` (the same, and allocates).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam_deque::{Steal, Stealer, Worker};
use crossbeam_queue::{ArrayQueue, SegQueue};
use crossbeam_utils::CachePadded;

use crate::machine::cores;
use crate::run::cast::Cast;
use crate::run::duet::{Duet, wait_until};
use crate::run::orders::Orders;
use crate::subject::Kind;

/// Half a magazine.
type Batch = [u32; 30];

/// Batches that are under way at most.
const MOST: u64 = 64;

/// A way to exchange batches.
trait Exchange: Send + Sync + 'static {
    /// Its name in the output.
    const NAME: &'static str;
    /// What a thread needs for itself.
    type Hand<'a>;
    fn new() -> Self;
    fn hand(&self) -> Self::Hand<'_>;
    fn put(hand: &Self::Hand<'_>, batch: Batch);
    fn take(hand: &Self::Hand<'_>) -> Option<Batch>;
}

/// One thread puts and takes.
pub fn alone(cast: &mut Cast) {
    fn add<E: Exchange>(cast: &mut Cast) {
        cast.add(E::NAME, Kind::Floor, serve_alone::<E>);
    }
    add::<Treiber>(cast);
    add::<Deques>(cast);
    add::<ArrayQueue<Batch>>(cast);
    add::<SegQueue<Batch>>(cast);
}

/// One thread puts, another takes.
pub fn together(cast: &mut Cast) {
    fn add<E: Exchange>(cast: &mut Cast) {
        cast.add(E::NAME, Kind::Floor, serve_together::<E>);
    }
    add::<Treiber>(cast);
    add::<Deques>(cast);
    add::<ArrayQueue<Batch>>(cast);
    add::<SegQueue<Batch>>(cast);
}

fn serve_alone<E: Exchange>(orders: Orders) {
    cores::pin(0);
    let exchange = E::new();
    let hand = exchange.hand();
    orders.serve(1, |batches| {
        let start = Instant::now();
        for number in 0..batches {
            E::put(&hand, [number as u32; 30]);
            let batch = E::take(&hand).expect("the batch just put");
            assert_eq!(batch[29], number as u32);
        }
        start.elapsed()
    });
}

fn serve_together<E: Exchange>(orders: Orders) {
    let exchange = E::new();
    let exchange = &exchange;
    let (put, taken) = (CachePadded::new(AtomicU64::new(0)), CachePadded::new(AtomicU64::new(0)));
    let (put, taken) = (&put, &taken);
    let duet = Duet::new();
    thread::scope(|scope| {
        duet.run(
            scope,
            || {
                let hand = exchange.hand();
                move |batches| {
                    for _ in 0..batches {
                        let mut batch = None;
                        wait_until(|| {
                            batch = E::take(&hand);
                            batch.is_some()
                        });
                        assert_eq!(batch.map(|batch| batch[29]), Some(7));
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                }
            },
            || {
                let hand = exchange.hand();
                move |batches| {
                    for _ in 0..batches {
                        let number = put.fetch_add(1, Ordering::Relaxed);
                        if number % (MOST / 2) == 0 {
                            // The same brake for all, since two of them have no bound.
                            wait_until(|| number - taken.load(Ordering::Relaxed) <= MOST / 2);
                        }
                        E::put(&hand, [7; 30]);
                    }
                }
            },
            |batch| orders.serve(1, batch),
        );
    });
}

/// Two tagged Treiber stacks over the same nodes: full ones and empty ones.
struct Treiber {
    full: CachePadded<AtomicU64>,
    empty: CachePadded<AtomicU64>,
    nodes: Box<[Node]>,
}

#[repr(align(128))]
struct Node {
    next: AtomicU32,
    hints: [AtomicU32; 30],
}

const NONE: u32 = u32::MAX;

impl Treiber {
    /// A head is a tag above a node's index; the tag changes with every push and pop.
    fn push(&self, stack: &AtomicU64, node: u32) {
        let mut head = stack.load(Ordering::Relaxed);
        loop {
            self.nodes[node as usize].next.store(head as u32, Ordering::Relaxed);
            let next = tag_after(head) | u64::from(node);
            // Release: publishes the node's contents and its `next` to the pop that takes it.
            match stack.compare_exchange_weak(head, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    fn pop(&self, stack: &AtomicU64) -> Option<u32> {
        // Acquire: pairs with the push's Release; the node's contents are there.
        let mut head = stack.load(Ordering::Acquire);
        loop {
            let node = head as u32;
            if node == NONE {
                return None;
            }
            let below = self.nodes[node as usize].next.load(Ordering::Relaxed);
            let next = tag_after(head) | u64::from(below);
            match stack.compare_exchange_weak(head, next, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(node),
                Err(now) => head = now,
            }
        }
    }
}

fn tag_after(head: u64) -> u64 {
    ((head >> 32) + 1) << 32
}

impl Exchange for Treiber {
    const NAME: &'static str = "treiber";
    type Hand<'a> = &'a Self;

    fn new() -> Self {
        let node = |_| Node { next: AtomicU32::new(NONE), hints: [const { AtomicU32::new(0) }; 30] };
        let nodes: Box<[Node]> = (0..2 * MOST).map(node).collect();
        let stack = || CachePadded::new(AtomicU64::new(u64::from(NONE)));
        let treiber = Self { full: stack(), empty: stack(), nodes };
        (0..2 * MOST as u32).for_each(|node| treiber.push(&treiber.empty, node));
        treiber
    }

    fn hand(&self) -> &Self {
        self
    }

    fn put(hand: &&Self, batch: Batch) {
        let node = hand.pop(&hand.empty).expect("an empty node");
        for (hint, value) in hand.nodes[node as usize].hints.iter().zip(batch) {
            hint.store(value, Ordering::Relaxed);
        }
        hand.push(&hand.full, node);
    }

    fn take(hand: &&Self) -> Option<Batch> {
        let node = hand.pop(&hand.full)?;
        let hints = &hand.nodes[node as usize].hints;
        let batch = std::array::from_fn(|place| hints[place].load(Ordering::Relaxed));
        hand.push(&hand.empty, node);
        Some(batch)
    }
}

/// One FIFO deque a thread; the others steal from it by an arc-swapped list.
struct Deques(ArcSwap<Vec<Stealer<Batch>>>);

impl Exchange for Deques {
    const NAME: &'static str = "deques";
    type Hand<'a> = (&'a Self, Worker<Batch>);

    fn new() -> Self {
        Self(ArcSwap::from_pointee(Vec::new()))
    }

    fn hand(&self) -> Self::Hand<'_> {
        let worker = Worker::new_fifo();
        self.0.rcu(|all| {
            let mut all = Vec::clone(all);
            all.push(worker.stealer());
            Arc::new(all)
        });
        (self, worker)
    }

    fn put(hand: &Self::Hand<'_>, batch: Batch) {
        hand.1.push(batch);
    }

    fn take(hand: &Self::Hand<'_>) -> Option<Batch> {
        hand.1.pop().or_else(|| {
            hand.0.0.load().iter().find_map(|stealer| match stealer.steal() {
                Steal::Success(batch) => Some(batch),
                Steal::Empty | Steal::Retry => None,
            })
        })
    }
}

impl Exchange for ArrayQueue<Batch> {
    const NAME: &'static str = "array-queue";
    type Hand<'a> = &'a Self;

    fn new() -> Self {
        ArrayQueue::new(2 * MOST as usize)
    }

    fn hand(&self) -> &Self {
        self
    }

    fn put(hand: &&Self, batch: Batch) {
        hand.push(batch).expect("room in the queue");
    }

    fn take(hand: &&Self) -> Option<Batch> {
        hand.pop()
    }
}

impl Exchange for SegQueue<Batch> {
    const NAME: &'static str = "seg-queue";
    type Hand<'a> = &'a Self;

    fn new() -> Self {
        SegQueue::new()
    }

    fn hand(&self) -> &Self {
        self
    }

    fn put(hand: &&Self, batch: Batch) {
        hand.push(batch);
    }

    fn take(hand: &&Self) -> Option<Batch> {
        hand.pop()
    }
}
