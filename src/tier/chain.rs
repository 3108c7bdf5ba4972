//! A chain of slots: which ones are dirty, which ones are retired.
//!
//! A tagged Treiber stack through an array of links, one a slot, so that adding needs no memory and nobody waits. Unlike
//! hints, membership is exact: a slot is added by whoever has just made it dirty or retired, and only whoever takes
//! it off again may move it on (but for the end of its tier, which makes it `Absent` where it is; then it is skipped when
//! it is met).
//!
//! The head holds a slot's index in its low 28 bits (from 1; 0 is the end) and above it a tag that grows with each
//! change. So a head that has not changed means that nothing was added or taken meanwhile; and a thread that is stopped
//! between its load and its compare-exchange is deceived only if exactly 2³⁶ changes pass meanwhile.

use crossbeam_utils::CachePadded;

use super::depot::MAX_SLOTS;
use crate::slot::word::Word;
use crate::sync::arena::Zeroed;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

const INDEX_BITS: u32 = 28;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const _: () = assert!(MAX_SLOTS < 1 << INDEX_BITS);

/// The number of the slot that is next in whatever chain a slot is in; 0 at the end.
pub(crate) struct Link(AtomicU32);

// SAFETY: zero is the end of a chain; nothing needs `Drop`.
unsafe impl Zeroed for Link {
    #[cfg(loom)]
    fn zeroed() -> Self {
        Link(AtomicU32::new(0))
    }
}

/// A chain's head at some moment. Equal heads: nothing was added or taken between the two readings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head(u64);

impl Head {
    pub(crate) fn is_empty(self) -> bool {
        self.0 & INDEX_MASK == 0
    }

    /// The head after this one, naming slot `number`.
    fn then(self, number: u32) -> Head {
        Head(((self.0 & !INDEX_MASK).wrapping_add(1 << INDEX_BITS)) | u64::from(number))
    }
}

/// See the module's header.
pub(crate) struct Chain(CachePadded<AtomicU64>);

impl Chain {
    pub(crate) fn new() -> Self {
        Chain(CachePadded::new(AtomicU64::new(0)))
    }

    /// The head as it stands.
    ///
    /// Acquire: pairs with the Release in `add`.
    pub(crate) fn head(&self) -> Head {
        Head(self.0.load(Ordering::Acquire))
    }

    /// Adds a slot, which is in no chain.
    pub(crate) fn add(&self, links: &[Link], index: u32) {
        let mut head = Head(self.0.load(Ordering::Relaxed));
        loop {
            links[index as usize].0.store((head.0 & INDEX_MASK) as u32, Ordering::Relaxed);
            // Release: pairs with the Acquire in `take`, `move_to` and `head`; the link comes before its place, and
            // what was done to the slot before it was added comes before what is done after it is taken.
            match self.0.compare_exchange_weak(head.0, head.then(index + 1).0, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = Head(now),
            }
        }
    }

    /// Takes the slot that was added last, and its word as it was while it was in the chain: whoever moves the word on from
    /// exactly that moves this slot at this use, even if its tier has ended meanwhile and another has moved in.
    pub(crate) fn take(&self, links: &[Link], word: impl Fn(u32) -> Word) -> Option<(u32, Word)> {
        // Acquire: pairs with the Release in `add`, here and on failure below: the link is read.
        let mut head = Head(self.0.load(Ordering::Acquire));
        loop {
            let index = ((head.0 & INDEX_MASK) as u32).checked_sub(1)?;
            // May be another's by now, and then of no use; the tag makes the exchange fail.
            let next = links[index as usize].0.load(Ordering::Relaxed);
            let word = word(index);
            match self.0.compare_exchange_weak(head.0, head.then(next).0, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some((index, word)),
                Err(now) => head = Head(now),
            }
        }
    }

    /// Moves all to `empty`, a chain without members which only the caller adds to. False if there are none.
    pub(crate) fn move_to(&self, empty: &Chain) -> bool {
        let mut head = Head(self.0.load(Ordering::Relaxed));
        while !head.is_empty() {
            // Acquire: pairs with the Release in `add`; a chain's earlier members come through its later ones, since
            // each addition continues the release sequence of those before it.
            match self.0.compare_exchange_weak(head.0, head.then(0).0, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    let there = Head(empty.0.load(Ordering::Relaxed));
                    // Release: as in `add`.
                    empty.0.store(there.then((head.0 & INDEX_MASK) as u32).0, Ordering::Release);
                    return true;
                }
                Err(now) => head = Head(now),
            }
        }
        false
    }

    /// Forgets all members: a new tier moves in.
    pub(crate) fn clear(&self) {
        self.0.store(Head(self.0.load(Ordering::Relaxed)).then(0).0, Ordering::Relaxed);
    }
}
