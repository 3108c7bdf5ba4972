//! The tiers that a pool builds itself, of memory, cores and disk space: what can be said of all of them, and of each.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::builder::at;
use super::error::PoolError;
use super::rows::{Row, TierKind};
use crate::admission::breaker::rules::BreakerRules;
use crate::admission::priority::Watermarks;
use crate::error::BuildError;
use crate::machine::cgroup::Groups;
use crate::machine::root::Root;
use crate::resource::backing::{Backing, HugePages, MemoryError};
use crate::resource::cpu::{self, Cores, Cpu};
use crate::resource::disk::Extent;
use crate::resource::memory::{Memory, Scrub};
use crate::resource::region::{self, Region};
use crate::resource::room;
use crate::resource::scratch::Scratch;
use crate::tier::Tier;
use crate::tier::builder::TierBuilder;
use crate::tier::depot::MAX_SLOTS;
use crate::tier::reclaim::Reclaimer;

/// What can be said of a tier of any kind.
pub(super) struct Common<T> {
    pub(super) name: String,
    pub(super) watermarks: Option<Watermarks>,
    pub(super) most_watermarks: Option<Watermarks>,
    pub(super) breaker: Option<BreakerRules>,
    pub(super) options: Vec<Options<T>>,
    /// Where it stands in a configuration file.
    pub(super) line: Option<usize>,
}

/// What else is said of it.
type Options<T> = Box<dyn FnOnce(TierBuilder<T>) -> TierBuilder<T> + Send>;

impl<T: Send + 'static> Common<T> {
    pub(super) fn new(name: &str) -> Self {
        let name = name.to_owned();
        Common { name, watermarks: None, most_watermarks: None, breaker: None, options: Vec::new(), line: None }
    }

    /// The tier's own builder, told all that there is to tell.
    pub(super) fn builder(self, slots: usize, reclaimer: Reclaimer) -> TierBuilder<T> {
        let builder = Tier::builder(&self.name).capacity(slots).reclaimer(reclaimer);
        self.options.into_iter().fold(builder, |builder, more| more(builder))
    }
}

/// The methods by which it is said.
macro_rules! common_options {
    ($tier:ident, $kind:ty, $but:literal) => {
        impl $tier {
            /// What it keeps back for urgent requests. Default: nothing.
            pub fn watermarks(mut self, watermarks: Watermarks) -> Self {
                self.common.watermarks = Some(watermarks);
                self
            }

            /// Up to which watermarks [`Pool::optimize`](crate::Pool::optimize) may go; see
            /// [`PoolBuilder::watermarks_up_to`](crate::PoolBuilder::watermarks_up_to). Default: it leaves them alone.
            pub fn watermarks_up_to(mut self, most: Watermarks) -> Self {
                self.common.most_watermarks = Some(most);
                self
            }

            /// Its circuit breaker; see [`PoolBuilder::breaker`](crate::PoolBuilder::breaker). Default: none.
            pub fn breaker(mut self, rules: BreakerRules) -> Self {
                self.common.breaker = Some(rules);
                self
            }

            #[doc = concat!("Anything else that [`TierBuilder`] can say of it. ", $but)]
            pub fn with(
                mut self,
                options: impl FnOnce(TierBuilder<$kind>) -> TierBuilder<$kind> + Send + 'static,
            ) -> Self {
                self.common.options.push(Box::new(options));
                self
            }
        }
    };
}

common_options!(MemoryTier, Memory, "[`TierBuilder::clean`] does not hold beside [`Scrub::AfterUse`], which is one.");
common_options!(CpuTier, Cpu, "[`TierBuilder::capacity`] and [`TierBuilder::reset`] do not hold: it has them itself.");
common_options!(
    DiskTier,
    Extent,
    "[`TierBuilder::clean`] does not hold beside [`Scrub::AfterUse`], which is one; nor does [`TierBuilder::capacity`]."
);

/// A tier of plain bytes that a pool shall have: [`PoolBuilder::memory_tier`](crate::PoolBuilder::memory_tier).
///
/// ```
/// use std::time::Duration;
/// use tierpool::{MemoryTier, Pool, Scrub};
///
/// let pool = Pool::builder()
///     .memory_tier(
///         MemoryTier::new("packets", 2048, 8192)
///             .scrub(Scrub::AfterUse)
///             .with(|tier| tier.min_capacity(1024).leak_after(Duration::from_secs(30))),
///     )
///     .build()?;
/// # Ok::<(), tierpool::PoolError>(())
/// ```
#[must_use = "a memory tier does nothing until a pool's builder gets it"]
pub struct MemoryTier {
    pub(super) common: Common<Memory>,
    pub(super) bytes: usize,
    slots: usize,
    scrub: Scrub,
    pub(super) backing: Backing,
}

