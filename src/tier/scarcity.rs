//! Refusing: never while a slot is free, and cheaply when refusals are many.
//!
//! # The exact refusal
//! [`scan`] goes over every word twice, adding them up. Words only grow ([`word`](crate::slot::word)), so equal sums are
//! two equal collects, and between them there was a moment when no slot was free. That is always right, whatever the
//! other threads do, and costs two passes over the headers.
//!
//! # The cheap refusal
//! *Scarcity* makes later refusals a few loads. Its parts:
//!
//! - **The count.** A release under scarcity first adds one to [`Core::count`], then makes its slot free in the state
//!   `Counted`; a claim of a `Counted` slot takes the one off afterwards. So at every moment the count is at least the
//!   number of `Counted` slots: zero means that there is none.
//! - **The certificate.** It says that every free slot is a `Counted` one; then a count of zero means that no slot is
//!   free. Whoever certifies has set the flag `SCARCE`, made a heavy fence, and then looked in two places. In the
//!   magazines, for releases in flight: a release pushes its hint (its mark), makes a light fence, and reads the flags,
//!   so either it sees `SCARCE` and counts, or its mark is seen here; if one is, there is no certificate this time. Then
//!   in all words, by the exact scan.
//! - **The end.** When the count has grown to a quarter of the tier, the flag goes. Flags carry an epoch that
//!   grows with it, so a certificate is for one scarcity, and the reader of the count makes sure by reading
//!   the flags before and after it.
//!
//! Nobody waits here: an unfinished entry only means that others refuse by scanning.

use super::allocate::{Caller, Taken, claim};
use super::chain::Head;
use super::core::{Core, flags};
use super::magazine::{Hint, Magazine};
use super::{clean, help};
use crate::error::{AllocateError, Exhausted};
use crate::slot::header::Site;
use crate::sync::Ordering;

/// Whether the tier is certain to have no slot free at this moment, and none that could be made fit for use now. Some loads.
#[inline]
pub(crate) fn is_known_empty(core: &Core) -> bool {
    // Acquire: the rest is read after the flags…
    let before = core.flags.load(Ordering::Acquire);
    if before & flags::CERTIFIED == 0 {
        return false;
    }
    // …and, Acquire throughout, before the flags are read again: equal flags (their epoch never returns) mean that the
    // certificate stood when the count was read.
    if before & flags::HELPED == 0 {
        none_counted(core, before)
    } else {
        nothing_counted(core, before, core.dirty.head()) && !help::is_possible(core)
    }
}

/// Whether there was a moment, in the scarcity that `entered` is of, when no slot was counted and none dirty. The caller
/// knows that every free slot is counted, and has read the head of the dirty ones before.
fn nothing_counted(core: &Core, entered: u64, dirty: Head) -> bool {
    let none = none_counted(core, entered);
    // The same head before and after: nothing was added to the chain in between, and nothing taken off to become free.
    none && dirty.is_empty() && core.dirty.head() == dirty
}

/// Whether there was a moment, in the scarcity that `entered` is of, when no slot was counted.
#[inline]
fn none_counted(core: &Core, entered: u64) -> bool {
    // Acquire: pairs with the Release in `count_claim`, and comes before the flags and the chain are read again.
    core.count.load(Ordering::Acquire) <= 0 && (core.flags.load(Ordering::Acquire) ^ entered) & SCARCITY == 0
}

/// The flags that tell one scarcity from another.
const SCARCITY: u64 = flags::SCARCE | flags::CLOSED | !(flags::EPOCH - 1);

/// A `Counted` slot was claimed.
#[inline]
pub(crate) fn count_claim(core: &Core) {
    // Release: orders the claim before it, so that the count never falls below the number of `Counted` slots.
    core.count.fetch_sub(1, Ordering::Release);
}

/// A slot is about to become free as `Counted`.
pub(crate) fn count_release(core: &Core) {
    // The holder's Release store of the word comes after this, so whoever sees the slot free sees it counted.
    core.count.fetch_add(1, Ordering::Relaxed);
}

/// Ends scarcity when slots are plenty again. For a release that was counted and still holds its slot.
pub(crate) fn end_if_plenty(core: &Core) {
    let now = core.flags.load(Ordering::Relaxed);
    if now & flags::SCARCE == 0 || core.count.load(Ordering::Relaxed) < plenty(core) {
        return;
    }
    let next = (now & !(flags::SCARCE | flags::CERTIFIED)).wrapping_add(flags::EPOCH);
    // Release: the epoch's end is ordered after what this thread counted. On failure somebody else has changed the
    // flags; the next release sees to it.
    let _ = core.flags.compare_exchange(now, next, Ordering::Release, Ordering::Relaxed);
}

/// Counted slots that end scarcity: enough that the next entry's scan is paid for by as many allocations.
fn plenty(core: &Core) -> i64 {
    (core.present() as i64 / 4).max(2)
}

/// The last resort: finds a free slot by its word, or makes one, or refuses because at some moment there was none.
pub(crate) fn find_or_refuse(core: &'static Core, caller: &Caller) -> Option<Taken> {
    // A pass before entering scarcity: most often the slots are only where no hint is.
    if let Some(taken) = pass(core, caller).taken.or_else(|| help::one(core, caller)) {
        return Some(taken);
    }
    let entered = core.flags.fetch_or(flags::SCARCE, Ordering::AcqRel) | flags::SCARCE;
    if entered & flags::CLOSED != 0 {
        return None;
    }
    // Whether every slot that becomes free from now on is counted. If the certificate stands already, it is so.
    let certified = entered & flags::CERTIFIED != 0;
    let counting = certified || {
        // Pairs with the light fence of every release between its mark and its look at the flags.
        core.fence.heavy();
        !core.magazines().iter().any(|magazine| magazine.in_flight(core))
    };
    if let Some(taken) = scan(core, caller, counting.then_some(entered)) {
        return Some(taken);
    }
    if counting && !certified && certify(core, entered) {
        tally(core);
    }
    None
}

