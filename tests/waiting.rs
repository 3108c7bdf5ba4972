//! Waiting: a slot goes to whoever waited first, no wake-up and no slot is lost, and nobody who does not react stops others.

#![cfg(not(loom))] // tokio has a loom of its own under that flag

pub mod common;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use common::waiting::{FOR_EVER, Watchdog, block_on, wait_until};
use common::{Census, accounted, panics};
use tierpool::{Allocate, AllocateError, Lease, State, Tier};

fn tier(capacity: usize) -> Tier<u64> {
    Tier::builder("waited").capacity(capacity).build_with(|| 0).unwrap()
}

/// A waker that counts.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A future and the hand that polls it.
struct Task<'a, T: Send + 'static> {
    future: Pin<Box<Allocate<'a, T>>>,
    wakes: Arc<Wakes>,
}

impl<'a, T: Send + 'static> Task<'a, T> {
    #[track_caller]
    fn new(tier: &'a Tier<T>) -> Self {
        Task { future: Box::pin(tier.allocate_async()), wakes: Arc::default() }
    }

    /// One that waits already.
    #[track_caller]
    fn waiting(tier: &'a Tier<T>) -> Self {
        let mut task = Task::new(tier);
        assert!(task.poll().is_pending());
        task
    }

    fn poll(&mut self) -> Poll<Result<Lease<T>, AllocateError>> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    #[track_caller]
    fn take(&mut self) -> Lease<T> {
        match self.poll() {
            Poll::Ready(result) => result.expect("granted"),
            Poll::Pending => panic!("still pending"),
        }
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::SeqCst)
    }
}

#[test]
fn a_free_slot_needs_no_wait() {
    let tier = tier(2);
    let first = tier.allocate().unwrap();
    let second = block_on(tier.allocate_async()).unwrap();
    assert!(matches!(tier.try_allocate(), Err(AllocateError::Exhausted(_))));
    drop((first, second));
    assert_eq!(tier.allocate_timeout(Duration::MAX).map(drop), Ok(()));
    assert_eq!(accounted(&tier).free, 2);
}

#[test]
fn a_blocked_thread_gets_the_slot_that_is_released() {
    let tier = tier(1);
    let mut held = tier.allocate().unwrap();
    *held = 7;
    thread::scope(|scope| {
        let waiter = scope.spawn(|| *tier.allocate().unwrap());
        wait_until("the thread waits", || tier.snapshot().waiting == 1);
        drop(held);
        assert_eq!(waiter.join().unwrap(), 7);
    });
    let now = accounted(&tier);
    assert_eq!((now.free, now.waiting, now.allocations, now.releases), (1, 0, 2, 2));
}

/// TORTURE 13, met in pgagroal (issue 1006): a newcomer passed a waiter of 29 seconds, again and again.
#[test]
fn newcomers_do_not_pass_a_waiter() {
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    let mut waiter = Task::waiting(&tier);
    drop(held);

    assert!(tier.try_allocate().is_err(), "the slot is the waiter's, polled or not");
    assert!(tier.allocate_timeout(Duration::from_millis(1)).is_err());
    let mut newcomer = Task::waiting(&tier);

    let lease = waiter.take();
    assert!(newcomer.poll().is_pending());
    drop(lease);
    drop(newcomer.take());
    assert_eq!(accounted(&tier).free, 1);
}

#[test]
fn first_come_first_served() {
    let tier = tier(1);
    let mut held = Some(tier.allocate().unwrap());
    let mut waiters: Vec<_> = (0..20).map(|_| Task::waiting(&tier)).collect();
    assert_eq!(tier.snapshot().waiting, 20);
    for turn in 0..20 {
        drop(held.take());
        let woken: Vec<_> = (0..20).filter(|&at| waiters[at].wakes() > 0).collect();
        assert_eq!(woken, (0..=turn).collect::<Vec<_>>());
        held = Some(waiters[turn].take());
    }
    drop(held);
    assert_eq!(accounted(&tier).free, 1);
}

/// TORTURE 14: a future is dropped in the very moment in which it is handed a slot.
#[test]
fn a_dropped_future_passes_its_slot_on() {
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    let first = Task::waiting(&tier);
    let mut second = Task::waiting(&tier);
    drop(held);
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    drop(first); // granted, and never polled again
    assert_eq!(second.wakes(), 1);
    let lease = second.take();
    let third = Task::waiting(&tier);
    drop(lease);
    drop(third);
    assert_eq!(accounted(&tier).free, 1, "the last grant went back to the tier");
    drop(tier.try_allocate().unwrap());
}

