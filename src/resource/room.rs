//! How many bytes of memory the process may still take: the one place where a region asks before it takes some.
//!
//! A limit that is met in the middle of a page fault is a signal, or the end of the process. So a region asks first, and refuses while
//! there is still a margin for everybody else: the program's own allocator meets the same limit. Against the process's own limit
//! counts memory that may be written to, touched or not; against a group's, what was touched, which is the same of tiers that touch all of
//! theirs in advance.

use crate::machine::cgroup::Groups;
use crate::machine::limits::{self, Limit};
use crate::machine::root::Root;

/// The margin is this part of a limit.
const MARGIN: u64 = 16;
/// And not more than this.
const MOST: u64 = 16 << 20;

/// Bytes that the process may still take under its own limit and those of its groups, the margin kept back; `None` if no limit is known. Reads
/// some ten files.
pub(crate) fn room() -> Option<u64> {
    let root = Root::default();
    let left = |limit: u64, used: u64| limit.saturating_sub(used).saturating_sub((limit / MARGIN).min(MOST));
    let own = limits::of_process(Limit::Data)
        .and_then(|limit| Some(left(limit, limits::used_by_this_process(&root, Limit::Data)?)));
    let groups = Groups::of_this_process(&root).memory_limits(&root);
    let tightest = groups.iter().map(|limit| left(limit.bytes, limit.used_for_good())).min();
    own.into_iter().chain(tightest).min()
}