/// Says that in the scarcity that `entered` is of, every free slot is counted. False if it has ended, or somebody else has
/// said so.
fn certify(core: &Core, entered: u64) -> bool {
    let mut now = core.flags.load(Ordering::Relaxed);
    while (now ^ entered) & SCARCITY == 0 && now & flags::CERTIFIED == 0 {
        // Release: pairs with the Acquire in `is_known_empty`; the scan comes before the certificate.
        match core.flags.compare_exchange(now, now | flags::CERTIFIED, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(other) => now = other,
        }
    }
    false
}

pub(crate) struct Pass {
    pub(crate) taken: Option<Taken>,
    sum: u64,
}

/// One look at every word, from where this thread's last look ended; claims the first free slot.
pub(crate) fn pass(core: &Core, caller: &Caller) -> Pass {
    let headers = core.headers();
    let start = caller.magazine.map_or(0, Magazine::cursor).min(headers.len());
    let mut sum = 0u64;
    for at in (start..headers.len()).chain(0..start) {
        let word = headers[at].word();
        if word.is_free()
            && let Some(taken) =
                claim(core, Hint { word, index: at as u32 }, caller.site, caller.label.mark, caller.stamp())
        {
            if let Some(magazine) = caller.magazine {
                magazine.set_cursor(at + 1);
            }
            return Pass { taken: Some(taken), sum };
        }
        sum = sum.wrapping_add(word.bits());
    }
    Pass { taken: None, sum }
}

/// Claims a free slot or makes one, or proves that there was a moment when there was none.
///
/// If every slot that becomes free is counted (`counting`: since a scarcity that these flags are of), one pass that finds
/// nothing free is enough: what was free without being counted would have been found, so from then on a count of zero says
/// that nothing is. Otherwise two passes with equal sums are the proof; if they differ, somebody has allocated or released,
/// and it looks again. A sum may wrap, but cannot come round by what other threads do in the time of a pass.
pub(crate) fn scan(core: &'static Core, caller: &Caller, counting: Option<u64>) -> Option<Taken> {
    let mut before = None;
    loop {
        let dirty = core.dirty.head();
        let Pass { taken, sum } = pass(core, caller);
        if taken.is_some() {
            return taken;
        }
        if counting.is_some_and(|entered| nothing_counted(core, entered, dirty)) {
            return None;
        }
        let same = dirty.is_empty() && core.dirty.head() == dirty;
        if same && before == Some((sum, dirty)) {
            return None;
        }
        if !same && let Some(taken) = clean::one(core) {
            return Some(help::lease(core, taken, caller));
        }
        before = Some((sum, dirty));
    }
}

/// Notes which line holds most slots, for the refusals to come: Misra and Gries' frequent items with four counters,
/// then an exact count of the winner.
fn tally(core: &Core) {
    let mut frequent: [(Option<Site>, usize); 4] = [(None, 0); 4];
    let held = |header: &&crate::slot::header::Header| header.word().state().is_held();
    for header in core.headers().iter().filter(held) {
        let site = header.site_hint();
        if let Some((_, count)) = frequent.iter_mut().find(|(known, count)| *count > 0 && same(*known, site)) {
            *count += 1;
        } else if let Some(place) = frequent.iter_mut().find(|(_, count)| *count == 0) {
            *place = (site, 1);
        } else {
            frequent.iter_mut().for_each(|(_, count)| *count -= 1);
        }
    }
    let Some((Some(site), _)) = frequent.into_iter().max_by_key(|(_, count)| *count) else { return };
    let count = core.headers().iter().filter(held).filter(|header| same(header.site_hint(), Some(site))).count();
    // Relaxed: a hint for people; site and number may come from two tallies.
    core.most_held_by.store(std::ptr::from_ref(site).cast_mut(), Ordering::Relaxed);
    core.most_held.store(count, Ordering::Relaxed);
}

fn same(a: Option<Site>, b: Option<Site>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if std::ptr::eq(a, b))
}

/// Why `free` slots at most could be had of the `wanted`: the error of an allocation that has just been refused. Allocates
/// nothing.
#[cold]
#[inline(never)]
pub(crate) fn why(core: &Core, magazine: Option<&Magazine>, wanted: usize, free: usize) -> AllocateError {
    if core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 {
        return AllocateError::Closed { tier: core.incarnation().name };
    }
    note_refused(core, magazine);
    let incarnation = core.incarnation();
    let quarantined = core.quarantined.load(Ordering::Relaxed);
    let reserved = core.reserve.len();
    if wanted == 1 {
        // None was free at a moment just now, so all the others are in use.
        core.high_water.raise(core.present().saturating_sub(quarantined + reserved));
    }
    AllocateError::Exhausted(Exhausted {
        tier: incarnation.name,
        capacity: incarnation.capacity,
        wanted,
        free,
        quarantined,
        absent: core.absent.load(Ordering::Relaxed),
        most_held_by: core.most_held_by(),
        most_held: core.most_held.load(Ordering::Relaxed),
        reserved,
        waiting: core.waiting.len(),
    })
}

/// Counts a refusal.
pub(crate) fn note_refused(core: &Core, magazine: Option<&Magazine>) {
    match magazine {
        Some(magazine) => magazine.note_refused(),
        None => {
            core.unserved.refusals.fetch_add(1, Ordering::Relaxed);
        }
    }
}