/// TORTURE 14, for threads: time-outs of about the length of a hold, so that many end in the moment of a grant.
#[test]
fn a_wait_that_times_out_loses_no_slot() {
    let _watchdog = Watchdog::new("a_wait_that_times_out_loses_no_slot");
    let tier = tier(1);
    let timed_out = AtomicUsize::new(0);
    thread::scope(|scope| {
        for worker in 0..3_u64 {
            let (tier, timed_out) = (&tier, &timed_out);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(worker);
                for _ in 0..2_000 {
                    match tier.allocate_timeout(Duration::from_nanos(random.u64(1..20_000))) {
                        Ok(_lease) => (0..random.u32(0..200)).for_each(|_| std::hint::spin_loop()),
                        Err(AllocateError::TimedOut { .. }) => _ = timed_out.fetch_add(1, Ordering::Relaxed),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let now = accounted(&tier);
    assert_eq!((now.free, now.waiting), (1, 0));
    assert_eq!(now.refusals, timed_out.load(Ordering::Relaxed) as u64);
}

/// TORTURE 15: the slot becomes free between "no slot free" and "now I wait".
#[test]
fn no_wake_up_is_lost() {
    let _watchdog = Watchdog::new("no_wake_up_is_lost");
    for capacity in [1, 2] {
        let tier = tier(capacity);
        let barrier = Barrier::new(3);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    barrier.wait();
                    (0..3_000).for_each(|_| drop(tier.allocate().unwrap()));
                });
            }
        });
        let now = accounted(&tier);
        assert_eq!((now.free, now.waiting), (capacity, 0));
    }
}

/// TORTURE 16: one release woke every waiter.
#[test]
fn one_release_wakes_one_waiter() {
    let tier = tier(3);
    let mut bulk = tier.try_allocate_many(3).unwrap();
    let waiters: Vec<_> = (0..8).map(|_| Task::waiting(&tier)).collect();
    let woken = || waiters.iter().map(Task::wakes).sum::<usize>();
    drop(bulk.pop());
    assert_eq!(woken(), 1);
    bulk.release();
    assert_eq!(woken(), 3, "a bulk of two wakes two more");
    drop(waiters);
    assert_eq!(accounted(&tier).free, 3);
}

/// Every way in which a slot comes back serves who waits.
#[test]
fn every_way_back_serves_a_waiter() {
    type Way = fn(&Tier<u64>, Lease<u64>);
    let ways: [(&str, Way); 9] = [
        ("drop", |_, lease| drop(lease)),
        ("release", |_, lease| lease.release()),
        ("a handle", |tier, lease| tier.release(lease.detach()).unwrap()),
        ("take", |_, lease| _ = lease.take()),
        ("discard", |_, lease| lease.discard()),
        ("retire", |tier, lease| tier.retire(lease.share()).unwrap()),
        ("a shared lease", |_, lease| drop(lease.into_shared().clone())),
        ("expiry", |tier, lease| {
            lease.detach_for(Duration::ZERO);
            wait_until("it expires", || tier.reclaim().expired == 1);
        }),
        ("a magazine of one's own", |tier, lease| tier.local().release(lease)),
    ];
    for (way, give_back) in ways {
        for reset in ["never", "at once", "later"] {
            let builder = Tier::builder("ways").capacity(1);
            let builder = match reset {
                "at once" => builder.reset(|value| *value = 0),
                "later" => builder.clean(|value| *value = 0),
                _ => builder,
            };
            let tier = builder.build_with(|| 0).unwrap();
            let mut held = tier.allocate().unwrap();
            *held = 7;
            let mut waiter = Task::waiting(&tier);
            give_back(&tier, held);
            assert_eq!(waiter.wakes(), 1, "{way}");
            let lease = waiter.take();
            assert!(reset == "never" || *lease == 0, "{way}: reset {reset}, before it is handed over");
            drop(lease);
            tier.reclaim();
            let now = accounted(&tier);
            assert_eq!((now.free, now.allocations, now.releases), (1, 2, 2), "{way}, reset {reset}");
        }
    }
}

/// A value is examined before it is handed to a waiter too; one that fails costs it no place.
#[test]
fn a_granted_value_is_examined() {
    let builder = Tier::builder("examined").capacity(1).validate_on_allocate(|value: &mut u64| *value < 7);
    let tier = builder.build_with(|| 0).unwrap();
    let mut held = tier.allocate().unwrap();
    *held = 7;
    let mut waiter = Task::waiting(&tier);
    let mut behind = Task::waiting(&tier);
    drop(held);
    let lease = waiter.take();
    assert_eq!(*lease, 0, "replaced");
    assert!(behind.poll().is_pending());
    drop(lease);
    drop(behind.take());
    assert_eq!(accounted(&tier).free, 1);
}

