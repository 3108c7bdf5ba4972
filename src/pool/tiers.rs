//! The tiers that a pool builds itself: what can be said of all of them, and those of cores and of disk space. Those of memory are in
//! [`builder`](super::builder).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::builder::at;
use super::error::PoolError;
use super::rows::TierKind;
use crate::admission::breaker::rules::BreakerRules;
use crate::admission::priority::Watermarks;
use crate::machine::cgroup::Groups;
use crate::machine::root::Root;
use crate::resource::cpu::{self, Cores, Cpu};
use crate::resource::disk::Extent;
use crate::resource::memory::Scrub;
use crate::resource::scratch::Scratch;
use crate::tier::Tier;
use crate::tier::builder::TierBuilder;
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
pub(super) use common_options;

common_options!(CpuTier, Cpu, "[`TierBuilder::capacity`] and [`TierBuilder::reset`] do not hold: it has them itself.");
common_options!(
    DiskTier,
    Extent,
    "[`TierBuilder::clean`] does not hold beside [`Scrub::AfterUse`], which is one; nor does [`TierBuilder::capacity`]."
);

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
