//! All subjects. A workload visits each of them with its type, so that what it times is monomorphised.

use std::alloc::System;

use mimalloc::MiMalloc;
use tikv_jemallocator::Jemalloc;

use crate::ours::{Magazine, Tierpool, Watched};
use crate::payload::Payload;
use crate::peers::deadpool::Deadpool;
use crate::peers::heap::Heap;
use crate::peers::lockfree_object_pool::LockfreeObjectPool;
use crate::peers::nexus_pool::NexusPool;
use crate::peers::object_pool::ObjectPool;
use crate::peers::opool::Opool;
use crate::peers::sharded_slab::ShardedSlab;
use crate::subject::Subject;

/// Called once for each subject.
pub trait Visit {
    /// Is shown `S`.
    fn visit<S: Subject>(&mut self);
}

/// Shows all subjects with `CAP` payloads `T`: ours, the pools, the allocators.
pub fn each<T: Payload, const CAP: usize>(visit: &mut impl Visit) {
    visit.visit::<Tierpool<T, CAP>>();
    visit.visit::<Magazine<T, CAP>>();
    visit.visit::<Watched<T, CAP>>();
    visit.visit::<LockfreeObjectPool<T, CAP>>();
    visit.visit::<ShardedSlab<T, CAP>>();
    visit.visit::<ObjectPool<T, CAP>>();
    visit.visit::<Opool<T, CAP>>();
    visit.visit::<Deadpool<T, CAP>>();
    visit.visit::<NexusPool<T, CAP>>();
    visit.visit::<Heap<System, T>>();
    visit.visit::<Heap<Jemalloc, T>>();
    visit.visit::<Heap<MiMalloc, T>>();
    #[cfg(feature = "snmalloc")]
    visit.visit::<Heap<snmalloc_rs::SnMalloc, T>>();
}
