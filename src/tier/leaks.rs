//! Slots that have been held for too long: each is reported once, with who holds it since when and from which line.
//!
//! An allocation stamps the coarse clock, which may have stood still before; so a stamp alone can make a hold look older
//! than it is. What is certain is this: a stamp that is smaller than the tick of a pass was taken before that pass. A hold
//! is reported when its stamp is smaller than the tick of a pass that is itself long enough ago. So no report comes too
//! early, and none later than the pause between two such passes: an eighth of the time allowed.

use std::collections::VecDeque;
use std::time::Duration;

use super::core::Core;
use super::notice::{self, Report};
use super::report;
use crate::clock::{self, Tick};

/// How many passes fall into the time that a hold may last.
const LOOKS: u32 = 8;

/// What passes remember from one to the next.
#[derive(Default)]
pub(crate) struct Watch {
    /// Ticks of passes, the latest last: the first is the latest of those that are long enough ago.
    passes: VecDeque<Tick>,
    /// For each slot one more than the stamp of the hold that was reported last, or 0; empty until there is one.
    reported: Vec<u32>,
}

impl Watch {
    /// In a pass: looks for holds that last for longer than `limit`. Returns how many are new.
    pub(crate) fn look(&mut self, core: &Core, limit: Duration) -> usize {
        let now = clock::now();
        // The latest is always there; of the others, as many as differ enough to matter.
        if self.passes.len() >= 2 && self.passes[self.passes.len() - 2].ago(now) < pause(limit) {
            self.passes.pop_back();
        }
        self.passes.push_back(now);
        let long_ago = |then: &Tick| then.ago(now) >= limit;
        while self.passes.get(1).is_some_and(long_ago) {
            self.passes.pop_front();
        }
        let Some(&line) = self.passes.front().filter(|then| long_ago(then)) else { return 0 };
        let mut found = 0;
        for (index, header) in core.headers().iter().enumerate() {
            let Some(tick) = header.held_since().filter(|&tick| tick != line && line.since(tick).is_some()) else {
                continue;
            };
            let mark = tick.0.wrapping_add(1);
            if self.reported.get(index) == Some(&mark) {
                continue;
            }
            let Some((holder, since)) = report::holder(core, index as u32) else { continue };
            if since != tick {
                continue; // it has just gone, and somebody else has the slot
            }
            self.reported.resize(core.headers().len(), 0);
            self.reported[index] = mark;
            let ignored =
                |ignore: &super::life::Ignore| holder.site.is_some_and(|site| notice::guarded(|| ignore(site)));
            if core.life().ignore_leaks.as_ref().is_some_and(ignored) {
                continue;
            }
            found += 1;
            notice::tell(core, || Report::Leak { tier: core.incarnation().name, holder });
        }
        found
    }
}

/// How long after a pass the next look is due.
pub(crate) fn pause(limit: Duration) -> Duration {
    limit / LOOKS
}
