//! Panics in user code: in the factory, in reset, in a value's `Drop`, and while a value is held. Never a lost slot, never a
//! value dropped twice, never an abort; the panic itself goes on.

pub mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::{Census, Citizen, accounted, drain, panics};
use tierpool::{AllocateError, BuildError, Lease, Tier};

/// What user code is told to do.
#[derive(Clone, Default)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn set(&self, on: bool) {
        self.0.store(on, Ordering::SeqCst);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A value whose drop panics if told so, after it has been counted.
struct Fragile {
    _citizen: Citizen,
    breaks: Switch,
}

impl Drop for Fragile {
    fn drop(&mut self) {
        if self.breaks.is_on() {
            panic!("in drop");
        }
    }
}

fn fragile(census: &Census, capacity: usize) -> (Tier<Fragile>, Switch) {
    let breaks = Switch::default();
    let (census, told) = (census.clone(), breaks.clone());
    let make = move || Fragile { _citizen: census.value(), breaks: told.clone() };
    (Tier::builder("fragile").capacity(capacity).build_with(make).unwrap(), breaks)
}

/// TORTURE 9, met in deadpool (pull request 239): a panic while a lease is held, and the object goes back broken.
#[test]
fn a_value_held_in_a_panic_is_rebuilt_if_the_tier_says_so() {
    let census = Census::default();
    let theirs = census.clone();
    let tier = Tier::builder("watched").capacity(2).discard_on_panic().build_with(move || theirs.value()).unwrap();
    for (way, made) in [(0, 3), (1, 5), (2, 6)] {
        let text = panics(|| {
            let mut lease = tier.try_allocate().unwrap();
            *lease.note = 666;
            match way {
                0 => panic!("held as a lease"),
                1 => {
                    let mut bulk = tier.try_allocate_many(1).unwrap();
                    bulk.iter_mut().for_each(|value| *value.note = 666);
                    panic!("held as two");
                }
                _ => {
                    let lease = tier.attach(lease.detach()).unwrap();
                    let _keep = lease;
                    panic!("held after a detach");
                }
            }
        });
        assert!(text.starts_with("held"), "{text}");
        assert_eq!((census.made(), census.alive()), (made, 2), "way {way}");
        assert_eq!(accounted(&tier).free, 2, "way {way}");
        for value in &tier.try_allocate_many(2).unwrap() {
            assert_eq!(*value.note, 0, "a broken value went back");
        }
    }
}

/// TORTURE 9: without `discard_on_panic` the value is released as it is; its slot is not lost.
#[test]
fn a_value_held_in_a_panic_is_released_by_default() {
    let census = Census::default();
    let tier = census.tier(1);
    panics(|| {
        let mut lease = tier.try_allocate().unwrap();
        *lease.note = 666;
        panic!("held");
    });
    assert_eq!(census.made(), 1);
    assert_eq!(*tier.try_allocate().unwrap().note, 666);
}

/// TORTURE 9: what is leased and released by code that runs because of a panic is as good as ever.
#[test]
fn a_lease_made_during_a_panic_is_released_like_any_other() {
    struct Cleaner<'a>(&'a Tier<Citizen>);
    impl Drop for Cleaner<'_> {
        fn drop(&mut self) {
            *self.0.try_allocate().unwrap().note = 1;
            self.0.try_allocate_many(2).unwrap().iter_mut().for_each(|value| *value.note += 1);
        }
    }
    let census = Census::default();
    let theirs = census.clone();
    let tier = Tier::builder("watched").capacity(2).discard_on_panic().build_with(move || theirs.value()).unwrap();
    panics(|| {
        let _cleaner = Cleaner(&tier);
        panic!("cleaned up after");
    });
    assert_eq!(census.made(), 2, "a value was discarded that no panic came over");
    let notes: u64 = tier.try_allocate_many(2).unwrap().iter().map(|value| *value.note).sum();
    assert_eq!(notes, 3);
}

/// TORTURE 10: the factory panics or fails while the tier is built; what it had made is dropped.
#[test]
fn a_factory_that_panics_while_building_leaks_nothing() {
    let census = Census::default();
    for at in [0, 1, 17, 99] {
        let theirs = census.clone();
        let before = census.made();
        let make = move || if theirs.made() - before == at { panic!("at {at}") } else { theirs.value() };
        let text = panics(|| drop(Tier::builder("failing").capacity(100).build_with(make)));
        assert_eq!(text, format!("at {at}"));
        assert_eq!((census.made() - before, census.alive()), (at, 0));
    }
    let before = census.made();
    let theirs = census.clone();
    let make = move || if theirs.made() - before == 30 { Err("no more") } else { Ok(theirs.value()) };
    let error = Tier::<Citizen>::builder("failing").capacity(100).try_build_with(make).unwrap_err();
    assert!(matches!(error, BuildError::Factory { tier: "failing", slot: 30, .. }), "{error:?}");
    assert_eq!(error.to_string(), "the factory of tier \"failing\" failed at slot 30: no more");
    assert_eq!((census.made() - before, census.alive()), (30, 0));
    // The place that was taken for each of them serves the next tier.
    assert_eq!(drain(&census.tier(100)), 100);
}

