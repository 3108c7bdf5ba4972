//! A tier for each size class of a trace. This is the only file of the program that calls tierpool.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tierpool::{BuildError, Handle, HandleError, Lease, Tier};

use crate::classes::Class;
use crate::trace::Trace;
use crate::units;

/// What a tier hands out: as many bytes as its class has.
pub type Payload = Box<[u8]>;

/// How many slots each size class gets.
#[derive(Clone, Debug)]
pub struct Plan {
    slots: BTreeMap<Class, usize>,
}

/// Why the tiers for a trace cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TiersError {
    /// They would take too much memory.
    #[error(
        "the slots for this trace would take {}, more than the {} that are allowed; \
         raise that with --memory, or use fewer slots with --capacity",
        units::bytes(*needed), units::bytes(*allowed)
    )]
    TooMuchMemory {
        /// Bytes of all slots.
        needed: u64,
        /// The most that they may be.
        allowed: u64,
    },
    /// A tier could not be built.
    #[error("the tier of {class} slots could not be built: {source}")]
    Build {
        /// The tier's name.
        class: &'static str,
        /// Why.
        source: BuildError,
    },
}

impl Plan {
    /// The plan for `threads` replays of a trace at the same time: `capacity` slots a class, or as many as the trace
    /// ever has in use together, times the threads.
    ///
    /// # Errors
    /// Returns [`TiersError::TooMuchMemory`] if the slots would take more than `memory` bytes.
    pub fn new(trace: &Trace, capacity: Option<usize>, threads: usize, memory: u64) -> Result<Plan, TiersError> {
        let slots: BTreeMap<Class, usize> = trace
            .peaks()
            .iter()
            .map(|&(class, peak)| {
                let peak = usize::try_from(peak).unwrap_or(usize::MAX).saturating_mul(threads);
                (class, capacity.unwrap_or(peak))
            })
            .collect();
        let plan = Plan { slots };
        let needed = plan.payload_bytes();
        if needed > memory {
            return Err(TiersError::TooMuchMemory { needed, allowed: memory });
        }
        Ok(plan)
    }

    /// Bytes of all slots.
    pub fn payload_bytes(&self) -> u64 {
        let bytes = |(class, &slots): (&Class, &usize)| class.bytes().saturating_mul(slots as u64);
        self.slots.iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// All slots.
    pub fn slots(&self) -> u64 {
        self.slots.values().map(|&slots| slots as u64).sum()
    }

    /// How many tiers there are.
    pub fn tiers(&self) -> usize {
        self.slots.len()
    }
}

/// The tiers.
pub struct Tiers {
    by_class: Vec<Option<Tier<Payload>>>,
}

/// An allocation's name, kept so that it can be released once too often.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    class: Class,
    handle: Handle,
}

/// What the tiers themselves have counted, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Slots in somebody's hands now.
    pub leased: u64,
    /// Allocations served.
    pub allocations: u64,
    /// Allocations given back.
    pub releases: u64,
    /// Allocations served from a thread's own magazine.
    pub hits: u64,
    /// Allocations refused.
    pub refusals: u64,
}

impl Tiers {
    /// Builds every tier, with all its slots.
    ///
    /// # Errors
    /// Returns [`TiersError::Build`] if tierpool refuses.
    pub fn build(plan: &Plan) -> Result<Tiers, TiersError> {
        let mut by_class: Vec<Option<Tier<Payload>>> = (0..Class::COUNT).map(|_| None).collect();
        for (&class, &slots) in &plan.slots {
            let bytes = class.bytes() as usize;
            let tier = Tier::<Payload>::builder(class.name())
                .capacity(slots)
                .build_with(move || vec![0; bytes].into_boxed_slice())
                .map_err(|source| TiersError::Build { class: class.name(), source })?;
            by_class[class.index()] = Some(tier);
        }
        Ok(Tiers { by_class })
    }

    /// Puts a slot of the class that holds `size` bytes into a place and writes one byte to it; none if the tier refuses.
    ///
    /// The place is given and not the lease returned so that the lease's words are written once, where they stay: moved
    /// from hand to hand, they are written in parts and read as a whole, for which the processor has to wait.
    #[inline(always)]
    pub fn allocate<'a>(&self, size: u32, place: &'a mut Option<Lease<Payload>>) -> Option<&'a Lease<Payload>> {
        let tier = self.by_class[Class::of(size).index()].as_ref()?;
        let lease = place.insert(tier.try_allocate().ok()?);
        lease[0] = 1;
        Some(lease)
    }

    /// The name of an allocation of `size` bytes.
    pub fn watch(lease: &Lease<Payload>, size: u32) -> Watched {
        Watched { class: Class::of(size), handle: lease.handle() }
    }

    /// Releases once more what has been released. True if tierpool catches it, as it must.
    pub fn catches(&self, watched: Watched) -> bool {
        let Some(tier) = &self.by_class[watched.class.index()] else { return false };
        matches!(tier.release(watched.handle), Err(HandleError::Stale { .. }))
    }

    /// What the tiers have counted.
    pub fn totals(&self) -> Totals {
        self.each().map(Tier::snapshot).fold(Totals::default(), |totals, snapshot| Totals {
            leased: totals.leased + snapshot.leased as u64,
            allocations: totals.allocations + snapshot.allocations,
            releases: totals.releases + snapshot.releases,
            hits: totals.hits + snapshot.hits,
            refusals: totals.refusals + snapshot.refusals,
        })
    }

    /// Bytes that the tiers take beside their slots.
    pub fn overhead_bytes(&self) -> u64 {
        self.each().map(|tier| tier.overhead_bytes() as u64).sum()
    }

    /// Lets the tiers know what time it is. Without a background thread, somebody has to.
    pub fn tick() {
        tierpool::clock::tick();
    }

    /// Closes every tier, which drops all their slots, and says how long that took.
    pub fn close(self) -> Duration {
        let start = Instant::now();
        self.each().for_each(Tier::close);
        drop(self);
        start.elapsed()
    }

    fn each(&self) -> impl Iterator<Item = &Tier<Payload>> {
        self.by_class.iter().flatten()
    }
}
