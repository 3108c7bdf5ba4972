//! Shares, as pure arithmetic: whose turn it is, who has the least of what it needs most, and how even it came out.
//!
//! - [`FairQueue`]: turns in proportion to weights, by start-time fair queuing (Goyal, Vin, Cheng, SIGCOMM 1996).
//! - [`DominantShares`]: several kinds of resource at once, by dominant resource fairness (Ghodsi and others, NSDI 2011).
//! - [`jain_index`]: one number for how even shares are (Jain, Chiu, Hawe, 1984).
//!
//! Tenants are numbers from 0. Nothing here is atomic, reads a clock, or allocates after `new`.
//!
//! # Virtual time
//! The tags of a [`FairQueue`] are whole numbers: 2^20ths of a unit of cost for a weight of 1. What a division leaves is carried to the tenant's next
//! turn, so a tag is off by less than one such part after any number of turns: there is nothing to drift. Long before they
//! could overflow, all tags are *rebased*: the virtual time, or the earliest tag of those who wait, is subtracted from each, and those before
//! it become 0. That changes no turn, since a tenant that comes back begins at the virtual time at the earliest anyway.
//!
//! Dominant shares are fractions of what is held, which is whole numbers, and compared exactly.

use std::cmp::Ordering;

/// Parts of a unit of cost.
const PARTS: u64 = 1 << 20;
/// A virtual time from which on tags are rebased.
const LATE: u64 = 1 << 62;
/// What one turn moves a tag by at most: 2^41 units of cost at a weight of 1.
const FAR: u128 = 1 << 61;

/// Whose turn it is, in proportion to weights.
///
/// While two tenants wait, what they are granted in any span of time, divided by their weights, differs by at most one grant of each, divided
/// by its weight. Who has waited for nothing for a while gains nothing by it, and owes nothing.
///
/// ```
/// use tierpool::FairQueue;
///
/// let mut queue = FairQueue::new(&[3, 1]);
/// queue.arrive(0);
/// queue.arrive(1);
/// let mut granted = [0, 0];
/// for _ in 0..8 {
///     let next = queue.next([0, 1]).unwrap();
///     queue.granted(next, 1);
///     granted[next] += 1;
/// }
/// assert_eq!(granted, [6, 2]);
/// ```
#[derive(Debug, Clone)]
pub struct FairQueue {
    tenants: Box<[Turns]>,
    /// The start tag of the grant that came last.
    now: u64,
    /// The latest finish tag of all.
    latest: u64,
    waiting: usize,
}

#[derive(Debug, Clone)]
struct Turns {
    weight: u64,
    /// The start tag of the next grant, while it waits; else the finish tag of the last.
    tag: u64,
    /// What the last division left: less than `weight`.
    rest: u64,
    waits: bool,
}

impl FairQueue {
    /// A queue for tenants of these weights; 0 counts as 1.
    pub fn new(weights: &[u32]) -> Self {
        let turns = |&weight: &u32| Turns { weight: u64::from(weight.max(1)), tag: 0, rest: 0, waits: false };
        FairQueue { tenants: weights.iter().map(turns).collect(), now: 0, latest: 0, waiting: 0 }
    }

    /// A tenant's weight from its next grant on; 0 counts as 1.
    ///
    /// # Panics
    /// As all that takes a tenant, if there are not so many.
    pub fn set_weight(&mut self, tenant: usize, weight: u32) {
        let turns = &mut self.tenants[tenant];
        turns.weight = u64::from(weight.max(1));
        turns.rest = turns.rest.min(turns.weight - 1);
    }

    /// A tenant waits that did not before: its first waiter came. Does nothing if it waits already.
    pub fn arrive(&mut self, tenant: usize) {
        let turns = &mut self.tenants[tenant];
        if !turns.waits {
            turns.waits = true;
            if turns.tag < self.now {
                (turns.tag, turns.rest) = (self.now, 0);
            }
            self.waiting += 1;
        }
    }

    /// A tenant waits no more: its last waiter has gone, with or without a grant.
    pub fn leave(&mut self, tenant: usize) {
        if std::mem::take(&mut self.tenants[tenant].waits) {
            self.waiting -= 1;
            if self.waiting == 0 {
                self.now = self.now.max(self.latest);
            }
        }
    }

