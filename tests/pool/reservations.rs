//! Reservations: what is reserved is drawn once, by whoever has the reservation, until its deadline; the rest goes back.

use std::thread;
use std::time::Duration;

use tierpool::{Pool, Request, RequestError, Spill};

use crate::common::waiting::wait_until;
use crate::{free, pool, served_by};

#[test]
fn nobody_else_can_take_what_is_reserved() {
    let pool = pool();
    let reservation = pool.reserve(Request::memory(10), 2).unwrap();
    assert!(pool.try_allocate(Request::memory(10)).is_err());
    let first = reservation.draw().unwrap();
    assert_eq!((first.len(), reservation.left(), reservation.reserved()), (10, 1, 2));
    drop(first);
    let taken = pool.try_allocate(Request::memory(10)).unwrap();
    let second = reservation.draw().expect("whoever takes what");
    assert_eq!(reservation.draw().unwrap_err(), RequestError::Spent { tier: "small", reserved: 2 });
    assert_eq!(reservation.left(), 0);
    drop((reservation, second, taken));
    assert_eq!(free(&pool, "small"), 2);
}

#[test]
fn a_reservation_is_all_or_nothing_and_gives_back_the_rest() {
    let pool = pool();
    let held = pool.try_allocate(Request::memory(1)).unwrap();
    assert!(pool.reserve(Request::memory(1), 2).is_err());
    assert_eq!(free(&pool, "small"), 1);
    let larger = pool.reserve(Request::memory(1).spill(Spill::NextLarger), 2).unwrap();
    assert_eq!(larger.tier_name(), "middle");
    let drawn = larger.draw().unwrap();
    assert_eq!((drawn.len(), served_by(&drawn)), (1, 512));
    drop(larger);
    assert_eq!(free(&pool, "middle"), 1, "one is drawn, one went back");
    drop((held, drawn));
    assert!(pool.reserve(Request::memory(1), 3).is_err(), "more than there are");
    let none = pool.reserve(Request::memory(1), 0).unwrap();
    assert!(matches!(none.draw(), Err(RequestError::Spent { reserved: 0, .. })));
}

#[test]
fn a_reservation_lapses_at_its_deadline() {
    let pool = pool();
    let reservation = pool.reserve_for(Request::memory(1), 2, Duration::from_millis(1)).unwrap();
    let drawn = reservation.draw().unwrap();
    wait_until("the deadline is over", || {
        pool.reclaim();
        free(&pool, "small") == 1
    });
    assert_eq!(reservation.draw().unwrap_err(), RequestError::Lapsed { tier: "small", reserved: 2 });
    let other = pool.try_allocate(Request::memory(1)).unwrap();
    drop(reservation);
    assert_eq!(free(&pool, "small"), 0, "what was drawn stays, and what lapsed is another's");
    drop((drawn, other));
}

#[test]
fn threads_draw_each_reserved_slot_once() {
    let pool = Pool::builder().memory("m", 64, 1000).build().unwrap();
    let reservation = pool.reserve(Request::memory(1), 900).unwrap();
    let drawn: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| std::iter::from_fn(|| reservation.draw().ok()).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(drawn.len(), 900);
    assert_eq!(free(&pool, "m"), 100);
    drop((drawn, reservation));
    assert_eq!(free(&pool, "m"), 1000);
}

/// Whichever tier serves it, each refusal before that was made good; and one that none serves fails once.
#[test]
fn a_reservation_fails_once_at_most() {
    let pool = Pool::builder().memory("a", 64, 1).memory("b", 128, 1).memory("c", 256, 4).build().unwrap();
    let refusals = || {
        let status = pool.monitor();
        (status.tiers.iter().map(|tier| tier.snapshot.refusals).sum::<u64>(), status.absorbed)
    };
    let request = Request::memory(64).spill(Spill::NextLarger);
    let reservation = pool.reserve(request, 2).unwrap();
    assert_eq!((reservation.tier_name(), refusals()), ("c", (2, 2)));
    assert!(pool.reserve(request, 9).is_err());
    assert_eq!(refusals(), (5, 4));
}