impl MemoryTier {
    /// A tier of `slots` buffers, from 1 to 2²⁷, of `bytes` bytes each, from 1.
    pub fn new(name: &str, bytes: usize, slots: usize) -> Self {
        MemoryTier { common: Common::new(name), bytes, slots, scrub: Scrub::default(), backing: Backing::default() }
    }

    /// When its bytes are zeroed. Default: [`Scrub::OnChange`].
    pub fn scrub(mut self, scrub: Scrub) -> Self {
        self.scrub = scrub;
        self
    }

    /// Where each buffer begins: at a multiple of so many bytes, a power of two from 64 (a cache line) to 2 MiB. Each slot takes a
    /// multiple of that. Default: 64, from 4 KiB on 4096.
    pub fn align(mut self, bytes: usize) -> Self {
        self.backing.align = Some(bytes);
        self
    }

    /// Which pages its buffers lie in. Default: [`HugePages::None`]. [`TierStatus::memory`](crate::TierStatus::memory) tells what was
    /// got, and why.
    pub fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.backing.huge_pages = huge_pages;
        self
    }

    /// Whether every page is touched when its slot is built, so that no user pays for the first touch: some microseconds a page. If not,
    /// building is faster, and slots that nobody uses take no memory. Default: yes.
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.backing.prefault = prefault;
        self
    }

    /// Whether its memory is kept from being swapped out (`mlock`), which touches it, whatever [`prefault`](Self::prefault) says. Needs as
    /// much under RLIMIT_MEMLOCK. Explicit huge pages are never swapped out, and not locked besides. Default: no.
    pub fn lock(mut self, lock: bool) -> Self {
        self.backing.lock = lock;
        self
    }

    /// Whether an inaccessible page follows each buffer: whoever writes beyond its end, by `unsafe` code or a system call, meets a signal
    /// or an error there instead of another's bytes. Slots take whole pages and one more, of which the guard has no memory; a buffer's
    /// end lies at the guard, or as near as its alignment lets it. Takes two mappings a slot, of the 65,530 that Linux lets a process
    /// have. Default: no.
    pub fn guard_pages(mut self, guard_pages: bool) -> Self {
        self.backing.guard_pages = guard_pages;
        self
    }

    pub(super) fn build(self, reclaimer: Reclaimer) -> Result<Row, PoolError> {
        let MemoryTier { common, bytes, slots, scrub, backing } = self;
        let (name, line) = (common.name.clone(), common.line);
        let builder = common.builder(slots, reclaimer);
        let builder = if scrub == Scrub::AfterUse { builder.clean(Memory::scrub) } else { builder };
        let kind = TierKind::Memory { bytes };
        let refused = |source| at(line, PoolError::Memory { tier: name.clone(), source });
        // As many as the options have left it with; if they are none or too many, the tier's builder says so.
        let slots = builder.slots();
        if !region::EXISTS || !(1..=MAX_SLOTS).contains(&slots) {
            let align = backing.align_of(bytes);
            let tier = builder.try_build_with(move || Memory::aligned(bytes, align, scrub));
            return tier.map(|tier| Row::of((tier, kind))).map_err(|why| at(line, why));
        }
        let region = Region::new(bytes, slots, backing, room::room).map_err(refused)?;
        let places = Arc::clone(&region);
        match builder.try_build_with(move || places.memory(scrub)) {
            Ok(tier) => {
                let mut row = Row::of((tier, kind));
                row.region = Some(region);
                Ok(row)
            }
            Err(BuildError::Factory { tier, slot, source }) => Err(match source.downcast::<MemoryError>() {
                Ok(why) => refused(*why),
                Err(source) => at(line, BuildError::Factory { tier, slot, source }),
            }),
            Err(why) => Err(at(line, why)),
        }
    }
}

impl fmt::Debug for MemoryTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTier")
            .field("name", &self.common.name)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// A tier of cores that a pool shall have: [`PoolBuilder::cpu_tier`](crate::PoolBuilder::cpu_tier).
///
/// A slot for each core that the process may use, as the affinity of the thread that builds the pool says: that of `taskset` and of
/// the cgroup's cpuset.
///
/// ```
/// use tierpool::{CpuTier, Pool};
///
/// let pool = Pool::builder().cpu_tier(CpuTier::new("cores").with(|tier| tier.max_waiters(10))).build()?;
/// # Ok::<(), tierpool::PoolError>(())
/// ```
#[must_use = "a CPU tier does nothing until a pool's builder gets it"]
pub struct CpuTier {
    pub(super) common: Common<Cpu>,
    cpus: Option<Vec<usize>>,
    avoid_siblings: bool,
}

impl CpuTier {
    /// A tier of all cores that the process may use.
    pub fn new(name: &str) -> Self {
        CpuTier { common: Common::new(name), cpus: None, avoid_siblings: false }
    }

