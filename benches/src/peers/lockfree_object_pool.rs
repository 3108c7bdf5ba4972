//! `lockfree-object-pool`'s linear pool: a list of pages of 32 objects with a bitmap each. It grows and never refuses.

use ::lockfree_object_pool::{LinearObjectPool, LinearReusable};

use crate::payload::Payload;
use crate::subject::{Able, Guards};

/// A `LinearObjectPool`, grown to `CAP` payloads before it is timed.
pub struct LockfreeObjectPool<T, const CAP: usize>(LinearObjectPool<T>);

impl<T: Payload, const CAP: usize> Guards for LockfreeObjectPool<T, CAP> {
    const NAME: &'static str = "lockfree-object-pool";
    const ABLE: Able = Able { several: true, refuse: false, shared: true };

    type Payload = T;
    type Hand<'a> = &'a LinearObjectPool<T>;
    type Guard<'a> = LinearReusable<'a, T>;

    fn build() -> Self {
        let pool = LinearObjectPool::new(T::fresh, |_| {});
        // A search from the first page for each of a million would take minutes: the memory workload
        // takes them all anyway, and one page more or less matters to no other.
        if CAP <= 1 << 16 {
            drop((0..CAP).map(|_| pool.pull()).collect::<Vec<_>>());
        }
        Self(pool)
    }

    fn hand(&self) -> Self::Hand<'_> {
        &self.0
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Guard<'a>> {
        Some(hand.pull())
    }
}
