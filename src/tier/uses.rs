//! What slots were allocated for: a count for each label that allocations carry (on whose behalf, what for, how urgent).
//!
//! Each magazine counts for itself, in a few words of a label and its count ([`Uses`]): on the hot path that is a load, a comparison
//! and a store, and nothing at all for an allocation that says nothing of itself, since those are what is left of all when the others
//! are taken off. A word is read whole, so no count is ever seen beside another's label.
//!
//! The [`Shelf`] of the tier knows every label, in the order in which they came, up to [`LABELS`] of them: so however many tags a program
//! makes up, a reading has no more lines than that. Allocations with a label beyond are counted together. The shelf also keeps what
//! a magazine with too many labels had to clear away, and what was served without a magazine.

use super::core::Core;
use super::magazine::Magazine;
use crate::slot::label::Label;
use crate::sync::arena::Zeroed;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Labels that a tier tells apart.
pub(crate) const LABELS: usize = if cfg!(loom) { 2 } else { 256 };
/// Labels that a magazine counts without the shelf: two cache lines.
const PLACES: usize = if cfg!(loom) { 2 } else { 16 };
/// 2^32 by the golden ratio, odd: Knuth's multiplicative hashing.
const SPREAD: u32 = 0x9e37_79b1;
/// Whether uses are counted. Not in models: these numbers order nothing, and each would be one more step to explore.
const COUNTED: bool = !cfg!(loom) && !crate::BARE;

/// Bits of a word that hold the count; the label is above.
const COUNT_BITS: u32 = 64 - Label::BITS;
/// A count that has come so far is cleared away.
const FULL: u64 = (1 << COUNT_BITS) - 1;

/// A magazine's own counts, for the owner to write. Zeros are a count of nothing.
pub(crate) struct Uses([AtomicU64; PLACES]);

fn word(label: u32, count: u64) -> u64 {
    u64::from(label) << COUNT_BITS | count
}

fn parts(word: u64) -> (u32, u64) {
    ((word >> COUNT_BITS) as u32, word & FULL)
}

/// Where a label is looked for first. A multiplication spreads labels that differ in one part, or in two in opposite ways.
#[inline(always)]
fn home(label: Label) -> usize {
    (label.bits().wrapping_mul(SPREAD) >> 24) as usize % PLACES
}

impl Uses {
    #[cfg(loom)]
    pub(crate) fn none() -> Self {
        Uses(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// For the owner: one more allocation with that label. False, and nothing is counted, if the label is not where it is looked for first:
    /// then it is for [`add`].
    #[inline(always)]
    pub(crate) fn count(&self, label: Label) -> bool {
        if !COUNTED || label.says_nothing() {
            return true;
        }
        let place = &self.0[home(label)];
        let now = place.load(Ordering::Relaxed);
        // One comparison for both: another label leaves bits above the count.
        let is_here = now ^ word(label.bits(), 0) < FULL;
        if is_here {
            place.store(now + 1, Ordering::Relaxed);
        }
        is_here
    }

    fn add(&self, shelf: &Shelf, label: Label, more: u64) {
        let bits = label.bits();
        let places = || (0..PLACES).map(|step| &self.0[(home(label) + step) % PLACES]);
        // The label of zeros, which those have that are not used, says nothing, and does not come here.
        let with = |bits| places().find(|place| parts(place.load(Ordering::Relaxed)).0 == bits);
        let known = with(bits);
        if more >= FULL || known.is_none() && !shelf.admits(bits) {
            return shelf.add(bits, more);
        }
        let place = known.or_else(|| with(0)).unwrap_or(&self.0[home(label)]);
        let (other, count) = parts(place.load(Ordering::Relaxed));
        if other == bits && count + more < FULL {
            return place.store(word(bits, count + more), Ordering::Relaxed);
        }
        // A look between the two steps misses what is cleared away.
        place.store(word(bits, more), Ordering::Relaxed);
        if count > 0 {
            shelf.add(other, count);
        }
    }

    /// A new tier moves in. Nobody counts meanwhile: only allocations do.
    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|place| place.store(0, Ordering::Relaxed));
    }
}