/// TORTURE 10: the factory panics while a slot is rebuilt: the slot is out of service, and recovers by itself.
#[test]
fn a_factory_that_panics_while_rebuilding_costs_no_slot() {
    let census = Census::default();
    let (theirs, breaks) = (census.clone(), Switch::default());
    let told = breaks.clone();
    let make = move || if told.is_on() { panic!("in the factory") } else { theirs.value() };
    let tier = Tier::builder("rebuilt").capacity(3).build_with(make).unwrap();

    breaks.set(true);
    tier.try_allocate().unwrap().discard();
    drop(tier.try_allocate().unwrap().take());
    let now = accounted(&tier);
    assert_eq!((now.free, now.quarantined), (1, 2));
    let last = tier.try_allocate().unwrap();
    let error = tier.try_allocate().unwrap_err();
    assert!(matches!(error, AllocateError::Exhausted(why) if why.quarantined == 2), "{error:?}");
    assert!(error.to_string().contains("out of service (2)"), "{error}");
    assert_eq!(accounted(&tier).quarantined, 2);

    breaks.set(false);
    // One attempt a tick of the clock while the factory fails: the first may have to wait for the next tick.
    let first = loop {
        if let Ok(lease) = tier.try_allocate() {
            break lease;
        }
        thread::yield_now();
    };
    let second = tier.try_allocate().expect("without a pause once the factory is well again");
    assert_eq!((accounted(&tier).leased, census.alive()), (3, 3));
    drop((first, second, last));
    assert_eq!(accounted(&tier).free, 3);

    // Closed while out of service: such a slot has nothing to drop.
    breaks.set(true);
    tier.try_allocate().unwrap().discard();
    drop(tier);
    assert_eq!(census.alive(), 0);
}

/// How a lease is given back.
type Way = fn(&Tier<Citizen>, Lease<Citizen>);

/// TORTURE 10: reset panics on each of the ways back. The value goes, the slot is rebuilt, the panic goes on.
#[test]
fn a_reset_that_panics_costs_the_value_and_not_the_slot() {
    let ways: [Way; 4] = [
        |_, lease| drop(lease),
        |_, lease| lease.release(),
        |tier, lease| tier.release(lease.detach()).unwrap(),
        |tier, lease| tier.local().release(lease),
    ];
    let census = Census::default();
    let (theirs, breaks) = (census.clone(), Switch::default());
    let told = breaks.clone();
    let tier = Tier::builder("reset")
        .capacity(2)
        .reset(move |value: &mut Citizen| if told.is_on() { panic!("in reset") } else { *value.note = 0 })
        .build_with(move || theirs.value())
        .unwrap();
    for (number, way) in ways.into_iter().enumerate() {
        let mut lease = tier.try_allocate().unwrap();
        *lease.note = 666;
        breaks.set(true);
        assert_eq!(panics(|| way(&tier, lease)), "in reset");
        breaks.set(false);
        assert_eq!((accounted(&tier).free, census.alive(), census.made()), (2, 2, 3 + number));
        assert!(tier.try_allocate_many(2).unwrap().iter().all(|value| *value.note == 0));
    }
    // A bulk deals with all its slots before the first panic goes on; and a panic under way is not disturbed.
    let made = census.made();
    let bulk = tier.try_allocate_many(2).unwrap();
    breaks.set(true);
    assert_eq!(panics(|| drop(bulk)), "in reset");
    assert_eq!((accounted(&tier).free, census.made()), (2, made + 2));
    let lease = tier.try_allocate().unwrap();
    let text = panics(|| {
        let _lease = lease;
        panic!("while held");
    });
    assert_eq!(text, "while held", "the second panic took the place of the first");
    assert_eq!((accounted(&tier).free, census.alive(), census.made()), (2, 2, made + 3));
}

/// TORTURE 10: a value's own drop panics, at a close, a late return, a discard, and in a bulk.
#[test]
fn a_drop_that_panics_happens_once_and_stops_nothing_else() {
    let census = Census::default();
    let (tier, breaks) = fragile(&census, 6);
    breaks.set(true);
    assert_eq!(panics(|| tier.try_allocate().unwrap().discard()), "in drop");
    assert_eq!((accounted(&tier).free, census.alive(), census.made()), (6, 6, 7));

    let bulk = tier.try_allocate_many(2).unwrap();
    let (one, two) = (tier.try_allocate().unwrap(), tier.try_allocate().unwrap());
    assert_eq!(panics(|| tier.close()), "in drop");
    assert_eq!((accounted(&tier).absent, census.alive()), (2, 4), "a panic ended the close before its end");
    assert_eq!(panics(|| drop(one)), "in drop");
    assert_eq!((accounted(&tier).absent, census.alive()), (3, 3));
    assert_eq!(panics(|| bulk.release()), "in drop");
    assert_eq!((accounted(&tier).absent, census.alive()), (5, 1), "a panic ended the bulk before its end");
    // During another panic it is swallowed: two at once would abort the process.
    let text = panics(|| {
        let _two = two;
        panic!("while held");
    });
    assert_eq!((text.as_str(), accounted(&tier).absent, census.alive()), ("while held", 6, 0));
}

