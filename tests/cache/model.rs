//! Any sequence of operations, against what a map says: what is found is what was put there last, what is held stays, what is counted adds
//! up, and no slot is lost.

use std::collections::{HashMap, HashSet};

use proptest::collection::vec;
use proptest::prelude::*;
use tierpool::{CacheLease, Request};

use super::{assert_free, fill, pool};

const KEYS: u64 = 12;

#[derive(Debug, Clone)]
enum Step {
    /// Get it or make it, and keep it in that hand.
    Put(u64, usize),
    Fail(u64),
    Get(u64),
    Remove(u64),
    LetGo(usize),
    Clear,
    RetainEven,
    /// Somebody else takes a slot, or gives it back.
    Take,
    GiveBack,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..KEYS, 0..4usize).prop_map(|(key, hand)| Step::Put(key, hand)),
        1 => (0..KEYS).prop_map(Step::Fail),
        3 => (0..KEYS).prop_map(Step::Get),
        2 => (0..KEYS).prop_map(Step::Remove),
        4 => (0..4usize).prop_map(Step::LetGo),
        1 => Just(Step::Clear),
        1 => Just(Step::RetainEven),
        2 => Just(Step::Take),
        2 => Just(Step::GiveBack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_agrees_with_a_map(slots in 1..9usize, capacity in 1..9u64, steps in vec(step(), 1..120)) {
        let pool = pool(slots);
        let cache = pool.cache::<u64, u64>("numbers").capacity(capacity).build().unwrap();
        // What an entry holds, if it is there.
        let mut last: HashMap<u64, u64> = HashMap::new();
        let mut hands: [Option<(u64, u64, CacheLease<u64>)>; 4] = Default::default();
        let mut taken = Vec::new();
        let mut stamp = 0;
        for step in steps {
            match step {
                Step::Put(key, hand) => {
                    stamp += 1;
                    let was_there = cache.contains(&key);
                    // What is held now, the value in this hand included, may not go.
                    match cache.try_get_or_allocate(&key, fill(stamp)) {
                        Ok(lease) => {
                            if was_there {
                                prop_assert_eq!(*lease, last[&key]);
                            } else {
                                prop_assert_eq!(*lease, stamp);
                                last.insert(key, stamp);
                                let in_use: HashSet<_> = hands.iter().flatten().map(|(.., lease)| lease.handle()).collect();
                                prop_assert!(cache.len() <= (capacity as usize).max(in_use.len() + 1));
                            }
                            hands[hand] = Some((key, *lease, lease));
                        }
                        Err(_) => {
                            prop_assert!(!was_there);
                            let held: HashSet<_> = hands.iter().flatten().map(|(.., lease)| lease.handle()).collect();
                            prop_assert_eq!(held.len() + taken.len(), slots, "refused though not all are in use");
                        }
                    }
                }
                Step::Fail(key) => {
                    if let Ok(lease) = cache.try_get_or_allocate(&key, |_| Err(())) {
                        prop_assert_eq!(*lease, last[&key]);
                    } else {
                        prop_assert!(!cache.contains(&key));
                    }
                }
                Step::Get(key) => if let Some(lease) = cache.get(&key) {
                    prop_assert_eq!(*lease, last[&key]);
                },
                Step::Remove(key) => {
                    prop_assert_eq!(cache.contains(&key), cache.remove(&key));
                    prop_assert!(!cache.contains(&key));
                    last.remove(&key);
                }
                Step::LetGo(hand) => hands[hand] = None,
                Step::Clear => {
                    cache.clear();
                    last.clear();
                    prop_assert!(cache.is_empty());
                }
                Step::RetainEven => {
                    cache.retain(|key, _| key % 2 == 0);
                    last.retain(|key, _| key % 2 == 0);
                }
                Step::Take => taken.extend(pool.try_allocate(Request::of::<u64>("numbers")).ok()),
                Step::GiveBack => drop(taken.pop()),
            }
            for (key, value, lease) in hands.iter().flatten() {
                prop_assert_eq!(**lease, *value);
                if last.get(key) == Some(value) {
                    prop_assert!(cache.contains(key), "in use, and evicted");
                }
            }
            let there = (0..KEYS).filter(|key| cache.contains(key)).count();
            prop_assert_eq!(there, cache.len());
        }
        let snapshot = cache.snapshot();
        prop_assert_eq!(snapshot.entries, snapshot.insertions - snapshot.evictions - snapshot.removals);
        prop_assert_eq!((snapshot.entries, snapshot.weight), (cache.len() as u64, cache.weight()));
        drop((hands, taken));
        assert_free(&pool, slots - cache.len());
        drop(cache);
        assert_free(&pool, slots);
    }
}
