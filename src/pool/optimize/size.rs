//! How large a tier is to be.
//!
//! A tier grows at once when it is short: if it has refused anybody, somebody waits, or nine tenths of it are held; it shrinks when no
//! more than four tenths have been held for [`PATIENCE`] calls in a row. Either way it goes to the size at which three quarters are held (a
//! tier that refused, at least a quarter up). Three quarters lie far from both limits, so told the same again and again, it comes to
//! rest: after a step down or up to that size nothing is due any more, and a tier that goes on refusing only ever grows, up to its
//! capacity. The gap between the limits is the hysteresis; the patience keeps a pause in the load from costing a tier its slots.

use super::{PATIENCE, Reason};
use crate::pool::metrics::TierMetrics;

/// A larger share of held slots is too tight.
const TIGHT: f64 = 0.9;
/// A smaller share is too roomy.
const ROOMY: f64 = 0.4;
/// The share at which a tier is sized.
const GOAL: f64 = 0.75;

/// The size at which so many held slots are the goal's share.
pub(super) fn sized(held: usize) -> usize {
    (held as f64 / GOAL).ceil() as usize
}

/// The size that a tier of `slots` slots is to have, if another. `roomy` is how often in a row it was too roomy, and the most that was
/// held then.
pub(super) fn judge(
    roomy: &mut (u32, usize),
    slots: usize,
    (min, max): (usize, usize),
    told: &TierMetrics,
) -> Option<(usize, Reason)> {
    let short = if told.refusals > 0 {
        Some(Reason::Refused { refusals: told.refusals })
    } else if told.waiting > 0 {
        Some(Reason::Awaited { waiting: told.waiting })
    } else if told.held as f64 > slots as f64 * TIGHT {
        Some(Reason::Tight { held: told.held })
    } else {
        None
    };
    if let Some(reason) = short {
        *roomy = (0, 0);
        let quarter = match reason {
            Reason::Tight { .. } => 0,
            _ => slots + (slots / 4).max(1),
        };
        let wanted = sized(told.held + told.waiting).max(quarter).clamp(min, max);
        return (wanted > slots).then_some((wanted, reason));
    }
    if told.held as f64 > slots as f64 * ROOMY {
        *roomy = (0, 0);
        return None;
    }
    let wanted = sized(told.held.max(roomy.1)).max(1).clamp(min, max);
    *roomy = (roomy.0.saturating_add(1), roomy.1.max(told.held));
    if roomy.0 < PATIENCE || wanted >= slots {
        return None;
    }
    let (calls, held) = std::mem::take(roomy);
    Some((wanted, Reason::Roomy { held, calls }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(held: usize, refusals: u64, waiting: usize) -> TierMetrics {
        TierMetrics { held, refusals, waiting, ..TierMetrics::new("t") }
    }

    /// Told the same for ever, from any size: it comes to rest, and moves in one direction only.
    #[test]
    fn constant_metrics_never_make_it_oscillate() {
        for (min, max) in [(1, 1000), (10, 100), (0, 7)] {
            for start in [min, (min + max) / 2, max] {
                for told in [0, 1, 5, 37, 80, 100, 999]
                    .into_iter()
                    .flat_map(|held| [told(held, 0, 0), told(held, 3, 0), told(held, 0, 2)])
                {
                    let (mut slots, mut roomy, mut moves) = (start, (0, 0), Vec::new());
                    for _ in 0..200 {
                        if let Some((to, _)) = judge(&mut roomy, slots, (min, max), &told) {
                            assert!((min..=max).contains(&to) && to != slots);
                            moves.push(to > slots);
                            slots = to;
                        }
                    }
                    assert!(
                        moves.iter().all(|up| *up == moves[0]),
                        "{moves:?} from {start} in {min}..={max}: {told:?}"
                    );
                    let settled = judge(&mut roomy, slots, (min, max), &told);
                    assert_eq!(settled, None, "from {start} in {min}..={max}: {told:?}");
                }
            }
        }
    }

    #[test]
    fn it_grows_at_once_and_shrinks_after_a_while() {
        let (mut roomy, bounds) = ((0, 0), (10, 1000));
        assert_eq!(judge(&mut roomy, 100, bounds, &told(91, 0, 0)), Some((122, Reason::Tight { held: 91 })));
        assert_eq!(judge(&mut roomy, 100, bounds, &told(100, 1, 0)), Some((134, Reason::Refused { refusals: 1 })));
        assert_eq!(judge(&mut roomy, 100, bounds, &told(50, 1, 0)), Some((125, Reason::Refused { refusals: 1 })));
        assert_eq!(judge(&mut roomy, 100, bounds, &told(90, 0, 0)), None);
        assert_eq!(judge(&mut roomy, 100, bounds, &told(30, 0, 0)), None);
        assert_eq!(judge(&mut roomy, 100, bounds, &told(6, 0, 0)), None);
        assert_eq!(judge(&mut roomy, 100, bounds, &told(3, 0, 0)), Some((40, Reason::Roomy { held: 30, calls: 3 })));
        for held in [3, 3, 60, 3, 3] {
            assert_eq!(judge(&mut roomy, 100, bounds, &told(held, 0, 0)), None, "not three times in a row");
        }
    }
}
