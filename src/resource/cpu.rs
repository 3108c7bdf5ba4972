//! A core, as a CPU tier holds it: whoever has it may be pinned to it, and is no more when it goes back.
//!
//! Guarantee: a core of a tier is in one value at most, and no thread stays pinned by a value that was reset or dropped. Relies on
//! [`affinity`] for giving a thread its former cores back.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::machine::affinity::{self, List, PinError, Pinned};
use crate::tier::pass;

/// A core that nobody else has: what [`Pool`](crate::Pool) gives for [`Request::cpu`](crate::Request::cpu).
///
/// The forms of allocation that block, or try, pin the calling thread: it runs on this core only, until the lease ends, wherever that is. A
/// future does not: the thread that polls it is its executor's. There, and after a lease has gone to another thread, it is said explicitly:
/// [`pin`](Self::pin). (Elsewhere than on Linux nobody is pinned; the tier then only limits how many run at a time.)
///
/// A thread may hold several: it runs on the one that was pinned last, and when that goes on the one before. When the last one goes it
/// may run where it could at first. What else changes its cores meanwhile is undone then.
///
/// A [detached](crate::Lease::detach) lease leaves its thread pinned until the handle is released.
///
/// ```
/// use tierpool::{Pool, Request};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder().cpu("cores").build()?;
/// let core = pool.try_allocate(Request::cpu())?;
/// println!("on core {} alone, as far as this pool goes", core.id());
/// drop(core);                                  // runs anywhere again
/// # Ok(()) }
/// ```
pub struct Cpu {
    id: usize,
    pinned: Option<Pinned>,
    home: Arc<Cores>,
}

impl Cpu {
    /// The core's number, as the system counts them.
    pub fn id(&self) -> usize {
        self.id
    }

    /// Whether a thread runs on it by this lease's doing.
    pub fn is_pinned(&self) -> bool {
        self.pinned.is_some()
    }

    /// Pins the calling thread; another that was pinned by this lease is not any more. Two system calls, and the way to that core.
    ///
    /// # Errors
    /// [`PinError`]; nobody is pinned by this lease then.
    pub fn pin(&mut self) -> Result<(), PinError> {
        self.unpin();
        self.pinned = Some(affinity::pin(self.id)?);
        Ok(())
    }

    /// Gives the thread that is pinned its former cores back, if one is; it need not be the calling one.
    pub fn unpin(&mut self) {
        self.pinned = None;
    }

    /// The same as [`pin`](Self::pin) on a system that can, and else nothing.
    pub(crate) fn pin_if_possible(&mut self) -> Result<(), PinError> {
        match self.pin() {
            Err(why) if why.is_unsupported() => Ok(()),
            outcome => outcome,
        }
    }
}

/// Takes its thread along, and can be made again.
impl Drop for Cpu {
    fn drop(&mut self) {
        self.unpin();
        // In the child of a fork the set may be locked by a thread that is not there; and its cores are the parent's.
        if self.home.forks == pass::forks() {
            self.home.free().insert(self.id);
        }
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu").field("id", &self.id).field("pinned", &self.is_pinned()).finish_non_exhaustive()
    }
}

/// Cores that are in no value at present.
pub(crate) struct Cores {
    free: Mutex<BTreeSet<usize>>,
    /// How many forks lie before the process that they were found in.
    forks: u64,
}

/// All cores of a tier are in values: one was taken out of its lease, and still exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no core is left: one that was taken out of its lease with `take` has to be dropped first")]
pub(crate) struct NoCore;

impl Cores {
    pub(crate) fn new(cpus: &[usize]) -> Arc<Self> {
        pass::watch_forks();
        Arc::new(Cores { free: Mutex::new(cpus.iter().copied().collect()), forks: pass::forks() })
    }

    fn free(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        // Nothing panics while it is locked.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first that is free.
    pub(crate) fn make(self: &Arc<Self>) -> Result<Cpu, NoCore> {
        let id = self.free().pop_first().ok_or(NoCore)?;
        Ok(Cpu { id, pinned: None, home: Arc::clone(self) })
    }
}

/// Why a CPU tier cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// It would have no cores.
    #[error("its list of cores is empty; name at least one, or give no list for all that the process may use")]
    Empty,
    /// A core is named twice.
    #[error("core {cpu} is in its list twice; name it once")]
    Twice {
        /// The core.
        cpu: usize,
    },
    /// Cores that the process may not use: its affinity or its cgroup's cpuset leaves them out, or the machine does not have them.
    #[error("the process may not use cores {}, only {}; name some of these, or let it: `taskset`, cpuset.cpus", List(.cpus), List(.allowed))]
    NotAllowed {
        /// Those among the named.
        cpus: Vec<usize>,
        /// Those that it may use.
        allowed: Vec<usize>,
    },
    /// Siblings are to be avoided, but the system does not say which cores are.
    #[error(
        "it shall avoid siblings, but which cores are is unknown: {source}; leave `avoid_siblings` out, or name its cores"
    )]
    NoTopology {
        /// What the system said.
        source: io::Error,
    },
    /// The system does not say which cores the process may use.
    #[error("which cores the process may use is unknown: {source}")]
    NoAffinity {
        /// What the system said.
        source: io::Error,
    },
}