/// TORTURE 10: the last tier goes with values whose drops panic, inside another panic.
#[test]
fn a_tier_of_panicking_drops_goes_during_a_panic() {
    let census = Census::default();
    let (tier, breaks) = fragile(&census, 10);
    let lease = tier.try_allocate().unwrap();
    breaks.set(true);
    let text = panics(|| {
        let _tier = tier;
        panic!("the first");
    });
    assert_eq!((text.as_str(), census.alive()), ("the first", 1));
    assert_eq!(panics(|| drop(lease)), "in drop");
    assert_eq!(census.alive(), 0);
}

/// TORTURE 10: everything fails at once: reset, drop and factory.
#[test]
fn reset_drop_and_factory_panic_together() {
    let census = Census::default();
    let breaks = Switch::default();
    let (theirs, told, also) = (census.clone(), breaks.clone(), breaks.clone());
    let make = move || {
        assert!(!told.is_on(), "in the factory");
        Fragile { _citizen: theirs.value(), breaks: told.clone() }
    };
    let reset = move |_: &mut Fragile| assert!(!also.is_on(), "in reset");
    let tier = Tier::builder("cursed").capacity(3).reset(reset).build_with(make).unwrap();
    let bulk = tier.try_allocate_many(2).unwrap();
    let lease = tier.try_allocate().unwrap();
    breaks.set(true);
    assert_eq!(panics(|| drop(lease)), "in reset");
    assert_eq!(panics(|| bulk.release()), "in reset");
    let now = accounted(&tier);
    assert_eq!((now.quarantined, census.alive()), (3, 0));
    assert!(tier.try_allocate().is_err());
    breaks.set(false);
    while tier.try_allocate().is_err() {
        thread::yield_now();
    }
    assert_eq!(drain(&tier), 3);
    assert_eq!((accounted(&tier).free, census.alive()), (3, 3));
}

/// TORTURE 10: what factory and reset have captured is user code too; its drop panics when the tier ends.
#[test]
fn captured_state_that_panics_in_its_drop_leaks_no_tier() {
    struct Captured(Arc<AtomicUsize>);
    impl Drop for Captured {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("in captured state");
        }
    }
    let census = Census::default();
    let ends = Arc::new(AtomicUsize::new(0));
    // A size that no other test here uses: the next tier gets the same place if the last one gave it back.
    let build = || {
        let (theirs, captured) = (census.clone(), Captured(ends.clone()));
        let make = move || {
            let _ = &captured;
            theirs.value()
        };
        Tier::builder("captured").capacity(2_000).build_with(make).unwrap()
    };
    let mut places = Vec::new();
    for round in 1..=3 {
        let tier = build();
        let handle = tier.try_allocate().unwrap().detach();
        places.push(handle.to_string().split('#').next().unwrap().to_owned());
        assert_eq!(panics(|| drop(tier)), "in captured state");
        assert_eq!((ends.load(Ordering::SeqCst), census.alive()), (round, 0));
    }
    assert!(places.iter().all(|place| *place == places[0]), "a tier's place was lost: {places:?}");
}

/// TORTURE 9 and 10: many panics on many threads, and the sum still comes out.
#[test]
fn panics_on_many_threads_lose_nothing() {
    let census = Census::default();
    let theirs = census.clone();
    let turn = AtomicUsize::new(0);
    let tier = Tier::builder("stormy")
        .capacity(20)
        .discard_on_panic()
        .reset(move |_: &mut Citizen| assert!(!turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(7), "in reset"))
        .build_with(move || theirs.value())
        .unwrap();
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for round in 0..300 {
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        let _one = tier.try_allocate();
                        let _some = tier.try_allocate_many(4);
                        assert!(round % 3 != 0, "while held");
                    }));
                }
            });
        }
    });
    assert_eq!(accounted(&tier).free, 20);
    assert_eq!(drain_quietly(&tier), 20);
    assert_eq!(census.alive(), 20);
}

/// Counts the slots, whatever their reset does.
fn drain_quietly(tier: &Tier<Citizen>) -> usize {
    let leases: Vec<_> = std::iter::from_fn(|| tier.try_allocate().ok()).collect();
    let all = leases.len();
    for lease in leases {
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(lease)));
    }
    all
}
