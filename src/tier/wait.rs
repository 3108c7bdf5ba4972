//! Waiting: how slots come to those who found none free, and stand in the [`queue`](super::queue).
//!
//! **A release hands its slot over.** While somebody waits, the flag `WAITERS` sends every release out of the hot path.
//! One that sees it before its slot is free writes the first waiter into the header and grants it the slot, which is
//! never free in between: a newcomer cannot have it.
//!
//! **No wake-up is lost.** A waiter enters the queue, sets the flag, makes a heavy fence, and only then looks once more
//! for a free slot. A release gives its slot, makes a light fence, and looks at the flag once more. So either the waiter
//! finds the slot, or the release finds the flag and offers the slot it has given ([`attend`]). Waiters that come while
//! others wait need no look of their own: each slot that is free then is somebody's to attend to. The flag stands on for
//! some releases after the last waiter has gone, since a heavy fence is dear; who comes into an empty queue then looks too.
//!
//! **No release waits.** The queue is under a lock, for which waiters may wait and releases may not. Who finds it locked
//! leaves the flag `pending`, and whoever holds the lock looks at it after unlocking. So a thread that is stopped with
//! the lock delays waiters, and nobody else.
//!
//! **A grant can be taken back.** A grant to a future that nobody polls would keep its slot idle. Grants that are not
//! taken within the tier's limit are revoked ([`revoke`]) by whoever passes by: an allocation about to refuse, a blocked
//! thread, the reclaimer. The waiter keeps its rank, and enters the queue again when it is polled. A grant to a blocked
//! thread is not noted: the thread runs next, and is as good as a holder.
//!
//! **Blocked threads sleep, unless somebody has to look.** Where the background reclaimer is missing, they look around now
//! and then for what nobody else would do: revoke, clean, rebuild. The first time that a tier has such a need, those who
//! sleep are roused to hear of it ([`Queue::note_need`]). Timers are dear, so a tier without the need has none.
//!
//! With `barging`, a release gives its slot to all, and wakes the first waiter to try for it, until that one has waited
//! too long. One waiter is awake at a time: it looks again before it sleeps, and passes on what it leaves.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use super::allocate::{Taken, claim, find_free};
use super::core::{Core, flags};
use super::magazine::Hint;
use super::queue::{CLOSED, Entry, Queue, REVOKED, Rank, Revoked};
use super::values::{Panic, dispose};
use super::{clean, epoch, help, notice, reserve};
use crate::clock;
use crate::slot::header::{Note, Site};
use crate::slot::label::CLASSES;
use crate::slot::word::State;
use crate::sync::Ordering;
use crate::sync::atomic::fence;

/// Whether the entry is to be handed its slot, or may still be passed.
fn is_strict(core: &Core, entry: &Entry) -> bool {
    core.incarnation().waiting.barging.is_none_or(|limit| entry.who.since.is_none_or(|since| since.elapsed() >= limit))
}

/// Hands a slot that the caller holds, with a value fit for the next user, to the first waiter. `None` if nobody waits, or
/// if the slot is to be given to all and then offered.
pub(crate) fn hand_over(core: &'static Core, taken: Taken, site: Option<Site>) -> Option<Result<(), Panic>> {
    let mut queue = core.waiting.try_lock()?;
    queue.find_empty(core);
    let (rank, entry) = queue.first().filter(|(_, entry)| is_strict(core, entry))?;
    let header = core.header(taken.index);
    header.set_note(Note::released(site));
    let claimed = taken.word.to(State::Claimed);
    header.give(claimed);
    header.lease(claimed, entry.who.site, entry.who.label.mark, entry.who.stamp());
    let waker = queue.grant(core, rank, taken.index);
    drop(queue);
    // Without a grant nothing is pending that this release need see to: it offers its slot later, or nobody waits.
    let woken = waker.map_or(Ok(()), wake);
    Some(woken.and(settle(core)))
}

/// Sees to it that the queue is looked after from this moment on: by the caller, or by whoever has the lock now. `given` is
/// a slot that the caller has just made free.
///
/// After a release has given its slot it holds nothing that keeps the tier from ending; but a waiter does, as long as it
/// is in the queue.
#[cold]
pub(crate) fn attend(core: &'static Core, given: Option<Hint>) -> Result<(), Panic> {
    // Release: pairs with the Acquire below; whoever attends sees the slot given. An exchange, so that it sees the
    // slots of all who came before.
    core.waiting.pending.swap(true, Ordering::Release);
    look_after(core, given)
}

