//! The queue of those who wait for a slot: who is in it, who is next, who was called and has not reacted.
//!
//! All under one lock, which [`wait`](super::wait) takes and unlocks by its rules. Wakers are foreign code: none is called,
//! cloned or dropped under the lock, but those of blocked threads, which are ours.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, TryLockError};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::allocate::Caller;
use super::core::{Core, flags};
use super::order::{Flow, Order};
use super::{background, pass, uses};
use crate::clock;
use crate::slot::header::{Site, pack_stamp};
use crate::slot::label::Label;
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
pub(super) struct Rank {
    pub(super) flow: Flow,
    pub(super) ticket: u64,
}

/// What the queue and its waiter tell each other. Under the lock it leaves `WAITING` and comes back there, and a grant is
/// revoked; without the lock its waiter takes a grant. So grants are taken and revoked by exchange, all else is stored.
pub(super) struct Waiter(AtomicU64);

/// In the queue, with a waker.
pub(super) const WAITING: u64 = 0;
/// In the queue, and woken to try.
const AWAKE: u64 = 1;
/// Not in the queue: it did not react in time.
pub(super) const REVOKED: u64 = 2;
/// Not in the queue: the tier is closed.
pub(super) const CLOSED: u64 = 3;
/// Not in the queue: it has its slot.
pub(super) const TAKEN: u64 = 4;
/// Not in the queue: it may have the slot whose index is above.
const GRANTED: u64 = 5;
const INDEX_SHIFT: u32 = 8;
const STATE_MASK: u64 = (1 << INDEX_SHIFT) - 1;

