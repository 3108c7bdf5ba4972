//! Whether holds that have lasted too long are a leak: a judgement by what else came of the same line, not by a timer alone.
//!
//! A line has a *habit*: for how long the slots that it allocates are held, as far as passes have seen them come back. A leak shows in
//! one of two ways. Either few of many are *beyond* the habit, four times as old as anything that ever came back, and too far or
//! too many for that to be chance; or the number of those that are beyond it never falls, and grows again and again, while most
//! others come back. A line that is slow shows otherwise: holds as old as these do come back, or nearly all that it allocates is held
//! for long, and no more of it as time goes by. Everything else is too little to judge by, and is said to be.
//!
//! What chance would do is reckoned for the worst that is met in practice: lengths of holds that have no scale, of which half as many
//! last twice as long, whatever the length. Of those one is expected to be as long as the longest, a quarter of one to be four times as
//! long; so one that is 64 times as old, or three that are four times as old and more, come by chance once in 64 times.

use std::fmt;
use std::time::Duration;

/// What holds that have lasted for longer than [`leak_after`](crate::TierBuilder::leak_after) are, and how sure that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// A leak, almost surely: for each of these a thousand others from there have come back, after a quarter of their age at most, and chance
    /// would do the like once in 64 times. Where late ones come back, only those count as others, nearly.
    Leak,
    /// Probably a leak: for each of these a hundred others have come back, and chance would do the like once in 16 times; or ten
    /// others, while for eight times [`leak_after`](crate::TierBuilder::leak_after) more and more have stayed.
    LikelyLeak,
    /// There is not enough to judge by.
    Unclear,
    /// How this line uses slots: others that were held as long have come back, or most of its holds are long and their number is steady.
    SlowUse,
}

impl Verdict {
    /// Whether it says that slots are lost, surely or probably.
    pub fn is_leak(self) -> bool {
        self.certainty() > 0
    }

    pub(super) fn certainty(self) -> u8 {
        match self {
            Verdict::Leak => 2,
            Verdict::LikelyLeak => 1,
            Verdict::Unclear | Verdict::SlowUse => 0,
        }
    }

    /// One word, as in a label.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verdict::Leak => "leak",
            Verdict::LikelyLeak => "likely-leak",
            Verdict::Unclear => "unclear",
            Verdict::SlowUse => "slow-use",
        }
    }
}

/// One word: `leak`, `likely-leak`, `unclear`, `slow-use`.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What is known of one line's holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence {
    /// Slots held past the limit.
    pub(super) late: u64,
    /// How many of them are [beyond](beyond) the habit.
    pub(super) beyond: u64,
    /// The age of the oldest.
    pub(super) oldest: Duration,
    /// How many have come back, at least.
    pub(super) back: u64,
    /// How many of those were past the limit.
    pub(super) late_back: u64,
    /// All that came back did so within this time.
    pub(super) habit: Duration,
    /// For how many windows in a row the smallest number past the limit has grown…
    pub(super) rising: u32,
    /// …or stayed as it was.
    pub(super) steady: u32,
}

/// By how many times a hold has to outlast a habit to be beyond it.
const FAR: u32 = 4;

/// The age from which a hold is beyond a habit.
pub(super) fn beyond(habit: Duration) -> Duration {
    habit.saturating_mul(FAR)
}

/// How many others have to have come back for each that is beyond the habit, and once in how many times that may be chance.
const SURELY: (u64, f64) = (1000, 64.0);
const PROBABLY: (u64, f64) = (100, 16.0);
/// How many others, if what is beyond it has grown in so many windows in a row.
const WHILE_RISING: u64 = 10;
/// So many that were not late count as one that was.
const ORDINARY: u64 = 1000;
const RISING: u32 = 8;
/// What is past the limit and as much again, for so many windows: that is how the line behaves.
const STEADY: u32 = 4;

impl Evidence {
    /// How many have come back that tell what the line does with those that it holds for long: all, as long as none was late. Once
    /// some were, those that were not say little; a thousand of them, as much as one that was.
    fn peers(&self) -> u64 {
        if self.late_back == 0 { self.back } else { self.late_back.max(self.back / ORDINARY) }
    }

