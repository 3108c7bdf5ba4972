//! Allocate, write one byte, release: on one thread, or on two that share the pool.

use std::thread;
use std::time::Instant;

use crate::machine::cores;
use crate::payload::Bytes;
use crate::roster::{self, Visit};
use crate::run::cast::Cast;
use crate::run::duet::Duet;
use crate::run::orders::Orders;
use crate::subject::{Subject, pair};

use super::floor;

/// One thread.
pub fn alone<const SIZE: usize, const CAP: usize>(cast: &mut Cast) {
    roster::each::<Bytes<SIZE>, CAP>(&mut Alone(cast));
    floor::atomic_add(cast);
}

/// Two threads on one pool.
pub fn together<const SIZE: usize, const CAP: usize>(cast: &mut Cast) {
    roster::each::<Bytes<SIZE>, CAP>(&mut Together(cast));
    floor::atomic_add(cast);
}

pub(super) struct Alone<'a>(pub(super) &'a mut Cast);

impl Visit for Alone<'_> {
    fn visit<S: Subject>(&mut self) {
        self.0.add(S::NAME, S::KIND, serve_alone::<S>);
    }
}

pub(super) struct Together<'a>(pub(super) &'a mut Cast);

impl Visit for Together<'_> {
    fn visit<S: Subject>(&mut self) {
        if S::ABLE.several {
            self.0.add(S::NAME, S::KIND, serve_together::<S>);
        }
    }
}

fn serve_alone<S: Subject>(orders: Orders) {
    cores::pin(0);
    let pool = S::build();
    let mut hand = pool.hand();
    orders.serve(1, |pairs| {
        let start = Instant::now();
        run::<S>(&mut hand, pairs);
        start.elapsed()
    });
}

fn serve_together<S: Subject>(orders: Orders) {
    let pool = S::build();
    let duet = Duet::new();
    let worker = || {
        let mut hand = pool.hand();
        move |pairs| run::<S>(&mut hand, pairs)
    };
    thread::scope(|scope| duet.run(scope, worker, worker, |batch| orders.serve(1, batch)));
}

#[inline(never)]
fn run<'a, S: Subject>(hand: &mut S::Hand<'a>, pairs: u64) {
    for _ in 0..pairs {
        pair::<S>(hand);
    }
}