impl Waiter {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Waiter(AtomicU64::new(WAITING)))
    }

    /// Acquire: pairs with the Release of `set`; who sees a grant sees what was done to the slot before it.
    pub(super) fn state(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Under the lock. Release: pairs with the Acquire in `state`.
    pub(super) fn set(&self, state: u64) {
        self.0.store(state, Ordering::Release);
    }

    /// Ends a grant, if it stands. Of the waiter that takes it and whoever revokes it, one wins.
    pub(super) fn end_grant(&self, end: u64) -> Option<u32> {
        let state = self.state();
        // Acquire was in `state`; Release, so that who sees a revocation enters the queue after it.
        let won = state & STATE_MASK == GRANTED
            && self.0.compare_exchange(state, end, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        won.then_some((state >> INDEX_SHIFT) as u32)
    }
}

/// In whose name a waiter waits, and how.
#[derive(Clone, Copy)]
pub(super) struct Who {
    pub(super) site: Site,
    pub(super) label: Label,
    pub(super) thread: u32,
    /// Where newcomers may pass; elsewhere nobody asks, and the clock is dear.
    pub(super) since: Option<Instant>,
    /// Whether it is a blocked thread, whose waker is ours.
    pub(super) blocks: bool,
}

impl Who {
    pub(super) fn stamp(&self) -> u64 {
        // On no account yet: a grant may be revoked. Who takes it puts it on the account.
        pack_stamp(clock::now(), Label::NONE, self.thread)
    }

    pub(super) fn caller(&self) -> Caller {
        Caller { site: self.site, label: self.label, magazine: None }
    }
}

/// A waiter's place in the queue.
pub(super) struct Entry {
    pub(super) who: Who,
    pub(super) waiter: Arc<Waiter>,
    /// None while it is awake.
    pub(super) waker: Option<Waker>,
}

/// A grant, or a call to try, that may have to be revoked.
pub(super) struct Call {
    due: u64,
    rank: Rank,
    pub(super) waiter: Arc<Waiter>,
}

/// What a waiter does after it has come into the queue.
pub(super) enum Duty {
    /// It set the flag: a release that has not seen it may have given a slot.
    FenceAndLook,
    /// It is the only one: a release may have found the queue empty just before; or the only one for whom a slot is there.
    Look,
    /// Who was there before has done it.
    None,
}

/// After so many releases in a row that find nobody, the flag is cleared.
const IDLE: u32 = if cfg!(loom) { 3 } else { 64 };

pub(super) struct Queue {
    pub(super) entries: BTreeMap<Rank, Entry>,
    pub(super) next: u64,
    /// Entries that are awake, and until when one is expected to react.
    pub(super) awake: usize,
    awake_until: u64,
    /// Releases that have found nobody since somebody was here.
    idle: u32,
    /// Who was called, in the order in which it is due.
    pub(super) calls: VecDeque<Call>,
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
    pub(super) pending: AtomicBool,
    /// How many entries there are, for whoever does not lock.
    len: AtomicUsize,
    /// The tick at which the first call is overdue, or `u64::MAX`.
    pub(super) due: AtomicU64,
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
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the end of a tier. `None` in the child of a fork, if the thread that had the lock is not there to unlock it.
    pub(super) fn lock_patiently(&self) -> Option<MutexGuard<'_, Queue>> {
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
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Queue>> {
        match self.queue.try_lock() {
            Ok(queue) => Some(queue),
            Err(TryLockError::Poisoned(queue)) => Some(queue.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Queue {
    /// The entry that is next, of those that can be called.
    pub(super) fn first(&mut self) -> Option<(Rank, &mut Entry)> {
        let rank = match self.order {
            None => self.entries.iter().find(|(_, entry)| entry.waker.is_some()).map(|(&rank, _)| rank),
            Some(_) => self.next_of(|_| true),
        };
        let rank = rank?;
        self.entries.get_mut(&rank).map(|entry| (rank, entry))
    }

    /// The first entry of the flow that is next among these.
    pub(super) fn next_of(&mut self, among: impl Fn(Flow) -> bool) -> Option<Rank> {
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
    pub(super) fn insert(&mut self, core: &Core, rank: Rank, entry: Entry) -> Duty {
        let alone = self.entries.is_empty();
        self.futures |= !entry.who.blocks;
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
    pub(super) fn note_need(&mut self, core: &Core, now: u64) {
        let need = self.futures || now & flags::HELPED != 0;
        if need && now & (flags::LOOKS | flags::BACKGROUND) == 0 {
            // Relaxed: those who sleep are roused after it, and those who come have the lock after this.
            core.flags.fetch_or(flags::LOOKS, Ordering::Relaxed);
            self.entries
                .values()
                .filter(|entry| entry.who.blocks)
                .filter_map(|entry| entry.waker.as_ref())
                .for_each(Waker::wake_by_ref);
        }
    }

    /// A release finds nobody. The flag stands on for a while, since the next waiter has then no need of a heavy fence.
    pub(super) fn find_empty(&mut self, core: &Core) {
        if self.entries.is_empty() {
            self.idle += 1;
            if self.idle == IDLE {
                // Relaxed: whoever still sees the flag finds the queue empty, and whoever sets it again has the lock.
                core.flags.fetch_and(!flags::WAITERS, Ordering::Relaxed);
            }
        }
    }

    /// Whether nobody waits who is more urgent.
    pub(super) fn is_most_urgent(&self, rank: Rank) -> bool {
        self.entries.keys().next().is_none_or(|first| first.flow.behind >= rank.flow.behind)
    }

    pub(super) fn remove(&mut self, core: &Core, rank: Rank) -> Option<Entry> {
        let entry = self.entries.remove(&rank)?;
        self.order.iter_mut().for_each(|order| order.leaves(rank.flow));
        core.waiting.len.store(self.entries.len(), Ordering::Relaxed);
        self.awake -= usize::from(entry.waker.is_none());
        Some(entry)
    }

    /// Gives the entry the slot, which is leased in its name.
    pub(super) fn grant(&mut self, core: &Core, rank: Rank, index: u32) -> Option<Waker> {
        let entry = self.remove(core, rank)?;
        self.order.iter_mut().for_each(|order| order.served(rank.flow));
        if !entry.who.blocks {
            self.expect(core, rank, &entry.waiter);
        }
        core.unserved.allocations.fetch_add(1, Ordering::Relaxed);
        uses::add(core, None, entry.who.label, 1);
        // The last step: its waiter may take the slot at once, and end the tier.
        entry.waiter.set(GRANTED | u64::from(index) << INDEX_SHIFT);
        entry.waker
    }

    /// Calls the first entry to try for a slot that is free, unless one is awake already and will look.
    pub(super) fn call(&mut self, core: &Core) -> Option<Waker> {
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
    pub(super) fn revoke(&mut self, core: &Core, left: &mut usize) -> Option<Revoked> {
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

    pub(super) fn note_due(&self, core: &Core) {
        let due = self.calls.front().map_or(u64::MAX, |call| call.due);
        core.waiting.due.store(due, Ordering::Relaxed);
    }
}

/// What a waiter did not heed.
pub(super) enum Revoked {
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
