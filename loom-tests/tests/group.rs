//! Groups: several slots, all or none, by those who compete for them. Nobody waits for ever (as far as loom goes: it fails a model
//! in which nobody can go on), and what was taken for nothing goes back.
#![cfg(all(loom, not(shuttle)))]

use tierpool::{Pool, Reclaimer, Request, Tier};
use tierpool_loom::{Census, Value, explore, spawn, take};

struct Bench {
    pool: Pool,
    one: Tier<Value>,
    two: Tier<Value>,
}

impl Bench {
    /// Two tiers of so many slots.
    fn new(census: &Census, slots: [usize; 2]) -> Self {
        let tier = |name, capacity| census.tier_of(Tier::builder(name).capacity(capacity).reclaimer(Reclaimer::Manual));
        let (one, two) = (tier("one", slots[0]), tier("two", slots[1]));
        let pool = Pool::builder().tier(one.clone()).tier(two.clone()).build().unwrap();
        Bench { pool, one, two }
    }

    fn of(name: &'static str) -> Request<'static, Value> {
        Request::of::<Value>(name)
    }
}

/// All slots are held, and another thread waits for two; then they come back, and this one waits for two as well: both get theirs.
fn both_get_theirs(slots: [usize; 2], others: [&'static str; 2], mine: [&'static str; 2]) {
    explore(2, move || {
        let census = Census::default();
        let bench = Bench::new(&census, slots);
        let all = [&bench.two, &bench.one].map(|tier| std::iter::from_fn(|| take(tier)).collect::<Vec<_>>());
        let other = {
            let pool = bench.pool.clone();
            spawn(move || drop(pool.allocate_group(others.map(Bench::of).to_vec()).unwrap()))
        };
        loom::thread::yield_now(); // so that what the other does first is explored first
        drop(all);
        drop(bench.pool.allocate_group(mine.map(Bench::of).to_vec()).unwrap());
        other.join().unwrap();
        assert_eq!([bench.one.snapshot().free, bench.two.snapshot().free], slots);
    });
}

/// Two threads each want the one slot of either tier, and name them in opposite orders.
///
/// Guards the order in `group::arrange`.
#[test]
fn opposite_groups_do_not_block_each_other() {
    both_get_theirs([1, 1], ["two", "one"], ["one", "two"]);
}

/// Two threads each want both slots of one tier: neither keeps one and waits for the other's.
///
/// Guards the turn in `group::Progress::advance`.
#[test]
fn groups_of_one_tier_take_turns() {
    both_get_theirs([2, 1], ["one"; 2], ["one"; 2]);
}

/// Two threads try, without a wait, for a slot of either tier, while one of the slots comes back: what a refused one has had goes back.
///
/// Guards that `group::gather` drops what it has when it is refused.
#[test]
fn a_group_that_is_refused_gives_all_back() {
    explore(2, || {
        let census = Census::default();
        let bench = Bench::new(&census, [1, 1]);
        let held = take(&bench.two);
        let other = {
            let pool = bench.pool.clone();
            spawn(move || drop(pool.try_allocate_group((Bench::of("two"), Bench::of("one")))))
        };
        loom::thread::yield_now(); // likewise
        drop(held);
        drop(bench.pool.try_allocate_group((Bench::of("one"), Bench::of("two"))));
        other.join().unwrap();
        drop(bench.pool.try_allocate_group((Bench::of("one"), Bench::of("two"))).expect("both are free"));
    });
}
