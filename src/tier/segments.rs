//! The payload of a tier that grows: one range of addresses, in segments that have memory while a slot in them has a value.
//!
//! A segment's word counts who needs its memory: each slot that is not `Absent`, and each thread that is about to build one.
//! The memory comes with the first and goes with the last. Both happen without a lock: giving memory twice is
//! harmless, and it is taken back only by whoever moves the word from "nobody" to [`TAKING`].

use std::io;

use crate::sync::pages::{Reserved, page};
use crate::sync::{AtomicU32, Ordering};

/// Who needs a segment, and whether it has memory.
pub(crate) struct Word(AtomicU32);

/// The segment has memory.
const BACKED: u32 = 1 << 31;
/// Its memory is being taken back.
const TAKING: u32 = 1 << 30;
/// Who needs it.
const USERS: u32 = TAKING - 1;

/// A segment has at least so many bytes, unless the tier has fewer: as much as one call of the system should move.
const SEGMENT_BYTES: usize = 1 << 18;
/// A tier has at most so many segments: each may be a mapping of its own, and the system allows some 65,000.
const MAX_SEGMENTS: usize = 1 << 10;

/// See the module's header.
pub(crate) struct Segments {
    space: Reserved,
    first: *mut u8,
    slot_bytes: usize,
    capacity: usize,
    /// Slots a segment.
    each: usize,
    words: Box<[Word]>,
}

/// Why a segment has no memory.
pub(crate) enum NoMemory {
    /// It is being taken back at this moment.
    Leaving,
    /// The system refused.
    Refused(io::Error),
}

impl Segments {
    /// Address space for `capacity` slots of `slot_bytes` bytes.
    pub(crate) fn new(capacity: usize, slot_bytes: usize, align: usize) -> io::Result<Self> {
        let bytes = capacity.checked_mul(slot_bytes).ok_or(io::ErrorKind::OutOfMemory)?;
        let space = Reserved::new(bytes, align)?;
        let per_segment = SEGMENT_BYTES.max(page()).checked_div(slot_bytes).unwrap_or(capacity).max(1);
        let each = per_segment.max(capacity.div_ceil(MAX_SEGMENTS)).min(capacity);
        let words = (0..capacity.div_ceil(each)).map(|_| Word::new()).collect();
        Ok(Segments { first: space.first(align), space, slot_bytes, capacity, each, words })
    }

    /// Where the first slot lies.
    pub(crate) fn first(&self) -> *mut u8 {
        self.first
    }

    /// Slots a segment.
    pub(crate) fn each(&self) -> usize {
        self.each
    }

    /// The segment that a slot lies in.
    pub(crate) fn of(&self, index: u32) -> usize {
        index as usize / self.each
    }

    /// The slots of a segment; the last may have fewer than the others.
    pub(crate) fn slots(&self, segment: usize) -> std::ops::Range<u32> {
        let start = segment * self.each;
        start as u32..(start + self.each).min(self.capacity) as u32
    }

    /// How many need the segment.
    pub(crate) fn users(&self, segment: usize) -> usize {
        self.words[segment].users()
    }

    /// Says that one more needs the segment, and sees to it that it has memory.
    pub(crate) fn enter(&self, segment: usize) -> Result<(), NoMemory> {
        let word = &self.words[segment];
        if !word.enter().ok_or(NoMemory::Leaving)? {
            let (first, bytes) = self.range(segment);
            // SAFETY: the range is a segment of this reservation.
            if let Err(why) = unsafe { Reserved::commit(first, bytes) } {
                self.leave(segment);
                return Err(NoMemory::Refused(why));
            }
            word.back();
        }
        Ok(())
    }

    /// One less needs the segment; the last takes its memory back.
    pub(crate) fn leave(&self, segment: usize) {
        let word = &self.words[segment];
        if word.leave().is_some() {
            let (first, bytes) = self.range(segment);
            // SAFETY: the range is a segment of this reservation. Nobody needs it, and nobody enters while the word
            // says that it is being taken. What is left in it means nothing to the next: its slots have no values.
            unsafe { Reserved::decommit(first, bytes) };
            word.bare();
        }
    }

    /// Gives up the address space.
    ///
    /// # Safety
    /// No slot has a value, and nobody will use the segments again.
    pub(crate) unsafe fn release(&self) {
        // SAFETY: by the contract.
        unsafe { self.space.release() }
    }

    /// Bytes of the words.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    fn range(&self, segment: usize) -> (*mut u8, usize) {
        let slots = self.slots(segment);
        (self.first.wrapping_add(slots.start as usize * self.slot_bytes), slots.len() * self.slot_bytes)
    }
}

impl Word {
    /// Of a segment that nobody needs, without memory.
    pub(crate) fn new() -> Self {
        Word(AtomicU32::new(0))
    }

    fn users(&self) -> usize {
        (self.0.load(Ordering::Relaxed) & USERS) as usize
    }

    /// Whether the segment has memory, at this moment.
    pub(crate) fn is_backed(&self) -> bool {
        self.0.load(Ordering::Relaxed) & BACKED != 0
    }

    /// One more needs the segment. Whether it has memory; if not, the caller gives it some, and says so by
    /// [`back`](Self::back). `None` while its memory is being taken.
    pub(crate) fn enter(&self) -> Option<bool> {
        let mut now = self.0.load(Ordering::Relaxed);
        while now & TAKING == 0 {
            // Acquire: pairs with the Release in `back` and `bare`; what the system did for another is done for us.
            match self.0.compare_exchange_weak(now, now + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(now & BACKED != 0),
                Err(other) => now = other,
            }
        }
        None
    }

    /// The segment has memory.
    pub(crate) fn back(&self) {
        // Release: pairs with the Acquire in `enter`.
        self.0.fetch_or(BACKED, Ordering::Release);
    }

    /// The caller needs the segment no more. If it was the last, it takes the memory back, and says so by [`bare`](Self::bare): also what
    /// it may have got of it when the system refused the rest. Whether the segment has memory, then.
    pub(crate) fn leave(&self) -> Option<bool> {
        // Release: pairs with the Acquire below; every use of the memory comes before it is taken back.
        let left = self.0.fetch_sub(1, Ordering::Release) - 1;
        let last = left & USERS == 0;
        let taken = last && self.0.compare_exchange(left, TAKING, Ordering::Acquire, Ordering::Relaxed).is_ok();
        taken.then_some(left & BACKED != 0)
    }

    /// The segment's memory has been taken.
    pub(crate) fn bare(&self) {
        // Release: pairs with the Acquire in `enter`.
        self.0.store(0, Ordering::Release);
    }
}
