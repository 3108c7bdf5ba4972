//! Where the bytes of a memory tier lie: address space for all its slots at once, in segments that have memory while a buffer in them is
//! in use.
//!
//! A buffer is a place in it, which its [`Memory`] owns, together with the region: so bytes outlive their tier with their lease, and the
//! address space goes with the last of them. Guarantees: a place has one owner ([`Places`]), is zero when it gets one, and has
//! memory as long as it has one: the [words](Word) of the segments count for that, as in a tier that grows. No lock is taken.
//!
//! What goes back to the system, and when: the memory of a segment, with the last of its buffers. A segment is a slot, or as many as fit
//! into 256 KiB (of huge pages: into one), and up to a 1,024th of the tier. Beside that, the whole pages of a buffer go back when it does,
//! unless they are huge or locked.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
// Plain `std`: a count that no step depends on.
use std::sync::atomic::{AtomicUsize, Ordering};

use super::backing::{self, Backing, HugePages, MemoryError, MemoryStatus};
use super::memory::{Memory, Scrub};
use super::places::Places;
use crate::machine::limits::{self, Limit};
use crate::machine::meminfo;
use crate::machine::root::Root;
use crate::sync::pages::{HUGE, Reserved, page};
use crate::sync::yield_now;
use crate::tier::segments::Word;

/// A segment has at least so many bytes, if the tier has: as much as one call of the system should move.
const SEGMENT_BYTES: usize = 1 << 18;
/// A region has at most so many segments, if they need not be single slots: each may be a mapping of its own.
const MAX_SEGMENTS: usize = 1 << 10;
/// How often to look again for a place of which others are just giving the segment back.
const LOOKS: usize = 100;

/// Whether memory tiers have regions: elsewhere their buffers come from the system allocator. (Miri knows no `mprotect`.)
pub(crate) const EXISTS: bool = cfg!(all(target_os = "linux", not(miri)));

/// See the module's header.
pub(crate) struct Region {
    space: Reserved,
    first: *mut u8,
    shape: Shape,
    places: Places,
    words: Box<[Word]>,
    backing: Backing,
    /// What was got, and why.
    huge_pages: HugePages,
    because: Arc<str>,
    /// Bytes that the process may still take.
    room: fn() -> Option<u64>,
    /// Bytes of pages that went back alone, at most: they come back when their place is used again, and the process must have room for that.
    gone: AtomicUsize,
}

// SAFETY: the region gives each place to one owner, by `Places`; everything else in it is shared by atomics, or never changes.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// Where places lie in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// Bytes of a buffer.
    bytes: usize,
    slots: usize,
    /// Where each buffer begins: at a multiple of this.
    align: usize,
    /// From one place in a segment to the next.
    stride: usize,
    /// From where a place begins to its buffer.
    offset: usize,
    /// Places a segment.
    each: usize,
    /// From one segment to the next: whole pages, so that none has bytes of two.
    segment: usize,
}

impl Shape {
    /// `None` if there are more bytes than an address space has.
    fn new(bytes: usize, slots: usize, backing: &Backing, unit: usize) -> Option<Self> {
        let align = backing.align_of(bytes);
        if backing.guard_pages {
            // The buffer's end lies as near to the guard as its alignment lets it.
            let area = bytes.checked_next_multiple_of(page())?;
            let stride = area.checked_add(page())?.checked_next_multiple_of(align.max(page()))?;
            let offset = (area - bytes) / align * align;
            return Shape { bytes, slots, align, stride, offset, each: 1, segment: stride }.checked();
        }
        let stride = bytes.checked_next_multiple_of(align)?;
        let each = (SEGMENT_BYTES.max(unit) / stride).max(1).max(slots.div_ceil(MAX_SEGMENTS)).min(slots);
        let segment = each.checked_mul(stride)?.checked_next_multiple_of(unit.max(align))?;
        Shape { bytes, slots, align, stride, offset: 0, each, segment }.checked()
    }

