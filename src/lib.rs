//! Pre-sized resources, handed out in a few nanoseconds to any thread, without locks, and never lost from sight.
//!
//! A [`Tier`] is a fixed set of equal slots, each with a value of your type. Allocating one costs about as much as two
//! uncontended atomic additions; what you get is a [`Lease`], which gives the slot back when it is dropped. For
//! market-data gateways, packet and audio paths, game servers, databases and model-serving engines: wherever `malloc`'s tail
//! latency hurts and the home-made free list has never been verified.
//!
//! ```
//! use tierpool::{HandleError, Tier};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let frames: Tier<Vec<u8>> = Tier::builder("frames").capacity(1024).build_with(|| vec![0u8; 4096])?;
//!
//! let mut frame = frames.try_allocate()?;              // any thread; never waits
//! frame[..5].copy_from_slice(b"hello");
//!
//! let handle = frame.detach();                         // 16 bytes, Copy: through a channel, a map, C code
//! let frame = frames.attach(handle)?;                  // exactly one wins
//! assert_eq!(&frame[..5], b"hello");
//!
//! let handle = frame.detach();
//! frames.release(handle)?;
//! let twice = frames.release(handle);                  // caught, and it says who was first
//! assert!(matches!(twice, Err(HandleError::Stale { released_at: Some(_), .. })));
//!
//! let _leaked = frames.try_allocate()?;
//! for holder in frames.holders() {                     // who has it, since when, from which line?
//!     println!("{holder}");
//! }
//! # Ok(()) }
//! ```
//!
//! # What holds
//! - **A slot is never in two hands**, and a handle acts on its own use of the slot or returns an error. Generations have
//!   60 bits: at one release every 5 ns they last 180 years.
//! - **No false exhaustion.** [`Tier::try_allocate`] refuses only if there was a moment during the call at which no slot was
//!   free anywhere; slots that idle or stopped threads have at hand count as free, and are found.
//! - **No waiting.** A thread stopped anywhere, by the scheduler or a debugger, stops nobody else.
//! - **Nothing is lost.** At every quiet point the states add up to the capacity, after any panics, thread exits, forgotten
//!   leases and drops in any order. Leases outlive their tier; each value is dropped exactly once.
//!
//! Each of these has loom models, stress tests under sanitizers and fuzz targets: `loom-tests/README.md` in the repository
//! names them. The design is told in [`docs::architecture`], the figures and how to rerun them stand in
//! [`docs::benchmarks`].
//!
//! # Beside handing out
//! Off until asked for: [waiting](Tier::allocate) in threads and futures, [sharing](Lease::share) under pins and by
//! [`SharedLease`]s, and all that [`TierBuilder`] says of a value's life: checks, ages, cleaning, rebuilding with back-off,
//! handles that expire, leaks that are reported, growth and shrinking. [`docs::leases`] tells which kind of ownership to take when.
//!
//! # Several tiers
//! A [`Pool`] routes each [`Request`] to the smallest tier that fits, or to the one that it names: [`Memory`] for tenants who do not see each
//! other's bytes, cores ([`Cpu`]) and disk space ([`Extent`]), spilling over to larger tiers or to the system, groups without deadlock, reservations, rates, and growth by them. A
//! [`Prepared`] request costs what its tier costs. [`docs::configuration`] lists every option, in code and in TOML;
//! [`docs::allocation_strategies`] tells what each rule for scarce slots promises and costs, and when not to use it.
//!
//! # Again and again
//! A slot that was used last is at hand for whoever wants one next. Where it matters what is in it, `Pool::cache` finds slots by key, with their
//! content, and gives them up before anybody is refused: `docs::caching` (feature `cache`, on by default).
//!
//! # Several pools
//! A [`TaskRouter`] sends [`Task`]s, which hold several resources for their life, to [`Node`]s: pools under a name, one a NUMA node, say. It
//! takes what they need, all or nothing, and explains each decision. [`docs::routing`] says what each policy promises.
//!
//! # Seeing it
//! [`Pool::observe`] looks at a pool once a second: rates, who holds how much by line, what grew, which lines leak. With the feature `serve` a `Server`
//! shows it on a page and as JSON: [`docs::live_view`].
//!
//! # When not to use it
//! - The number of objects in use has no bound that you could name: use an allocator.
//! - Objects of many sizes with short lives: use an arena (`bumpalo`) or an allocator.
//! - One thread only: a `Vec` of objects is faster.
//! - Objects that are looked up by key while others change them: that is a map (`papaya`) or a slab (`sharded-slab`).
//!
//! # Reading the source
//! In the order of the layers, each of which knows only those before it: `sync` (atomics, the light and the heavy fence,
//! memory that is never unmapped), `slot` (the state word, the header, the handle), `tier` (its `mod.rs` names its files in
//! reading order), `machine` (what the system says), `resource` (what tiers of a pool hold), `admission` (who gets what), `pool`, `host` (the
//! machine around a pool, its health, and where a task runs), `view` (what people see of it). Beside them: [`clock`], `thread` (names
//! for reports) and `error`.

mod admission;
pub mod clock;
mod error;
mod host;
#[cfg(loom)]
#[doc(hidden)]
pub mod internals;
mod machine;
mod pool;
mod resource;
mod slot;
mod sync;
mod thread;
mod tier;
#[cfg(any(feature = "prometheus", feature = "serve"))]
mod view;