/// TORTURE 6 and 8: the tier is closed while threads and futures wait; each is told.
#[test]
fn close_wakes_everybody() {
    let _watchdog = Watchdog::new("close_wakes_everybody");
    let census = Census::default();
    let tier = census.tier(1);
    let held = tier.allocate().unwrap();
    let mut futures = [Task::waiting(&tier), Task::waiting(&tier)];
    thread::scope(|scope| {
        let blocked =
            [scope.spawn(|| tier.allocate().map(drop)), scope.spawn(|| tier.allocate_timeout(FOR_EVER).map(drop))];
        wait_until("all wait", || tier.snapshot().waiting == 4);
        tier.close();
        for thread in blocked {
            assert_eq!(thread.join().unwrap(), Err(AllocateError::Closed { tier: "citizens" }));
        }
    });
    for future in &mut futures {
        assert_eq!(future.wakes(), 1);
        assert!(matches!(future.poll(), Poll::Ready(Err(AllocateError::Closed { .. }))));
    }
    assert!(matches!(tier.allocate(), Err(AllocateError::Closed { .. })), "who comes later is told at once");
    assert!(matches!(Task::new(&tier).poll(), Poll::Ready(Err(AllocateError::Closed { .. }))));
    assert_eq!(tier.snapshot().waiting, 0);
    drop(held);
    assert_eq!(census.alive(), 0);
}

/// TORTURE 6: waiters, releases and the close at the same time.
#[test]
fn close_in_the_midst_of_it() {
    let _watchdog = Watchdog::new("close_in_the_midst_of_it");
    for _ in 0..100 {
        let census = Census::default();
        let tier = census.tier(2);
        let barrier = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    barrier.wait();
                    while let Ok(lease) = tier.allocate() {
                        drop(lease);
                    }
                });
            }
            barrier.wait();
            thread::yield_now();
            tier.close();
        });
        let now = accounted(&tier);
        assert_eq!((now.absent, now.waiting), (2, 0));
        assert_eq!(census.alive(), 0);
    }
}

/// Met in tokio (issues 6450 and 7892): a permit granted to a future that nobody polls is nobody's, and everybody hangs.
#[test]
fn a_grant_that_nobody_takes_is_revoked() {
    let tier = Tier::builder("unpolled").capacity(1).grant_limit(Duration::ZERO).build_with(|| 0_u64).unwrap();
    let held = tier.allocate().unwrap();
    let mut unpolled = Task::waiting(&tier);
    let mut next = Task::waiting(&tier);
    drop(held);
    assert_eq!((unpolled.wakes(), next.wakes()), (1, 0));

    assert!(tier.try_allocate().is_err(), "revoked, and handed to who is next");
    assert_eq!(next.wakes(), 1);
    let lease = next.take();

    // The one that was late has kept its rank.
    let mut last = Task::waiting(&tier);
    assert!(unpolled.poll().is_pending());
    drop(lease);
    assert_eq!((unpolled.wakes(), last.wakes()), (2, 0));
    drop(unpolled.take());
    drop(last.take());
    assert_eq!(accounted(&tier).free, 1);
}

#[test]
fn a_revoked_grant_is_free_if_nobody_waits() {
    let tier = Tier::builder("unpolled").capacity(1).grant_limit(Duration::ZERO).build_with(|| 0_u64).unwrap();
    let held = tier.allocate().unwrap();
    let mut unpolled = Task::waiting(&tier);
    drop(held);
    let lease = tier.try_allocate().expect("a slot that nobody takes is there for all");
    assert!(unpolled.poll().is_pending(), "too late: it waits again");
    drop(lease);
    drop(unpolled.take());
    assert_eq!(accounted(&tier).free, 1);
}

