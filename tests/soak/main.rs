//! The long random run: everything that a tier can do, by several threads, with failures and panics of all of the program's
//! code, for as long as one likes. Rounds of about a second, each with a tier of its own kind; each ends with exact accounts.
//!
//! Each value watches itself: it knows whether it lives, who has it in hand, and how many read it, and it aborts the
//! process when two of that do not go together. Its note is not atomic, for the sanitizers.
//!
//! - `TIERPOOL_SOAK_SECONDS`: how long (default 3).
//! - `TIERPOOL_SOAK_SEED`: the number that a failed run has printed. It repeats the choices, not the race.

/// Says what is wrong and ends the process: a panic could be taken for one of those that are part of the game.
macro_rules! check {
    ($truth:expr, $($said:tt)+) => {
        if !$truth {
            fail(format_args!($($said)+));
        }
    };
}

mod accounts;
mod kind;
mod player;
mod values;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};

use tierpool::Tier;

use crate::accounts::*;
use crate::kind::*;
use crate::player::*;
use crate::values::*;

fn round(seed: u64, time: Duration) {
    let mut random = fastrand::Rng::with_seed(seed);
    let kind = Kind::any(&mut random);
    *KIND.lock().unwrap() = format!("{kind:?}");
    let census = Arc::new(Census::default());
    let tier = kind.tier(&census);
    census.fails.store(kind.fails, Ordering::Relaxed);
    census.panics.store(kind.panics, Ordering::Relaxed);
    let table = Table::default();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let players: Vec<_> = (0..THREADS)
            .map(|number| {
                let random = fastrand::Rng::with_seed(random.u64(..));
                let (tier, table, kind, census, stop) = (&tier, &table, &kind, &census, &stop);
                scope.spawn(move || {
                    fastrand::seed(seed + number as u64);
                    let mut player = Player {
                        number,
                        tier,
                        kind,
                        census,
                        table,
                        random,
                        held: Vec::new(),
                        handles: Vec::new(),
                        fleeting: Vec::new(),
                        seen: Vec::new(),
                        waits: Vec::new(),
                        pins: 0,
                    };
                    let mut done = 0;
                    while !stop.load(Ordering::Relaxed) {
                        guard(|| player.one());
                        done += 1;
                    }
                    count(&COUNTS.operations, done);
                    player.leave();
                })
            })
            .collect();
        thread::sleep(time);
        if kind.closes_busy {
            guard(|| tier.close());
            thread::sleep(millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        eventually(&|| format!("a thread does not end: {:?}", tier.snapshot()), || {
            players.iter().all(|player| player.is_finished())
        });
        players.into_iter().for_each(|player| player.join().unwrap());
    });
    if random.bool() {
        census.calm();
    }
    // What lies on the table goes back, or outlives the tier.
    let outlives = random.bool();
    let Table { leases, handles, shared, shared_leases } = table;
    let (mut leases, mut sharers) = (leases.into_inner().unwrap(), shared_leases.into_inner().unwrap());
    let mut shared = shared.into_inner().unwrap();
    if !outlives {
        leases.drain(..).for_each(give_back);
        sharers.drain(..).for_each(give_back);
        for (handle, _) in shared.drain(..) {
            let outcome = guard(|| tier.retire(handle));
            check!(outcome.is_none_or(|outcome| outcome.is_ok()), "nobody else may retire it");
        }
        for (handle, _) in handles.into_inner().unwrap() {
            // Copies: one of them wins, or has won.
            guard(|| tier.release(handle).is_ok());
        }
        settle(&kind, &tier, &census);
    }
    let reclaimed = tier.snapshot().reclaimed;
    if !kind.closes_busy && random.bool() {
        guard(|| tier.close());
        let still = leases.len() + sharers.len();
        let now = tier.snapshot();
        check!(still > 0 || outlives || now.absent + now.maintenance == kind.capacity, "closed and empty: {now:?}");
    }
    give_back(tier);
    leases.into_iter().for_each(give_back);
    sharers.into_iter().for_each(|(lease, note)| {
        lease.read(note);
        guard(|| drop(lease));
    });
    eventually(&|| format!("values are left: {census:?}, {kind:?}"), || census.alive() == 0);
    let (made, dropped) = (census.made.load(Ordering::SeqCst), census.dropped.load(Ordering::SeqCst));
    check!(made == dropped, "{made} were made, {dropped} dropped");
    let c = &*COUNTS;
    for (counter, n) in [
        (&c.rounds, 1),
        (&c.made, made as u64),
        (&c.reports, census.reports.load(Ordering::Relaxed)),
        (&c.expired, reclaimed.expired),
        (&c.cleaned, reclaimed.cleaned),
        (&c.collected, reclaimed.retired),
        (&c.rebuilt, reclaimed.rebuilt),
        (&c.renewed, reclaimed.renewed),
        (&c.leaks, reclaimed.leaks),
        (&c.added, reclaimed.added),
        (&c.removed, reclaimed.removed),
    ] {
        count(counter, n);
    }
}