    /// Once in how many times chance would put as many as far beyond the habit. What is late and not beyond it fills the gap between
    /// them, and takes as much off.
    fn odds(&self) -> f64 {
        let others = i32::try_from(self.beyond.saturating_sub(1)).unwrap_or(i32::MAX);
        let between = self.late.saturating_sub(self.beyond) as f64;
        self.oldest.as_secs_f64() / self.habit.as_secs_f64() * f64::from(FAR).powi(others) / (1.0 + between)
    }
}

pub(super) fn judge(it: &Evidence) -> Verdict {
    let back_for_each = it.peers() / it.beyond.max(1);
    let is = |(back, odds)| it.beyond > 0 && back_for_each >= back && it.odds() >= odds;
    let grows = it.beyond > 0 && back_for_each >= WHILE_RISING && it.rising >= RISING;
    if is(SURELY) {
        Verdict::Leak
    } else if is(PROBABLY) || grows {
        Verdict::LikelyLeak
    } else if it.beyond == 0 && it.late_back > 0 || it.steady >= STEADY && it.back <= 4 * it.late {
        Verdict::SlowUse
    } else {
        Verdict::Unclear
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// Three of a million, all others back within a second, at an age of ten.
    const FEW_OF_MANY: Evidence = Evidence {
        late: 3,
        beyond: 3,
        oldest: Duration::from_secs(10),
        back: 1_000_000,
        late_back: 0,
        habit: S,
        rising: 0,
        steady: 0,
    };

    #[test]
    fn few_of_many_that_outlive_the_habit_are_a_leak() {
        assert_eq!(judge(&FEW_OF_MANY), Verdict::Leak);
        let alone = |age| Evidence { late: 1, beyond: 1, oldest: age * S, ..FEW_OF_MANY };
        let of_age =
            [(10, Verdict::Unclear), (16, Verdict::LikelyLeak), (63, Verdict::LikelyLeak), (64, Verdict::Leak)];
        for (age, verdict) in of_age {
            assert_eq!(judge(&alone(age)), verdict, "one may be an odd one, at {age} times the habit");
        }
        assert_eq!(judge(&Evidence { back: 2_999, ..FEW_OF_MANY }), Verdict::LikelyLeak);
        assert_eq!(judge(&Evidence { back: 299, ..FEW_OF_MANY }), Verdict::Unclear);
        assert!(Verdict::Leak.is_leak() && Verdict::LikelyLeak.is_leak());
        assert!(!Verdict::Unclear.is_leak() && !Verdict::SlowUse.is_leak());
    }

    #[test]
    fn once_late_ones_have_come_back_it_takes_more() {
        let with = |late_back| Evidence { late_back, back: 50_000, ..FEW_OF_MANY };
        let cases = [
            (0, Verdict::Leak),
            (1, Verdict::Unclear),
            (299, Verdict::Unclear),
            (300, Verdict::LikelyLeak),
            (3_000, Verdict::Leak),
        ];
        for (late_back, verdict) in cases {
            assert_eq!(judge(&with(late_back)), verdict, "{late_back}");
        }
        let once_of_many = Evidence { late_back: 1, ..FEW_OF_MANY };
        assert_eq!(judge(&once_of_many), Verdict::LikelyLeak, "one that was stopped by a debugger, say, hides no leak");
    }

    #[test]
    fn what_only_grows_while_most_come_back_is_probably_one() {
        let growing = Evidence { back: 30, rising: 8, ..FEW_OF_MANY };
        assert_eq!(judge(&growing), Verdict::LikelyLeak);
        assert_eq!(judge(&Evidence { rising: 7, ..growing }), Verdict::Unclear);
        assert_eq!(judge(&Evidence { back: 0, ..growing }), Verdict::Unclear, "a cache that fills does the same");
        assert_eq!(judge(&Evidence { late_back: 1, ..growing }), Verdict::Unclear, "one late one came back");
    }

    #[test]
    fn what_comes_back_as_late_or_stays_as_it_is_is_slow_use() {
        let within_habit = Evidence { beyond: 0, late_back: 5, ..FEW_OF_MANY };
        assert_eq!(judge(&within_habit), Verdict::SlowUse);
        let cache = Evidence { late: 500, beyond: 500, back: 0, steady: 4, ..FEW_OF_MANY };
        assert_eq!(judge(&cache), Verdict::SlowUse);
        assert_eq!(judge(&Evidence { steady: 3, ..cache }), Verdict::Unclear);
        assert_eq!(judge(&Evidence { beyond: 0, ..FEW_OF_MANY }), Verdict::Unclear, "nearly as old ones came back");
    }
}
