//! What a cache gives: shared leases that tell who waits when they come out of use.

use std::fmt;
use std::ops::Deref;

use super::super::keepers;
use crate::slot::handle::Handle;
use crate::tier::core::Core;
use crate::tier::shared::SharedLease;

/// An entry of a [`Cache`](super::Cache) in use: dereferences to its value, which nobody can change, and pins it as long as it or a clone
/// of it is there: the cache does not evict it.
///
/// As a [`SharedLease`] it is `'static` and stays valid whatever becomes of the entry, the cache and the pool: the slot goes back when the
/// entry and all of these are gone. A clone and its drop cost an atomic addition each.
#[must_use = "an entry is pinned only as long as its lease is kept"]
pub struct CacheLease<T: 'static> {
    // In this order they are dropped: first the use ends, then it is told.
    lease: SharedLease<T>,
    end: End,
}

/// The end of a use.
#[derive(Clone)]
struct End(&'static Core);

impl Drop for End {
    #[inline(always)]
    fn drop(&mut self) {
        keepers::nudge(self.0);
    }
}

impl<T: 'static> CacheLease<T> {
    pub(super) fn new(lease: SharedLease<T>) -> Self {
        let end = End(lease.core());
        CacheLease { lease, end }
    }

    #[inline(always)]
    pub(super) fn core(&self) -> &'static Core {
        self.end.0
    }

    /// Ends this use without a word to who waits: for one that is given up for him.
    pub(super) fn end_untold(self) {
        let CacheLease { lease, end } = self;
        std::mem::forget(end);
        drop(lease);
    }

    /// How many there are of this entry, the cache's own among them.
    pub(super) fn sharers(&self) -> usize {
        self.lease.sharers()
    }

    /// The slot's present name, to be compared with what [`Pool::holders`](crate::Pool::holders) shows. It cannot be attached or read.
    pub fn handle(&self) -> Handle {
        self.lease.handle()
    }
}

impl<T: 'static> Clone for CacheLease<T> {
    /// One atomic addition.
    #[inline]
    fn clone(&self) -> Self {
        CacheLease { lease: self.lease.clone(), end: self.end.clone() }
    }
}

impl<T: 'static> Deref for CacheLease<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.lease
    }
}

impl<T: fmt::Debug + 'static> fmt::Debug for CacheLease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLease").field("slot", &self.handle()).field("value", &**self).finish()
    }
}