/// How many slots a tier of so many cores has in a group of processes with a quota of processor time (in cores: 1.5 are 150 ms of 100): the
/// quota rounded up, so that none of it is left unused; one at least, and not more than there are cores.
fn usable(cores: usize, quota: Option<f64>) -> usize {
    match quota {
        // A cast of what is too large or no number gives the nearest that there is.
        Some(quota) => cores.min((quota.ceil() as usize).max(1)),
        None => cores,
    }
}

/// The cores of a tier: those in the list, or all that the process may use, the first ones as far as the `quota` goes.
pub(crate) fn choose(list: Option<&[usize]>, avoid_siblings: bool, quota: Option<f64>) -> Result<Vec<usize>, CpuError> {
    let allowed = affinity::allowed().map_err(|source| CpuError::NoAffinity { source })?;
    let mut chosen = match list {
        Some(list) => checked(list, &allowed)?,
        None => allowed,
    };
    if avoid_siblings {
        let siblings = |cpu| affinity::siblings(cpu).map_err(|source| CpuError::NoTopology { source });
        chosen = without_siblings(&chosen, siblings)?;
    }
    if list.is_none() {
        chosen.truncate(usable(chosen.len(), quota));
    }
    Ok(chosen)
}

/// A list of cores in order, if it is one that the process may use.
fn checked(list: &[usize], allowed: &[usize]) -> Result<Vec<usize>, CpuError> {
    let mut cpus = list.to_vec();
    cpus.sort_unstable();
    if cpus.is_empty() {
        return Err(CpuError::Empty);
    }
    if let Some(pair) = cpus.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(CpuError::Twice { cpu: pair[0] });
    }
    let refused: Vec<_> = cpus.iter().copied().filter(|cpu| !allowed.contains(cpu)).collect();
    if refused.is_empty() { Ok(cpus) } else { Err(CpuError::NotAllowed { cpus: refused, allowed: allowed.to_vec() }) }
}

/// Of those that are siblings, the first.
fn without_siblings<E>(cpus: &[usize], siblings: impl Fn(usize) -> Result<Vec<usize>, E>) -> Result<Vec<usize>, E> {
    let mut chosen: Vec<usize> = Vec::new();
    for &cpu in cpus {
        if !siblings(cpu)?.iter().any(|sibling| chosen.contains(sibling)) {
            chosen.push(cpu);
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_rounded_up_and_never_to_none() {
        for (cores, quota, slots) in [
            (8, None, 8),
            (8, Some(0.1), 1),
            (8, Some(1.0), 1),
            (8, Some(1.01), 2),
            (8, Some(64.0), 8),
            (8, Some(0.0), 1),
            (8, Some(-1.0), 1),
            (8, Some(f64::NAN), 1),
            (8, Some(f64::INFINITY), 8),
        ] {
            assert_eq!(usable(cores, quota), slots, "{quota:?}");
        }
    }

    #[test]
    fn one_of_each_pair_of_siblings_is_chosen() {
        let pairs = |cpu: usize| Ok::<_, CpuError>(vec![cpu % 4, cpu % 4 + 4]);
        assert_eq!(without_siblings(&[0, 1, 2, 3, 4, 5, 6, 7], pairs).unwrap(), [0, 1, 2, 3]);
        assert_eq!(without_siblings(&[1, 5, 6], pairs).unwrap(), [1, 6], "the other one of a pair may be out of reach");
    }

    #[test]
    fn a_list_is_checked() {
        assert_eq!(checked(&[3, 1], &[0, 1, 2, 3]).unwrap(), [1, 3]);
        assert!(matches!(checked(&[], &[0]), Err(CpuError::Empty)));
        assert!(matches!(checked(&[1, 0, 1], &[0, 1]), Err(CpuError::Twice { cpu: 1 })));
        let error = checked(&[0, 6, 7], &[0, 1]).unwrap_err().to_string();
        assert!(error.starts_with("the process may not use cores 6-7, only 0-1;"), "{error}");
    }

    #[test]
    fn a_core_is_in_one_value_only() {
        let cores = Cores::new(&[4, 2]);
        let (first, second) = (cores.make().unwrap(), cores.make().unwrap());
        assert_eq!((first.id(), second.id()), (2, 4));
        assert_eq!(cores.make().unwrap_err(), NoCore);
        drop(first);
        assert_eq!(cores.make().unwrap().id(), 2);
    }
}
