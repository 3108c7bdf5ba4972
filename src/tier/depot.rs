//! The depot: where threads exchange batches of hints.
//!
//! A tagged Treiber stack of small arrays, and a second one of the empty arrays. Both are allocated with the control
//! block, so exchanging needs no memory and nobody ever waits: a thread stopped anywhere in here stops no other, and
//! takes at most the one batch it was moving out of sight, whose slots a scan still finds by their words.
//!
//! The tag next to the head's index has 40 bits and grows with each push and pop, so that a thread stopped between
//! its load and its compare-exchange is not deceived by a head that left and came back: at 100 ns an exchange of
//! batches the tag comes round after 30 hours, and even then must meet the same node.
//!
//! Hints are only hints. When no empty array is left, what was to be stored is dropped, and scans find the slots.
//!
//! `crossbeam-deque` in this place is about as fast, but calls the system allocator when it grows, inside a release; see
//! `docs/architecture.md`.

use crossbeam_utils::CachePadded;

use crate::sync::arena::{Zeroed, zeroed_slice};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Hints in a batch: as many as fill two cache lines with a node's two other words.
pub(crate) const BATCH: usize = if cfg!(loom) { 1 } else { 30 };

/// The bits of a stack's head that hold a node's number (from 1; 0 is the end). The rest is the tag.
const NODE_BITS: u32 = 24;
const NODE_MASK: u64 = (1 << NODE_BITS) - 1;

/// The most slots whose hints fit into the nodes that a head can name.
pub(crate) const MAX_SLOTS: usize = 1 << 27;

/// A batch of slot indices, or an empty one.
#[repr(C, align(128))]
struct Node {
    next: AtomicU32,
    len: AtomicU32,
    hints: [AtomicU32; BATCH],
}

// SAFETY: zeros are an empty, unlinked node; nothing needs `Drop`.
unsafe impl Zeroed for Node {
    #[cfg(loom)]
    fn zeroed() -> Self {
        Node { next: AtomicU32::new(0), len: AtomicU32::new(0), hints: std::array::from_fn(|_| AtomicU32::new(0)) }
    }
}

/// A Treiber stack of nodes by number.
struct Stack(CachePadded<AtomicU64>);

/// See the module's header.
pub(crate) struct Depot {
    nodes: &'static [Node],
    full: Stack,
    empty: Stack,
    /// Nodes from this one on have never been used.
    fresh: CachePadded<AtomicU32>,
}

impl Stack {
    fn new() -> Self {
        Stack(CachePadded::new(AtomicU64::new(0)))
    }

    fn push(&self, nodes: &[Node], number: u32) {
        let mut head = self.0.load(Ordering::Relaxed);
        loop {
            nodes[number as usize - 1].next.store((head & NODE_MASK) as u32, Ordering::Relaxed);
            // Release: pairs with the Acquire in `pop`; the node's contents come before its place in the stack.
            match self.0.compare_exchange_weak(head, successor(head, number), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    fn pop(&self, nodes: &[Node]) -> Option<u32> {
        // Acquire: pairs with the Release in `push`, here and on failure below: `next` is read from the node.
        let mut head = self.0.load(Ordering::Acquire);
        loop {
            let number = (head & NODE_MASK) as u32;
            if number == 0 {
                return None;
            }
            // May be another's by now, and then of no use; the tag makes the exchange fail. Nodes are never freed.
            let next = nodes[number as usize - 1].next.load(Ordering::Relaxed);
            match self.0.compare_exchange_weak(head, successor(head, next), Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(number),
                Err(now) => head = now,
            }
        }
    }
}

/// The head that follows `head` and names `number`: the tag goes on.
fn successor(head: u64, number: u32) -> u64 {
    ((head & !NODE_MASK).wrapping_add(1 << NODE_BITS)) | u64::from(number)
}

impl Depot {
    /// A depot for the hints of `slots` slots; `None` if there is no memory.
    pub(crate) fn new(slots: usize) -> Option<Self> {
        // Twice what all hints fill, since stale copies lie about too, and some for batches of one.
        let nodes = if cfg!(loom) { slots + 2 } else { 2 * slots.div_ceil(BATCH) + 64 };
        Some(Depot {
            nodes: zeroed_slice(nodes)?,
            full: Stack::new(),
            empty: Stack::new(),
            fresh: CachePadded::new(AtomicU32::new(0)),
        })
    }

    /// Stores a batch of at most [`BATCH`] hints. False if there was no room: they are forgotten.
    pub(crate) fn store(&self, hints: impl ExactSizeIterator<Item = u32>) -> bool {
        debug_assert!(hints.len() <= BATCH);
        if hints.len() == 0 {
            return true;
        }
        let Some(number) = self.empty_node() else { return false };
        let node = &self.nodes[number as usize - 1];
        node.len.store(hints.len() as u32, Ordering::Relaxed);
        for (place, hint) in node.hints.iter().zip(hints) {
            place.store(hint, Ordering::Relaxed);
        }
        self.full.push(self.nodes, number);
        true
    }

    /// Takes a batch out, shows its hints to `soon` and then to `each`. False if the depot is empty.
    pub(crate) fn take(&self, soon: impl Fn(u32), mut each: impl FnMut(u32)) -> bool {
        let Some(number) = self.full.pop(self.nodes) else { return false };
        let node = &self.nodes[number as usize - 1];
        let len = (node.len.load(Ordering::Relaxed) as usize).min(BATCH);
        for hint in &node.hints[..len] {
            soon(hint.load(Ordering::Relaxed));
        }
        for hint in &node.hints[..len] {
            each(hint.load(Ordering::Relaxed));
        }
        self.empty.push(self.nodes, number);
        true
    }

    /// Forgets all hints: a new tier moves in.
    pub(crate) fn clear(&self) {
        while self.take(|_| {}, |_| {}) {}
    }

    /// Bytes of the nodes that have been used.
    pub(crate) fn bytes(&self) -> usize {
        (self.fresh.load(Ordering::Relaxed) as usize).min(self.nodes.len()) * size_of::<Node>()
    }

    /// An empty node: a used one before a fresh one, so that no more memory is touched than was needed.
    fn empty_node(&self) -> Option<u32> {
        if let Some(number) = self.empty.pop(self.nodes) {
            return Some(number);
        }
        let mut fresh = self.fresh.load(Ordering::Relaxed);
        while (fresh as usize) < self.nodes.len() {
            // Relaxed: a fresh node holds nothing that anybody wrote.
            match self.fresh.compare_exchange_weak(fresh, fresh + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(fresh + 1),
                Err(now) => fresh = now,
            }
        }
        None
    }
}
