//! Keepers: who holds slots of a tier that nobody uses at the moment, and gives them up when they are wanted: caches.
//!
//! A slot that is only kept counts as one that can be had. So a request that a tier has refused asks the tier's keepers for a slot before it
//! is refused, spills over or waits ([`give_up_one`]); and while it waits, what comes out of use is given up at once ([`nudge`]).
//!
//! **No slot stays kept while somebody waits.** Who is going to wait says so ([`Wanting`]), makes a heavy fence, asks the keepers once more,
//! and only then enters the tier's queue. Who ends the use of a kept slot makes a light fence, and looks whether somebody wants. So either
//! the former finds the slot out of use, or the latter finds him. What is given up meanwhile is free, or handed to who waits already: the
//! queue loses neither.
//!
//! A tier without keepers pays for this with a load when it refuses.

#![cfg_attr(any(loom, not(feature = "cache")), allow(dead_code, reason = "only caches keep slots"))]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

#[cfg(all(feature = "cache", not(loom)))]
use super::cache::counts::CacheSnapshot;
use crate::sync::fence::Fence;
use crate::tier::core::Core;
use crate::tier::pass;

/// Somebody who keeps slots. Nothing is locked while it is asked, and its slots' values may run their users' code.
pub(super) trait Keeper: Send + Sync {
    /// Gives up a slot of the tier with that number that nobody uses. False if there is none. One of another tier may go as well.
    fn give_up_one(&self, tier: u32) -> bool;
    /// Gives up what is too old.
    fn give_up_old(&self);
    /// Gives up all: the tier is closed.
    fn give_up_all(&self);
    /// How it stands, as a cache of the tier of that name.
    #[cfg(all(feature = "cache", not(loom)))]
    fn status(&self, tier: &'static str) -> CacheSnapshot;
}

/// The keepers of one tier.
struct Kept {
    /// The tier's number.
    tier: u32,
    keepers: Vec<Weak<dyn Keeper>>,
    /// Requests that wait, or are going to.
    wanting: usize,
}

/// All of the process: a tier may be in several pools.
static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// Requests of all tiers with keepers that wait, or are going to.
static WANTING: AtomicUsize = AtomicUsize::new(0);

/// How many forks the process came from in which a keeper came last: in a child, keepers of its parent are told nothing.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The list is whole between any two steps of whoever holds it.
fn kept() -> MutexGuard<'static, Vec<Kept>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on this is a keeper of the tier with that number, until it is dropped.
pub(super) fn add(tier: u32, keeper: Weak<dyn Keeper>) {
    FORKS.store(pass::forks(), Ordering::Relaxed);
    let mut kept = kept();
    kept.retain_mut(|kept| {
        kept.keepers.retain(|keeper| keeper.strong_count() > 0);
        !kept.keepers.is_empty() || kept.wanting > 0
    });
    match kept.iter_mut().find(|kept| kept.tier == tier) {
        Some(kept) => kept.keepers.push(keeper),
        None => kept.push(Kept { tier, keepers: vec![keeper], wanting: 0 }),
    }
}

/// The keepers of the tier with that number, one after the other: nothing is locked while one is used, and nothing allocated. Who
/// comes or goes meanwhile may be passed over.
fn of(tier: u32) -> impl Iterator<Item = Arc<dyn Keeper>> {
    let nth = move |at: usize| {
        let kept = kept();
        let of = kept.iter().find(|kept| kept.tier == tier);
        of.and_then(|kept| kept.keepers.get(at)).map(Weak::upgrade)
    };
    (0..).map_while(nth).flatten()
}

/// Has one of the tier's keepers give up a slot. False if none has any that nobody uses.
pub(super) fn give_up_one(tier: u32) -> bool {
    of(tier).any(|keeper| keeper.give_up_one(tier))
}

/// Has the tier's keepers give up what is too old.
pub(super) fn give_up_old(tier: u32) {
    of(tier).for_each(|keeper| keeper.give_up_old());
}

/// How those of the tier with that number, and that name, stand.
#[cfg(all(feature = "cache", not(loom)))]
pub(super) fn statuses(tier: u32, name: &'static str) -> impl Iterator<Item = CacheSnapshot> {
    of(tier).map(move |keeper| keeper.status(name))
}

/// Has the tier's keepers give up all they have.
pub(super) fn give_up_all(tier: u32) {
    of(tier).for_each(|keeper| keeper.give_up_all());
}

/// To be called when a slot that is kept comes out of use: it is given up if somebody wants one. A load if nobody does.
#[inline(always)]
pub(super) fn nudge(core: &'static Core) {
    // Pairs with the heavy fence of `Wanting::begin`: either that finds the slot out of use, or this finds it.
    core.fence.light();
    if WANTING.load(Ordering::Relaxed) > 0 {
        give_up_if_wanted(core.id);
    }
}

#[cold]
#[inline(never)]
fn give_up_if_wanted(tier: u32) {
    if pass::forks() != FORKS.load(Ordering::Relaxed) {
        return; // who waited is not in this process, and the list may be locked by a thread that is not, either
    }
    if kept().iter().any(|kept| kept.tier == tier && kept.wanting > 0) {
        give_up_one(tier);
    }
}

/// A request that waits for a slot of a tier with keepers, or is going to.
pub(super) struct Wanting {
    tier: u32,
}

impl Wanting {
    /// From now on slots that come out of use are given up. Those that have been out of use before are the caller's business: he asks the
    /// keepers once more.
    pub(super) fn begin(tier: u32, fence: Fence) -> Self {
        count(tier, |wanting| wanting + 1);
        WANTING.fetch_add(1, Ordering::Relaxed);
        // Heavy fence: see `nudge`.
        fence.heavy();
        Wanting { tier }
    }
}

impl Drop for Wanting {
    fn drop(&mut self) {
        WANTING.fetch_sub(1, Ordering::Relaxed);
        count(self.tier, |wanting| wanting.saturating_sub(1));
    }
}

fn count(tier: u32, change: impl FnOnce(usize) -> usize) {
    let mut all = kept();
    let at = all.iter().position(|kept| kept.tier == tier).unwrap_or_else(|| {
        // Its keepers have gone; others may come while this one waits.
        all.push(Kept { tier, keepers: Vec::new(), wanting: 0 });
        all.len() - 1
    });
    all[at].wanting = change(all[at].wanting);
}
