//! Allocated here, released there, through a bounded queue of 256: packets, log records, jobs. The queue alone is the floor.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use rtrb::{Consumer, Producer, RingBuffer};
use tierpool::Lease;

use crate::payload::Bytes;
use crate::roster::{self, Visit};
use crate::run::cast::Cast;
use crate::run::duet::{Duet, wait_until};
use crate::run::orders::Orders;
use crate::subject::{Kind, Subject};

use super::CAPACITY;

/// Entries of the queue.
const QUEUE: usize = 256;

/// Words of a lease.
const WORDS: usize = size_of::<Lease<Bytes<4096>>>() / size_of::<usize>();

/// All subjects, and the queue alone with an entry of the size of a lease.
pub fn fill(cast: &mut Cast) {
    roster::each::<Bytes<4096>, CAPACITY>(&mut Handoff(cast));
    cast.add("queue", Kind::Floor, |orders| {
        let entries = || || [1_usize; WORDS];
        pass(entries, || |entry| _ = black_box(entry), |batch| orders.serve(1, batch));
    });
}

struct Handoff<'a>(&'a mut Cast);

impl Visit for Handoff<'_> {
    fn visit<S: Subject>(&mut self) {
        let serve = |orders: Orders| drive::<S>(|batch| orders.serve(1, batch));
        self.0.add(S::NAME, S::KIND, serve);
    }
}

/// How long it takes to hand over so many, after a warm-up of the queue's length: for criterion.
pub fn timed<S: Subject>(entries: u64) -> Duration {
    let mut time = Duration::ZERO;
    drive::<S>(|batch| {
        batch(QUEUE as u64);
        time = batch(entries);
    });
    time
}

fn drive<S: Subject>(drive: impl FnOnce(&mut dyn FnMut(u64) -> Duration)) {
    let pool = S::build();
    let maker = || {
        let mut hand = pool.hand();
        move || {
            let mut held = S::allocate(&mut hand).expect("a free slot");
            S::touch(&mut held);
            held
        }
    };
    let ender = || {
        let mut hand = pool.hand();
        move |held| S::release(&mut hand, held)
    };
    pass(maker, ender, drive);
}

/// Passes what one thread makes to another that ends it; the follower makes, the leader ends and has the watch.
fn pass<T: Send, M: FnMut() -> T, E: FnMut(T)>(
    maker: impl FnOnce() -> M + Send,
    ender: impl FnOnce() -> E,
    drive: impl FnOnce(&mut dyn FnMut(u64) -> Duration),
) {
    let (mut sender, mut receiver) = RingBuffer::new(QUEUE);
    let duet = Duet::new();
    thread::scope(|scope| {
        let receiving = || {
            let mut end = ender();
            move |entries| receive(&mut receiver, entries, &mut end)
        };
        let sending = || {
            let mut make = maker();
            move |entries| send(&mut sender, entries, &mut make)
        };
        duet.run(scope, receiving, sending, drive);
    });
}

#[inline(never)]
fn send<T>(sender: &mut Producer<T>, entries: u64, make: &mut impl FnMut() -> T) {
    for _ in 0..entries {
        let entry = make();
        if sender.slots() == 0 {
            wait_until(|| sender.slots() > 0);
        }
        sender.push(entry).expect("room in the queue");
    }
}

#[inline(never)]
fn receive<T>(receiver: &mut Consumer<T>, entries: u64, end: &mut impl FnMut(T)) {
    for _ in 0..entries {
        let entry = receiver.pop();
        let entry = entry.unwrap_or_else(|_| {
            wait_until(|| !receiver.is_empty());
            receiver.pop().expect("an entry")
        });
        end(entry);
    }
}
