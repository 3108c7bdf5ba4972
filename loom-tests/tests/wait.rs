//! Waiting: no wake-up is lost, no slot is lost, and what nobody takes is taken back (guarantee 9).
#![cfg(loom)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tierpool::{Allocate, AllocateError, Lease, Tier, TierBuilder, internals};
use tierpool_loom::{Census, Value, assert_quiet, explore, spawn, take};

/// Waits for a slot, writes to its value, and gives it back.
fn wait(tier: &Tier<Value>) {
    tier.allocate().unwrap().touch();
}

/// A future and the hand that polls it. Its wake-ups are counted by plain `std` atomics, which are no part of the model.
struct Task<'a> {
    future: Pin<Box<Allocate<'a, Value>>>,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl<'a> Task<'a> {
    fn new(tier: &'a Tier<Value>) -> Self {
        Task { future: Box::pin(tier.allocate_async()), wakes: Arc::default() }
    }

    /// One that is in the queue.
    fn queued(tier: &'a Tier<Value>) -> Self {
        let mut task = Task::new(tier);
        assert!(task.poll().is_pending());
        task
    }

    fn poll(&mut self) -> Poll<Result<Lease<Value>, AllocateError>> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// The lease, at a point where it must have been woken.
    fn take(&mut self) -> Lease<Value> {
        assert!(self.wakes.0.load(Ordering::Relaxed) > 0, "a slot is free, and who waits for one was not woken");
        match self.poll() {
            Poll::Ready(result) => result.unwrap(),
            Poll::Pending => panic!("woken for nothing"),
        }
    }
}

fn builder() -> TierBuilder<Value> {
    Tier::builder("model").capacity(1)
}

/// Guarantee 9. A thread waits while another releases, on the hot path: it is woken, or finds the slot. loom notices a thread
/// that sleeps for ever.
///
/// Guards the heavy fence and the look in `Seat::entered`, and the look at WAITERS after the give in `release::attempt`.
#[test]
fn a_waiter_against_a_release() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap(); // so this thread has a magazine, and takes the hot path
        let other = {
            let tier = tier.clone();
            spawn(move || wait(&tier))
        };
        drop(held);
        other.join().unwrap();
        assert_quiet(&tier, 2);
    });
}

/// Guarantee 9. The same with a thread that releases before it has a magazine.
///
/// Guards the look at WAITERS after the give in `release::give_back`.
#[test]
fn a_waiter_against_a_first_release() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        let other = spawn(move || drop(held));
        wait(&tier);
        other.join().unwrap();
        assert_quiet(&tier, 2);
    });
}

/// Guarantee 9. The same while slots are scarce: each release is counted.
///
/// Guards the look at WAITERS after the give in `release::give_counted`.
#[test]
fn a_waiter_against_a_counted_release() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        assert!(take(&tier).is_none(), "slots are scarce from here on");
        let other = {
            let tier = tier.clone();
            spawn(move || wait(&tier))
        };
        drop(held);
        other.join().unwrap();
        assert_quiet(&tier, 2);
    });
}

/// Guarantee 9. The flag stands on after the last waiter has gone; a thread comes to wait, and needs no heavy fence.
///
/// Guards the look in `Seat::entered` of a waiter that finds the queue empty.
#[test]
fn a_waiter_under_a_flag_that_stands() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        drop(Task::queued(&tier));
        let other = {
            let tier = tier.clone();
            spawn(move || wait(&tier))
        };
        drop(held);
        other.join().unwrap();
        assert_quiet(&tier, 2);
    });
}

/// Guarantee 9. Two wait for one slot: the one that has it hands it on.
///
/// Guards the hand-over before the give (`wait::hand_over`), and that the flag stands as long as somebody waits
/// (`Queue::find_empty`).
#[test]
fn two_waiters_and_one_release() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        let mut first = Task::queued(&tier);
        let other = {
            let tier = tier.clone();
            spawn(move || wait(&tier))
        };
        drop(held);
        loop {
            // Granted by the release, or by the other if it had the queue locked.
            if let Poll::Ready(result) = first.poll() {
                break result.unwrap().touch();
            }
            loom::thread::yield_now();
        }
        other.join().unwrap();
        assert_quiet(&tier, 3);
    });
}

/// Guarantee 9. A release finds the queue locked, by a waiter that comes and goes: whoever has the lock serves the one that
/// is first.
///
/// Guards `pending`: set before the lock is tried (`wait::attend`), looked at after it is unlocked, with fences between
/// (`wait::look_after`).
#[test]
fn a_release_finds_the_queue_locked() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        let mut first = Task::queued(&tier);
        let other = {
            let tier = tier.clone();
            spawn(move || drop(Task::queued(&tier)))
        };
        drop(held);
        other.join().unwrap();
        first.take().touch();
        assert_quiet(&tier, 2);
    });
}

