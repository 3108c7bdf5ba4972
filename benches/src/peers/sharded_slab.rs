//! `sharded-slab`'s pool: a shard of pages for each thread, keys with generations. What is held is the key.
//!
//! One page of `CAP` slots in each shard makes a thread's shard refuse when it is full; but a thread can never take the
//! free slots of another's shard.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use ::sharded_slab::{Clear, Config, Pool};

use crate::payload::Payload;
use crate::subject::{Able, Kind, Subject};

/// One page of `CAP` slots a shard.
pub struct OnePage<const CAP: usize>(PhantomData<[(); CAP]>);

impl<const CAP: usize> Config for OnePage<CAP> {
    const MAX_PAGES: usize = 1;
    const INITIAL_PAGE_SIZE: usize = CAP.next_power_of_two();
}

/// A payload that needs no clearing.
pub struct Kept<T>(T);

impl<T> Deref for Kept<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Kept<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Payload> Default for Kept<T> {
    fn default() -> Self {
        Self(T::fresh())
    }
}

impl<T> Clear for Kept<T> {
    #[inline(always)]
    fn clear(&mut self) {}
}

/// A `sharded_slab::Pool` of `CAP` payloads for each thread.
pub struct ShardedSlab<T: Payload, const CAP: usize>(Pool<Kept<T>, OnePage<CAP>>);

impl<T: Payload, const CAP: usize> Subject for ShardedSlab<T, CAP> {
    const NAME: &'static str = "sharded-slab";
    const KIND: Kind = Kind::Pool;
    const ABLE: Able = Able { several: true, refuse: true, shared: false };

    type Hand<'a> = &'a Pool<Kept<T>, OnePage<CAP>>;
    type Held<'a> = usize;

    fn build() -> Self {
        Self(Pool::new_with_config())
    }

    fn hand(&self) -> Self::Hand<'_> {
        &self.0
    }

    /// Writes the byte as well: `create_with` is the one call that does both.
    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Held<'a>> {
        hand.create_with(|kept| kept.0.touch())
    }

    #[inline(always)]
    fn touch<'a>(_: &mut Self::Held<'a>) {}

    fn byte<'a>(hand: &Self::Hand<'a>, held: &Self::Held<'a>) -> u8 {
        hand.get(*held).expect("a held slot").0.byte()
    }

    #[inline(always)]
    fn release<'a>(hand: &mut Self::Hand<'a>, held: Self::Held<'a>) {
        hand.clear(held);
    }
}
