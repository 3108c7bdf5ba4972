//! Groups: several resources all together or none, and whoever waits for whom, everybody gets on.

#![cfg(not(loom))] // tokio has a loom of its own under that flag

pub mod common;

use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::waiting::{FOR_EVER, Watchdog, poll, wait_until};
use tierpool::{AllocateError, Lease, Memory, Pool, Priority, Request, RequestError, Spill, Tier};

/// Tiers of so many slots each: "a" of 64 bytes, "b" of 128, and "n" of numbers.
fn pool(slots: usize) -> Pool {
    let numbers: Tier<u64> = Tier::builder("n").capacity(slots).build_with(|| 7).unwrap();
    Pool::builder().memory("a", 64, slots).memory("b", 128, slots).tier(numbers).build().unwrap()
}

const A: Request<'static, Memory> = Request::memory(64);
const B: Request<'static, Memory> = Request::memory(128);
const N: Request<'static, u64> = Request::of("n");

fn free(pool: &Pool) -> Vec<usize> {
    pool.monitor().tiers.iter().map(|tier| tier.snapshot.free).collect()
}

fn waiting(pool: &Pool, tier: &str) -> usize {
    pool.monitor().tier(tier).unwrap().snapshot.waiting
}

#[test]
fn each_member_gets_its_own_in_the_order_of_the_requests() {
    let pool = pool(3);
    let (n, a, b): (Lease<u64>, Lease<Memory>, Lease<Memory>) = pool.try_allocate_group((N, A, B)).unwrap();
    assert_eq!((*n, a.len(), b.len()), (7, 64, 128));
    let list = pool.allocate_group(vec![B, A, B]).err();
    assert!(list.is_none(), "waits only if it has to");
    let list = pool.try_allocate_group(vec![B, A]).unwrap();
    assert_eq!(list.iter().map(|lease| lease.len()).collect::<Vec<_>>(), [128, 64]);
    drop(list);
    assert_eq!(free(&pool), [2, 2, 2]);
    let all = pool.try_allocate_group((A, N, B, A, B, N, A.spill(Spill::Refuse), B));
    assert!(all.is_err(), "more than there are");
    assert_eq!(free(&pool), [2, 2, 2], "none is kept");
    assert!(pool.try_allocate_group(Vec::<Request<u64>>::new()).unwrap().is_empty());
}

#[test]
fn a_refused_group_gives_back_all_it_had() {
    let pool = pool(2);
    let _b: Vec<_> = (0..2).map(|_| pool.try_allocate(B).unwrap()).collect();
    let error = pool.try_allocate_group((N, B, A)).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::Exhausted(why)) if why.tier == "b"), "{error}");
    let error = pool.allocate_group_timeout((N, A, B), Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::TimedOut { tier: "b", .. })), "{error}");
    assert_eq!(free(&pool), [2, 0, 2]);
    let error = pool.try_allocate_group((N, Request::memory(129), A)).unwrap_err();
    assert!(matches!(error, RequestError::TooLarge { .. }), "{error}");
    assert_eq!(free(&pool), [2, 0, 2]);
}

#[test]
fn a_group_that_could_never_be_served_does_not_wait() {
    let pool = pool(2);
    let expected = RequestError::GroupTooLarge { tier: "a", wanted: 3, capacity: 2 };
    assert_eq!(pool.allocate_group(vec![A; 3]).unwrap_err(), expected);
    assert_eq!(pool.allocate_group((A, B, A, N, A)).unwrap_err(), expected);
    assert_eq!(free(&pool), [2, 2, 2]);
    assert!(pool.allocate_group((A, B, A, N)).is_ok());
}