/// The same with a thread behind the future: it looks around by itself.
#[test]
fn a_future_that_nobody_polls_does_not_hang_a_thread() {
    let _watchdog = Watchdog::new("a_future_that_nobody_polls_does_not_hang_a_thread");
    let tier = Tier::builder("unpolled").capacity(1).grant_limit(Duration::from_millis(10)).build_with(|| 0).unwrap();
    for barging in [false, true] {
        let tier: Tier<u64> = if barging {
            let builder = Tier::builder("unpolled").capacity(1).grant_limit(Duration::from_millis(10));
            builder.barging(Duration::MAX).build_with(|| 0).unwrap()
        } else {
            tier.clone()
        };
        let held = tier.allocate().unwrap();
        let unpolled = Task::waiting(&tier);
        thread::scope(|scope| {
            let behind = scope.spawn(|| tier.allocate().map(drop));
            wait_until("both wait", || tier.snapshot().waiting == 2);
            drop(held);
            assert_eq!(behind.join().unwrap(), Ok(()));
        });
        drop(unpolled);
        let now = accounted(&tier);
        assert_eq!((now.free, now.waiting), (1, 0));
    }
}

/// A thread sleeps without a timer until the only value breaks and cannot be replaced at once: then it is roused, and tries
/// again itself, since there is no reclaimer that would.
#[test]
fn a_sleeping_thread_is_roused_to_rebuild() {
    let _watchdog = Watchdog::new("a_sleeping_thread_is_roused_to_rebuild");
    let broken = Arc::new(AtomicBool::new(false));
    let factory = Arc::clone(&broken);
    let tier = Tier::builder("roused").capacity(1).rebuild_backoff(Duration::from_millis(1), Duration::from_millis(1));
    let tier: Tier<u64> =
        tier.try_build_with(move || if factory.load(Ordering::Relaxed) { Err("not now") } else { Ok(7) }).unwrap();
    let held = tier.allocate().unwrap();
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| tier.allocate().map(|lease| *lease));
        wait_until("it waits", || tier.snapshot().waiting == 1);
        thread::sleep(Duration::from_millis(50)); // until it sleeps, most likely
        broken.store(true, Ordering::Relaxed);
        held.discard();
        broken.store(false, Ordering::Relaxed);
        assert_eq!(sleeper.join().unwrap(), Ok(7));
    });
}

/// Forgets something where a leak checker still sees it: here it is meant.
fn leak(it: impl Sized) {
    static LEAKED: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());
    LEAKED.lock().unwrap().push(Box::into_raw(Box::new(it)).expose_provenance());
}

/// A future that is leaked keeps nothing: neither a slot that was granted to it nor a place in the next tier's queue.
#[test]
fn leaked_futures_do_no_harm() {
    let census = Census::default();
    let tier = census.tier(1);
    let held = tier.allocate().unwrap();
    leak(Task::waiting(&tier).future); // granted by the drop below
    leak(Task::waiting(&tier).future); // still in the queue when the tier goes
    drop(held);
    assert_eq!(tier.snapshot().waiting, 1);
    drop(tier);
    assert_eq!(census.alive(), 0, "the granted slot came back with the end of the tier");

    let next = census.tier(1);
    let held = next.allocate().unwrap();
    drop(held);
    drop(next.try_allocate().expect("nobody waits here"));
    assert_eq!(next.snapshot().waiting, 0);
}

#[test]
fn a_full_queue_refuses() {
    let tier = Tier::builder("short").capacity(1).max_waiters(2).build_with(|| 0_u64).unwrap();
    let held = tier.allocate().unwrap();
    let first = Task::waiting(&tier);
    let _second = Task::waiting(&tier);
    let full = AllocateError::QueueFull { tier: "short", waiting: 2 };
    assert_eq!(tier.allocate().map(drop), Err(full));
    assert_eq!(tier.allocate_timeout(FOR_EVER).map(drop), Err(full));
    let Poll::Ready(Err(error)) = Task::new(&tier).poll() else { panic!("refused at once") };
    assert_eq!(error, full);
    assert!(error.to_string().contains("2 wait for one already"), "{error}");
    let Err(AllocateError::Exhausted(why)) = tier.try_allocate() else { panic!("refused") };
    assert_eq!(why.waiting, 2);
    drop(first);
    let third = Task::waiting(&tier);
    drop((held, third));
}

#[test]
fn who_waited_in_vain_is_told_how_long() {
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    let _other = Task::waiting(&tier);
    let patience = Duration::from_millis(5);
    let Err(error) = tier.allocate_timeout(patience) else { panic!("held") };
    let AllocateError::TimedOut { tier: "waited", waiting: 1, waited } = error else { panic!("{error:?}") };
    assert!(waited >= patience);
    assert!(error.to_string().contains("had no slot free for"), "{error}");
    assert!(matches!(tier.allocate_timeout(Duration::ZERO), Err(AllocateError::Exhausted(_))), "zero never waits");
    drop(held);
}