/// Guarantees 4 and 9. A wait times out in the very moment in which its slot is released: it has the slot, or the slot is free.
///
/// Guards that `Seat::leave` takes what was granted before it had the lock.
#[test]
fn a_time_out_against_a_release() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        let other = {
            let tier = tier.clone();
            spawn(move || {
                let mut task = Task::new(&tier);
                let result = match task.poll() {
                    Poll::Ready(result) => result,
                    Poll::Pending => internals::time_out(*Pin::into_inner(task.future)),
                };
                match result {
                    Ok(mut lease) => lease.touch(),
                    Err(AllocateError::TimedOut { .. }) => return 0,
                    Err(error) => panic!("{error}"),
                }
                1
            })
        };
        drop(held);
        let granted = other.join().unwrap();
        assert_quiet(&tier, 1 + granted);
    });
}

/// Guarantees 4 and 9. A future is dropped in the very moment of its grant: the slot goes to the next one.
///
/// Guards that `Seat::abandon` gives back what was granted.
#[test]
fn a_cancelled_waiter_passes_its_slot_on() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        let first = Task::queued(&tier);
        let mut second = Task::queued(&tier);
        let other = spawn(move || drop(held));
        drop(first);
        other.join().unwrap();
        second.take().touch();
    });
}

/// Guarantee 9. A tier is closed while a thread comes to wait: it is told, however close they come.
///
/// Guards that `wait::close` looks at the flag after CLOSED was set, and that `Queue::insert` looks at CLOSED when it sets it.
#[test]
fn close_against_a_waiter() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let held = take(&tier).unwrap();
        let other = {
            let tier = tier.clone();
            spawn(move || assert!(matches!(tier.allocate(), Err(AllocateError::Closed { .. }))))
        };
        tier.close();
        other.join().unwrap();
        drop(held);
        census.assert_all_dropped();
    });
}

/// Guarantees 1 and 9. A grant is revoked while its waiter takes it: one of the two has the slot.
///
/// Guards the exchange in `Waiter::end_grant`.
#[test]
fn a_grant_is_taken_or_revoked() {
    explore(2, || {
        let census = Census::default();
        let tier = census.tier_of(builder().grant_limit(Duration::ZERO));
        let held = take(&tier).unwrap();
        let mut waiter = Task::queued(&tier);
        drop(held); // granted, and overdue at once
        let other = {
            let tier = tier.clone();
            spawn(move || internals::revoke(&tier))
        };
        if let Poll::Ready(result) = waiter.poll() {
            result.unwrap().touch();
        }
        other.join().unwrap();
        drop(waiter);
        let now = tier.snapshot();
        assert_eq!((now.free, now.releases), (1, now.allocations), "each use ends once: {now:?}");
    });
}

/// Guarantee 9, with barging. A waiter that was called finds its slot gone to a newcomer, and sleeps again while that one
/// releases: it is called again.
///
/// Guards the look in `Seat::renew` after an awake waiter has entered the queue again.
#[test]
fn a_waiter_that_was_passed_is_called_again() {
    explore(1, || {
        let census = Census::default();
        let tier = census.tier_of(builder().barging(Duration::MAX));
        let held = take(&tier).unwrap();
        let mut waiter = Task::queued(&tier);
        let other = {
            let tier = tier.clone();
            spawn(move || {
                drop(held);
                drop(take(&tier)); // passes, or is too late
            })
        };
        let early = waiter.poll(); // perhaps called, perhaps not yet
        other.join().unwrap();
        match early {
            Poll::Ready(result) => result.unwrap().touch(),
            Poll::Pending => waiter.take().touch(),
        }
        assert_eq!(tier.snapshot().free, 1);
    });
}

/// Guarantee 9, with barging. A waiter that was called goes away: it passes the call on.
///
/// Guards the look in `Seat::leave` of a waiter that was awake.
#[test]
fn a_cancelled_waiter_passes_its_call_on() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier_of(builder().barging(Duration::MAX));
        let held = take(&tier).unwrap();
        let first = Task::queued(&tier);
        let mut second = Task::queued(&tier);
        let other = spawn(move || drop(held));
        drop(first);
        other.join().unwrap();
        second.take().touch();
    });
}

/// Guarantee 9. A slot is retired while somebody else is in a pass that has looked already: whoever ends the pass
/// looks again, or the waiter would sleep with a slot at hand.
///
/// Guards `wait::after_pass` in `reclaim::pass`.
#[test]
fn a_slot_retired_during_a_pass() {
    explore(1, || {
        let census = Census::default();
        let tier = census.tier(1);
        let handle = take(&tier).unwrap().share();
        let waiter = {
            let tier = tier.clone();
            spawn(move || drop(tier.allocate().unwrap()))
        };
        let other = {
            let tier = tier.clone();
            spawn(move || tier.reclaim())
        };
        tier.retire(handle).unwrap();
        other.join().unwrap();
        waiter.join().unwrap();
    });
}
