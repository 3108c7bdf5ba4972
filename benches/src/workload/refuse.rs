//! Everything is held: what a refusal costs.

use std::time::Instant;

use crate::machine::{cores, counting};
use crate::payload::Bytes;
use crate::roster::{self, Visit};
use crate::run::cast::Cast;
use crate::run::orders::Orders;
use crate::subject::Subject;

use super::{CAPACITY, floor};

/// All subjects that refuse.
pub fn fill(cast: &mut Cast) {
    roster::each::<Bytes<4096>, CAPACITY>(&mut Refuse(cast));
    floor::atomic_add(cast);
}

struct Refuse<'a>(&'a mut Cast);

impl Visit for Refuse<'_> {
    fn visit<S: Subject>(&mut self) {
        if S::ABLE.refuse {
            self.0.add(S::NAME, S::KIND, serve::<S>);
        }
    }
}

fn serve<S: Subject>(orders: Orders) {
    cores::pin(0);
    let pool = S::build();
    let mut hand = pool.hand();
    let held = hold_all::<S>(&mut hand);
    orders.serve(1, |refusals| {
        let start = Instant::now();
        run::<S>(&mut hand, refusals);
        start.elapsed()
    });
    held.into_iter().for_each(|held| S::release(&mut hand, held));
}

fn hold_all<'a, S: Subject>(hand: &mut S::Hand<'a>) -> Vec<S::Held<'a>> {
    std::iter::from_fn(|| S::allocate(hand)).collect()
}

#[inline(never)]
fn run<'a, S: Subject>(hand: &mut S::Hand<'a>, refusals: u64) {
    for _ in 0..refusals {
        assert!(S::allocate(hand).is_none());
    }
}

/// How many heap allocations ten thousand refusals make; the program's global allocator must be
/// [`counting::Counting`].
pub fn heap_allocations<S: Subject>() -> u64 {
    let pool = S::build();
    let mut hand = pool.hand();
    let held = hold_all::<S>(&mut hand);
    let before = counting::count();
    run::<S>(&mut hand, 10_000);
    let after = counting::count();
    held.into_iter().for_each(|held| S::release(&mut hand, held));
    after - before
}
