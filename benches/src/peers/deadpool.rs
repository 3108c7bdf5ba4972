//! `deadpool`'s unmanaged pool: a mutex around a `Vec`, behind a semaphore. Its synchronous `try_get` is used.

use deadpool::unmanaged::{Object, Pool};

use crate::payload::Payload;
use crate::subject::{Able, Kind, Subject};

/// A `deadpool::unmanaged::Pool` of `CAP` payloads.
pub struct Deadpool<T, const CAP: usize>(Pool<T>);

impl<T: Payload, const CAP: usize> Subject for Deadpool<T, CAP> {
    const NAME: &'static str = "deadpool";
    const KIND: Kind = Kind::Pool;
    const ABLE: Able = Able { several: true, refuse: true, shared: true };

    type Hand<'a> = &'a Pool<T>;
    type Held<'a> = Object<T>;

    fn build() -> Self {
        Self(Pool::from((0..CAP).map(|_| T::fresh()).collect::<Vec<_>>()))
    }

    fn hand(&self) -> Self::Hand<'_> {
        &self.0
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Held<'a>> {
        hand.try_get().ok()
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
