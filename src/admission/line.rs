//! Who of those who wait for a slot of one tier is next: the more urgent first, unless another has waited too long; within a
//! priority tenants by their weights ([`Fairness`]); within a tenant first come, first served.
//!
//! A priority that has not been served for the *ageing* time counts as the next higher one, after twice that time as the one
//! above, and so on beyond the highest: so everybody is served at last.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::fairness::{DominantShares, FairQueue};
use super::quota::Accounts;
use super::tenants::Tenant;
use crate::clock;
use crate::slot::label::CLASSES;
use crate::tier::order::{Flow, Order};

/// Which of the tenants who wait within a priority is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Fairness {
    /// Each gets turns in proportion to its weight, tier by tier: start-time fair queuing (Goyal, Vin, Cheng, SIGCOMM 1996).
    #[default]
    Turns,
    /// The one that holds the smallest part, by its weight, of the tier of which it holds the largest part: dominant resource
    /// fairness over the tiers as kinds of resource (Ghodsi and others, NSDI 2011). For work that needs slots of several tiers at
    /// once. Costs a look at what each of them holds, a cell for each thread and tier, at each turn.
    DominantShares,
}

/// What is held, for turns by dominant shares.
struct Dominant {
    shares: DominantShares,
    accounts: Arc<Accounts>,
    /// The place of the tier that the line is of.
    tier: usize,
}

impl Dominant {
    fn next(&mut self, tenants: impl Iterator<Item = usize> + Clone) -> Option<usize> {
        let Dominant { shares, accounts, .. } = self;
        for tenant in tenants.clone() {
            // A tenant's number fits: it was an account's.
            let held = (0..accounts.tiers()).map(|tier| accounts.slots_of(tier, Tenant(tenant as u16)));
            shares.holds(tenant, held);
        }
        shares.next(tenants)
    }
}

/// See the module's header.
pub(crate) struct Line {
    classes: [Class; CLASSES],
    dominant: Option<Dominant>,
    /// In ticks of the coarse clock.
    ageing: u64,
}

struct Class {
    tenants: FairQueue,
    /// How many wait of each tenant, and of all.
    waiting: Box<[usize]>,
    all: usize,
    /// The tick of its last turn, or at which somebody began to wait.
    since: u64,
}

impl Line {
    /// For tenants of these weights; the first is nobody.
    pub(crate) fn new(weights: &[u32], ageing: Duration) -> Self {
        let class = |_| {
            let waiting = vec![0; weights.len()].into();
            Class { tenants: FairQueue::new(weights), waiting, all: 0, since: 0 }
        };
        Line { classes: std::array::from_fn(class), dominant: None, ageing: clock::in_ticks(ageing).max(1) }
    }

    /// The same, by what the tenants hold of tiers with so many slots; for the tier at that place.
    pub(crate) fn by_dominant_shares(
        self,
        accounts: Arc<Accounts>,
        tier: usize,
        slots: &[u64],
        weights: &[u32],
    ) -> Self {
        Line { dominant: Some(Dominant { shares: DominantShares::new(slots, weights), accounts, tier }), ..self }
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
    fn enters(&mut self, flow: Flow) {
        let (class, tenant) = (self.class(flow), usize::from(flow.account));
        if class.all == 0 {
            clock::tick();
            class.since = clock::ticks();
        }
        class.all += 1;
        class.waiting[tenant] += 1;
        if class.waiting[tenant] == 1 {
            class.tenants.arrive(tenant);
        }
        if let Some(Dominant { accounts, tier, .. }) = &self.dominant {
            accounts.waits(*tier, Tenant(flow.account), true);
        }
    }

    fn next(&mut self, flows: &[Flow]) -> usize {
        let now = clock::ticks();
        let behind = flows.iter().map(|flow| flow.behind).max_by_key(|&behind| self.urgency(behind, now)).unwrap_or(0);
        let start = flows.partition_point(|flow| flow.behind < behind);
        let of_class = flows[start..].iter().take_while(|flow| flow.behind == behind);
        let tenants = of_class.map(|flow| usize::from(flow.account));
        let next = match &mut self.dominant {
            Some(dominant) => dominant.next(tenants),
            None => self.classes[usize::from(behind)].tenants.next(tenants),
        };
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
        let (class, tenant) = (self.class(flow), usize::from(flow.account));
        class.all -= 1;
        class.waiting[tenant] -= 1;
        if class.waiting[tenant] == 0 {
            class.tenants.leave(tenant);
        }
        if let Some(Dominant { accounts, tier, .. }) = &self.dominant {
            accounts.waits(*tier, Tenant(flow.account), false);
        }
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
        flows.iter().for_each(|&flow| line.enters(flow));
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
        line.enters(high);
        line.enters(low);
        let now = clock::ticks();
        line.classes[1].since = now;
        line.classes[3].since = now.saturating_sub(4);
        clock::tick();
        let raised = |behind: u8| line.urgency(behind, now).0;
        assert_eq!((raised(1), raised(3)), (3, 1 + now.min(4) / 3));
        assert!(line.urgency(3, now + 6) > line.urgency(1, now), "raised by two and more, it is before a new one");
    }
}
