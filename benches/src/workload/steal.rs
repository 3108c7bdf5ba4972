//! All free slots sit with another, busy thread: what a slot costs a thread that has none at hand.
//!
//! All but [`FREE`] slots are held throughout. The busy thread has released those, so they are wherever the subject puts
//! what a thread releases, and goes on allocating and releasing. One unit: the taker takes some of them one by one, timed:
//! half of them in `steal`, a single one in `steal-one` (the price of the first, reading the clock included); takes what its own magazine may have brought along as well, untimed; and passes all to the busy thread, which
//! releases them. So every unit starts with nothing at hand, nothing is ever refused, and the pool is never scarce for the
//! busy thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use rtrb::{Consumer, RingBuffer};

use crate::machine::{cores, ticks};
use crate::payload::Bytes;
use crate::roster::{self, Visit};
use crate::run::cast::Cast;
use crate::run::duet::{Duet, wait_until};
use crate::run::orders::Orders;
use crate::subject::{Kind, Subject, pair};

use super::CAPACITY;

/// Slots that are free, all of them with the busy thread.
const FREE: usize = 32;

/// Of these, taken and timed in one unit of `steal`.
pub const HALF: usize = FREE / 2;

/// Taken in all in one unit: the busy thread keeps one to work with, and one to spare.
const TAKEN: usize = FREE - 2;

/// All pools whose free slots any thread can take; `TIMED` of them are timed in one unit.
pub fn fill<const TIMED: usize>(cast: &mut Cast) {
    roster::each::<Bytes<4096>, CAPACITY>(&mut Steal::<TIMED>(cast));
}

struct Steal<'a, const TIMED: usize>(&'a mut Cast);

impl<const TIMED: usize> Visit for Steal<'_, TIMED> {
    fn visit<S: Subject>(&mut self) {
        if S::ABLE.shared && S::KIND != Kind::Allocator {
            self.0.add(S::NAME, S::KIND, serve::<S, TIMED>);
        }
    }
}

/// What the two threads tell each other.
#[derive(Default)]
struct Signals {
    /// The batch is over.
    over: CachePadded<AtomicBool>,
    /// Slots that the busy thread has taken back and released.
    returned: CachePadded<AtomicU64>,
}

fn serve<S: Subject, const TIMED: usize>(orders: Orders) {
    cores::pin(0);
    let pool = S::build();
    let (mut sender, mut receiver) = RingBuffer::new(FREE);
    let (duet, signals) = (Duet::new(), Signals::default());

    thread::scope(|scope| {
        let mut hand = pool.hand();
        let held: Vec<_> = (0..CAPACITY - FREE).map(|_| S::allocate(&mut hand).expect("a slot")).collect();

        scope.spawn(|| {
            cores::pin(1);
            let mut hand = pool.hand();
            duet.follow(|_| busy::<S>(&mut hand, &mut receiver, &signals));
        });

        let mut taken = Vec::with_capacity(TAKEN);
        orders.serve(TIMED as u64, |units| {
            signals.over.store(false, Ordering::Relaxed); // published by the duet's barrier
            signals.returned.store(0, Ordering::Relaxed);
            let (_, time) = duet.lead(units, || {
                // The busy thread says so when it has all of them.
                wait_for(&signals, FREE as u64);
                let mut time = 0;
                for unit in 1..=units {
                    let start = ticks::now();
                    for _ in 0..TIMED {
                        taken.push(S::allocate(&mut hand).expect("a free slot"));
                    }
                    time += ticks::now() - start;
                    for _ in TIMED..TAKEN {
                        taken.push(S::allocate(&mut hand).expect("a free slot"));
                    }
                    for held in taken.drain(..) {
                        sender.push(held).expect("room in the queue");
                    }
                    wait_for(&signals, FREE as u64 + unit * TAKEN as u64);
                }
                signals.over.store(true, Ordering::Relaxed);
                time
            });
            Duration::from_nanos((time as f64 * ticks::length()) as u64)
        });
        duet.dismiss();
        held.into_iter().for_each(|held| S::release(&mut hand, held));
    });
}

fn wait_for(signals: &Signals, slots: u64) {
    // Acquire: pairs with the busy thread's Release; the slots are back in its pool.
    wait_until(|| signals.returned.load(Ordering::Acquire) >= slots);
}

/// The busy thread: first it brings all free slots to itself, then it works and releases what it is sent.
fn busy<'a, S: Subject>(hand: &mut S::Hand<'a>, receiver: &mut Consumer<S::Held<'a>>, signals: &Signals) {
    let mine: Vec<_> = (0..FREE).map(|_| S::allocate(hand).expect("a free slot")).collect();
    mine.into_iter().for_each(|held| S::release(hand, held));
    // Release: pairs with `wait_for`.
    signals.returned.fetch_add(FREE as u64, Ordering::Release);

    while !signals.over.load(Ordering::Relaxed) {
        for _ in 0..8 {
            pair::<S>(hand);
        }
        while let Ok(held) = receiver.pop() {
            S::release(hand, held);
            // Release: pairs with `wait_for`.
            signals.returned.fetch_add(1, Ordering::Release);
        }
    }
}
