//! A slot's header: the state word and what a scanner may want to know about its holder. 32 bytes.
//!
//! The word says who may write the rest: whoever holds the slot as `Claimed` or `Leased`. Everybody may read, in the
//! manner of a seqlock: word, fields, word again; the fields belong to the word if both readings agree
//! ([`Header::read`]). Readers never stop a writer.

use std::panic::Location;
use std::ptr;

use super::label::{Label, MAX_ACCOUNTS, Mark};
use super::word::{State, Word};
use crate::clock::Tick;
use crate::sync::arena::Zeroed;
use crate::sync::atomic::fence;
use crate::sync::{AtomicU64, Ordering};

/// A source line, as `#[track_caller]` gives it.
pub(crate) type Site = &'static Location<'static>;

/// Two headers fill a cache line; none straddles one.
#[repr(C, align(32))]
pub(crate) struct Header {
    word: AtomicU64,
    /// The address of the line that allocated in the lower 48 bits, the tag above, the class in the two bits that alignment leaves.
    site: AtomicU64,
    /// The coarse clock at allocation in the upper half; in the lower the account, and the number of the allocating thread.
    stamp: AtomicU64,
    /// A [`Note`]: what it says depends on the state.
    note: AtomicU64,
}

/// What the fourth word of a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// Nothing.
    None,
    /// Of a slot that is nobody's: the line of the explicit release that ended the last use. `Drop` has no line.
    Released(Site),
    /// Of a detached slot: the coarse tick at which its handle expires.
    Deadline(Tick),
    /// Of a slot held by `SharedLease`s: how many there are.
    Sharers(u32),
}

/// The two low bits of a note; sites are aligned, and have none.
const NOTE_KIND: u64 = 3;
const NOTE_DEADLINE: u64 = 1;
const NOTE_SHARERS: u64 = 2;
/// One sharer, in a note of that kind.
const SHARER: u64 = NOTE_KIND + 1;
/// In a note of that kind: a panic has come over the value.
const BROKEN: u64 = 1 << 63;
/// A count of so many sharers is not believed any more…
const MAX_SHARERS: u32 = 1 << 31;
/// …and set to this, so far beyond that no step of the other threads leads back.
const BEYOND_SHARERS: u32 = 3 << 30;

