//! Who holds what, counted by the holders themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tierpool::Priority;

/// Name, parent (an index in here), what it never may hold more of in slots and bytes.
pub const TENANTS: [(&str, Option<usize>, i64, i64); 8] = [
    ("firm", None, 120, i64::MAX),
    ("desk-a", Some(0), 60, i64::MAX),
    ("a1", Some(1), 25, i64::MAX),
    ("a2", Some(1), 40, 9_000),
    ("desk-b", Some(0), 80, 20_000),
    ("b1", Some(4), 12, i64::MAX),
    ("lone", None, 20, i64::MAX),
    ("free", None, i64::MAX, i64::MAX),
];

/// Name, bytes a slot (0: it is not memory), slots, and the least that `low` and `high` ever are.
pub const TIERS: [(&str, usize, usize, usize, usize); 4] =
    [("small", 64, 96, 4, 10), ("medium", 256, 48, 2, 6), ("large", 1024, 16, 1, 3), ("custom", 0, 32, 2, 4)];

/// A tenant and its ancestors.
pub fn up(tenant: Option<usize>) -> impl Iterator<Item = usize> {
    std::iter::successors(tenant, |&at| TENANTS[at].1)
}

#[derive(Debug, Default)]
pub struct Ledger {
    slots: [AtomicI64; TENANTS.len()],
    bytes: [AtomicI64; TENANTS.len()],
    /// By tier: what requests of priority Low hold, and those with Normal ones.
    low: [AtomicI64; TIERS.len()],
    ordinary: [AtomicI64; TIERS.len()],
}

/// An entry in the ledger, for as long as it lives.
pub struct Entry {
    ledger: Arc<Ledger>,
    tenant: Option<usize>,
    tier: usize,
    priority: Priority,
    bytes: i64,
}

impl Entry {
    pub fn new(ledger: &Arc<Ledger>, tenant: Option<usize>, tier: usize, priority: Priority, bytes: u64) -> Entry {
        let bytes = bytes as i64;
        for at in up(tenant) {
            let (name, _, most_slots, most_bytes) = TENANTS[at];
            let slots = ledger.slots[at].fetch_add(1, Ordering::SeqCst) + 1;
            check!(slots <= most_slots, "{name} holds {slots} slots, and may have {most_slots}");
            let bytes = ledger.bytes[at].fetch_add(bytes, Ordering::SeqCst) + bytes;
            check!(bytes <= most_bytes, "{name} holds {bytes} bytes, and may have {most_bytes}");
        }
        let (name, _, capacity, least_low, least_high) = TIERS[tier];
        if priority <= Priority::Normal {
            let held = ledger.ordinary[tier].fetch_add(1, Ordering::SeqCst) + 1;
            check!(held as usize <= capacity - least_low, "{name}: Low and Normal hold {held} of {capacity}");
        }
        if priority == Priority::Low {
            let held = ledger.low[tier].fetch_add(1, Ordering::SeqCst) + 1;
            check!(held as usize <= capacity - least_high, "{name}: Low holds {held} of {capacity}");
        }
        Entry { ledger: Arc::clone(ledger), tenant, tier, priority, bytes }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        for at in up(self.tenant) {
            self.ledger.slots[at].fetch_sub(1, Ordering::SeqCst);
            self.ledger.bytes[at].fetch_sub(self.bytes, Ordering::SeqCst);
        }
        if self.priority <= Priority::Normal {
            self.ledger.ordinary[self.tier].fetch_sub(1, Ordering::SeqCst);
        }
        if self.priority == Priority::Low {
            self.ledger.low[self.tier].fetch_sub(1, Ordering::SeqCst);
        }
    }
}