    fn checked(self) -> Option<Self> {
        self.segments().checked_mul(self.segment).filter(|&all| all <= isize::MAX as usize).map(|_| self)
    }

    fn segments(&self) -> usize {
        self.slots.div_ceil(self.each)
    }

    fn all(&self) -> usize {
        self.segments() * self.segment
    }

    /// Where a place's buffer begins, from the region's beginning.
    fn start(&self, place: usize) -> usize {
        place / self.each * self.segment + place % self.each * self.stride + self.offset
    }

    /// The place whose buffer begins there.
    fn place(&self, start: usize) -> usize {
        start / self.segment * self.each + start % self.segment / self.stride
    }

    /// Where a segment begins, and its bytes from there on that need memory; without guard pages.
    fn range(&self, segment: usize) -> (usize, usize) {
        let slots = (self.slots - segment * self.each).min(self.each);
        (segment * self.segment, (slots - 1) * self.stride + self.offset + self.bytes)
    }
}

impl Region {
    /// Address space for so many buffers.
    pub(crate) fn new(
        bytes: usize,
        slots: usize,
        backing: Backing,
        room: fn() -> Option<u64>,
    ) -> Result<Arc<Self>, MemoryError> {
        if backing.guard_pages {
            check_mappings(slots)?;
        }
        let (huge_pages, because, space, shape) = reserve(bytes, slots, &backing)?;
        let words = (0..shape.segments()).map(|_| Word::new()).collect();
        Ok(Arc::new(Region {
            first: space.first(shape.align.max(if huge_pages == HugePages::None { page() } else { HUGE })),
            space,
            shape,
            places: Places::new(slots),
            words,
            backing,
            huge_pages,
            because: because.into(),
            room,
            gone: AtomicUsize::new(0),
        }))
    }

    /// A buffer: zeroes, all shown.
    pub(crate) fn memory(self: &Arc<Self>, scrub: Scrub) -> Result<Memory, MemoryError> {
        let bytes = self.shape.bytes;
        for _ in 0..LOOKS {
            let (mut from, mut short) = (0, None);
            while let Some(place) = self.places.take(from) {
                let segment = place / self.shape.each;
                // Where there is no room for more memory, there may still be places that have some.
                let entered = match short.is_some() && !self.words[segment].is_backed() {
                    true => Ok(false),
                    false => self.enter(segment).and_then(|entered| self.touch(place, entered)),
                };
                match entered {
                    Ok(true) => {
                        let start = NonNull::new(self.first.wrapping_add(self.shape.start(place)));
                        let start = start.expect("the system maps nothing at address zero");
                        // SAFETY: the place is taken, its segment has memory for as long as it is counted, and it is zero:
                        // either the memory is new, or its last owner has left it so.
                        return Ok(unsafe { Memory::in_region(Arc::clone(self), start, bytes, scrub) });
                    }
                    Ok(false) => self.places.give_back(place),
                    Err(why) => {
                        self.places.give_back(place);
                        match why {
                            MemoryError::NoRoom { .. } => _ = short.get_or_insert(why),
                            why => return Err(why),
                        }
                    }
                }
                from = (segment + 1) * self.shape.each;
                if from >= self.shape.slots {
                    break;
                }
            }
            if let Some(why) = short {
                return Err(why);
            }
            yield_now();
        }
        // Whoever took a buffer out of its tier is to have another; but none that has less than was asked for.
        if self.backing.needs_pages() {
            return Err(MemoryError::Taken { places: self.shape.slots });
        }
        Memory::aligned(bytes, self.shape.align, scrub).map_err(|_| MemoryError::System {
            what: "memory",
            bytes,
            source: io::ErrorKind::OutOfMemory.into(),
        })
    }