/// What a tier knows of labels; see the module's header.
pub(crate) struct Shelf {
    /// A label's bits and one; 0: free. Once written it stays, until a new tier moves in.
    labels: [AtomicU32; LABELS],
    counts: [AtomicU64; LABELS],
    /// Allocations with labels for which there was no room.
    others: AtomicU64,
}

// SAFETY: zeros are a shelf that knows no label; nothing needs `Drop`.
unsafe impl Zeroed for Shelf {
    #[cfg(loom)]
    fn zeroed() -> Self {
        Shelf {
            labels: std::array::from_fn(|_| AtomicU32::new(0)),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            others: AtomicU64::new(0),
        }
    }
}

impl Shelf {
    /// Where the label stands, which is written down if it is new; `None` if there is no room for it.
    fn find(&self, bits: u32) -> Option<usize> {
        let wanted = bits + 1;
        // Open addressing.
        let start = (bits.wrapping_mul(SPREAD) >> 24) as usize;
        (0..LABELS).map(|step| (start + step) % LABELS).find(|&at| {
            let label = &self.labels[at];
            let mut known = label.load(Ordering::Relaxed);
            if known == 0 {
                // Relaxed: a lone number; what is counted beside it is a number for people.
                known = match label.compare_exchange(0, wanted, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => wanted,
                    Err(other) => other,
                };
            }
            known == wanted
        })
    }

    fn admits(&self, bits: u32) -> bool {
        self.find(bits).is_some()
    }

    /// So many allocations with that label.
    fn add(&self, bits: u32, more: u64) {
        self.find(bits).map_or(&self.others, |at| &self.counts[at]).fetch_add(more, Ordering::Relaxed);
    }

    /// A new tier moves in.
    pub(crate) fn clear(&self) {
        self.labels.iter().for_each(|label| label.store(0, Ordering::Relaxed));
        self.counts.iter().chain([&self.others]).for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

/// For the owner of the magazine, or without one: so many allocations more with that label.
pub(crate) fn add(core: &Core, magazine: Option<&Magazine>, label: Label, more: usize) {
    if !COUNTED || label.says_nothing() || more == 0 {
        return;
    }
    match magazine {
        Some(magazine) => magazine.uses.add(core.shelf, label, more as u64),
        None => core.shelf.add(label.bits(), more as u64),
    }
}

/// What allocations were for.
pub(crate) struct Counted {
    /// Each label that was used, with its allocations.
    pub(crate) labels: Vec<(Label, u64)>,
    /// Allocations with labels beyond those that the tier tells apart.
    pub(crate) others: u64,
}

/// The counts of a tier that has served `allocations` so far. Exact at a quiet point. A look at the words of each magazine.
pub(crate) fn read(core: &Core, allocations: u64) -> Counted {
    let shelf = core.shelf;
    let mut counts = [0u64; LABELS];
    for (count, kept) in counts.iter_mut().zip(&shelf.counts) {
        *count = kept.load(Ordering::Relaxed);
    }
    let mut others = shelf.others.load(Ordering::Relaxed);
    for place in core.magazines().iter().flat_map(|magazine| &magazine.uses.0) {
        let (bits, count) = parts(place.load(Ordering::Relaxed));
        if count > 0 {
            *shelf.find(bits).map_or(&mut others, |at| &mut counts[at]) += count;
        }
    }
    let named = shelf.labels.iter().zip(counts).filter(|(_, count)| *count > 0);
    let mut labels: Vec<_> = named
        .filter_map(|(label, count)| Some((Label::from_bits(label.load(Ordering::Relaxed).checked_sub(1)?), count)))
        .collect();
    // What is left said nothing of itself.
    let rest = allocations.saturating_sub(others + labels.iter().map(|(_, count)| count).sum::<u64>());
    if rest > 0 {
        labels.push((Label::NONE, rest));
    }
    Counted { labels, others }
}