/// To be called after every unlocking.
pub(super) fn settle(core: &'static Core) -> Result<(), Panic> {
    look_after(core, None)
}

fn look_after(core: &'static Core, mut given: Option<Hint>) -> Result<(), Panic> {
    let waiting = &core.waiting;
    let mut outcome = Ok(());
    loop {
        // SeqCst fence: pairs with itself in another thread. One sets `pending` and then finds the queue locked, the other
        // unlocks it and then looks at `pending`: not both miss the other.
        fence(Ordering::SeqCst);
        if !waiting.pending.load(Ordering::Relaxed) {
            return outcome;
        }
        let Some(mut queue) = waiting.try_lock() else { return outcome };
        // Acquire: see `attend`.
        waiting.pending.swap(false, Ordering::Acquire);
        let Some((waker, more)) = serve(core, &mut queue, given.take()) else { continue };
        if more {
            waiting.pending.swap(true, Ordering::Release);
        }
        drop(queue);
        outcome = outcome.and(wake(waker));
    }
}

/// Does one thing for one waiter. Its waker, and whether there may be more to do.
fn serve(core: &'static Core, queue: &mut Queue, given: Option<Hint>) -> Option<(Waker, bool)> {
    let now = core.flags.load(Ordering::Relaxed);
    queue.note_need(core, now);
    if now & flags::CLOSED != 0 {
        while let Some(&rank) = queue.entries.keys().next() {
            let entry = queue.remove(core, rank)?;
            entry.waiter.set(CLOSED);
            if let Some(waker) = entry.waker {
                return Some((waker, true));
            }
        }
        return None;
    }
    queue.find_empty(core);
    let (rank, entry) = queue.first()?;
    if given.is_some() && !is_strict(core, entry) {
        return Some((queue.call(core)?, false));
    }
    let (who, stamp) = (entry.who, entry.who.stamp());
    let claimed = given.and_then(|hint| claim(core, hint, who.site, who.label.mark, stamp)).or_else(|| {
        let taken = find_free(core, &who.caller())?;
        core.header(taken.index).set_stamp(stamp);
        Some(taken)
    });
    let (rank, taken) = match claimed {
        Some(taken) => (rank, taken),
        // Not past somebody who has waited for so long that he comes first: the reserve fills up, and the next slot is his.
        None if now & flags::RESERVES != 0 && queue.is_most_urgent(rank) => from_reserve(core, queue)?,
        None => return None,
    };
    Some((queue.grant(core, rank, taken.index)?, true))
}

/// A slot of the reserve for the most urgent class of which somebody waits and may have it.
fn from_reserve(core: &'static Core, queue: &mut Queue) -> Option<(Rank, Taken)> {
    let mut behind = 0;
    while usize::from(behind) < CLASSES {
        if let Some(rank) = queue.next_of(|flow| flow.behind == behind) {
            let who = queue.entries.get(&rank)?.who;
            let taken = reserve::take(core, &who.caller())?;
            core.header(taken.index).set_stamp(who.stamp());
            return Some((rank, taken));
        }
        behind += 1;
    }
    None
}

/// Wakes a waiter. Its executor's code runs here, and may panic.
fn wake(waker: Waker) -> Result<(), Panic> {
    catch_unwind(AssertUnwindSafe(|| waker.wake()))
}

/// Whether some grant may be overdue: worth a call of [`revoke`].
#[inline]
pub(crate) fn may_be_overdue(core: &Core) -> bool {
    let due = core.waiting.due.load(Ordering::Relaxed);
    due != u64::MAX && {
        clock::tick();
        due <= clock::ticks()
    }
}

/// Takes back the slots of grants that are overdue now, and gives them to whoever is next. True if there was one.
#[cold]
pub(crate) fn revoke(core: &'static Core) -> Result<bool, Panic> {
    let mut outcome = Ok(());
    let mut any = false;
    let mut left = usize::MAX;
    while left > 0 && may_be_overdue(core) {
        let Some(mut queue) = core.waiting.try_lock() else { break };
        let revoked = queue.revoke(core, &mut left);
        drop(queue);
        outcome = outcome.and(match revoked {
            Some(Revoked::Grant(index)) => {
                any = true;
                settle(core).and(give_back_granted(core, index))
            }
            Some(Revoked::Call) => attend(core, None),
            None => settle(core),
        });
    }
    outcome.map(|()| any)
}