    /// These cores only, by the system's numbers. All of them have to be such that the process may use them; a quota of its
    /// cgroup does not make them fewer. Default: all that the process may use, as far as the quota goes.
    pub fn cpus(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
        self.cpus = Some(cpus.into_iter().collect());
        self
    }

    /// Of hardware threads that share a core (SMT), only the first: the others slow it down. Default: all.
    pub fn avoid_siblings(mut self) -> Self {
        self.avoid_siblings = true;
        self
    }

    pub(super) fn build(self, reclaimer: Reclaimer) -> Result<(Tier<Cpu>, TierKind), PoolError> {
        let CpuTier { common, cpus, avoid_siblings } = self;
        let (name, line) = (common.name.clone(), common.line);
        let root = Root::default();
        let quota = Groups::of_this_process(&root).cpu_quota(&root).map(|quota| quota.cpus);
        let cpus = cpu::choose(cpus.as_deref(), avoid_siblings, quota)
            .map_err(|source| at(line, PoolError::Cpu { tier: name, source }))?;
        let cores = Cores::new(&cpus);
        // After what was said: a core goes back without its thread.
        let builder = common.builder(cpus.len(), reclaimer).capacity(cpus.len()).reset(Cpu::unpin);
        let tier = builder.try_build_with(move || cores.make()).map_err(|why| at(line, why))?;
        Ok((tier, TierKind::Cpu))
    }
}

impl fmt::Debug for CpuTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuTier").field("name", &self.common.name).field("cpus", &self.cpus).finish_non_exhaustive()
    }
}

/// A tier of extents of a scratch file that a pool shall have: [`PoolBuilder::disk_tier`](crate::PoolBuilder::disk_tier).
///
/// The file has no name, and is gone with the pool or the process. Its space is reserved when the pool is built, for as many extents as the tier
/// begins with, and given back when the tier shrinks (Linux; elsewhere it is taken as it is written, and kept).
///
/// ```
/// use tierpool::{DiskTier, Pool, Scrub};
///
/// let spill = DiskTier::new("spill", std::env::temp_dir(), 64 << 10, 64);
/// let pool = Pool::builder().disk_tier(spill.scrub(Scrub::AfterUse).with(|tier| tier.min_capacity(4))).build()?;
/// # Ok::<(), tierpool::PoolError>(())
/// ```
#[must_use = "a disk tier does nothing until a pool's builder gets it"]
pub struct DiskTier {
    pub(super) common: Common<Extent>,
    dir: PathBuf,
    pub(super) bytes: u64,
    extents: usize,
    direct: bool,
    scrub: Scrub,
}

impl DiskTier {
    /// A tier of `extents` extents, from 1 to 2²⁷, of `bytes` bytes each, from 1, of a file in the directory `dir`. Multiples of the file system's
    /// blocks, usually 4 KiB, waste nothing.
    pub fn new(name: &str, dir: impl AsRef<Path>, bytes: u64, extents: usize) -> Self {
        let (dir, scrub) = (dir.as_ref().to_owned(), Scrub::default());
        DiskTier { common: Common::new(name), dir, bytes, extents, direct: false, scrub }
    }

    /// Whether it is read and written past the system's cache (`O_DIRECT`): `bytes`, and addresses, lengths and offsets of every read and write
    /// are multiples of 4096 then. Default: it is not. Linux only; a file system that cannot do it is refused when the pool is built.
    pub fn direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// When its bytes are zeroed. Default: [`Scrub::OnChange`]. [`Extent::zeroing`] says how long that takes.
    pub fn scrub(mut self, scrub: Scrub) -> Self {
        self.scrub = scrub;
        self
    }

    pub(super) fn build(self, reclaimer: Reclaimer) -> Result<(Tier<Extent>, TierKind), PoolError> {
        let DiskTier { common, dir, bytes, extents, direct, scrub } = self;
        let (name, line) = (common.name.clone(), common.line);
        let scratch = Scratch::new(&name, &dir, bytes, extents, direct)
            .map_err(|source| at(line, PoolError::Disk { tier: name, source }))?;
        let scratch = Arc::new(scratch);
        let builder = common.builder(extents, reclaimer).capacity(extents);
        let builder = if scrub == Scrub::AfterUse {
            // What cannot be zeroed now is when it is given out, or it is not given.
            builder.clean(|extent: &mut Extent| drop(extent.scrub()))
        } else {
            builder
        };
        let tier = builder.try_build_with(move || Extent::new(&scratch, scrub)).map_err(|why| at(line, why))?;
        Ok((tier, TierKind::Disk { bytes }))
    }
}

impl fmt::Debug for DiskTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskTier")
            .field("name", &self.common.name)
            .field("dir", &self.dir)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
