//! `object-pool`: a `parking_lot` mutex around a `Vec`.

use ::object_pool::{Pool, Reusable};

use crate::payload::Payload;
use crate::subject::{Able, Kind, Subject};

/// An `object_pool::Pool` of `CAP` payloads.
pub struct ObjectPool<T, const CAP: usize>(Pool<T>);

impl<T: Payload, const CAP: usize> Subject for ObjectPool<T, CAP> {
    const NAME: &'static str = "object-pool";
    const KIND: Kind = Kind::Pool;
    const ABLE: Able = Able { several: true, refuse: true, shared: true };

    type Hand<'a> = &'a Pool<T>;
    type Held<'a> = Reusable<'a, T>;

    fn build() -> Self {
        Self(Pool::new(CAP, T::fresh))
    }

    fn hand(&self) -> Self::Hand<'_> {
        &self.0
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Held<'a>> {
        hand.try_pull()
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