    /// Takes a buffer back, of which every byte from `mark` on is zero.
    ///
    /// # Safety
    /// It is one of [`memory`](Self::memory)'s, and nobody will use it again.
    pub(crate) unsafe fn give_back(&self, start: NonNull<u8>, mark: usize) {
        let place = self.shape.place(start.as_ptr().addr() - self.first.addr());
        // What the next owner relies on; of a segment's only place nothing is left anyway.
        if self.shape.each > 1 {
            // SAFETY: by the contract, and the place has memory until it is counted off below.
            unsafe { self.wipe(start.as_ptr(), mark) };
        }
        self.leave(place / self.shape.each);
        self.places.give_back(place);
    }

    /// What is wanted of the region, and what it has.
    pub(crate) fn status(&self) -> MemoryStatus {
        let Region { shape, backing, huge_pages, .. } = self;
        let backed = (0..self.words.len()).filter(|&segment| self.words[segment].is_backed());
        MemoryStatus {
            align: shape.align,
            huge_pages_wanted: backing.huge_pages,
            huge_pages: *huge_pages,
            because: Arc::clone(&self.because),
            prefaulted: backing.prefault || backing.lock || *huge_pages == HugePages::Explicit,
            locked: backing.lock || *huge_pages == HugePages::Explicit,
            guard_pages: backing.guard_pages,
            reserved_bytes: self.space.bytes(),
            committed_bytes: backed.map(|segment| self.range(segment).1).sum(),
        }
    }

    /// Says that one more needs the segment, and sees to it that it has memory; false if that is just being taken.
    fn enter(&self, segment: usize) -> Result<bool, MemoryError> {
        let word = &self.words[segment];
        let Some(backed) = word.enter() else { return Ok(false) };
        if !backed {
            if let Err(why) = self.commit(segment) {
                self.leave(segment);
                return Err(why);
            }
            word.back();
        }
        Ok(true)
    }

    /// One less needs the segment; the last takes its memory back.
    fn leave(&self, segment: usize) {
        let word = &self.words[segment];
        if let Some(backed) = word.leave() {
            // SAFETY: nobody needs the segment, and nobody enters while the word says that its memory is being taken.
            unsafe { self.decommit(segment, backed) };
            word.bare();
        }
    }

    /// Touches the pages of a place, if its segment was entered and they may not all be there: its last owner may have given them back.
    /// Leaves the segment if that fails.
    fn touch(&self, place: usize, entered: bool) -> Result<bool, MemoryError> {
        if entered && self.backing.prefault && self.pages_go_alone() {
            let (start, bytes) = (self.first.wrapping_add(self.shape.start(place)), self.shape.bytes);
            let system = |source| MemoryError::System { what: "memory", bytes, source };
            let gone = self.gone.load(Ordering::Relaxed);
            let room = if gone > 0 { self.ask_for(bytes) } else { Ok(()) };
            // SAFETY: the place is one of this reservation, and has memory as long as its segment is counted.
            if let Err(why) = room.and_then(|()| unsafe { Reserved::populate(start, bytes) }.map_err(system)) {
                self.leave(place / self.shape.each);
                return Err(why);
            }
            if gone > 0 {
                let less = |gone: usize| Some(gone.saturating_sub(bytes));
                let _ = self.gone.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            }
        }
        Ok(entered)
    }

    /// Refuses if the process may not take so much more.
    fn ask_for(&self, bytes: usize) -> Result<(), MemoryError> {
        match (self.room)().filter(|&room| room < bytes as u64) {
            Some(room) => Err(MemoryError::NoRoom { wanted: bytes as u64, room }),
            None => Ok(()),
        }
    }

    /// Whether a buffer's whole pages go back without those around it.
    fn pages_go_alone(&self) -> bool {
        self.shape.bytes >= page() && self.huge_pages == HugePages::None && !self.backing.lock
    }

    /// The whole pages of a segment that need memory.
    fn range(&self, segment: usize) -> (*mut u8, usize) {
        let (start, bytes) = self.shape.range(segment);
        let unit = if self.huge_pages == HugePages::None { page() } else { HUGE };
        (self.first.wrapping_add(start), bytes.next_multiple_of(unit))
    }

