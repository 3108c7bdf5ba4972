//! The long random run of a pool: four tiers, eight tenants in a tree, thousands who wait, and everything that a pool can do or be told,
//! by several threads, with failures and panics of the program's code. Rounds of about a second; each ends with exact accounts.
//!
//! Beside the pool a [`Ledger`](ledger::Ledger) counts what each holder has, after he got it and until before he gives it back: so what it says is at
//! most what is held, and no limit may be below that.
//!
//! - `TIERPOOL_SOAK_SECONDS`: how long (default 3).
//! - `TIERPOOL_SOAK_SEED`: the number that a failed run has printed. It repeats the choices, not the race.

/// Says what is wrong and ends the process: a panic could be taken for one of those that are part of the game.
macro_rules! check {
    ($truth:expr, $($said:tt)+) => {
        if !$truth {
            crate::report::fail(format_args!($($said)+));
        }
    };
}

mod ledger;
mod player;
mod report;
mod values;
mod world;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::player::Player;
use crate::report::*;
use crate::values::{give_back, guard};
use crate::world::World;

const THREADS: usize = 4;

fn round(seed: u64, time: Duration) {
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::any(&mut random);
    *lock(&ROUND) = Some(world.pool.clone());
    let stop = AtomicBool::new(false);
    let mut graves = Vec::new();
    thread::scope(|scope| {
        let players: Vec<_> = (0..THREADS)
            .map(|number| {
                let (world, stop, seed) = (&world, &stop, random.u64(..));
                scope.spawn(move || {
                    let mut player = Player::new(number, world, seed);
                    while !stop.load(Ordering::Relaxed) {
                        player.one();
                        COUNTS.progress[number].fetch_add(1, Ordering::Relaxed);
                    }
                    player.leave()
                })
            })
            .collect();
        thread::sleep(time);
        if world.closes_busy {
            guard(|| world.pool.close()); // some value's `Drop` panics
            thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        graves = players.into_iter().flat_map(|player| player.join().unwrap()).collect();
    });
    world.census.calm();
    world.clear_table();
    if !world.closes_busy {
        world.settle(&graves);
    }
    let outlive = random.bool();
    if !outlive {
        graves.drain(..).for_each(|grave| give_back(grave.future));
        world.all_is_paid_back();
    }
    world.end();
    graves.into_iter().for_each(|grave| give_back(grave.future));
    world.all_is_paid_back();
    let World { pool, custom, census, .. } = world;
    *lock(&ROUND) = None;
    drop((pool, custom));
    eventually(&|| format!("values are left: {census:?}"), || census.alive() == 0);
    count(&COUNTS.rounds, 1);
    count(&COUNTS.made, census.made());
}

#[test]
fn everything_at_once_ends_with_exact_accounts() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref::<&str>() != Some(&values::TOLD) {
            before(panic);
        }
    }));
    let seconds = std::env::var("TIERPOOL_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let told = std::env::var("TIERPOOL_SOAK_SEED").ok().and_then(|text| text.parse().ok());
    let mut seed: u64 = told.unwrap_or_else(|| fastrand::u64(..));
    watch();
    let start = Instant::now();
    loop {
        SEED.store(seed, Ordering::Relaxed);
        let left = Duration::from_secs(seconds).saturating_sub(start.elapsed());
        round(seed, left.clamp(Duration::from_millis(300), Duration::from_millis(1500)));
        if start.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        seed = fastrand::u64(..);
    }
    println!("pool_soak, {:.0?}: {}", start.elapsed(), *COUNTS);
    let c = &*COUNTS;
    for (what, counter) in [("allocated", &c.allocated), ("refused", &c.refused), ("awaited", &c.awaited)] {
        assert!(counter.load(Ordering::Relaxed) > 0, "nothing was {what}");
    }
}
