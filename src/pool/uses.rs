//! What a tier's slots were allocated for, for people and programs: by tenant, tag and priority.

use crate::admission::priority::Priority;
use crate::tier::account;
use crate::tier::core::Core;
use crate::tier::uses::{self, Counted};

/// Allocations from a tier that said the same of themselves: [`TierStatus::uses`](crate::TierStatus::uses).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LabelUse {
    /// On whose behalf; `None`: nobody's.
    pub tenant: Option<String>,
    /// What for: [`Request::tag`](crate::Request::tag).
    pub tag: Option<&'static str>,
    /// How urgent. Allocations from the tier itself, past the pool, are `Normal`.
    pub priority: Priority,
    /// How many were served since the tier was built.
    pub allocations: u64,
}

/// The uses of a tier that has served `allocations` so far, the most frequent first; and how many had labels beyond those that it
/// tells apart.
pub(super) fn of(core: &Core, allocations: u64) -> (Vec<LabelUse>, u64) {
    let Counted { labels, others } = uses::read(core, allocations);
    let mut uses: Vec<_> = labels
        .into_iter()
        .map(|(label, allocations)| LabelUse {
            tenant: account::name(core, label.tenant),
            tag: label.mark.tag().text(),
            priority: label.mark.priority(),
            allocations,
        })
        .collect();
    uses.sort_by_key(|label| std::cmp::Reverse(label.allocations));
    (uses, others)
}
