//! `nexus-pool`'s `sync` pool: a Treiber stack without a tag, safe only while a single thread allocates; any thread may
//! release. (Two allocating threads would meet the ABA problem, so workloads that need them leave it out.)

use ::nexus_pool::sync::{Pool, Pooled};

use crate::payload::Payload;
use crate::subject::{Able, Guards};

/// A `nexus_pool::sync::Pool` of `CAP` payloads.
pub struct NexusPool<T, const CAP: usize>(Pool<T>);

impl<T: Payload, const CAP: usize> Guards for NexusPool<T, CAP> {
    const NAME: &'static str = "nexus-pool";
    const ABLE: Able = Able { several: false, refuse: true, shared: false };

    type Payload = T;
    type Hand<'a> = &'a Pool<T>;
    type Guard<'a> = Pooled<T>;

    fn build() -> Self {
        Self(Pool::new(CAP, T::fresh, |_| {}))
    }

    fn hand(&self) -> Self::Hand<'_> {
        &self.0
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Guard<'a>> {
        hand.try_acquire()
    }
}
