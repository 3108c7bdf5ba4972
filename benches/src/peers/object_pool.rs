//! `object-pool`: a `parking_lot` mutex around a `Vec`.

use ::object_pool::{Pool, Reusable};

use crate::payload::Payload;
use crate::subject::{Able, Guards};

/// An `object_pool::Pool` of `CAP` payloads.
pub struct ObjectPool<T, const CAP: usize>(Pool<T>);

impl<T: Payload, const CAP: usize> Guards for ObjectPool<T, CAP> {
    const NAME: &'static str = "object-pool";
    const ABLE: Able = Able { several: true, refuse: true, shared: true };

    type Payload = T;
    type Hand<'a> = &'a Pool<T>;
    type Guard<'a> = Reusable<'a, T>;

    fn build() -> Self {
        Self(Pool::new(CAP, T::fresh))
    }

    fn hand(&self) -> Self::Hand<'_> {
        &self.0
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Guard<'a>> {
        hand.try_pull()
    }
}
