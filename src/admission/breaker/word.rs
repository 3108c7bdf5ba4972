//! The state of a breaker, in one word.

use std::fmt;

use super::rules::MOST_PERMITS;
use super::window::{Call, Tally};

/// What a [`Breaker`](crate::Breaker) does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakerState {
    /// Lets all pass, and judges them.
    Closed,
    /// Lets all pass, and judges none, until told otherwise.
    Disabled,
    /// Refuses all, for a time.
    Open,
    /// Lets some pass, by which it decides whether to close or to open again.
    HalfOpen,
    /// Refuses all, until told otherwise.
    ForcedOpen,
}

impl BreakerState {
    /// All of them.
    pub const ALL: [BreakerState; 5] = [
        BreakerState::Closed,
        BreakerState::Disabled,
        BreakerState::Open,
        BreakerState::HalfOpen,
        BreakerState::ForcedOpen,
    ];
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BreakerState::Closed => "closed",
            BreakerState::Disabled => "disabled",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
            BreakerState::ForcedOpen => "forced open",
        })
    }
}

/// State in the low bits, then of a half-open period the permits left, the calls that have ended with a permit, and how many of
/// these failed and were slow; the number of the period above. Of an open period the permits are those of the next one.
///
/// A number of 33 bits: periods of half a second, one after the other, use them up in 68 years.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

const STATE_BITS: u32 = 3;
const COUNT_BITS: u32 = 7;
const LEFT: u32 = STATE_BITS;
const DONE: u32 = LEFT + COUNT_BITS;
const FAILED: u32 = DONE + COUNT_BITS;
const SLOW: u32 = FAILED + COUNT_BITS;
const PERIOD: u32 = SLOW + COUNT_BITS;
const _: () = assert!(MOST_PERMITS == (1 << COUNT_BITS) - 1);

impl Word {
    /// Closed, since ever.
    pub(crate) const NEW: Word = Word(BreakerState::Closed as u64);

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Word(bits)
    }

    pub(crate) fn state(self) -> BreakerState {
        BreakerState::ALL[(self.0 & ((1 << STATE_BITS) - 1)) as usize]
    }

    pub(crate) fn period(self) -> u64 {
        self.0 >> PERIOD
    }

    fn count(self, shift: u32) -> u32 {
        (self.0 >> shift) as u32 & ((1 << COUNT_BITS) - 1)
    }

    /// Permits left.
    pub(crate) fn left(self) -> u32 {
        self.count(LEFT)
    }

    /// The calls that have ended with a permit.
    pub(crate) fn tally(self) -> Tally {
        Tally {
            calls: u64::from(self.count(DONE)),
            failed: u64::from(self.count(FAILED)),
            slow: u64::from(self.count(SLOW)),
        }
    }

    /// The next period, with so many permits.
    pub(crate) fn next(self, state: BreakerState, permits: u32) -> Word {
        Word((self.0 >> PERIOD).wrapping_add(1) << PERIOD | u64::from(permits) << LEFT | state as u64)
    }

    /// The same period, with so many permits for the next.
    pub(crate) fn with_permits(self, permits: u32) -> Word {
        Word(self.0 & !(u64::from(MOST_PERMITS) << LEFT) | u64::from(permits) << LEFT)
    }

    /// One permit taken.
    pub(crate) fn permit_taken(self) -> Word {
        Word(self.0 - (1 << LEFT))
    }

    /// One permit given back.
    pub(crate) fn permit_back(self) -> Word {
        Word(self.0 + (1 << LEFT))
    }

    /// One permit used.
    pub(crate) fn ended(self, call: Call) -> Word {
        Word(self.0 + (1 << DONE) + (u64::from(call.failed) << FAILED) + (u64::from(call.slow) << SLOW))
    }

    /// Whether all pass.
    pub(crate) fn is_closed(self) -> bool {
        self.0 & ((1 << STATE_BITS) - 1) <= BreakerState::Disabled as u64
    }

    /// Whether a permit of that period still counts.
    pub(crate) fn is_half_open_in(self, period: u64) -> bool {
        self.state() == BreakerState::HalfOpen && self.period() == period
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_a_full_period_do_not_touch_each_other() {
        let mut word = Word::NEW.next(BreakerState::Open, MOST_PERMITS).next(BreakerState::HalfOpen, MOST_PERMITS);
        for n in 1..=MOST_PERMITS {
            word = word.permit_taken().ended(Call { failed: true, slow: true });
            assert_eq!((word.left(), word.tally().calls), (MOST_PERMITS - n, u64::from(n)));
            assert_eq!((word.tally().failed, word.tally().slow), (u64::from(n), u64::from(n)));
        }
        assert!(word.is_half_open_in(2) && !word.is_closed());
        let last = Word::from_bits(u64::MAX << PERIOD | word.bits());
        assert_eq!(last.next(BreakerState::Closed, 0).period(), 0, "it wraps, and its state is whole");
        assert_eq!(last.with_permits(5).left(), 5);
        assert_eq!(last.with_permits(5).tally(), word.tally());
    }
}