const _: () = assert!(align_of::<Location<'static>>() as u64 > NOTE_KIND && NOTE_KIND == Mark::LOW_BITS);

impl Note {
    #[inline(always)]
    pub(crate) fn released(site: Option<Site>) -> Self {
        site.map_or(Note::None, Note::Released)
    }

    #[inline(always)]
    fn bits(self) -> u64 {
        match self {
            Note::None => 0,
            // Exposed, so that `from_bits` may make a pointer of it again.
            Note::Released(site) => ptr::from_ref(site).expose_provenance() as u64,
            Note::Deadline(tick) => (u64::from(tick.0) << 2) | NOTE_DEADLINE,
            Note::Sharers(count) => (u64::from(count) << 2) | NOTE_SHARERS,
        }
    }

    fn from_bits(bits: u64) -> Self {
        match bits & NOTE_KIND {
            0 if bits == 0 => Note::None,
            // SAFETY: a note of this kind is only made of a `&'static Location`, in `bits`.
            0 => Note::Released(unsafe { &*ptr::with_exposed_provenance(bits as usize) }),
            NOTE_DEADLINE => Note::Deadline(Tick((bits >> 2) as u32)),
            _ => Note::Sharers(sharers(bits)),
        }
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Header>() == 32);

// SAFETY: a word of zero is `Absent` at generation 0, null is no site, and nothing needs `Drop`.
unsafe impl Zeroed for Header {
    #[cfg(loom)]
    fn zeroed() -> Self {
        Header { word: AtomicU64::new(0), site: AtomicU64::new(0), stamp: AtomicU64::new(0), note: AtomicU64::new(0) }
    }
}

/// What a header said at one word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) word: Word,
    pub(crate) site: Option<Site>,
    pub(crate) note: Note,
    pub(crate) tick: Tick,
    pub(crate) thread: u32,
    pub(crate) mark: Mark,
    pub(crate) account: u16,
}

impl Header {
    /// The word, to decide what to do next.
    ///
    /// Acquire: pairs with the Release of [`give`](Self::give), so that whoever sees a state sees what its writer did.
    #[inline(always)]
    pub(crate) fn word(&self) -> Word {
        Word::from_bits(self.word.load(Ordering::Acquire))
    }

    /// Asks for the header's cache line, to be written: it may lie in the cache of the core that released the slot.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        // The intrinsic for it becomes a prefetch for reading unless the whole program is compiled for newer processors.
        #[cfg(all(target_arch = "x86_64", not(loom)))]
        // SAFETY: a prefetch has no effect but on the caches; processors that do not know this one ignore it.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) ptr::from_ref(self), options(nostack, preserves_flags, readonly));
        }
    }

    /// For the holder only: the word, which nobody else writes.
    #[inline(always)]
    pub(crate) fn held_word(&self) -> Word {
        // Relaxed: the holder wrote it, or got the lease from who did.
        Word::from_bits(self.word.load(Ordering::Relaxed))
    }

    /// Moves the word from `from` to `to`; exactly one of all who try wins.
    ///
    /// AcqRel on success: Acquire pairs with the Release of whoever gave the slot (its value and header are ours
    /// now); Release makes a change between idle states carry on what was acquired. Relaxed on failure: nothing is read.
    #[inline(always)]
    pub(crate) fn compare_exchange(&self, from: Word, to: Word) -> bool {
        self.word.compare_exchange(from.bits(), to.bits(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// For the holder only: gives the slot its next word.
    ///
    /// Release: pairs with the Acquire of the next claim, attach or scan; the value and the fields written by the
    /// holder come before it.
    #[inline(always)]
    pub(crate) fn give(&self, word: Word) {
        self.word.store(word.bits(), Ordering::Release);
    }

    /// For the winner of a claim only: writes who holds the slot, then makes it `Leased`.
    #[inline(always)]
    pub(crate) fn lease(&self, claimed: Word, site: Site, mark: Mark, stamp: u64) -> Word {
        // Release fence: pairs with the Acquire fence in `read`; a reader that sees a field written below also sees
        // that the word has left the state in which the old fields were true.
        fence(Ordering::Release);
        if !crate::BARE {
            self.site.store(pack_site(site, mark), Ordering::Relaxed);
        }
        // What is left of it without the rest is the account, which has to be paid back.
        if !crate::BARE || stamp != 0 {
            self.stamp.store(stamp, Ordering::Relaxed);
        }
        let leased = claimed.with(State::Leased);
        self.give(leased);
        leased
    }

    /// For the holder of a `Leased` slot only: says who it is, if whoever leased it for him could not.
    ///
    /// Relaxed: a reader finds the old stamp or the new beside the same word, and either is of this use.
    pub(crate) fn set_stamp(&self, stamp: u64) {
        self.stamp.store(stamp, Ordering::Relaxed);
    }

    /// For the holder only: the account, which the header then forgets; 0 if there is none.
    ///
    /// Relaxed: a reader finds the old stamp or the new beside the same word, and either is of this use.
    #[inline]
    pub(crate) fn take_account(&self) -> u16 {
        let stamp = self.stamp.load(Ordering::Relaxed);
        let (tick, account, thread) = unpack_stamp(stamp);
        if account != 0 {
            self.stamp.store(pack_stamp(tick, Label::NONE, thread), Ordering::Relaxed);
        }
        account
    }

    /// For the holder only: on which account the slot is held from now on.
    pub(crate) fn set_account(&self, account: u16) {
        let (tick, _, thread) = unpack_stamp(self.stamp.load(Ordering::Relaxed));
        self.stamp.store(pack_stamp(tick, Label { account, ..Label::NONE }, thread), Ordering::Relaxed);
    }

    /// For the holder only: what to note beside the next word.
    ///
    /// Release: pairs with the Acquire fence in `read`, as the fence in `lease` does; a store of its own because a
    /// lease may be released by another thread than the one that made that fence.
    #[inline(always)]
    pub(crate) fn set_note(&self, note: Note) {
        self.note.store(note.bits(), Ordering::Release);
    }

    /// For the holder only: whether there is a note. A load, where clearing one would be a store, for which the next claim has to wait.
    #[inline(always)]
    pub(crate) fn has_note(&self) -> bool {
        self.note.load(Ordering::Relaxed) != 0
    }

    /// For the holder only: the note as it stands.
    pub(crate) fn held_note(&self) -> Note {
        Note::from_bits(self.note.load(Ordering::Relaxed))
    }

    /// For a sharer: there is one more.
    #[inline]
    pub(crate) fn count_sharer_in(&self) {
        // Relaxed: the new one is made from one that keeps the slot.
        if sharers(self.note.fetch_add(SHARER, Ordering::Relaxed)) >= MAX_SHARERS {
            self.keep_for_ever();
        }
    }

    /// For a sharer, which goes. If it was the last, the slot is its own: `Some`, and whether a panic has come over the value.
    #[inline]
    pub(crate) fn count_sharer_out(&self) -> Option<bool> {
        // Release: pairs with the Acquire fence below; every use of the value comes before the end.
        let before = self.note.fetch_sub(SHARER, Ordering::Release);
        if sharers(before) != 1 {
            if sharers(before) >= MAX_SHARERS {
                self.keep_for_ever();
            }
            return None;
        }
        // Acquire fence: pairs with the Release of all the others.
        fence(Ordering::Acquire);
        Some(before & BROKEN != 0)
    }

    /// Sharers were forgotten in a loop, and the count would come round. It is not believed any more: better to lose the slot.
    #[cold]
    fn keep_for_ever(&self) {
        self.note.store(Note::Sharers(BEYOND_SHARERS).bits(), Ordering::Relaxed);
    }

    /// For a sharer: a panic has come over the value.
    #[cold]
    pub(crate) fn note_panic(&self) {
        // Relaxed: read by the exchange of the same word with which the last sharer goes, which comes after this one's.
        self.note.fetch_or(BROKEN, Ordering::Relaxed);
    }

    /// For a sharer: how many there are.
    pub(crate) fn sharers(&self) -> u32 {
        // Acquire: pairs with the Release in `count_sharer_out`; the others' uses come before what the only one does.
        sharers(self.note.load(Ordering::Acquire))
    }

    /// The line that allocated, unguarded: for tallies whose caller compares words before and after.
    #[inline(always)]
    pub(crate) fn site_hint(&self) -> Option<Site> {
        unpack_site(self.site.load(Ordering::Relaxed)).0
    }

    /// The header at one word, or `None` while it changes hands too fast to be read consistently.
    pub(crate) fn read(&self) -> Option<Record> {
        const TRIES: usize = if cfg!(loom) { 1 } else { 8 };
        for _ in 0..TRIES {
            let word = self.word();
            let site = self.site.load(Ordering::Relaxed);
            let note = Note::from_bits(self.note.load(Ordering::Relaxed));
            let stamp = self.stamp.load(Ordering::Relaxed);
            // Acquire fence: pairs with the Release fence in `lease`; see there.
            fence(Ordering::Acquire);
            if self.word.load(Ordering::Relaxed) == word.bits() {
                let (tick, account, thread) = unpack_stamp(stamp);
                let (site, mark) = unpack_site(site);
                return Some(Record { word, site, note, tick, thread, mark, account });
            }
        }
        None
    }
}

/// How many sharers a note counts.
fn sharers(note: u64) -> u32 {
    (note / SHARER) as u32
}

/// Bits of a header's stamp that number the thread.
const THREAD_BITS: u32 = 20;
const _: () = assert!(MAX_ACCOUNTS.ilog2() + THREAD_BITS == 32);

/// One more than the largest number of a thread.
pub(crate) const MAX_THREADS: u32 = 1 << THREAD_BITS;

/// The parts of a header's stamp.
#[inline(always)]
pub(crate) fn pack_stamp(tick: Tick, label: Label, thread: u32) -> u64 {
    debug_assert!(usize::from(label.account) < MAX_ACCOUNTS && thread < MAX_THREADS);
    (u64::from(tick.0) << 32) | (u64::from(label.account) << THREAD_BITS) | u64::from(thread)
}

fn unpack_stamp(stamp: u64) -> (Tick, u16, u32) {
    let holder = stamp as u32;
    (Tick((stamp >> 32) as u32), (holder >> THREAD_BITS) as u16, holder % MAX_THREADS)
}

/// Bits of an address.
const ADDRESS_BITS: u32 = 48;

/// Whether the addresses of this process's source lines leave room for a tag: no system known places a program higher.
pub(crate) fn sites_fit() -> bool {
    address(Location::caller()) >> ADDRESS_BITS == 0
}

#[inline(always)]
fn address(site: Site) -> u64 {
    // Exposed, so that `unpack_site` may make a pointer of it again.
    ptr::from_ref(site).expose_provenance() as u64
}

#[inline(always)]
fn pack_site(site: Site, mark: Mark) -> u64 {
    address(site) | mark.around()
}

fn unpack_site(bits: u64) -> (Option<Site>, Mark) {
    let address = bits & ((1 << ADDRESS_BITS) - 1) & !Mark::LOW_BITS;
    // SAFETY: the field holds zero, or the address of a `&'static Location` and a mark around it: `sites_fit` was asked before
    // the first header was made, all lines of a program lie within 48 bits, as its first one does, and they are aligned.
    (unsafe { ptr::with_exposed_provenance::<Location<'static>>(address as usize).as_ref() }, Mark::of(bits))
}