/// For who has ended a grant: the slot goes back, to whoever is next.
pub(super) fn give_back_granted(core: &'static Core, index: u32) -> Result<(), Panic> {
    let taken = Taken { word: core.header(index).held_word(), index };
    // SAFETY: with the grant the slot became the caller's. It has a value that nobody has used since it was prepared, and
    // `give_back` is this tier's.
    unsafe { (core.incarnation().give_back)(core, taken, None) }
}

/// The reclaimer's part: revokes what is overdue. A waker's panic is reported.
pub(crate) fn revoke_overdue(core: &'static Core) {
    if let Err(panic) = revoke(core) {
        notice::tell_panic(core, &panic);
    }
}

/// The tick at which the next grant will be overdue, or `u64::MAX`.
pub(crate) fn next_overdue(core: &Core) -> u64 {
    core.waiting.due.load(Ordering::Relaxed)
}

/// Does for those who wait what an allocation does before it is refused: takes back grants that nobody takes, and makes
/// slots fit for use. Some loads if there is nothing to do. The caller has a `Tier`.
pub(crate) fn help(core: &'static Core) -> Result<(), Panic> {
    let mut outcome = Ok(());
    if may_be_overdue(core) {
        outcome = revoke(core).map(drop);
    }
    while core.flags.load(Ordering::Relaxed) & flags::HELPED != 0
        && core.waiting.len() > 0
        && help::is_possible(core)
        && let Some(taken) = help::make(core)
    {
        outcome = outcome.and(clean::hand_on(core, taken));
    }
    outcome
}

/// For who may just have been in a pass: what was retired meanwhile, and awaited, nobody else could free.
pub(crate) fn after_pass(core: &'static Core) {
    // Pairs with the light fence of `retire`, by way of the SeqCst fences in `is_awaited`, and with the heavy fence of a waiter:
    // either they find that the pass has ended, or this finds the slot and the waiter.
    core.fence.light();
    if is_awaited(core)
        && epoch::is_possible(core)
        && let Err(panic) = help(core)
    {
        notice::tell_panic(core, &panic);
    }
}

/// Whether somebody waits, for who has just left a slot that has to be made fit for use, and made a light fence. The flag alone
/// may stand for nobody.
pub(crate) fn is_awaited(core: &Core) -> bool {
    core.flags.load(Ordering::Relaxed) & flags::WAITERS != 0 && {
        // SeqCst fence: pairs with the one in `look_after`, between a waiter's entry and its `help`: either that finds the
        // slot, or the waiter is counted here.
        fence(Ordering::SeqCst);
        core.waiting.len() > 0
    }
}

/// Blocked threads have to look around from now on. The caller holds a slot.
pub(crate) fn tell_of_need(core: &'static Core) {
    if let Err(panic) = attend(core, None) {
        notice::tell_panic(core, &panic);
    }
}

/// The tier is closed, and says so to everybody who waits.
pub(crate) fn close(core: &'static Core) -> Result<(), Panic> {
    if core.flags.load(Ordering::Relaxed) & flags::WAITERS == 0 { Ok(()) } else { attend(core, None) }
}

/// The last `Tier` is gone. Only futures that were leaked can still be in the queue or have a grant; the next tier must not
/// find them.
///
/// `None` in the child of a fork, if a thread that is not there holds the queue: then the tier must not end.
pub(crate) fn forget(core: &'static Core) -> Option<Result<(), Panic>> {
    while core.waiting.len() > 0 {
        let mut queue = core.waiting.lock_patiently()?;
        let entry = queue.entries.keys().next().copied().and_then(|rank| queue.remove(core, rank));
        drop(queue);
        dispose(entry);
    }
    let mut outcome = Ok(());
    while core.waiting.due.load(Ordering::Relaxed) != u64::MAX {
        let mut queue = core.waiting.lock_patiently()?;
        let call = queue.calls.pop_front();
        queue.note_due(core);
        drop(queue);
        if let Some(index) = call.and_then(|call| call.waiter.end_grant(REVOKED)) {
            outcome = outcome.and(give_back_granted(core, index));
        }
    }
    Some(outcome)
}
