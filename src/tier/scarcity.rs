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
use super::core::{Core, flags};
use super::magazine::{Hint, Magazine};
use super::rebuild;
use crate::error::{AllocateError, Exhausted};
use crate::slot::header::Site;
use crate::sync::Ordering;
use crate::sync::atomic::fence;

/// A slot found where no hint pointed.
pub(crate) enum Found {
    /// A free one; not yet counted as an allocation.
    Free(Taken),
    /// One that had no value and was rebuilt; counted.
    Vacant(Taken),
}

/// Whether the tier is certain to have no slot free at this moment. Three loads.
#[inline]
pub(crate) fn is_known_empty(core: &Core) -> bool {
    // Acquire: the count is read after the flags…
    let before = core.flags.load(Ordering::Acquire);
    if before & flags::CERTIFIED == 0 {
        return false;
    }
    // …and, Acquire, before the flags are read again: equal flags (their epoch never returns) mean that the
    // certificate stood when the count was read. Slots to rebuild are a reason to look further.
    core.count.load(Ordering::Acquire) <= 0
        && core.flags.load(Ordering::Relaxed) == before
        && core.quarantined.load(Ordering::Relaxed) == 0
}

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
    (core.incarnation().capacity as i64 / 4).max(2)
}

/// The last resort: finds a free slot by its word, or makes one, or refuses because at some moment there was none.
pub(crate) fn find_or_refuse(core: &'static Core, caller: &Caller) -> Option<Found> {
    // A pass before entering scarcity: most often the slots are only where no hint is.
    if let Some(taken) = pass(core, caller).taken {
        return Some(Found::Free(taken));
    }
    if let Some(taken) = rebuild::one(core, caller) {
        return Some(Found::Vacant(taken));
    }
    let entered = core.flags.fetch_or(flags::SCARCE, Ordering::AcqRel) | flags::SCARCE;
    if entered & flags::CLOSED != 0 {
        return None;
    }
    // Whether this call can certify. If the certificate stands already, it only has to look.
    let certify = entered & flags::CERTIFIED == 0 && {
        // Pairs with the light fence of every release between its mark and its look at the flags.
        core.fence.heavy();
        !core.magazines().iter().any(|magazine| magazine.in_flight(core))
    };
    if let Some(taken) = scan(core, caller) {
        return Some(Found::Free(taken));
    }
    if certify {
        // Release: pairs with the Acquire in `is_known_empty`; the scan comes before the certificate. It fails if
        // the flags have changed: this scarcity has ended, or the tier was closed.
        let certified = entered | flags::CERTIFIED;
        if core.flags.compare_exchange(entered, certified, Ordering::Release, Ordering::Relaxed).is_ok() {
            tally(core);
        }
    }
    None
}

struct Pass {
    taken: Option<Taken>,
    sum: u64,
}

/// One look at every word, from where this thread's last look ended; claims the first free slot.
fn pass(core: &Core, caller: &Caller) -> Pass {
    let headers = core.headers();
    let start = caller.magazine.map_or(0, Magazine::cursor).min(headers.len());
    let mut sum = 0u64;
    for at in (start..headers.len()).chain(0..start) {
        let word = headers[at].word();
        if word.is_free()
            && let Some(taken) = claim(core, Hint { word, index: at as u32 }, caller.site, caller.stamp())
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

/// Claims a free slot, or proves that there was a moment without one: two passes with equal sums and nothing free.
///
/// If the words changed meanwhile, somebody has allocated or released: then it looks again. A sum may wrap, but cannot
/// come round by what other threads do in the time of a pass.
fn scan(core: &Core, caller: &Caller) -> Option<Taken> {
    let mut before = None;
    loop {
        let Pass { taken, sum } = pass(core, caller);
        if taken.is_some() || before == Some(sum) {
            return taken;
        }
        before = Some(sum);
        // Acquire fence: the loads of one pass come before those of the next.
        fence(Ordering::Acquire);
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
    match magazine {
        Some(magazine) => magazine.note_refused(),
        None => {
            core.unserved.refusals.fetch_add(1, Ordering::Relaxed);
        }
    }
    let incarnation = core.incarnation();
    AllocateError::Exhausted(Exhausted {
        tier: incarnation.name,
        capacity: incarnation.capacity,
        wanted,
        free,
        quarantined: core.quarantined.load(Ordering::Relaxed),
        most_held_by: core.most_held_by(),
        most_held: core.most_held.load(Ordering::Relaxed),
    })
}
