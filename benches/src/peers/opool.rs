//! `opool`: crossbeam's `ArrayQueue` of the objects themselves, each moved into its guard and back.

use ::opool::{Pool, PoolAllocator, RefGuard};

use crate::payload::Payload;
use crate::subject::{Able, Guards};

/// Makes the payloads of an [`Opool`].
pub struct Factory;

impl<T: Payload> PoolAllocator<T> for Factory {
    fn allocate(&self) -> T {
        T::fresh()
    }
}

/// An `opool::Pool` of `CAP` payloads.
pub struct Opool<T: Payload, const CAP: usize>(Pool<Factory, T>);

impl<T: Payload, const CAP: usize> Guards for Opool<T, CAP> {
    const NAME: &'static str = "opool";
    const ABLE: Able = Able { several: true, refuse: true, shared: true };

    type Payload = T;
    type Hand<'a> = &'a Pool<Factory, T>;
    type Guard<'a> = RefGuard<'a, Factory, T>;

    fn build() -> Self {
        Self(Pool::new_prefilled(CAP, Factory))
    }

    fn hand(&self) -> Self::Hand<'_> {
        &self.0
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Guard<'a>> {
        hand.try_get()
    }
}
