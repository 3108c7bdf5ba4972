//! Who of those who wait for a slot of one tier is next: the more urgent first, unless another has waited too long; within a
//! priority tenants by their weights; within a tenant first come, first served.
//!
//! A priority that has not been served for the *ageing* time counts as the next higher one, after twice that time as the one
//! above, and so on beyond the highest: so everybody is served at last.

use std::cmp::Reverse;
use std::time::Duration;

use super::fairness::FairQueue;
use crate::clock;
use crate::slot::label::CLASSES;
use crate::tier::order::{Flow, Order};

/// See the module's header.
pub(crate) struct Line {
    classes: [Class; CLASSES],
    /// In ticks of the coarse clock.
    ageing: u64,
}

struct Class {
    tenants: FairQueue,
    /// Tenants who wait.
    waiting: usize,
    /// The tick of its last turn, or at which somebody began to wait.
    since: u64,
}

impl Line {
    /// For tenants of these weights; the first is nobody.
    pub(crate) fn new(weights: &[u32], ageing: Duration) -> Self {
        let class = |_| Class { tenants: FairQueue::new(weights), waiting: 0, since: 0 };
        Line { classes: std::array::from_fn(class), ageing: clock::in_ticks(ageing).max(1) }
    }

    fn class(&mut self, flow: Flow) -> &mut Class {
        &mut self.classes[usize::from(flow.behind)]
    }

    /// How urgent a class is by now: the largest is next.
    fn urgency(&self, behind: u8, now: u64) -> (u64, Reverse<u8>) {
        let raised = now.saturating_sub(self.classes[usize::from(behind)].since) / self.ageing;
        (raised.saturating_add((CLASSES - usize::from(behind)) as u64), Reverse(behind))
    }
}

impl Order for Line {
    fn arrives(&mut self, flow: Flow) {
        clock::tick();
        let class = self.class(flow);
        if class.waiting == 0 {
            class.since = clock::ticks();
        }
        class.waiting += 1;
        class.tenants.arrive(flow.account.into());
    }

    fn next(&mut self, flows: &[Flow]) -> usize {
        let now = clock::ticks();
        let behind = flows.iter().map(|flow| flow.behind).max_by_key(|&behind| self.urgency(behind, now)).unwrap_or(0);
        let start = flows.partition_point(|flow| flow.behind < behind);
        let of_class = flows[start..].iter().take_while(|flow| flow.behind == behind);
        let tenants = of_class.map(|flow| usize::from(flow.account));
        let next = self.classes[usize::from(behind)].tenants.next(tenants);
        let at = flows[start..].iter().position(|flow| Some(usize::from(flow.account)) == next);
        start + at.unwrap_or(0)
    }

    fn served(&mut self, flow: Flow) {
        clock::tick();
        let class = self.class(flow);
        class.since = clock::ticks();
        class.tenants.granted(flow.account.into(), 1);
    }

    fn leaves(&mut self, flow: Flow) {
        let class = self.class(flow);
        class.waiting -= 1;
        class.tenants.leave(flow.account.into());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn flow(behind: u8, account: u16) -> Flow {
        Flow { behind, account }
    }

    #[test]
    fn the_more_urgent_first_and_tenants_by_weight() {
        let mut line = Line::new(&[1, 3, 1], Duration::from_secs(1_000_000));
        let flows = [flow(0, 1), flow(2, 1), flow(2, 2)];
        flows.iter().for_each(|&flow| line.arrives(flow));
        assert_eq!(line.next(&flows), 0);
        let mut served = [0; 2];
        for _ in 0..40 {
            let next = 1 + line.next(&flows[1..]);
            line.served(flows[next]);
            served[next - 1] += 1;
        }
        assert_eq!(served, [30, 10]);
    }

    #[test]
    fn who_is_passed_for_long_enough_is_next() {
        let mut line = Line::new(&[1, 1], Duration::from_millis(30));
        let (high, low) = (flow(1, 1), flow(3, 1));
        line.arrives(high);
        line.arrives(low);
        let now = clock::ticks();
        line.classes[1].since = now;
        line.classes[3].since = now.saturating_sub(4);
        clock::tick();
        let raised = |behind: u8| line.urgency(behind, now).0;
        assert_eq!((raised(1), raised(3)), (3, 1 + now.min(4) / 3));
        assert!(line.urgency(3, now + 6) > line.urgency(1, now), "raised by two and more, it is before a new one");
    }
}