#[test]
fn a_group_spills_only_while_it_need_not_wait() {
    let pool = pool(1);
    let a = pool.try_allocate(A).unwrap();
    let spilled = pool.try_allocate_group((A.spill(Spill::NextLarger), N)).unwrap();
    assert_eq!(spilled.0.capacity(), 128);
    drop(spilled);
    // With the only slot of "b" for "a"'s sake, this would wait for itself for ever.
    let error = pool.allocate_group_timeout((A.spill(Spill::NextLarger), B), Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::TimedOut { tier: "a", .. })), "{error}");
    drop(a);
    assert!(pool.allocate_group((A.spill(Spill::NextLarger), B)).is_ok());
}

#[test]
fn a_waiting_group_gets_what_is_released() {
    let _watchdog = Watchdog::new("a_waiting_group_gets_what_is_released");
    let pool = pool(1);
    let (a, b) = pool.try_allocate_group((A, B)).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.allocate_group((B, N, A)).map(|(_, n, _)| *n));
        wait_until("it waits for the first tier in order", || waiting(&pool, "a") == 1);
        drop(a);
        wait_until("then for the second, holding the first", || waiting(&pool, "b") == 1);
        assert_eq!(free(&pool)[0], 0);
        drop(b);
        assert_eq!(waiter.join().unwrap(), Ok(7));
    });
    assert_eq!(free(&pool), [1, 1, 1]);
}

/// Four threads at once; each does its turn, of number 0 to 3, again and again.
fn contend(rounds: usize, turn: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for number in 0..4 {
            let turn = &turn;
            scope.spawn(move || (0..rounds).for_each(|_| turn(number)));
        }
    });
}

/// Holds them while others run into it.
fn held<T>(leases: T) {
    thread::yield_now();
    drop(leases);
}

#[test]
fn every_group_waits_for_the_same_tier_first() {
    let pool = pool(1);
    let (a, b) = pool.try_allocate_group((A, B)).unwrap();
    let wakes = Arc::default();
    let (mut one, mut other) = (pool.allocate_group_async((A, B)), pool.allocate_group_async(vec![B, A]));
    assert!(poll(one.as_mut(), &wakes).is_pending() && poll(other.as_mut(), &wakes).is_pending());
    assert_eq!((waiting(&pool, "a"), waiting(&pool, "b")), (2, 0));
    drop((a, b));
    let Poll::Ready(Ok(leases)) = poll(one.as_mut(), &wakes) else { panic!("both are free") };
    assert!(poll(other.as_mut(), &wakes).is_pending());
    drop(leases);
    assert!(matches!(poll(other.as_mut(), &wakes), Poll::Ready(Ok(_))));
}

/// Groups that name their tiers in opposite orders would each hold what the other wants.
#[test]
fn opposite_orders_do_not_deadlock() {
    let _watchdog = Watchdog::new("opposite_orders_do_not_deadlock");
    let pool = pool(1);
    contend(2000, |turn| match turn {
        0 => held(pool.allocate_group((A, B)).unwrap()),
        1 => held(pool.allocate_group((B, A)).unwrap()),
        2 => held(pool.allocate_group((N, B, A)).unwrap()),
        _ => held(pool.allocate_group(vec![B, A]).unwrap()),
    });
    assert_eq!(free(&pool), [1, 1, 1]);
}

/// Two groups that each want both slots of a tier would each hold one: whoever has the turn gets both. Beside them, those who want one.
#[test]
fn several_of_one_tier_do_not_deadlock() {
    let _watchdog = Watchdog::new("several_of_one_tier_do_not_deadlock");
    let pool = pool(2);
    contend(2000, |turn| match turn {
        0 => drop(pool.allocate_group((A, A)).unwrap()),
        1 => drop(pool.allocate_group((B, A, N, A, B)).unwrap()),
        2 => drop(pool.allocate_group(vec![B, A, A, B]).unwrap()),
        _ => drop(pool.allocate_group((N, A)).unwrap()),
    });
    assert_eq!(free(&pool), [2, 2, 2]);
}

