//! Which places of a region are taken: a bit each.
//!
//! Guarantee: a place is taken by one at a time, and what its last owner did to it comes before what the next one does. Nobody waits
//! for anybody. The lowest free place is taken, as far as known, so that what is in use lies together, and the rest can go back to
//! the system.

use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// See the module's header.
pub(crate) struct Places {
    words: Box<[AtomicU64]>,
    /// No word before this one has a free place, as far as known.
    first: AtomicUsize,
}

impl Places {
    /// So many, all free.
    pub(crate) fn new(places: usize) -> Self {
        let beyond = |word: usize| u64::MAX.checked_shl((places - word * 64).min(64) as u32).unwrap_or(0);
        let words = (0..places.div_ceil(64)).map(|word| AtomicU64::new(beyond(word))).collect();
        Places { words, first: AtomicUsize::new(0) }
    }

    /// Takes the lowest free place that is known, from `from` on.
    pub(crate) fn take(&self, from: usize) -> Option<usize> {
        // Relaxed, here and below: where to look first is a hint.
        let first = self.first.load(Ordering::Relaxed);
        let start = first.max(from / 64);
        // What was given back meanwhile may have misled the hint.
        self.take_between(start, self.words.len(), from).or_else(|| self.take_between(from / 64, start, from))
    }

    fn take_between(&self, start: usize, end: usize, from: usize) -> Option<usize> {
        for at in start..end {
            let word = &self.words[at];
            let below = if at == from / 64 { (1 << (from % 64)) - 1 } else { 0 };
            let mut now = word.load(Ordering::Relaxed);
            while now | below != u64::MAX {
                let bit = (now | below).trailing_ones();
                // Acquire: pairs with the Release in `give_back`; the place is as its last owner left it.
                now = word.fetch_or(1 << bit, Ordering::Acquire);
                if now & 1 << bit == 0 {
                    self.first.store(at, Ordering::Relaxed);
                    return Some(at * 64 + bit as usize);
                }
            }
        }
        None
    }

    /// The owner has no more to do with the place.
    pub(crate) fn give_back(&self, place: usize) {
        // Release: pairs with the Acquire in `take`.
        self.words[place / 64].fetch_and(!(1 << (place % 64)), Ordering::Release);
        self.first.fetch_min(place / 64, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_place_is_taken_and_none_twice() {
        for count in [1, 63, 64, 65, 200] {
            let places = Places::new(count);
            let all: Vec<_> = std::iter::from_fn(|| places.take(0)).collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
            for place in [count / 2, count - 1, 0] {
                places.give_back(place);
                assert_eq!(places.take(0), Some(place), "of {count}");
            }
            places.give_back(0);
            assert_eq!(places.take(1), None, "what lies before is not wanted");
            assert_eq!(places.take(0), Some(0));
        }
    }

    #[test]
    fn threads_never_share_a_place() {
        let (places, owners) = (Places::new(70), [const { AtomicUsize::new(0) }; 70]);
        std::thread::scope(|scope| {
            for me in 1..4 {
                let (places, owners) = (&places, &owners);
                scope.spawn(move || {
                    for round in 0..2_000 {
                        let mine: Vec<_> = (0..30).filter_map(|_| places.take(round % 70)).collect();
                        mine.iter().for_each(|&place| assert_eq!(owners[place].swap(me, Ordering::Relaxed), 0));
                        mine.iter().for_each(|&place| assert_eq!(owners[place].swap(0, Ordering::Relaxed), me));
                        mine.into_iter().for_each(|place| places.give_back(place));
                    }
                });
            }
        });
        assert_eq!(std::iter::from_fn(|| places.take(0)).count(), 70);
    }
}
