//! The chain of dirty and of retired slots: who takes a slot off it is alone with it (guarantee 1), and none is lost (4).
#![cfg(loom)]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use tierpool::internals::Slots;
use tierpool_loom::{explore, spawn};

/// Guarantee 1. A thread is stopped between its look at the head and its exchange, while another takes two slots and
/// adds one of them again: the head names the same slot, but what was next is not in the chain any more.
///
/// Guards the tag in `chain::Head`.
#[test]
fn a_head_that_comes_back_is_another() {
    explore(3, || {
        let slots = Arc::new(Slots::new(3).unwrap());
        (0..3).for_each(|index| slots.add(index));
        let other = {
            let slots = Arc::clone(&slots);
            spawn(move || slots.take())
        };
        let (first, second) = (slots.take().unwrap(), slots.take());
        slots.add(first);
        let theirs = other.join().unwrap();
        let rest = std::iter::from_fn(|| slots.take());
        let mut all: Vec<_> = theirs.into_iter().chain(second).chain(rest).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2], "each slot is in one hand");
    });
}

/// Guarantees 1 and 4. Two threads take while a third adds: each slot goes to one, and who takes it sees what was done to it.
///
/// Guards the exchanges in `chain::Chain::add` and `take`, the Release of the first and the Acquire of the second.
#[test]
fn a_slot_comes_with_its_value() {
    explore(2, || {
        let chain = Arc::new(Watched::new(2));
        chain.add(0);
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let chain = Arc::clone(&chain);
                spawn(move || chain.take())
            })
            .collect();
        chain.add(1);
        let mut all: Vec<_> = takers.into_iter().filter_map(|taker| taker.join().unwrap()).collect();
        all.extend(std::iter::from_fn(|| chain.take()));
        all.sort_unstable();
        assert_eq!(all, [0, 1], "each slot goes to one");
    });
}

/// A chain of slots with values, which their holders write.
struct Watched {
    slots: Slots,
    values: Vec<UnsafeCell<usize>>,
}

// SAFETY: a value is reached by who is about to add its slot, or has taken it; loom fails the model if there are two.
unsafe impl Sync for Watched {}
// SAFETY: as above.
unsafe impl Send for Watched {}

impl Watched {
    fn new(slots: usize) -> Self {
        Watched { slots: Slots::new(slots).unwrap(), values: (0..slots).map(|_| UnsafeCell::new(0)).collect() }
    }

    fn touch(&self, index: u32) {
        // SAFETY: see above.
        self.values[index as usize].with_mut(|value| unsafe { *value += 1 });
    }

    fn add(&self, index: u32) {
        self.touch(index);
        self.slots.add(index);
    }

    fn take(&self) -> Option<u32> {
        let index = self.slots.take()?;
        self.touch(index);
        Some(index)
    }
}