/// The same tier in two pools has one turn and one place in the order.
#[test]
fn pools_that_share_tiers_do_not_deadlock() {
    let _watchdog = Watchdog::new("pools_that_share_tiers_do_not_deadlock");
    let tiers = ["x", "y"].map(|name| Tier::builder(name).capacity(2).build_with(|| 0u64).unwrap());
    let one = Pool::builder().tier(tiers[0].clone()).tier(tiers[1].clone()).build().unwrap();
    let two = Pool::builder().tier(tiers[1].clone()).tier(tiers[0].clone()).build().unwrap();
    let (x, y) = (Request::of::<u64>("x"), Request::of::<u64>("y"));
    contend(1000, |turn| {
        let pool = [&one, &two][turn % 2];
        drop(pool.allocate_group((x, y, x, y)).unwrap());
        drop(pool.allocate_group(vec![y, y, x]).unwrap());
    });
    assert_eq!((free(&one), free(&two)), (vec![2, 2], vec![2, 2]));
}

#[test]
fn a_dropped_group_future_gives_back_all_it_had() {
    let pool = pool(2);
    let b = pool.try_allocate_group(vec![B; 2]).unwrap();
    let wakes = Arc::default();
    let mut group = pool.allocate_group_async((A, B, A, B));
    assert!(poll(group.as_mut(), &wakes).is_pending());
    assert_eq!((free(&pool), waiting(&pool, "b")), (vec![0, 0, 2], 1), "it holds both of \"a\"");
    let mut other = pool.allocate_group_async((B, B));
    assert!(poll(other.as_mut(), &wakes).is_pending());
    assert_eq!(waiting(&pool, "b"), 1, "it waits for its turn, not for the tier");
    drop(group);
    assert_eq!((free(&pool), waiting(&pool, "b")), (vec![2, 0, 2], 0));

    assert!(poll(other.as_mut(), &wakes).is_pending(), "it has the turn now");
    drop(b);
    let Poll::Ready(Ok(leases)) = poll(other.as_mut(), &wakes) else { panic!("both are free") };
    drop(leases);
    assert_eq!(free(&pool), [2, 2, 2]);
}

#[test]
fn a_closed_tier_ends_the_wait_of_a_group() {
    let _watchdog = Watchdog::new("a_closed_tier_ends_the_wait_of_a_group");
    let pool = pool(1);
    let held = pool.try_allocate(B).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.allocate_group((A, B)).map(drop));
        wait_until("it waits", || waiting(&pool, "b") == 1);
        pool.close();
        let error = waiter.join().unwrap().unwrap_err();
        assert_eq!(error, RequestError::Tier(AllocateError::Closed { tier: "b" }));
    });
    drop(held);
    pool.close_and_wait(FOR_EVER).unwrap();
}

/// Of those who wait for their turn at a tier the more urgent group has it first, whoever came before.
#[test]
fn turns_are_had_by_priority() {
    let pool = pool(2);
    let all = pool.try_allocate_group((A, A)).unwrap();
    let wakes = Arc::default();
    let of = |priority| vec![A.priority(priority); 2];
    let mut futures = [Priority::Normal, Priority::Low, Priority::Low, Priority::High]
        .map(|priority| pool.allocate_group_async(of(priority)));
    for future in &mut futures {
        assert!(poll(future.as_mut(), &wakes).is_pending());
    }
    let [holder, low, other, high] = &mut futures;
    drop(all);
    let Poll::Ready(Ok(leases)) = poll(holder.as_mut(), &wakes) else { panic!("it has the turn, and both are free") };
    drop(leases);
    assert!(poll(low.as_mut(), &wakes).is_pending() && poll(other.as_mut(), &wakes).is_pending());
    let Poll::Ready(Ok(leases)) = poll(high.as_mut(), &wakes) else { panic!("the turn is its own now") };
    drop(leases);
    assert!(poll(other.as_mut(), &wakes).is_pending(), "first come, first served among equals");
    assert!(matches!(poll(low.as_mut(), &wakes), Poll::Ready(Ok(_))));
    assert!(matches!(poll(other.as_mut(), &wakes), Poll::Ready(Ok(_))));
}
