//! 512 out, 512 back, nanoseconds a slot: one by one for all, and in bulk for tierpool. The payload is not touched: 512
//! buffers would measure the cache.

use std::hint::black_box;
use std::time::Instant;

use tierpool::Leases;

use crate::machine::cores;
use crate::ours::Tierpool;
use crate::payload::Bytes;
use crate::roster::{self, Visit};
use crate::run::cast::Cast;
use crate::run::orders::Orders;
use crate::subject::{Kind, Subject};

use super::{CAPACITY, floor};

/// Slots of one burst.
const SLOTS: usize = 512;

/// All subjects one by one, and tierpool in bulk.
pub fn fill(cast: &mut Cast) {
    roster::each::<Bytes<4096>, CAPACITY>(&mut Burst(cast));
    cast.add("tierpool-bulk", Kind::Ours, serve_bulk);
    floor::atomic_add(cast);
}

struct Burst<'a>(&'a mut Cast);

impl Visit for Burst<'_> {
    fn visit<S: Subject>(&mut self) {
        self.0.add(S::NAME, S::KIND, serve::<S>);
    }
}

fn serve<S: Subject>(orders: Orders) {
    cores::pin(0);
    let pool = S::build();
    let mut hand = pool.hand();
    let mut held = Vec::with_capacity(SLOTS);
    orders.serve(SLOTS as u64, |bursts| {
        let start = Instant::now();
        for _ in 0..bursts {
            held.extend((0..SLOTS).map(|_| S::allocate(&mut hand).expect("a free slot")));
            black_box(&mut held);
            held.drain(..).for_each(|held| S::release(&mut hand, held));
        }
        start.elapsed()
    });
}

fn serve_bulk(orders: Orders) {
    cores::pin(0);
    let pool = Tierpool::<Bytes<4096>, CAPACITY>::build();
    let mut leases = Leases::with_capacity(SLOTS);
    orders.serve(SLOTS as u64, |bursts| {
        let start = Instant::now();
        for _ in 0..bursts {
            pool.0.try_allocate_into(&mut leases, SLOTS).expect("free slots");
            black_box(&mut leases);
            leases.release_all();
        }
        start.elapsed()
    });
}
