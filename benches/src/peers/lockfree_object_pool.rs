//! `lockfree-object-pool`'s linear pool: a list of pages of 32 objects with a bitmap each. It grows and never refuses.

use ::lockfree_object_pool::{LinearObjectPool, LinearReusable};

use crate::payload::Payload;
use crate::subject::{Able, Kind, Subject};

/// A `LinearObjectPool`, grown to `CAP` payloads before it is timed.
pub struct LockfreeObjectPool<T, const CAP: usize>(LinearObjectPool<T>);

impl<T: Payload, const CAP: usize> Subject for LockfreeObjectPool<T, CAP> {
    const NAME: &'static str = "lockfree-object-pool";
    const KIND: Kind = Kind::Pool;
    const ABLE: Able = Able { several: true, refuse: false, shared: true };

    type Hand<'a> = &'a LinearObjectPool<T>;
    type Held<'a> = LinearReusable<'a, T>;

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
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Held<'a>> {
        Some(hand.pull())
    }

    #[inline(always)]
    fn touch<'a>(held: &mut Self::Held<'a>) {
        held.touch();
    }

    fn byte<'a>(_: &Self::Hand<'a>, held: &Self::Held<'a>) -> u8 {
        held.byte()
    }

    #[inline(always)]
    fn release<'a>(_: &mut Self::Hand<'a>, held: Self::Held<'a>) {
        drop(held);
    }
}