    /// Whose turn it is of some tenants: of those of them that wait, the one with the earliest start tag, the first of equals. One
    /// comparison each.
    pub fn next(&self, tenants: impl IntoIterator<Item = usize>) -> Option<usize> {
        tenants.into_iter().filter(|&tenant| self.tenants[tenant].waits).min_by_key(|&tenant| self.tenants[tenant].tag)
    }

    /// A tenant was granted something of that cost: slots, bytes, or what else is to be shared. Also one whose turn it was not, or
    /// that did not wait: it counts.
    pub fn granted(&mut self, tenant: usize, cost: u64) {
        if self.now >= LATE {
            self.rebase();
        }
        let turns = &mut self.tenants[tenant];
        let start = if turns.waits { turns.tag } else { turns.tag.max(self.now) };
        let parts = u128::from(cost) * u128::from(PARTS) + u128::from(turns.rest);
        let weight = u128::from(turns.weight);
        turns.rest = (parts % weight) as u64;
        turns.tag = start.saturating_add((parts / weight).min(FAR) as u64);
        self.latest = self.latest.max(turns.tag);
        self.now = self.now.max(start);
    }

    /// Nobody that waits is before the new beginning, unless it has been passed over for ages.
    fn rebase(&mut self) {
        let waiting = self.tenants.iter().filter(|turns| turns.waits).map(|turns| turns.tag);
        let base = waiting.fold(self.now, u64::min).max(self.now.saturating_sub(LATE / 2));
        self.now -= base;
        self.latest = self.latest.saturating_sub(base);
        self.tenants.iter_mut().for_each(|turns| turns.tag = turns.tag.saturating_sub(base));
    }
}

/// Who has the least of the resource that it needs most.
///
/// Each tenant's *dominant share* is the largest of its shares of any kind of resource, divided by its weight. Whoever
/// has the smallest is next. So nobody gets less than under equal parts of everything, nobody gains by asking for what it does not need,
/// and nobody would rather have what another has.
///
/// ```
/// use tierpool::DominantShares;
///
/// // The paper's example: 9 CPUs and 18 GB; tasks of A need <1, 4>, those of B <3, 1>.
/// let (demands, mut tasks) = ([[1, 4], [3, 1]], [0, 0]);
/// let mut shares = DominantShares::new(&[9, 18], &[1, 1]);
/// while let Some(next) = shares.next((0..2).filter(|&tenant| shares.fits(&demands[tenant]))) {
///     shares.granted(next, &demands[next]);
///     tasks[next] += 1;
/// }
/// assert_eq!(tasks, [3, 2]);
/// ```
#[derive(Debug, Clone)]
pub struct DominantShares {
    capacities: Box<[u64]>,
    /// What all hold together, of each kind.
    total: Box<[u64]>,
    weights: Box<[u32]>,
    /// Of each tenant in turn, of each kind.
    held: Box<[u64]>,
}

impl DominantShares {
    /// Shares of so much of each kind of resource, for tenants of these weights; 0 counts as 1. A kind that there is none of counts for nobody.
    pub fn new(capacities: &[u64], weights: &[u32]) -> Self {
        DominantShares {
            capacities: capacities.into(),
            total: vec![0; capacities.len()].into(),
            weights: weights.iter().map(|&weight| weight.max(1)).collect(),
            held: vec![0; capacities.len() * weights.len()].into(),
        }
    }

    /// Whether so much of each kind is left.
    pub fn fits(&self, demand: &[u64]) -> bool {
        let kinds = self.capacities.iter().zip(&self.total).zip(demand);
        kinds.into_iter().all(|((&capacity, &total), &wanted)| total.saturating_add(wanted) <= capacity)
    }

    /// Who is next of some tenants: the one with the smallest dominant share, the first of equals.
    pub fn next(&self, tenants: impl IntoIterator<Item = usize>) -> Option<usize> {
        let weighted = |tenant: usize| {
            let Fraction(held, capacity) = self.dominant(tenant);
            (tenant, Fraction(held, capacity * u128::from(self.weights[tenant])))
        };
        let smaller =
            |best: (usize, Fraction), other: (usize, Fraction)| if other.1.cmp(best.1).is_lt() { other } else { best };
        tenants.into_iter().map(weighted).reduce(smaller).map(|(tenant, _)| tenant)
    }

    /// A tenant was granted so much of each kind.
    pub fn granted(&mut self, tenant: usize, amounts: &[u64]) {
        self.change(tenant, amounts, u64::saturating_add);
    }

