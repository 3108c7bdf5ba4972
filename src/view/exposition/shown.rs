//! Which label sets have a series of their own, where a program may make any number of them: lines, tags.
//!
//! Guarantees: never more than the limit, whatever comes; what is beyond is summed. A counter's labels keep their series once they have one, so
//! neither it nor the sum of the others ever falls. Of a gauge the largest have theirs, and those that had one keep it, at zero, as long as there is
//! room, so that graphs have no gaps.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// The values of a family's labels: shared by all who remember them.
pub(super) type Key = Arc<[String; 3]>;

/// What rows say, which can be summed.
pub(super) trait Amount: Copy + Default {
    fn and(self, other: Self) -> Self;
    /// By which the largest are known.
    fn size(self) -> u64;
}

impl Amount for u64 {
    fn and(self, other: Self) -> Self {
        self + other
    }

    fn size(self) -> u64 {
        self
    }
}

/// Slots, and for how long the oldest has been held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    pub(super) slots: u64,
    pub(super) oldest: Duration,
}

impl Amount for Held {
    fn and(self, other: Self) -> Self {
        Held { slots: self.slots + other.slots, oldest: self.oldest.max(other.oldest) }
    }

    fn size(self) -> u64 {
        self.slots
    }
}

/// What is to be shown of one tier in a family.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rows<A> {
    /// One by one.
    pub(super) shown: Vec<(Key, A)>,
    /// The sum of the others.
    pub(super) other: A,
    /// How many those are.
    pub(super) unlisted: usize,
}

/// What has been shown of one pool, by family and tier.
pub(super) struct Shown {
    limit: usize,
    known: HashMap<(&'static str, &'static str), Known>,
}

/// What has been shown of one tier in a family.
#[derive(Default)]
struct Known {
    /// Of a counter, with what it came to.
    rows: Vec<(Key, u64)>,
    other: u64,
}

impl Shown {
    pub(super) fn new(limit: usize) -> Self {
        Shown { limit, known: HashMap::new() }
    }

    /// What to show of counters: who came first. A label set may come several times; `others` are those without one.
    pub(super) fn counters(
        &mut self,
        family: &'static str,
        tier: &'static str,
        others: u64,
        now: impl Iterator<Item = (Key, u64)>,
    ) -> Rows<u64> {
        let known = self.known.entry((family, tier)).or_default();
        let mut places: HashMap<Key, usize> = known.rows.iter().map(|row| row.0.clone()).zip(0..).collect();
        let (mut other, mut unlisted) = (others, 0);
        for (key, count) in summed(now) {
            if let Some(place) = places.remove(&key) {
                known.rows[place].1 = known.rows[place].1.max(count);
            } else if known.rows.len() < self.limit {
                known.rows.push((key, count));
            } else {
                other += count;
                unlisted += 1;
            }
        }
        known.other = known.other.max(other);
        Rows { shown: known.rows.clone(), other: known.other, unlisted }
    }

    /// What to show of gauges: the largest, then those that were shown before. A label set may come several times.
    pub(super) fn gauges<A: Amount>(
        &mut self,
        family: &'static str,
        tier: &'static str,
        now: impl Iterator<Item = (Key, A)>,
    ) -> Rows<A> {
        let known = self.known.entry((family, tier)).or_default();
        let mut now = summed(now);
        now.sort_by_cached_key(|(key, amount)| (Reverse(amount.size()), key.clone()));
        let beyond = now.split_off(now.len().min(self.limit));
        let here: HashSet<&Key> = now.iter().map(|row| &row.0).collect();
        let gone: Vec<_> = known.rows.drain(..).map(|row| row.0).filter(|key| !here.contains(key)).collect();
        let room = self.limit - now.len();
        now.extend(gone.into_iter().take(room).map(|key| (key, A::default())));
        known.rows.extend(now.iter().map(|row| (row.0.clone(), 0)));
        let other = beyond.iter().fold(A::default(), |sum, row| sum.and(row.1));
        Rows { other, unlisted: beyond.len(), shown: now }
    }
}

/// Each label set once, in the order in which they came.
fn summed<A: Amount>(rows: impl Iterator<Item = (Key, A)>) -> Vec<(Key, A)> {
    let mut places: HashMap<Key, usize> = HashMap::new();
    let mut sums: Vec<(Key, A)> = Vec::new();
    for (key, amount) in rows {
        match places.get(&key) {
            Some(&place) => sums[place].1 = sums[place].1.and(amount),
            None => {
                places.insert(key.clone(), sums.len());
                sums.push((key, amount));
            }
        }
    }
    sums
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn row(name: &str, count: u64) -> (Key, u64) {
        (Arc::new([name.to_owned(), String::new(), String::new()]), count)
    }

    #[test]
    fn a_counter_that_was_shown_stays_and_the_rest_is_summed() {
        let mut shown = Shown::new(2);
        assert_eq!(shown.counters("f", "t", 0, vec![row("a", 1)].into_iter()).shown, [row("a", 1)]);
        let rows = shown.counters("f", "t", 0, vec![row("c", 5), row("b", 9), row("a", 2)].into_iter());
        assert_eq!(rows, Rows { shown: vec![row("a", 2), row("c", 5)], other: 9, unlisted: 1 });
        let rows = shown.counters("f", "t", 0, vec![row("b", 90), row("a", 1)].into_iter());
        assert_eq!(rows.shown, [row("a", 2), row("c", 5)], "not moved up, however large, and none has fallen");
        assert_eq!(rows.other, 90);
        assert_eq!(
            shown.counters("f", "u", 0, vec![row("b", 9)].into_iter()).shown,
            [row("b", 9)],
            "another tier has room of its own"
        );
    }

    #[test]
    fn the_largest_gauges_are_shown_and_those_that_were_stay_while_there_is_room() {
        let mut shown = Shown::new(2);
        assert_eq!(
            shown.gauges("f", "t", vec![row("a", 1), row("b", 2)].into_iter()).shown,
            [row("b", 2), row("a", 1)]
        );
        assert_eq!(shown.gauges("f", "t", vec![row("b", 3)].into_iter()).shown, [row("b", 3), row("a", 0)]);
        let rows = shown.gauges("f", "t", vec![row("c", 3), row("d", 4), row("b", 1)].into_iter());
        assert_eq!(rows, Rows { shown: vec![row("d", 4), row("c", 3)], other: 1, unlisted: 1 });
        assert_eq!(shown.gauges("f", "t", vec![].into_iter()).shown, [row("d", 0), row("c", 0)], "b has made room");
    }

    #[test]
    fn a_limit_of_nothing_sums_all() {
        let mut shown = Shown::new(0);
        let all = || vec![row("a", 1), row("b", 2)].into_iter();
        let sum = || Rows { shown: vec![], other: 3, unlisted: 2 };
        assert_eq!(shown.counters("f", "t", 0, all()), sum());
        assert_eq!(shown.gauges("f", "t", all()), sum());
    }

    #[test]
    fn what_comes_several_times_is_one_row() {
        let twice = || vec![row("a", 1), row("b", 5), row("a", 2)].into_iter();
        assert_eq!(Shown::new(2).counters("f", "t", 0, twice()).shown, [row("a", 3), row("b", 5)]);
        assert_eq!(Shown::new(1).gauges("f", "t", twice()), Rows { shown: vec![row("b", 5)], other: 3, unlisted: 1 });
    }
}
