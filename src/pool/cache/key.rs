//! Keys: hashed once, and never found by another tenant than theirs.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, Hasher};

use quick_cache::Equivalent;

/// The name of an entry.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Id<K> {
    Of {
        /// The key's; that of nobody's entry.
        hash: u64,
        /// Who sees it.
        tenant: u16,
        key: K,
    },
    /// What makes room: see [`Part::make_room`](super::shelf::Part::make_room).
    Room,
}

/// An entry that is looked for.
pub(super) struct Sought<'q, Q: ?Sized> {
    pub(super) hash: u64,
    pub(super) tenant: u16,
    pub(super) key: &'q Q,
}

impl<'q, Q: ?Sized> Sought<'q, Q> {
    pub(super) fn to_id<K>(&self) -> Id<K>
    where
        Q: ToOwned<Owned = K>,
    {
        Id::Of { hash: self.hash, tenant: self.tenant, key: self.key.to_owned() }
    }
}

impl<K> Id<K> {
    pub(super) fn hash(&self) -> u64 {
        match self {
            Id::Of { hash, .. } => *hash,
            Id::Room => 0,
        }
    }

    /// Whose it is. What makes room is nobody's, and nobody asks.
    pub(super) fn tenant(&self) -> u16 {
        match self {
            Id::Of { tenant, .. } => *tenant,
            Id::Room => 0,
        }
    }
}

impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.hash());
    }
}

impl<Q: ?Sized> Hash for Sought<'_, Q> {
    #[inline(always)]
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.hash);
    }
}

impl<Q: Eq + ?Sized, K: Borrow<Q>> Equivalent<Id<K>> for Sought<'_, Q> {
    #[inline(always)]
    fn equivalent(&self, id: &Id<K>) -> bool {
        match id {
            Id::Of { tenant, key, .. } => *tenant == self.tenant && key.borrow() == self.key,
            Id::Room => false,
        }
    }
}

/// Takes the hash that a key has been given already.
#[derive(Clone, Copy, Default)]
pub(super) struct Known(u64);

impl BuildHasher for Known {
    type Hasher = Known;

    #[inline(always)]
    fn build_hasher(&self) -> Known {
        Known(0)
    }
}

impl Hasher for Known {
    #[inline(always)]
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("entries are hashed by their key's hash alone")
    }
}

/// The hash of a key that a tenant looks for.
#[inline(always)]
pub(super) fn hash_of<Q: Hash + ?Sized>(hasher: &impl BuildHasher, tenant: u16, key: &Q) -> u64 {
    // Tenants' equal keys lie in different places; they are told apart by comparison all the same.
    hasher.hash_one(key) ^ u64::from(tenant).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
