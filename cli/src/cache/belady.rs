//! The optimum: of what is there and what comes, whatever is wanted again last goes (Belady, 1966). No cache can hit more often, for it would have
//! to know the future.
//!
//! What comes may itself be what goes: a cache need not keep everything. A key that is never wanted again is not kept at all.

use std::collections::BTreeSet;

/// How many of these requests hit in a cache of so many keys that knows what will come.
///
/// ```
/// // 1 2 3 1 2 3 in a cache of two: 1 and 2 stay, 3 does not come in.
/// assert_eq!(tierpool_cli::cache::belady::hits(&[0, 1, 2, 0, 1, 2], 3, 2, &|_| ()), 2);
/// ```
pub fn hits(requests: &[u32], distinct: u32, capacity: usize, progress: &dyn Fn(f64)) -> u64 {
    const NEVER: u32 = u32::MAX;
    // When the key of each request is wanted again: there are fewer than 2³² requests.
    let mut next = vec![NEVER; requests.len()];
    let mut later = vec![NEVER; distinct as usize];
    for (at, &key) in requests.iter().enumerate().rev() {
        next[at] = later[key as usize];
        later[key as usize] = at as u32;
    }
    // What is there, by when it is wanted again: no two at the same time.
    let mut there: BTreeSet<u32> = BTreeSet::new();
    let mut hits = 0;
    for (at, &again) in next.iter().enumerate() {
        hits += u64::from(there.remove(&(at as u32)));
        if again != NEVER {
            there.insert(again);
            if there.len() > capacity {
                there.pop_last();
            }
        }
        if at % (1 << 16) == 0 {
            progress(at as f64 / requests.len() as f64);
        }
    }
    hits
}