    /// Gives memory to a segment, as it is wanted. Harmless where there is some already.
    fn commit(&self, segment: usize) -> Result<(), MemoryError> {
        let (first, bytes) = self.range(segment);
        // Those were set aside already, and count against limits of their own.
        if self.huge_pages != HugePages::Explicit {
            self.ask_for(bytes)?;
        }
        let system = |source| MemoryError::System { what: "memory", bytes, source };
        // SAFETY: the range is a segment of this reservation; and from here on it has memory.
        unsafe {
            Reserved::commit(first, bytes).map_err(system)?;
            if self.huge_pages == HugePages::Transparent {
                Reserved::prefer_huge(first, bytes).map_err(system)?;
            }
            match self.huge_pages {
                HugePages::Explicit => Reserved::populate(first, bytes).map_err(|why| self.no_huge_pages(why))?,
                _ if self.backing.lock => {
                    Reserved::lock(first, bytes).map_err(|source| {
                        let all = (0..self.words.len()).map(|segment| self.range(segment).1).sum();
                        MemoryError::Lock { bytes, all, limit: limits::of_process(Limit::Locked), source }
                    })?;
                }
                _ if self.backing.prefault && !self.pages_go_alone() => {
                    Reserved::populate(first, bytes).map_err(system)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes a segment's memory back. What comes again later is zero: if it was never `backed`, nobody has written to it.
    ///
    /// # Safety
    /// Nobody refers to what is in it; and it has memory, if it is said to be backed.
    unsafe fn decommit(&self, segment: usize, backed: bool) {
        let (first, bytes) = self.range(segment);
        // SAFETY: the range is a segment of this reservation, and by the contract.
        unsafe {
            let is_zero = match self.huge_pages {
                // They stay set aside for the region; before Linux 5.18 they stay where they are, too.
                HugePages::Explicit => !backed || Reserved::empty(first, bytes),
                _ => Reserved::decommit(first, bytes) || !backed,
            };
            if !is_zero {
                first.write_bytes(0, bytes);
            }
        }
    }

    /// Makes a buffer zero of which every byte from `mark` on is; whole pages go back to the system if they may.
    ///
    /// # Safety
    /// It has memory, and nobody refers to it.
    unsafe fn wipe(&self, start: *mut u8, mark: usize) {
        let before = (start.addr().next_multiple_of(page()) - start.addr()).min(self.shape.bytes);
        let pages = (self.shape.bytes - before) / page() * page();
        // SAFETY: by the contract; `mark` is at most the buffer's size, and so are `before` and `before + pages`.
        unsafe {
            if mark > 0 && pages > 0 && self.pages_go_alone() && Reserved::empty(start.add(before), pages) {
                self.gone.fetch_add(pages, Ordering::Relaxed);
                start.write_bytes(0, before.min(mark));
                let after = before + pages;
                start.add(after).write_bytes(0, mark.saturating_sub(after));
            } else {
                start.write_bytes(0, mark);
            }
        }
    }

    fn no_huge_pages(&self, source: io::Error) -> MemoryError {
        no_huge_pages(self.shape.all(), source)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: every buffer has owned the region, so none is left.
        unsafe { self.space.release() };
    }
}

fn no_huge_pages(bytes: usize, source: io::Error) -> MemoryError {
    let (total, free) = backing::huge_pages();
    MemoryError::HugePages { needed: bytes / HUGE, free, total, source }
}

/// Refuses guard pages for more slots than the process can have mappings.
fn check_mappings(slots: usize) -> Result<(), MemoryError> {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    match text.trim().parse::<usize>() {
        Ok(max) if slots.saturating_mul(2) >= max => Err(MemoryError::Mappings { slots, max }),
        _ => Ok(()),
    }
}

type Got = (HugePages, String, Reserved, Shape);

/// Address space of the pages that are wanted, or that can be had instead.
fn reserve(bytes: usize, slots: usize, backing: &Backing) -> Result<Got, MemoryError> {
    let too_much = || MemoryError::System {
        what: "address space",
        bytes: bytes.saturating_mul(slots),
        source: io::ErrorKind::OutOfMemory.into(),
    };
    let shape = |unit| Shape::new(bytes, slots, backing, unit).ok_or_else(too_much);
    let plain = |got: HugePages, because: String| {
        let unit = if got == HugePages::None { page() } else { HUGE };
        let shape = shape(unit)?;
        let system = |source| MemoryError::System { what: "address space", bytes: shape.all(), source };
        let space = Reserved::new(shape.all(), shape.align.max(unit)).map_err(system)?;
        Ok((got, because, space, shape))
    };
    let explicit = || {
        let shape = shape(HUGE)?;
        let space = Reserved::huge(shape.all()).map_err(|why| no_huge_pages(shape.all(), why))?;
        let because = format!("the system has set {} of 2 MiB aside", shape.all() / HUGE);
        Ok((HugePages::Explicit, because, space, shape))
    };
    let system = meminfo::transparent(&Root::default()).unwrap_or_else(|| "never".to_owned());
    match backing.huge_pages {
        HugePages::None if system == "always" => {
            // What the kernel then does by itself, where it can; the region is as without.
            plain(HugePages::None, "none were asked for; but the kernel gives them to all (`always`)".to_owned())
        }
        HugePages::None => plain(HugePages::None, "none were asked for".to_owned()),
        HugePages::Transparent => {
            let (got, because) = transparent(&system);
            plain(got, because)
        }
        HugePages::Explicit => explicit(),
        HugePages::Prefer => explicit().or_else(|why| {
            let (got, because) = transparent(&system);
            plain(got, format!("{because}; explicit ones could not be had: {why}"))
        }),
    }
}

fn transparent(system: &str) -> (HugePages, String) {
    let setting = meminfo::TRANSPARENT;
    if system == "never" {
        return (HugePages::None, format!("{setting} is `never`: `echo madvise > {setting}`"));
    }
    (HugePages::Transparent, format!("the kernel gives them where it has them at hand ({setting} is `{system}`)"))
}

#[cfg(all(test, target_os = "linux", not(loom), not(miri)))]
mod tests {
    use super::*;

    fn region(bytes: usize, slots: usize, backing: Backing) -> Arc<Region> {
        Region::new(bytes, slots, backing, || None).unwrap()
    }

    fn committed(region: &Region) -> usize {
        region.status().committed_bytes
    }

    #[test]
    fn places_lie_apart_aligned_and_in_their_segments() {
        let aligns = [None, Some(64), Some(4096), Some(HUGE)];
        for (bytes, slots) in [(1, 1), (64, 5000), (100, 3000), (1500, 700), (4096, 100), (5000, 300), (300_000, 9)] {
            for (align, guard_pages) in aligns.into_iter().flat_map(|align| [(align, false), (align, true)]) {
                let backing = Backing { align, guard_pages, ..Backing::default() };
                for unit in [page(), HUGE] {
                    let shape = Shape::new(bytes, slots, &backing, unit).unwrap();
                    let mut end = 0;
                    for place in 0..slots {
                        let start = shape.start(place);
                        assert_eq!((start % shape.align, shape.place(start)), (0, place), "{shape:?}");
                        assert!(start >= end && start + bytes <= shape.all(), "{shape:?}");
                        end = start + bytes + if guard_pages { page() } else { 0 };
                        let (first, len) = shape.range(place / shape.each);
                        assert!(first <= start && start + bytes <= first + len && len <= shape.segment, "{shape:?}");
                    }
                }
            }
        }
        assert_eq!(Shape::new(usize::MAX / 2, 3, &Backing::default(), page()), None);
    }

    #[test]
    fn memory_comes_with_the_first_buffer_of_a_segment_and_goes_with_the_last() {
        let region = region(1024, 1000, Backing::default());
        assert_eq!(committed(&region), 0);
        let mut all: Vec<_> = (0..1000).map(|_| region.memory(Scrub::OnChange).unwrap()).collect();
        let full = committed(&region);
        assert!((1_024_000..1_100_000).contains(&full), "{full}");
        all.iter_mut().for_each(|memory| memory.fill(7));
        all.truncate(256);
        assert_eq!(committed(&region), 256 * 1024);
        all.drain(1..);
        assert_eq!(committed(&region), 256 * 1024, "one is left");
        let again = region.memory(Scrub::OnChange).unwrap();
        assert!(again.iter().all(|&byte| byte == 0), "what the last owner wrote is gone");
        assert_eq!(again.as_ptr().addr() - all[0].as_ptr().addr(), 1024, "the lowest free place");
        drop((again, all));
        assert_eq!(committed(&region), 0);
    }

    /// Whole pages of a buffer go back although others in its segment are in use, and its edges are zeroed.
    #[test]
    fn a_buffer_that_comes_back_is_zero_whatever_lies_around_it() {
        for backing in [Backing::default(), Backing { prefault: false, ..Backing::default() }] {
            for bytes in [64, 1000, 4096, 4160, 10_000, 20_032] {
                let region = region(bytes, 8, Backing { align: Some(64), ..backing });
                let mut all: Vec<_> = (0..8).map(|_| region.memory(Scrub::Keep).unwrap()).collect();
                for written in [1, bytes / 2, bytes] {
                    all.iter_mut().for_each(|memory| memory.fill(7));
                    let mut one = all.remove(3);
                    one.scrub();
                    one.put_slice(&vec![9; written]);
                    drop(one);
                    let new = region.memory(Scrub::Keep).unwrap();
                    assert!(new.iter().all(|&byte| byte == 0), "{written} of {bytes}");
                    assert!(all.iter().all(|memory| memory.iter().all(|&byte| byte == 7)), "{written} of {bytes}");
                    all.insert(3, new);
                }
            }
        }
    }

    #[test]
    fn no_room_is_told_before_it_is_met() {
        let region = Region::new(1 << 20, 4, Backing::default(), || Some((1 << 20) - 1)).unwrap();
        let why = region.memory(Scrub::OnChange).unwrap_err();
        assert!(matches!(why, MemoryError::NoRoom { wanted: 0x10_0000, room: 0xf_ffff }), "{why}");
        assert_eq!(committed(&region), 0);
        let region = Region::new(1 << 20, 4, Backing::default(), || Some(1 << 20)).unwrap();
        region.memory(Scrub::OnChange).unwrap();
    }

    /// What was taken out of a tier keeps its place.
    #[test]
    fn more_buffers_than_places_come_from_the_allocator_unless_they_would_lack_something() {
        let region = region(100, 2, Backing { align: Some(4096), ..Backing::default() });
        let all: Vec<_> = (0..5).map(|_| region.memory(Scrub::OnChange).unwrap()).collect();
        assert!(all.iter().all(|memory| memory.len() == 100 && memory.as_ptr().addr() % 4096 == 0));
        let locked = Region::new(100, 1, Backing { guard_pages: true, ..Backing::default() }, || None).unwrap();
        let one = locked.memory(Scrub::OnChange).unwrap();
        let why = locked.memory(Scrub::OnChange).unwrap_err();
        assert!(matches!(why, MemoryError::Taken { places: 1 }), "{why}");
        drop(one);
        locked.memory(Scrub::OnChange).unwrap();
    }

    #[test]
    fn threads_that_take_and_give_back_never_meet() {
        let region = region(3000, 200, Backing::default());
        std::thread::scope(|scope| {
            for me in 1..4u8 {
                let region = &region;
                scope.spawn(move || {
                    for round in 0..60 {
                        let mut mine: Vec<_> =
                            (0..(round % 60)).map(|_| region.memory(Scrub::OnChange).unwrap()).collect();
                        for memory in &mut mine {
                            assert!(memory.iter().all(|&byte| byte == 0));
                            memory.fill(me);
                        }
                        assert!(mine.iter().all(|memory| memory.iter().all(|&byte| byte == me)));
                    }
                });
            }
        });
        assert_eq!(committed(&region), 0);
    }
}
