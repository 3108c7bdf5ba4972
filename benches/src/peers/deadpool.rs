//! `deadpool`'s unmanaged pool: a mutex around a `Vec`, behind a semaphore. Its synchronous `try_get` is used.

use deadpool::unmanaged::{Object, Pool};

use crate::payload::Payload;
use crate::subject::{Able, Guards};

/// A `deadpool::unmanaged::Pool` of `CAP` payloads.
pub struct Deadpool<T, const CAP: usize>(Pool<T>);

impl<T: Payload, const CAP: usize> Guards for Deadpool<T, CAP> {
    const NAME: &'static str = "deadpool";
    const ABLE: Able = Able { several: true, refuse: true, shared: true };

    type Payload = T;
    type Hand<'a> = &'a Pool<T>;
    type Guard<'a> = Object<T>;

    fn build() -> Self {
        Self(Pool::from((0..CAP).map(|_| T::fresh()).collect::<Vec<_>>()))
    }

    fn hand(&self) -> Self::Hand<'_> {
        &self.0
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Guard<'a>> {
        hand.try_get().ok()
    }
}
