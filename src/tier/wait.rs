//! Waiting: the queue of those who found no slot free, and how slots come to them.
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
//! the lock delays waiters, and nobody else. Wakers are foreign code: none is called, cloned or dropped under the lock.
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

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, TryLockError};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::allocate::{Caller, Taken, claim, find_free};
use super::attach;
use super::core::{Core, flags};
use super::magazine::Hint;
use super::order::{Flow, Order};
use super::values::{Panic, dispose, rethrow};
use super::{background, clean, epoch, help, notice, pass, reserve};
use crate::clock;
use crate::slot::header::{Note, Site, pack_stamp};
use crate::slot::label::{CLASSES, Label};
use crate::slot::word::State;
use crate::sync::atomic::fence;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, yield_now};

/// How a tier lets wait.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// How many may wait at once.
    pub(crate) most: usize,
    /// How long newcomers may pass the first waiter; `None`: never.
    pub(crate) barging: Option<Duration>,
    /// How long a grant stands that nobody takes.
    pub(crate) grant_limit: Duration,
}

impl Rules {
    pub(crate) const DEFAULT: Rules = Rules { most: 65_536, barging: None, grant_limit: Duration::from_millis(100) };
}

/// Where a waiter stands: in its flow the smallest ticket is served first. See [`order`](super::order).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    flow: Flow,
    ticket: u64,
}

/// What the queue and its waiter tell each other. Under the lock it leaves `WAITING` and comes back there, and a grant is
/// revoked; without the lock its waiter takes a grant. So grants are taken and revoked by exchange, all else is stored.
struct Waiter(AtomicU64);

/// In the queue, with a waker.
const WAITING: u64 = 0;
/// In the queue, and woken to try.
const AWAKE: u64 = 1;
/// Not in the queue: it did not react in time.
const REVOKED: u64 = 2;
/// Not in the queue: the tier is closed.
const CLOSED: u64 = 3;
/// Not in the queue: it has its slot.
const TAKEN: u64 = 4;
/// Not in the queue: it may have the slot whose index is above.
const GRANTED: u64 = 5;
const INDEX_SHIFT: u32 = 8;
const STATE_MASK: u64 = (1 << INDEX_SHIFT) - 1;