/// Everything has been given back: the account is exact, and everything can be had again.
fn settle(kind: &Kind, tier: &Tier<Value>, census: &Census) {
    let text = || format!("{:?} {census:?} {kind:?}", tier.snapshot());
    // Forgotten handles expire, what was retired is collected, what is dirty is cleaned.
    eventually(&|| format!("something is still in use: {}", text()), || {
        tier.reclaim();
        let now = tier.snapshot();
        now.leased + now.detached + now.shared + now.claimed + now.maintenance + now.retired + now.dirty + now.waiting
            == 0
    });
    let all_counted = || {
        let now = tier.snapshot();
        let values = now.free + now.leased + now.detached + now.dirty + now.retired;
        sum(&now) == kind.capacity && now.maintenance == 0 && census.alive() == values
    };
    eventually(&|| format!("values and slots do not add up: {}", text()), all_counted);
    if tier.snapshot().closed {
        let now = tier.snapshot();
        check!(now.absent == kind.capacity, "closed and given back, but not empty: {now:?}");
        return;
    }
    // Once the factory is willing, there is a value for every slot.
    census.calm();
    eventually(&|| format!("not every slot can be had: {}", text()), || {
        let all: Vec<_> = (0..kind.capacity).map_while(|_| tier.try_allocate().ok()).collect();
        let had = all.len();
        all.into_iter().for_each(|lease| drop(Held::fresh(lease, kind.cleaned(), 3)));
        had == kind.capacity
    });
}

#[test]
fn everything_at_once_for_a_while() {
    // The panics that are part of the game are not worth a line.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&TOLD) {
                loud(info);
            }
        }));
    });
    let given = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let time = Duration::from_secs(given("TIERPOOL_SOAK_SECONDS").unwrap_or(3));
    let first = given("TIERPOOL_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..1 << 40));
    let start = Instant::now();
    let mut seed = first;
    while start.elapsed() < time {
        SEED.store(seed, Ordering::Relaxed);
        round(seed, millis(500).min(time / 6));
        seed += 1;
    }
    let c = &*COUNTS;
    let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!("TIERPOOL_SOAK_SEED={first} and on");
    println!(
        "{} rounds in {:.1?}, {} operations, {} values",
        n(&c.rounds),
        start.elapsed(),
        n(&c.operations),
        n(&c.made)
    );
    println!("{} allocated, {} refused, {} timed out", n(&c.allocated), n(&c.refused), n(&c.timed_out));
    println!("{} came by a future, {} futures cancelled; {} panics", n(&c.awaited), n(&c.cancelled), n(&c.panics));
    println!("{} read under pins, {} retired; {} reports", n(&c.read), n(&c.retired), n(&c.reports));
    println!("{} times grown or shrunk, {} passes by hand", n(&c.grown), n(&c.passes));
    println!(
        "passes: {} expired, {} cleaned, {} collected, {} rebuilt, {} renewed, {} leaks, {} added, {} removed",
        n(&c.expired),
        n(&c.cleaned),
        n(&c.collected),
        n(&c.rebuilt),
        n(&c.renewed),
        n(&c.leaks),
        n(&c.added),
        n(&c.removed)
    );
}
