//! The state word: four bits of state, sixty of generation. It is the only truth about a slot.
//!
//! **Words only grow.** A change of hands that ends a use adds one to the generation; the changes that keep the
//! generation (claim, lease, attach, rebuild) go from a state with a smaller number to one with a larger. So a word
//! never takes the same value twice in the life of the process, and two sums over the same words are equal only if
//! every word is: that is how a scan of a million slots takes a snapshot without a place to write it down
//! ([`scarcity`](crate::tier::scarcity)).
//!
//! At one release every 5 ns a 60-bit generation lasts 180 years.

use std::fmt;

/// What a slot is doing. The order of the numbers carries the rule above: idle states first, then `Claimed`, then
/// `Leased`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum State {
    /// No value: never built, or closed.
    Absent = 0,
    /// A value, and nobody's.
    Free = 1,
    /// Free, and counted in the tier's exact count of what was released under scarcity.
    Counted = 2,
    /// No value: it was discarded or taken, and the factory could not replace it yet.
    Quarantined = 3,
    /// Held by whoever holds the handle of this generation.
    Detached = 4,
    /// Its winner is writing the header, or rebuilding the value.
    Claimed = 5,
    /// Held by one [`Lease`](crate::Lease).
    Leased = 6,
}

impl State {
    /// Every state, in the order of their numbers.
    pub(crate) const ALL: [State; 7] = [
        State::Absent,
        State::Free,
        State::Counted,
        State::Quarantined,
        State::Detached,
        State::Claimed,
        State::Leased,
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Absent => "absent",
            State::Free | State::Counted => "free",
            State::Quarantined => "quarantined",
            State::Detached => "detached",
            State::Claimed => "being claimed",
            State::Leased => "leased",
        })
    }
}

const STATE_BITS: u32 = 4;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;

/// A value of a slot's state word.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Word(u64);

impl Word {
    #[inline(always)]
    pub(crate) const fn new(generation: u64, state: State) -> Self {
        Word((generation << STATE_BITS) | state as u64)
    }

    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Word(bits)
    }

    #[inline(always)]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(crate) const fn generation(self) -> u64 {
        self.0 >> STATE_BITS
    }

    #[inline(always)]
    pub(crate) const fn state(self) -> State {
        State::ALL[(self.0 & STATE_MASK) as usize]
    }

    /// Whether the state is `state`; one mask and one compare.
    #[inline(always)]
    pub(crate) const fn is(self, state: State) -> bool {
        self.0 & STATE_MASK == state as u64
    }

    /// Whether an allocation may claim this slot.
    #[inline(always)]
    pub(crate) const fn is_free(self) -> bool {
        let state = self.0 & STATE_MASK;
        state == State::Free as u64 || state == State::Counted as u64
    }

    /// The same generation in another state.
    #[inline(always)]
    pub(crate) const fn with(self, state: State) -> Self {
        Word((self.0 & !STATE_MASK) | state as u64)
    }

    /// The next generation, in `state`.
    #[inline(always)]
    pub(crate) const fn next(self, state: State) -> Self {
        Word((self.0 & !STATE_MASK).wrapping_add(1 << STATE_BITS) | state as u64)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.state(), self.generation())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn states_survive_the_round_trip() {
        for state in State::ALL {
            let word = Word::new(77, state);
            assert_eq!((word.generation(), word.state()), (77, state));
            assert!(word.is(state));
            assert_eq!(word.is_free(), matches!(state, State::Free | State::Counted));
        }
    }

    /// The rule that the snapshot by sums rests on: each step of a slot's life makes its word larger.
    #[test]
    fn words_only_grow() {
        use State::*;
        let same_generation =
            [(Free, Claimed), (Counted, Claimed), (Quarantined, Claimed), (Claimed, Leased), (Detached, Leased)];
        for (from, to) in same_generation {
            let word = Word::new(5, from);
            assert!(word.with(to).bits() > word.bits(), "{from:?} to {to:?}");
        }
        for from in State::ALL {
            for to in State::ALL {
                let word = Word::new(5, from);
                assert!(word.next(to).bits() > word.bits(), "{from:?} to {to:?}");
            }
        }
    }
}