pub use admission::banker::{Banker, ClaimError, ClaimId, Grant};
pub use admission::breaker::factory::FactoryError;
pub use admission::breaker::report::{BreakerCause, BreakerChanges, BreakerEvent, BreakerOpen, BreakerStatus};
pub use admission::breaker::rules::{BreakerRules, RuleError};
pub use admission::breaker::window::BreakerWindow;
pub use admission::breaker::word::BreakerState;
pub use admission::breaker::{Breaker, Outcome, Pass};
pub use admission::fairness::{DominantShares, FairQueue, jain_index};
pub use admission::line::Fairness;
pub use admission::order::{Holdings, OrderError, TierIndex};
pub use admission::priority::{ByPriority, Priority, Watermarks};
pub use admission::tenants::{Limit, QuotaError, QuotaRules, Tenant, TenantRules, Unit};
pub use admission::waits_for::{SessionId, WaitEdge, WaitsFor};
pub use error::{AllocateError, BuildError, CloseError, Exhausted, GrowError, HandleError};
pub use host::detector::{CurrentResources, DetectorBuilder, ResourceDetector, ResourceReader};
pub use host::health::{HealthBuilder, HealthError, HealthMonitor, HealthStatus};
pub use host::issue::{IssueState, ResourceIssue, ResourceMetrics, Severity, Signal};
pub use host::level::Health;
pub use host::node::{LocalNodes, Node, NodeError, NodePool, NodeSource};
pub use host::offer::{Offer, TenantOffer, TierOffer};
pub use host::placement::Placement;
pub use host::policy::Policy;
pub use host::resources::{
    CpuResources, DiskResources, Figure, FileSystemFigures, MemoryResources, PressureResources, ResourceAvailability,
    Stall, SystemResources,
};
pub use host::route::{Rejected, Rejection, Route, RouteError, RouteReason, RouteRule, WhyNot};
pub use host::router::TaskRouter;
pub use host::task::Task;
pub use host::threshold::Threshold;
pub use machine::affinity::PinError;
pub use pool::Pool;
pub use pool::builder::PoolBuilder;
#[cfg(all(feature = "cache", not(loom)))]
pub use pool::cache::{
    Cache,
    builder::CacheBuilder,
    counts::CacheSnapshot,
    error::{CacheBuildError, CacheError},
    lease::CacheLease,
};
pub use pool::error::{PoolError, ReleaseError, RequestError, ShortName};
pub use pool::future::Allocation;
pub use pool::group::{Group, GroupLeases};
pub use pool::history::Rates;
pub use pool::metrics::{PoolMetrics, Quantiles, TierMetrics};
pub use pool::monitor::{ResourceStatus, TenantStatus, TierStatus};
pub use pool::observe::{Observation, Observer, TierTrend};
pub use pool::optimize::{Change, Decision, Reason};
pub use pool::prepared::Prepared;
pub use pool::reasons::{RefusalReason, Refusals};
pub use pool::request::{Request, Spill, TenantName};
pub use pool::reservation::Reservation;
pub use pool::resource_pool::{
    AsyncResourcePool, BoxFuture, CustomLease, Resource, ResourcePool, ResourceRequest, Wanted,
};
pub use pool::rows::TierKind;
pub use pool::session::{Session, SessionLease};
pub use pool::tiers::{CpuTier, DiskTier, MemoryTier};
pub use pool::uses::LabelUse;
pub use pool::waits::Waits;
pub use resource::backing::{HugePages, MemoryError, MemoryStatus};
pub use resource::cpu::{Cpu, CpuError};
pub use resource::disk::Extent;
pub use resource::memory::{Memory, NoMemory, Scrub};
pub use resource::scratch::{DiskError, Zeroing};
#[cfg(feature = "bytemuck")]
pub use resource::typed::ViewError;
pub use slot::handle::Handle;
pub use slot::word::State;
pub use sync::fence::{FenceKind, fence_kind};
pub use tier::Tier;
pub use tier::builder::TierBuilder;
pub use tier::bulk::{IntoIter, Iter, IterMut, Leases};
pub use tier::census::{HoldersBySite, HoldersGrowth, SiteGrowth, SiteHolders};
pub use tier::future::Allocate;
pub use tier::latency::Latency;
pub use tier::lease::Lease;
pub use tier::local::Local;
pub use tier::notice::Report;
pub use tier::pin::Pin;
pub use tier::reclaim::{Reclaimed, Reclaimer};
pub use tier::report::{Holder, Snapshot};
pub use tier::shared::SharedLease;
pub use tier::suspect::Suspect;
pub use tier::verdict::Verdict;
#[cfg(feature = "prometheus")]
pub use view::exposition::{Exporter, TextFormat};
#[cfg(feature = "serve")]
pub use view::server::{ServeError, Server, ServerBuilder};

/// The documents of the repository, compiled with the code.
pub mod docs {
    #[doc = include_str!("../docs/architecture.md")]
    pub mod architecture {}
    #[doc = include_str!("../docs/leases.md")]
    pub mod leases {}
    #[doc = include_str!("../docs/allocation-strategies.md")]
    pub mod allocation_strategies {}
    #[doc = include_str!("../docs/configuration.md")]
    pub mod configuration {}
    #[cfg(all(feature = "cache", not(loom)))]
    #[doc = include_str!("../docs/caching.md")]
    pub mod caching {}
    #[doc = include_str!("../docs/routing.md")]
    pub mod routing {}
    #[doc = include_str!("../docs/live-view.md")]
    pub mod live_view {}
    #[doc = include_str!("../docs/operations.md")]
    pub mod operations {}
    #[doc = include_str!("../docs/monitoring.md")]
    pub mod monitoring {}
    #[doc = include_str!("../docs/troubleshooting.md")]
    pub mod troubleshooting {}
    #[doc = include_str!("../docs/benchmarks.md")]
    pub mod benchmarks {}
}

/// The README's examples are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// Whether everything is left out that tells who allocated what, to measure what that costs: the feature `bare`, which has no effect
/// beside `config`, so that a build with all features is a whole one.
pub(crate) const BARE: bool = cfg!(all(feature = "bare", not(feature = "config")));