impl Waiter {
    /// Acquire: pairs with the Release of `set`; who sees a grant sees what was done to the slot before it.
    fn state(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Under the lock. Release: pairs with the Acquire in `state`.
    fn set(&self, state: u64) {
        self.0.store(state, Ordering::Release);
    }

    /// Ends a grant, if it stands. Of the waiter that takes it and whoever revokes it, one wins.
    fn end_grant(&self, end: u64) -> Option<u32> {
        let state = self.state();
        // Acquire was in `state`; Release, so that who sees a revocation enters the queue after it.
        let won = state & STATE_MASK == GRANTED
            && self.0.compare_exchange(state, end, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        won.then_some((state >> INDEX_SHIFT) as u32)
    }
}

/// A waiter's place in the queue.
struct Entry {
    waiter: Arc<Waiter>,
    /// None while it is awake.
    waker: Option<Waker>,
    site: Site,
    label: Label,
    thread: u32,
    since: Option<Instant>,
    /// Whether it is a blocked thread, whose waker is ours.
    blocks: bool,
}

impl Entry {
    fn stamp(&self) -> u64 {
        // On no account yet: a grant may be revoked. Who takes it puts it on the account.
        pack_stamp(clock::now(), Label::NONE, self.thread)
    }
}

/// A grant, or a call to try, that may have to be revoked.
struct Call {
    due: u64,
    rank: Rank,
    waiter: Arc<Waiter>,
}

/// What a waiter does after it has come into the queue.
enum Duty {
    /// It set the flag: a release that has not seen it may have given a slot.
    FenceAndLook,
    /// It is the only one: a release may have found the queue empty just before; or the only one for whom a slot is there.
    Look,
    /// Who was there before has done it.
    None,
}

/// After so many releases in a row that find nobody, the flag is cleared.
const IDLE: u32 = if cfg!(loom) { 3 } else { 64 };

struct Queue {
    entries: BTreeMap<Rank, Entry>,
    next: u64,
    /// Entries that are awake, and until when one is expected to react.
    awake: usize,
    awake_until: u64,
    /// Releases that have found nobody since somebody was here.
    idle: u32,
    /// Who was called, in the order in which it is due.
    calls: VecDeque<Call>,
    /// Whether a future has ever come in.
    futures: bool,
    /// Who decides between flows, if there may be several.
    order: Option<Box<dyn Order>>,
    /// For the moment of a decision: the flows, and their first entries.
    flows: Vec<Flow>,
    heads: Vec<Rank>,
}

/// The queue of a control block. Empty between two tiers.
pub(crate) struct Waiting {
    queue: Mutex<Queue>,
    /// Whoever has the lock shall attend to the queue after it.
    pending: AtomicBool,
    /// How many entries there are, for whoever does not lock.
    len: AtomicUsize,
    /// The tick at which the first call is overdue, or `u64::MAX`.
    due: AtomicU64,
}

impl Waiting {
    pub(crate) fn new() -> Self {
        let queue = Queue {
            entries: BTreeMap::new(),
            next: 0,
            awake: 0,
            awake_until: 0,
            idle: 0,
            calls: VecDeque::new(),
            futures: false,
            order: None,
            flows: Vec::new(),
            heads: Vec::new(),
        };
        Waiting {
            queue: Mutex::new(queue),
            pending: AtomicBool::new(false),
            len: AtomicUsize::new(0),
            due: AtomicU64::new(u64::MAX),
        }
    }

    /// For a new tier.
    pub(crate) fn clear(&self) {
        if let Some(mut queue) = self.lock_patiently() {
            queue.futures = false;
            queue.order = None;
        }
    }

    /// Whom to ask who is next, from now on.
    pub(crate) fn set_order(&self, mut order: Box<dyn Order>) {
        let mut queue = self.lock();
        queue.entries.keys().for_each(|rank| order.enters(rank.flow));
        queue.order = Some(order);
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// For waiters. No user code runs under the lock, so a panic cannot have left the queue half changed.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the end of a tier. `None` in the child of a fork, if the thread that had the lock is not there to unlock it.
    fn lock_patiently(&self) -> Option<MutexGuard<'_, Queue>> {
        for attempt in 0.. {
            if let Some(queue) = self.try_lock() {
                return Some(queue);
            }
            if attempt > 100_000 && pass::is_forked() {
                break;
            }
            yield_now();
        }
        None
    }

    /// For everybody.
    fn try_lock(&self) -> Option<MutexGuard<'_, Queue>> {
        match self.queue.try_lock() {
            Ok(queue) => Some(queue),
            Err(TryLockError::Poisoned(queue)) => Some(queue.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Queue {
    /// The entry that is next, of those that can be called.
    fn first(&mut self) -> Option<(Rank, &mut Entry)> {
        let rank = match self.order {
            None => self.entries.iter().find(|(_, entry)| entry.waker.is_some()).map(|(&rank, _)| rank),
            Some(_) => self.next_of(|_| true),
        };
        let rank = rank?;
        self.entries.get_mut(&rank).map(|entry| (rank, entry))
    }

    /// The first entry of the flow that is next among these.
    fn next_of(&mut self, among: impl Fn(Flow) -> bool) -> Option<Rank> {
        self.flows.clear();
        self.heads.clear();
        let mut from = Bound::Unbounded;
        while let Some((&Rank { flow, .. }, _)) = self.entries.range((from, Bound::Unbounded)).next() {
            let of_flow = self.entries.range(Rank { flow, ticket: 0 }..=Rank { flow, ticket: u64::MAX });
            if among(flow)
                && let Some((&rank, _)) = { of_flow }.find(|(_, entry)| entry.waker.is_some())
            {
                self.flows.push(flow);
                self.heads.push(rank);
            }
            from = Bound::Excluded(Rank { flow, ticket: u64::MAX });
        }
        let next = if self.flows.is_empty() { return None } else { self.order.as_mut()?.next(&self.flows) };
        self.heads.get(next).copied()
    }

    /// Puts an entry in its place, and says what its waiter has to do next.
    fn insert(&mut self, core: &Core, rank: Rank, entry: Entry) -> Duty {
        let alone = self.entries.is_empty();
        self.futures |= !entry.blocks;
        self.order.iter_mut().for_each(|order| order.enters(rank.flow));
        self.entries.insert(rank, entry);
        self.idle = 0;
        core.waiting.len.store(self.entries.len(), Ordering::Relaxed);
        // AcqRel: after the closer's, if the tier is closed by now; else the closer finds the flag.
        let before = core.flags.fetch_or(flags::WAITERS, Ordering::AcqRel);
        self.note_need(core, before);
        if before & flags::WAITERS == 0 || before & flags::CLOSED != 0 {
            Duty::FenceAndLook
        } else if alone || before & flags::RESERVES != 0 {
            // A reserved slot may be free that is for nobody who waits but for this one.
            Duty::Look
        } else {
            Duty::None
        }
    }

    /// From the first moment at which blocked threads have to look around, they know it.
    fn note_need(&mut self, core: &Core, now: u64) {
        let need = self.futures || now & flags::HELPED != 0;
        if need && now & (flags::LOOKS | flags::BACKGROUND) == 0 {
            // Relaxed: those who sleep are roused after it, and those who come have the lock after this.
            core.flags.fetch_or(flags::LOOKS, Ordering::Relaxed);
            self.entries
                .values()
                .filter(|entry| entry.blocks)
                .filter_map(|entry| entry.waker.as_ref())
                .for_each(Waker::wake_by_ref);
        }
    }

    /// A release finds nobody. The flag stands on for a while, since the next waiter has then no need of a heavy fence.
    fn find_empty(&mut self, core: &Core) {
        if self.entries.is_empty() {
            self.idle += 1;
            if self.idle == IDLE {
                // Relaxed: whoever still sees the flag finds the queue empty, and whoever sets it again has the lock.
                core.flags.fetch_and(!flags::WAITERS, Ordering::Relaxed);
            }
        }
    }

    /// Whether nobody waits who is more urgent.
    fn is_most_urgent(&self, rank: Rank) -> bool {
        self.entries.keys().next().is_none_or(|first| first.flow.behind >= rank.flow.behind)
    }

    fn remove(&mut self, core: &Core, rank: Rank) -> Option<Entry> {
        let entry = self.entries.remove(&rank)?;
        self.order.iter_mut().for_each(|order| order.leaves(rank.flow));
        core.waiting.len.store(self.entries.len(), Ordering::Relaxed);
        self.awake -= usize::from(entry.waker.is_none());
        Some(entry)
    }

    /// Gives the entry the slot, which is leased in its name.
    fn grant(&mut self, core: &Core, rank: Rank, index: u32) -> Option<Waker> {
        let entry = self.remove(core, rank)?;
        self.order.iter_mut().for_each(|order| order.served(rank.flow));
        if !entry.blocks {
            self.expect(core, rank, &entry.waiter);
        }
        core.unserved.allocations.fetch_add(1, Ordering::Relaxed);
        // The last step: its waiter may take the slot at once, and end the tier.
        entry.waiter.set(GRANTED | u64::from(index) << INDEX_SHIFT);
        entry.waker
    }

    /// Calls the first entry to try for a slot that is free, unless one is awake already and will look.
    fn call(&mut self, core: &Core) -> Option<Waker> {
        clock::tick();
        if self.awake > 0 && self.awake_until > clock::ticks() {
            return None;
        }
        let (rank, entry) = self.first()?;
        let (waker, waiter) = (entry.waker.take(), Arc::clone(&entry.waiter));
        self.awake += 1;
        self.awake_until = self.expect(core, rank, &waiter);
        waiter.set(AWAKE);
        waker
    }

    /// Notes that a waiter is about to be called, and says by when it has to react. Forgets those who have.
    fn expect(&mut self, core: &Core, rank: Rank, waiter: &Arc<Waiter>) -> u64 {
        while self.calls.front().is_some_and(|call| !call.stands()) {
            self.calls.pop_front();
        }
        // At most as many grants stand as there are slots; behind one that stands long, others collect.
        if self.calls.len() > 2 * core.incarnation().capacity + 64 {
            self.calls.retain(Call::stands);
        }
        clock::tick();
        let limit = core.incarnation().waiting.grant_limit;
        let due = if limit.is_zero() { clock::ticks() } else { clock::ticks_from_now(limit) };
        self.calls.push_back(Call { due, rank, waiter: Arc::clone(waiter) });
        self.note_due(core);
        background::kick(core, due);
        due
    }

    /// Of the first `left` calls, the first that its waiter has not heeded in time is void from now on.
    fn revoke(&mut self, core: &Core, left: &mut usize) -> Option<Revoked> {
        let now = clock::ticks();
        *left = self.calls.len().min(*left);
        let mut revoked = None;
        while let Some(call) = self.calls.front()
            && revoked.is_none()
            && *left > 0
            && (call.due <= now || !call.stands())
        {
            let call = self.calls.pop_front()?;
            *left -= 1;
            revoked = if let Some(index) = call.waiter.end_grant(REVOKED) {
                Some(Revoked::Grant(index))
            } else if call.waiter.state() == AWAKE {
                // Awake entries have no waker, so no user code runs when this one goes.
                drop(self.remove(core, call.rank));
                call.waiter.set(REVOKED);
                Some(Revoked::Call)
            } else {
                None
            };
        }
        self.note_due(core);
        revoked
    }

    fn note_due(&self, core: &Core) {
        let due = self.calls.front().map_or(u64::MAX, |call| call.due);
        core.waiting.due.store(due, Ordering::Relaxed);
    }
}

/// What a waiter did not heed.
enum Revoked {
    /// A grant: the slot is the caller's.
    Grant(u32),
    /// A call to try: somebody else has to be called.
    Call,
}

impl Call {
    /// Whether the waiter has not reacted yet.
    fn stands(&self) -> bool {
        matches!(self.waiter.state() & STATE_MASK, GRANTED | AWAKE)
    }
}

/// Whether the entry is to be handed its slot, or may still be passed.
fn is_strict(core: &Core, entry: &Entry) -> bool {
    core.incarnation().waiting.barging.is_none_or(|limit| entry.since.is_none_or(|since| since.elapsed() >= limit))
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
    header.lease(claimed, entry.site, entry.label.tag, entry.stamp());
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
fn settle(core: &'static Core) -> Result<(), Panic> {
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
    let (site, label, stamp) = (entry.site, entry.label, entry.stamp());
    let claimed = given.and_then(|hint| claim(core, hint, site, label.tag, stamp)).or_else(|| {
        let taken = find_free(core, &Caller { site, label, magazine: None })?;
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
            let Entry { site, label, .. } = *queue.entries.get(&rank)?;
            let stamp = queue.entries.get(&rank)?.stamp();
            let taken = reserve::take(core, &Caller { site, label, magazine: None })?;
            core.header(taken.index).set_stamp(stamp);
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
fn give_back_granted(core: &'static Core, index: u32) -> Result<(), Panic> {
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

/// A waiter's hold on its place in the queue.
pub(crate) struct Seat {
    rank: Rank,
    site: Site,
    label: Label,
    thread: u32,
    since: Option<Instant>,
    blocks: bool,
    waiter: Arc<Waiter>,
}

/// How a waiter stands.
pub(crate) enum Standing {
    /// The slot with this index is leased to it, and it has taken it.
    Granted(u32),
    /// The tier is closed.
    Closed,
    /// It waits.
    Waiting,
    /// It was called to try for a slot, or was too late for one.
    Called,
}

impl Seat {
    /// Enters the queue; a thread that `blocks` with a waker of [`park`](crate::sync::park). If it is full: how many wait.
    pub(crate) fn enter(
        core: &'static Core,
        site: Site,
        label: Label,
        waker: Waker,
        blocks: bool,
    ) -> Result<Seat, usize> {
        let waiter = Arc::new(Waiter(AtomicU64::new(WAITING)));
        // The clock is dear, and where nobody barges nobody asks.
        let since = core.incarnation().waiting.barging.map(|_| Instant::now());
        let thread = attach::thread_number();
        let mut queue = core.waiting.lock();
        let full = queue.entries.len();
        if full >= core.incarnation().waiting.most {
            drop(queue);
            rethrow(settle(core).err());
            return Err(full);
        }
        let flow = Flow { behind: CLASSES as u8 - 1 - label.class, account: label.account };
        let seat = Seat { rank: Rank { flow, ticket: queue.next }, site, label, thread, since, blocks, waiter };
        queue.next += 1;
        let duty = queue.insert(core, seat.rank, seat.entry(waker));
        drop(queue);
        let entered = seat.entered(core, duty);
        // If another's waker panics, this wait ends with it.
        if entered.is_err() {
            seat.abandon(core);
        }
        rethrow(entered.err());
        Ok(seat)
    }

    fn entry(&self, waker: Waker) -> Entry {
        let Seat { site, label, thread, since, blocks, .. } = *self;
        Entry { waiter: Arc::clone(&self.waiter), waker: Some(waker), site, label, thread, since, blocks }
    }

    /// What follows an [`insert`](Queue::insert).
    fn entered(&self, core: &'static Core, duty: Duty) -> Result<(), Panic> {
        let served = match duty {
            Duty::FenceAndLook => {
                // Pairs with the light fence of every release, between its store of the word and its look at the flags:
                // either it finds WAITERS, or its slot is found by the look that follows.
                core.fence.heavy();
                attend(core, None)
            }
            Duty::Look => attend(core, None),
            Duty::None => settle(core),
        };
        served.and(help(core))
    }

    /// The slot that it took was of no use: it waits on, in its old place.
    pub(crate) fn retake(&self) {
        self.waiter.set(REVOKED);
    }

    /// Whether nothing has happened to it. One load.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiter.state() == WAITING
    }

    /// Whether it is the only one in the queue, which gets the next slot.
    pub(crate) fn is_alone(&self, core: &Core) -> bool {
        core.waiting.len() == 1
    }

    /// How it stands; takes the slot that it was granted.
    pub(crate) fn standing(&self) -> Standing {
        match self.waiter.state() {
            WAITING => Standing::Waiting,
            CLOSED => Standing::Closed,
            // A grant that cannot be taken was revoked.
            _ => self.waiter.end_grant(TAKEN).map_or(Standing::Called, Standing::Granted),
        }
    }

    /// Waits on, with this waker. False if it need not.
    pub(crate) fn renew(&self, core: &'static Core, waker: Waker) -> bool {
        let mut old = Some(waker);
        let mut queue = core.waiting.lock();
        let outcome = if let Some(entry) = queue.entries.get_mut(&self.rank) {
            std::mem::swap(&mut entry.waker, &mut old);
            let was_awake = old.is_none();
            if was_awake {
                queue.awake -= 1;
                self.waiter.set(WAITING);
            }
            drop(queue);
            // What was released meanwhile was offered to nobody, since this waiter was awake.
            if was_awake { attend(core, None) } else { settle(core) }
        } else if self.waiter.state() == REVOKED {
            self.waiter.set(WAITING);
            let duty = old.take().map_or(Duty::None, |waker| queue.insert(core, self.rank, self.entry(waker)));
            drop(queue);
            self.entered(core, duty)
        } else {
            drop(queue);
            settle(core)
        };
        drop(old);
        rethrow(outcome.err());
        self.is_waiting()
    }

    /// Leaves the queue, passing on a call to try. The slot that was granted meanwhile is the caller's; so is the panic of
    /// a waker.
    pub(crate) fn leave(&self, core: &'static Core) -> (Option<u32>, Result<(), Panic>) {
        if let Some(index) = self.waiter.end_grant(TAKEN) {
            return (Some(index), Ok(()));
        }
        let entry = core.waiting.lock().remove(core, self.rank);
        let was_awake = entry.as_ref().is_some_and(|entry| entry.waker.is_none());
        let outcome = if was_awake { attend(core, None) } else { settle(core) };
        let index = if entry.is_some() { None } else { self.waiter.end_grant(TAKEN) };
        (index, outcome.and(catch_unwind(AssertUnwindSafe(|| drop(entry)))))
    }

    /// Leaves, and gives back the slot that was granted meanwhile. The caller has a `Tier`.
    pub(crate) fn abandon(&self, core: &'static Core) {
        let (index, outcome) = self.leave(core);
        let given = index.map_or(Ok(()), |index| give_back_granted(core, index));
        rethrow(outcome.and(given).err());
    }
}
