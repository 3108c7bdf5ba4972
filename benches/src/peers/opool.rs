//! `opool`: crossbeam's `ArrayQueue` of the objects themselves, each moved into its guard and back.

use ::opool::{Pool, PoolAllocator, RefGuard};

use crate::payload::Payload;
use crate::subject::{Able, Kind, Subject};

/// Makes the payloads of an [`Opool`].
pub struct Factory;

impl<T: Payload> PoolAllocator<T> for Factory {
    fn allocate(&self) -> T {
        T::fresh()
    }
}

/// An `opool::Pool` of `CAP` payloads.
pub struct Opool<T: Payload, const CAP: usize>(Pool<Factory, T>);

impl<T: Payload, const CAP: usize> Subject for Opool<T, CAP> {
    const NAME: &'static str = "opool";
    const KIND: Kind = Kind::Pool;
    const ABLE: Able = Able { several: true, refuse: true, shared: true };

    type Hand<'a> = &'a Pool<Factory, T>;
    type Held<'a> = RefGuard<'a, Factory, T>;

    fn build() -> Self {
        Self(Pool::new_prefilled(CAP, Factory))
    }

    fn hand(&self) -> Self::Hand<'_> {
        &self.0
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Held<'a>> {
        hand.try_get()
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