/// A foreign waker that panics costs the release that called it a panic, and nobody a slot.
#[test]
fn a_panicking_waker_loses_no_slot() {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("a waker that does not work");
        }
    }
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    let mut future = pin!(tier.allocate_async());
    let bomb = Waker::from(Arc::new(Bomb));
    assert!(future.as_mut().poll(&mut Context::from_waker(&bomb)).is_pending());
    let mut next = Task::waiting(&tier);

    assert_eq!(panics(|| drop(held)), "a waker that does not work");

    let Poll::Ready(Ok(lease)) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("granted before it was woken")
    };
    drop(lease);
    drop(next.take());
    assert_eq!(accounted(&tier).free, 1);

    // A close goes on to the others.
    let held = tier.allocate().unwrap();
    let mut future = pin!(tier.allocate_async());
    assert!(future.as_mut().poll(&mut Context::from_waker(&bomb)).is_pending());
    let mut next = Task::waiting(&tier);
    assert_eq!(panics(|| tier.close()), "a waker that does not work");
    assert!(matches!(next.poll(), Poll::Ready(Err(AllocateError::Closed { .. }))));
    drop(held);
    assert_eq!(accounted(&tier).absent, 1);
}

/// A waker may use the tier: none is called under a lock.
#[test]
fn a_waker_may_use_the_tier() {
    struct Nosy(Tier<u64>, Mutex<Vec<bool>>);
    impl Wake for Nosy {
        fn wake(self: Arc<Self>) {
            let seen = self.0.try_allocate().is_ok();
            let mut other = Task::new(&self.0);
            assert!(other.poll().is_pending());
            drop(other);
            self.1.lock().unwrap().push(seen);
        }
    }
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    let nosy = Arc::new(Nosy(tier.clone(), Mutex::default()));
    let waker = Waker::from(Arc::clone(&nosy));
    let mut future = pin!(tier.allocate_async());
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(held);
    assert_eq!(*nosy.1.lock().unwrap(), [false], "woken once, the slot granted by then");
    assert!(matches!(future.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(_))));
}

#[test]
fn the_last_waker_is_the_one_that_is_woken() {
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    let mut task = Task::waiting(&tier);
    let before = std::mem::take(&mut task.wakes);
    assert!(task.poll().is_pending());
    drop(held);
    assert_eq!((before.0.load(Ordering::SeqCst), task.wakes()), (0, 1));
    drop(task.take());
}

#[test]
fn a_granted_slot_is_held_by_its_waiter() {
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    thread::scope(|scope| {
        let waiter = thread::Builder::new().name("patient".into()).spawn_scoped(scope, || {
            let handle = tier.allocate().unwrap().detach();
            (handle, line!() - 1, tier.holders())
        });
        wait_until("the thread waits", || tier.snapshot().waiting == 1);
        drop(held);
        let (handle, line, holders) = waiter.unwrap().join().unwrap();
        let [holder] = &holders[..] else { panic!("one holder: {holders:?}") };
        assert_eq!(holder.state, State::Detached);
        assert_eq!(holder.site.map(|site| site.line()), Some(line));
        assert_eq!(holder.thread_name.as_deref(), Some("patient"));
        tier.release(handle).unwrap();
    });
}

/// Whoever lets newcomers pass lets them pass, until the first waiter has waited long enough.
#[test]
fn barging_both_ways() {
    let build = |limit| Tier::builder("barged").capacity(1).barging(limit).build_with(|| 0_u64).unwrap();

    let tier = build(Duration::MAX);
    let held = tier.allocate().unwrap();
    let mut waiter = Task::waiting(&tier);
    drop(held);
    assert_eq!(waiter.wakes(), 1, "woken to try");
    let newcomer = tier.try_allocate().expect("free for all");
    assert!(waiter.poll().is_pending(), "too late, it waits on");
    drop(newcomer);
    assert_eq!(waiter.wakes(), 2);
    drop(waiter.take());
    assert_eq!(accounted(&tier).free, 1);

    let tier = build(Duration::ZERO);
    let held = tier.allocate().unwrap();
    let mut waiter = Task::waiting(&tier);
    drop(held);
    assert!(tier.try_allocate().is_err(), "it has waited long enough: handed over");
    drop(waiter.take());
}