    /// It gave so much of each kind back.
    pub fn given_back(&mut self, tenant: usize, amounts: &[u64]) {
        self.change(tenant, amounts, u64::saturating_sub);
    }

    /// It holds so much of each kind now, whatever was said before.
    pub fn holds(&mut self, tenant: usize, amounts: impl IntoIterator<Item = u64>) {
        let held = &mut self.held[tenant * self.capacities.len()..][..self.capacities.len()];
        for ((held, total), amount) in held.iter_mut().zip(&mut self.total).zip(amounts) {
            *total = total.saturating_sub(*held).saturating_add(amount);
            *held = amount;
        }
    }

    fn change(&mut self, tenant: usize, amounts: &[u64], by: fn(u64, u64) -> u64) {
        let held = &mut self.held[tenant * self.capacities.len()..][..self.capacities.len()];
        for ((held, total), &amount) in held.iter_mut().zip(&mut self.total).zip(amounts) {
            (*held, *total) = (by(*held, amount), by(*total, amount));
        }
    }

    /// A tenant's dominant share, from 0 to 1, not divided by its weight; for reports.
    pub fn share(&self, tenant: usize) -> f64 {
        let Fraction(held, capacity) = self.dominant(tenant);
        held as f64 / capacity as f64
    }

    fn dominant(&self, tenant: usize) -> Fraction {
        let held = &self.held[tenant * self.capacities.len()..][..self.capacities.len()];
        let kinds = held.iter().zip(&self.capacities).filter(|&(_, &capacity)| capacity > 0);
        let shares = kinds.map(|(&held, &capacity)| Fraction(held.into(), capacity.into()));
        shares.fold(Fraction(0, 1), |most, share| if share.cmp(most).is_gt() { share } else { most })
    }
}

/// One number divided by another, which is not 0.
#[derive(Clone, Copy)]
struct Fraction(u128, u128);

impl Fraction {
    /// Exactly, without a product that could overflow: whole parts first, then what is left, turned over (as Euclid's algorithm goes).
    fn cmp(self, other: Fraction) -> Ordering {
        let (Fraction(mut a, mut b), Fraction(mut c, mut d)) = (self, other);
        loop {
            let whole = (a / b).cmp(&(c / d));
            let (left, other_left) = (a % b, c % d);
            if whole.is_ne() || left == 0 || other_left == 0 {
                return whole.then(left.min(1).cmp(&other_left.min(1)));
            }
            // left / b < other_left / d, exactly if d / other_left < b / left.
            (a, b, c, d) = (d, other_left, b, left);
        }
    }
}

