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

/// What a slot is doing. The order of the numbers carries the rule above: what has to be made fit for use, what is fit,
/// what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum State {
    /// No value: never built, removed to shrink the tier, or closed.
    Absent = 0,
    /// A used value, which has to be cleaned before its next use.
    Dirty = 1,
    /// No value: it was discarded or taken, and the factory could not replace it yet.
    Quarantined = 2,
    /// A shared value that was retired: free as soon as no pin can see it any more.
    Retired = 3,
    /// The reclaimer, or an allocation that helps it, builds, cleans or examines the value.
    Maintenance = 4,
    /// A value, and nobody's.
    Free = 5,
    /// Free, and counted in the tier's exact count of what was released under scarcity.
    Counted = 6,
    /// A value, and only for urgent allocations.
    Reserved = 7,
    /// Held by whoever holds the handle of this generation.
    Detached = 8,
    /// Read by whoever holds the handle of this generation, under a pin.
    Shared = 9,
    /// Held by some [`SharedLease`](crate::SharedLease)s.
    SharedLease = 10,
    /// Its winner is writing the header.
    Claimed = 11,
    /// Held by one [`Lease`](crate::Lease).
    Leased = 12,
}

impl State {
    /// Every state, in the order of their numbers.
    pub(crate) const ALL: [State; 13] = [
        State::Absent,
        State::Dirty,
        State::Quarantined,
        State::Retired,
        State::Maintenance,
        State::Free,
        State::Counted,
        State::Reserved,
        State::Detached,
        State::Shared,
        State::SharedLease,
        State::Claimed,
        State::Leased,
    ];

    /// Whether the slot is the tier's, with a value: free, or on its way to it.
    pub(crate) const fn is_idle(self) -> bool {
        matches!(
            self,
            State::Dirty | State::Retired | State::Maintenance | State::Free | State::Counted | State::Reserved
        )
    }

    /// Whether somebody outside this crate holds the slot, so that reports name a holder.
    pub(crate) const fn is_held(self) -> bool {
        matches!(self, State::Leased | State::Detached | State::Shared | State::SharedLease)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Absent => "absent",
            State::Dirty => "dirty",
            State::Quarantined => "quarantined",
            State::Retired => "retired",
            State::Maintenance => "in maintenance",
            State::Free | State::Counted => "free",
            State::Reserved => "reserved",
            State::Detached => "detached",
            State::Shared | State::SharedLease => "shared",
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

    /// The next word in the slot's life with `state`: of the same generation if that makes the word larger, else of the
    /// next. This is the rule that words only grow.
    #[inline]
    pub(crate) const fn to(self, state: State) -> Self {
        if state as u64 > self.0 & STATE_MASK { self.with(state) } else { self.next(state) }
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
        for from in State::ALL {
            for to in State::ALL {
                let word = Word::new(5, from);
                assert!(word.next(to).bits() > word.bits(), "{from:?} to {to:?}");
                assert!(word.to(to).bits() > word.bits(), "{from:?} to {to:?}");
                assert!(word.to(to).generation() <= 6, "{from:?} to {to:?}");
            }
        }
    }

    /// The hot paths say `with` where `to` would say the same: these steps keep the generation.
    #[test]
    fn steps_that_keep_the_generation() {
        use State::*;
        for (from, to) in
            [(Free, Claimed), (Counted, Claimed), (Reserved, Claimed), (Claimed, Leased), (Detached, Leased)]
        {
            let word = Word::new(5, from);
            assert_eq!(word.to(to), word.with(to), "{from:?} to {to:?}");
        }
        // What was cleaned, retired, rebuilt or newly built becomes free without another generation: the lines in its
        // header still belong to its last use.
        for from in [Absent, Dirty, Quarantined, Retired] {
            assert_eq!(Word::new(5, from).to(Maintenance).to(Free), Word::new(5, Free), "{from:?}");
        }
    }
}
