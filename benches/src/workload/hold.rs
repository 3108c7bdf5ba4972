//! A thousand held, one of them replaced at random: what a session table or a connection cache does. The new one is taken
//! before the old one goes, as an assignment does.

use std::thread;
use std::time::Instant;

use crate::machine::cores;
use crate::payload::Bytes;
use crate::roster::{self, Visit};
use crate::run::cast::Cast;
use crate::run::duet::Duet;
use crate::run::orders::Orders;
use crate::subject::Subject;

use super::floor;

/// Held by each thread.
const HELD: usize = 1000;

/// Room for two threads with twice their ring.
const CAPACITY: usize = 4096;

/// One thread.
pub fn alone(cast: &mut Cast) {
    roster::each::<Bytes<4096>, CAPACITY>(&mut Alone(cast));
    floor::atomic_add(cast);
}

/// Two threads, each with a ring of its own, on one pool.
pub fn together(cast: &mut Cast) {
    roster::each::<Bytes<4096>, CAPACITY>(&mut Together(cast));
    floor::atomic_add(cast);
}

struct Alone<'a>(&'a mut Cast);

impl Visit for Alone<'_> {
    fn visit<S: Subject>(&mut self) {
        self.0.add(S::NAME, S::KIND, serve_alone::<S>);
    }
}

struct Together<'a>(&'a mut Cast);

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
    let mut ring = Ring::<S>::new(&pool);
    orders.serve(1, |replacements| {
        let start = Instant::now();
        ring.replace(replacements);
        start.elapsed()
    });
}

fn serve_together<S: Subject>(orders: Orders) {
    let pool = S::build();
    let duet = Duet::new();
    let worker = || {
        let mut ring = Ring::<S>::new(&pool);
        move |replacements| ring.replace(replacements)
    };
    thread::scope(|scope| duet.run(scope, worker, worker, |batch| orders.serve(1, batch)));
}

/// What one thread holds.
struct Ring<'a, S: Subject> {
    held: Vec<S::Held<'a>>,
    hand: S::Hand<'a>,
    random: u64,
}

impl<'a, S: Subject> Ring<'a, S> {
    fn new(pool: &'a S) -> Self {
        let mut hand = pool.hand();
        let held = (0..HELD).map(|_| S::allocate(&mut hand).expect("a free slot")).collect();
        Self { held, hand, random: 0x9E37_79B9_7F4A_7C15 }
    }

    #[inline(never)]
    fn replace(&mut self, replacements: u64) {
        for _ in 0..replacements {
            let mut next = S::allocate(&mut self.hand).expect("a free slot");
            S::touch(&mut next);
            let place = self.place();
            let last = std::mem::replace(&mut self.held[place], next);
            S::release(&mut self.hand, last);
        }
    }

    /// A place in the ring: xorshift, and the high half of a product in the place of a division.
    #[inline(always)]
    fn place(&mut self) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * HELD as u64) >> 32) as usize
    }
}

impl<S: Subject> Drop for Ring<'_, S> {
    fn drop(&mut self) {
        for held in self.held.drain(..) {
            S::release(&mut self.hand, held);
        }
    }
}
