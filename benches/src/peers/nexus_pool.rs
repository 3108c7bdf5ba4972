//! `nexus-pool`'s `sync` pool: a Treiber stack without a tag, safe only while a single thread allocates; any thread may
//! release. (Two allocating threads would meet the ABA problem, so workloads that need them leave it out.)

use ::nexus_pool::sync::{Pool, Pooled};

use crate::payload::Payload;
use crate::subject::{Able, Kind, Subject};

/// A `nexus_pool::sync::Pool` of `CAP` payloads.
pub struct NexusPool<T, const CAP: usize>(Pool<T>);

impl<T: Payload, const CAP: usize> Subject for NexusPool<T, CAP> {
    const NAME: &'static str = "nexus-pool";
    const KIND: Kind = Kind::Pool;
    const ABLE: Able = Able { several: false, refuse: true, shared: false };

    type Hand<'a> = &'a Pool<T>;
    type Held<'a> = Pooled<T>;

    fn build() -> Self {
        Self(Pool::new(CAP, T::fresh, |_| {}))
    }

    fn hand(&self) -> Self::Hand<'_> {
        &self.0
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Held<'a>> {
        hand.try_acquire()
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