/// How even shares are: 1 if all are equal, 1 / n if one of n has everything. `None` if there are none, or all are 0.
///
/// To judge weighted shares, divide each by its weight first.
///
/// ```
/// assert_eq!(tierpool::jain_index([2.0, 2.0, 2.0]), Some(1.0));
/// assert_eq!(tierpool::jain_index([4.0, 0.0, 0.0, 0.0]), Some(0.25));
/// ```
pub fn jain_index(shares: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (n, sum, squares) = shares
        .into_iter()
        .fold((0.0, 0.0, 0.0), |(n, sum, squares), share| (n + 1.0, sum + share, squares + share * share));
    (squares > 0.0).then(|| sum * sum / (n * squares))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What can happen to a queue of four tenants.
    #[derive(Debug, Clone)]
    enum Step {
        Arrive(usize),
        Leave(usize),
        /// The next gets its turn, of that cost.
        Turn(u64),
        /// Somebody is granted something out of turn.
        Grant(usize, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let tenant = 0..4usize;
        prop_oneof![
            3 => tenant.clone().prop_map(Step::Arrive),
            1 => tenant.clone().prop_map(Step::Leave),
            8 => (1..50u64).prop_map(Step::Turn),
            1 => (tenant, 1..50u64).prop_map(|(tenant, cost)| Step::Grant(tenant, cost)),
        ]
    }

    /// Start-time fair queuing as the paper has it, with exact fractions: all tags are in 840ths, and so is each cost divided by a
    /// weight from 1 to 8.
    #[derive(Default)]
    struct Paper {
        /// v(t): the start tag of the packet in service; when there is none, the latest finish tag.
        time: u64,
        start: [Option<u64>; 4],
        finish: [u64; 4],
    }

    impl Paper {
        fn arrive(&mut self, flow: usize) {
            self.start[flow].get_or_insert(self.time.max(self.finish[flow]));
        }

        fn serve(&mut self, flow: usize, cost: u64, weight: u64) {
            let start = self.start[flow].unwrap_or(self.time.max(self.finish[flow]));
            self.finish[flow] = start + cost * 840 / weight;
            self.start[flow] = self.start[flow].map(|_| self.finish[flow]);
            self.time = self.time.max(start);
        }

        fn leave(&mut self, flow: usize) {
            if self.start[flow].take().is_some() && self.start.iter().all(Option::is_none) {
                self.time = self.time.max(self.finish.into_iter().max().unwrap());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The chosen one has the earliest start tag in exact arithmetic (of equals, ours may be another than the paper's).
        #[test]
        fn turns_are_those_of_the_paper(
            weights in proptest::array::uniform4(1..=8u32),
            steps in proptest::collection::vec(step(), 1..300),
            beginning in prop_oneof![Just(0), Just(LATE - 3 * PARTS), Just(LATE)],
        ) {
            let (mut queue, mut paper) = (FairQueue::new(&weights), Paper::default());
            (queue.now, queue.latest) = (beginning, beginning);
            for step in steps {
                match step {
                    Step::Arrive(tenant) => {
                        queue.arrive(tenant);
                        paper.arrive(tenant);
                    }
                    Step::Leave(tenant) => {
                        queue.leave(tenant);
                        paper.leave(tenant);
                    }
                    Step::Turn(cost) => {
                        let next = queue.next(0..4);
                        prop_assert_eq!(next.and_then(|next| paper.start[next]), paper.start.into_iter().flatten().min());
                        if let Some(next) = next {
                            queue.granted(next, cost);
                            paper.serve(next, cost, weights[next].into());
                        }
                    }
                    Step::Grant(tenant, cost) => {
                        queue.granted(tenant, cost);
                        paper.serve(tenant, cost, weights[tenant].into());
                    }
                }
            }
        }

        /// Theorem 1 of the paper, for each prefix of a time in which all wait.
        #[test]
        fn shares_differ_by_a_grant_of_each_at_most(
            weights in proptest::array::uniform4(1..1000u32),
            costs in proptest::collection::vec(1..100u64, 1..500),
        ) {
            let mut queue = FairQueue::new(&weights);
            (0..4).for_each(|tenant| queue.arrive(tenant));
            let mut service = [0.0; 4];
            for cost in costs {
                let next = queue.next(0..4).unwrap();
                queue.granted(next, cost);
                service[next] += cost as f64 / f64::from(weights[next]);
                for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
                    let bound = 99.0 / f64::from(weights[a]) + 99.0 / f64::from(weights[b]);
                    prop_assert!((service[a] - service[b]).abs() <= bound + 1e-5);
                }
            }
        }

        /// Algorithm 1 of the paper, with fractions compared by cross-multiplication.
        #[test]
        fn dominant_shares_are_those_of_the_paper(
            capacities in proptest::array::uniform3(1..200u64),
            demands in proptest::array::uniform4(proptest::array::uniform3(0..9u64)),
            weights in proptest::array::uniform4(1..5u32),
        ) {
            let mut shares = DominantShares::new(&capacities, &weights);
            let mut tasks = [0u64; 4];
            for _ in 0..100 {
                let next = shares.next(0..4).unwrap();
                // s_i = max over j of u_ij / r_j, divided by the weight: the least of all, and the first of these.
                let share = |tenant: usize| {
                    let of = |kind: usize| (tasks[tenant] * demands[tenant][kind], capacities[kind] * u64::from(weights[tenant]));
                    (0..3).map(of).reduce(|a, b| if b.0 * a.1 > a.0 * b.1 { b } else { a }).unwrap()
                };
                let less = |a: usize, b: usize| share(a).0 * share(b).1 < share(b).0 * share(a).1;
                let least = (0..4).reduce(|a, b| if less(b, a) { b } else { a }).unwrap();
                prop_assert_eq!(next, least);
                let consumed = |kind: usize| (0..4).map(|tenant| tasks[tenant] * demands[tenant][kind]).sum::<u64>();
                let fits = (0..3).all(|kind| consumed(kind) + demands[next][kind] <= capacities[kind]);
                prop_assert_eq!(shares.fits(&demands[next]), fits);
                if !fits {
                    break;
                }
                shares.granted(next, &demands[next]);
                tasks[next] += 1;
            }
        }
    }

    #[test]
    fn who_comes_late_gets_no_more_than_its_share_from_then_on() {
        let mut queue = FairQueue::new(&[1, 1]);
        queue.arrive(0);
        (0..100).for_each(|_| queue.granted(0, 1));
        queue.arrive(1);
        let turns: Vec<_> = (0..6)
            .map(|_| {
                let next = queue.next(0..2).unwrap();
                queue.granted(next, 1);
                next
            })
            .collect();
        assert_eq!(turns.iter().filter(|&&tenant| tenant == 1).count(), 3, "{turns:?}");
    }

    #[test]
    fn who_got_much_when_nobody_else_waited_owes_nothing() {
        let mut queue = FairQueue::new(&[1, 1]);
        queue.arrive(0);
        queue.granted(0, 1000);
        queue.leave(0);
        queue.arrive(0);
        queue.arrive(1);
        assert_eq!(queue.next(0..2), Some(0), "both begin at the same time");
    }

    #[test]
    fn nobody_is_next_who_does_not_wait() {
        let mut queue = FairQueue::new(&[1, 1]);
        assert_eq!(queue.next(0..2), None);
        queue.arrive(1);
        assert_eq!((queue.next(0..2), queue.next([0])), (Some(1), None));
    }

    #[test]
    fn a_rebase_changes_no_turn() {
        let mut queue = FairQueue::new(&[3, 1, 7]);
        (0..3).for_each(|tenant| queue.arrive(tenant));
        (0..20).for_each(|n| queue.granted(n % 3, 5));
        let mut rebased = queue.clone();
        rebased.rebase();
        assert!(rebased.now < queue.now);
        for _ in 0..50 {
            let next = queue.next(0..3).unwrap();
            assert_eq!(rebased.next(0..3), Some(next));
            queue.granted(next, 2);
            rebased.granted(next, 2);
        }
    }

    #[test]
    fn nothing_drifts_in_a_million_turns() {
        let mut queue = FairQueue::new(&[3, 7]);
        (0..2).for_each(|tenant| queue.arrive(tenant));
        let mut granted = [0u64; 2];
        for _ in 0..1_000_000 {
            let next = queue.next(0..2).unwrap();
            queue.granted(next, 1);
            granted[next] += 1;
        }
        assert_eq!(granted, [300_000, 700_000]);
    }

    #[test]
    fn the_papers_example_of_dominant_shares() {
        let demands = [[1, 4], [3, 1]];
        let mut shares = DominantShares::new(&[9, 18], &[1, 1]);
        let mut order = Vec::new();
        while let Some(next) = shares.next((0..2).filter(|&tenant| shares.fits(&demands[tenant]))) {
            shares.granted(next, &demands[next]);
            order.push(next);
        }
        assert_eq!(order.len(), 5);
        assert_eq!(order.iter().filter(|&&tenant| tenant == 0).count(), 3);
        assert!((shares.share(0) - 2.0 / 3.0).abs() < 1e-9 && (shares.share(1) - 2.0 / 3.0).abs() < 1e-9);
        shares.given_back(1, &demands[1]);
        assert_eq!(shares.next(0..2), Some(1), "who gave back has the least");
    }

    #[test]
    fn fractions_are_compared_exactly_however_large() {
        let most = u128::from(u64::MAX);
        assert!(Fraction(most - 1, most << 32).cmp(Fraction(most, (most + 1) << 32)).is_lt());
        assert!(Fraction(3, 9).cmp(Fraction(2, 6)).is_eq());
        assert!(Fraction(7, 2).cmp(Fraction(10, 3)).is_gt());
    }

    #[test]
    fn a_kind_that_there_is_none_of_counts_for_nobody() {
        let mut shares = DominantShares::new(&[0, 10], &[1, 1]);
        shares.granted(0, &[0, 1]);
        assert_eq!(shares.next(0..2), Some(1));
        assert!(!shares.fits(&[1, 0]));
    }

    #[test]
    fn nobody_has_no_evenness() {
        assert_eq!(jain_index([]), None);
        assert_eq!(jain_index([0.0, 0.0]), None);
    }
}