/// With barging: who is awake passes on what it leaves, and who does not react is passed over.
#[test]
fn barging_loses_no_wake_up() {
    let build = |limit| {
        Tier::builder("barged").capacity(2).barging(Duration::MAX).grant_limit(limit).build_with(|| 0_u64).unwrap()
    };
    let tier = build(FOR_EVER);
    let held = [tier.allocate().unwrap(), tier.allocate().unwrap()];
    let [mut first, mut second, third] = std::array::from_fn(|_| Task::waiting(&tier));
    drop(held);
    assert_eq!((first.wakes(), second.wakes()), (1, 0), "one is awake at a time");
    let lease = first.take();
    assert_eq!(second.wakes(), 1, "and passes on what is left");
    drop(second.take());
    assert_eq!(third.wakes(), 1);
    drop(third); // cancelled while it is awake
    drop(lease);
    let now = accounted(&tier);
    assert_eq!((now.free, now.waiting), (2, 0));

    let tier = build(Duration::ZERO);
    let [one, two] = [tier.allocate().unwrap(), tier.allocate().unwrap()];
    let [unpolled, mut next, mut last] = std::array::from_fn(|_| Task::waiting(&tier));
    drop(one);
    assert_eq!((unpolled.wakes(), next.wakes()), (1, 0));
    drop(two);
    assert_eq!(next.wakes(), 1, "the first has not reacted");
    let lease = next.take();
    assert_eq!(last.wakes(), 1);
    drop(last.take());
    drop((lease, unpolled));
    let now = accounted(&tier);
    assert_eq!((now.free, now.waiting), (2, 0));
}

/// Threads, futures, time-outs, cancellations, bulks and handles at once: in the end every slot is there, and nobody waits.
#[test]
fn conservation_after_a_storm() {
    let _watchdog = Watchdog::new("conservation_after_a_storm");
    for barging in [None, Some(Duration::MAX), Some(Duration::from_micros(50))] {
        let census = Census::default();
        let value = census.clone();
        let builder = Tier::builder("storm").capacity(3).grant_limit(Duration::from_millis(10));
        let builder = if let Some(limit) = barging { builder.barging(limit) } else { builder };
        let tier = builder.build_with(move || value.value()).unwrap();
        thread::scope(|scope| {
            for seed in 0..4 {
                let tier = &tier;
                scope.spawn(move || storm(tier, seed, 1_500));
            }
        });
        let now = accounted(&tier);
        assert_eq!((now.free, now.waiting), (3, 0), "{barging:?}: {now:?}");
        assert_eq!(census.alive(), 3);
        drop(tier);
        assert_eq!(census.alive(), 0);
    }
}

fn storm(tier: &Tier<common::Citizen>, seed: u64, turns: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..turns {
        match random.u32(0..9) {
            0 | 1 => drop(tier.allocate().unwrap()),
            2 => drop(tier.allocate_timeout(Duration::from_micros(random.u64(1..200)))),
            3 => drop(block_on(tier.allocate_async()).unwrap()),
            4 => {
                // Polled once or twice, then dropped, granted or not.
                let mut task = Task::new(tier);
                if task.poll().is_pending() && random.bool() {
                    thread::yield_now();
                    drop(task.poll());
                }
            }
            5 => drop(tier.try_allocate_many(random.usize(1..4))),
            6 => tier.release(tier.allocate().unwrap().detach()).unwrap(),
            7 => tier.allocate().unwrap().discard(),
            _ => drop(tier.try_allocate()),
        }
    }
}

/// Under tokio: tasks of one thread and of several, time-outs that drop futures.
#[test]
fn under_tokio() {
    let _watchdog = Watchdog::new("under_tokio");
    use tokio::runtime::Builder;
    let runtimes = [Builder::new_current_thread(), {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2);
        builder
    }];
    for mut runtime in runtimes {
        let runtime = runtime.enable_time().build().unwrap();
        let tier = tier(2);
        let tasks: Vec<_> = (0..20_u64)
            .map(|task| {
                let tier = tier.clone();
                runtime.spawn(async move {
                    for turn in 0..50 {
                        if (task + turn) % 5 == 0 {
                            let patience = Duration::from_micros(10 * task);
                            drop(tokio::time::timeout(patience, tier.allocate_async()).await);
                        } else {
                            let mut lease = tier.allocate_async().await.unwrap();
                            tokio::task::yield_now().await;
                            *lease += 1;
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        let now = accounted(&tier);
        assert_eq!((now.free, now.waiting), (2, 0));
    }
}

/// A future may go to another thread, and its lease outlives it.
#[test]
fn futures_are_send() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let tier = tier(1);
    let lease = block_on(send(tier.allocate_async())).unwrap();
    assert!(format!("{:?}", tier.allocate_async()).contains("not polled"));
    drop(lease);
}
