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

/// Two threads each want one slot of either tier, of which there is one, and name them in opposite orders; one has begun to wait
/// when they come back. Both get theirs.
///
/// Guards the order in `group::arrange`.
#[test]
fn opposite_groups_do_not_block_each_other() {
    explore(2, || {
        let census = Census::default();
        let bench = Bench::new(&census, [1, 1]);
        let (one, two) = (take(&bench.one), take(&bench.two));
        let other = {
            let pool = bench.pool.clone();
            spawn(move || drop(pool.allocate_group((Bench::of("two"), Bench::of("one"))).unwrap()))
        };
        loom::thread::yield_now(); // so that what the other does first is explored first
        drop(two);
        drop(one);
        drop(bench.pool.allocate_group((Bench::of("one"), Bench::of("two"))).unwrap());
        other.join().unwrap();
        assert_eq!((bench.one.snapshot().free, bench.two.snapshot().free), (1, 1));
    });
}

/// Two threads each want both slots of one tier, likewise: neither keeps one and waits for the other's.
///
/// Guards the turn in `group::Progress::advance`.
#[test]
fn groups_of_one_tier_take_turns() {
    explore(2, || {
        let census = Census::default();
        let bench = Bench::new(&census, [2, 1]);
        let (first, second) = (take(&bench.one), take(&bench.one));
        let other = {
            let pool = bench.pool.clone();
            spawn(move || drop(pool.allocate_group((Bench::of("one"), Bench::of("one"))).unwrap()))
        };
        loom::thread::yield_now(); // likewise
        drop(first);
        drop(second);
        drop(bench.pool.allocate_group((Bench::of("one"), Bench::of("one"))).unwrap());
        other.join().unwrap();
        assert_eq!(bench.one.snapshot().free, 2);
    });
}

/// Two threads try, without a wait, for both of two slots: whatever each was refused has gone back, and never do both have one and
/// keep it.
///
/// Guards that `group::gather` drops what it has when it is refused.
#[test]
fn a_group_that_is_refused_gives_all_back() {
    explore(2, || {
        let census = Census::default();
        let bench = Bench::new(&census, [1, 1]);
        let other = {
            let pool = bench.pool.clone();
            spawn(move || {
                let group = pool.try_allocate_group((Bench::of("two"), Bench::of("one")));
                group.is_ok()
            })
        };
        let mine = bench.pool.try_allocate_group((Bench::of("one"), Bench::of("two"))).is_ok();
        let others = other.join().unwrap();
        assert!(mine || others, "one of the two was first at the first tier, and went on");
        assert_eq!((bench.one.snapshot().free, bench.two.snapshot().free), (1, 1));
        drop(bench.pool.try_allocate_group((Bench::of("one"), Bench::of("two"))).expect("both are free"));
    });
}
