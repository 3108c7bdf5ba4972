//! The model: how many slots of each tier are in use, what each account holds, who waits; and so, what must come of a request.

use std::collections::BTreeMap;

use tierpool::{AllocateError, Limit, RequestError, Spill, Unit, Watermarks};

use crate::case::Want;

/// Name, bytes a slot, slots. The last is there only if the case has an overflow.
pub const TIERS: [(&str, usize, usize); 4] =
    [("small", 64, 6), ("medium", 256, 4), ("large", 1024, 2), ("overflow", 0, 3)];
pub const OVERFLOW: usize = 3;

/// Name, parent, weight. The first is nobody, who has no account; the account in its place is the pool's, which may be wanted.
pub const TENANTS: [(&str, usize, u32); 5] =
    [("nobody", 0, 1), ("firm", 0, 1), ("desk", 1, 2), ("trader", 2, 3), ("lone", 0, 1)];
pub const NOBODY: usize = 0;

/// A tenant and its ancestors.
pub fn up(tenant: usize) -> impl Iterator<Item = usize> {
    let some = |at: usize| Some(at).filter(|&at| at != NOBODY);
    std::iter::successors(some(tenant), move |&at| some(TENANTS[at].1))
}

/// Slots and bytes.
type Amounts = [u64; 2];
const UNITS: [Unit; 2] = [Unit::Slots, Unit::Bytes];

pub fn amounts(limit: Limit) -> Amounts {
    [limit.slots, limit.bytes]
}

/// What `n` slots count as.
fn price(tier: usize, n: usize) -> Amounts {
    [n as u64, (n * TIERS[tier].1) as u64]
}

/// Why not, to the last number.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    TooLarge,
    NoOverflow,
    Exhausted { tier: &'static str, wanted: usize, free: usize, reserved: usize, waiting: usize },
    Quota { tenant: String, unit: Unit, limit: u64, held: u64, soft: bool },
    GroupTooLarge { tier: &'static str, wanted: usize, capacity: usize },
    Spent,
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Refusal {
        match error {
            RequestError::TooLarge { .. } => Refusal::TooLarge,
            RequestError::NoOverflow => Refusal::NoOverflow,
            RequestError::Tier(AllocateError::Exhausted(why)) => {
                let (wanted, free, reserved, waiting) = (why.wanted, why.free, why.reserved, why.waiting);
                Refusal::Exhausted { tier: why.tier, wanted, free, reserved, waiting }
            }
            RequestError::Quota { tenant, unit, limit, held, soft } => {
                Refusal::Quota { tenant: tenant.as_str().to_owned(), unit, limit, held, soft }
            }
            RequestError::GroupTooLarge { tier, wanted, capacity } => Refusal::GroupTooLarge { tier, wanted, capacity },
            RequestError::Spent { .. } => Refusal::Spent,
            other => panic!("{other}"),
        }
    }
}

/// Waits that have ended: with a slot, in vain, given up.
pub type Ends = [u64; 3];

#[derive(Clone, Default)]
pub struct Tier {
    /// What each class leaves, the least urgent first.
    marks: [usize; 4],
    /// Slots that are leased, detached or granted.
    pub held: usize,
    /// Requests refused by a quota, by the tier; and served in place of a smaller one.
    pub denied: u64,
    pub refusals: u64,
    pub spilled: u64,
    /// By class: requests for one slot that were refused without a wait, and waits for it.
    pub refused: [u64; 4],
    pub waits: [Ends; 4],
}

#[derive(Clone)]
pub struct Account {
    pub hard: Amounts,
    pub soft: Amounts,
    pub held: Amounts,
    /// Somebody within its soft limits was refused what is in it.
    wanted: bool,
    /// The tenant's own.
    pub waits: Ends,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Place {
    Waiting,
    Granted,
    Revoked,
}

#[derive(Clone, Copy)]
pub struct Waiter {
    pub tier: usize,
    pub class: usize,
    pub tenant: usize,
    pub place: Place,
    /// It was within its soft limits as it began to wait, so others keep to theirs.
    wants: bool,
    /// That of the last poll.
    pub waker: u64,
}

pub struct Model {
    pub tiers: Vec<Tier>,
    pub accounts: Vec<Account>,
    /// By ticket, and so in the order in which they came.
    pub waiters: BTreeMap<u64, Waiter>,
    pub absorbed: u64,
    /// By tier and class, of two tenants who wait there: what the first was given more than the second, each by its weight.
    lead: BTreeMap<[usize; 4], i32>,
}

impl Model {
    pub fn new(overflow: bool) -> Model {
        let account = Account { hard: [u64::MAX; 2], soft: [u64::MAX; 2], held: [0; 2], wanted: false, waits: [0; 3] };
        Model {
            tiers: vec![Tier::default(); if overflow { 4 } else { 3 }],
            accounts: vec![account; TENANTS.len()],
            waiters: BTreeMap::new(),
            absorbed: 0,
            lead: BTreeMap::new(),
        }
    }

    fn has_overflow(&self) -> bool {
        self.tiers.len() > OVERFLOW
    }

    /// Slots that nobody has: free ones, and those in the reserve.
    pub fn idle(&self, tier: usize) -> usize {
        TIERS[tier].2 - self.tiers[tier].held
    }

    /// The reserve is filled before anything is free.
    pub fn reserved(&self, tier: usize) -> usize {
        self.idle(tier).min(self.tiers[tier].marks[0])
    }

    /// Those in a tier's queue.
    pub fn queue(&self, tier: usize) -> impl Iterator<Item = (u64, Waiter)> {
        let waits = move |one: &Waiter| one.tier == tier && one.place == Place::Waiting;
        self.waiters.iter().map(|(&ticket, &one)| (ticket, one)).filter(move |(_, one)| waits(one))
    }

    /// Takes `n` slots or none, down to what the class leaves.
    pub fn take(&mut self, tier: usize, class: usize, n: usize) -> bool {
        let may = n == 0 || self.idle(tier) >= n + self.tiers[tier].marks[class];
        self.tiers[tier].held += if may { n } else { 0 };
        may
    }

    fn refuse(&mut self, tier: usize, class: usize, wanted: usize) -> Refusal {
        let (name, _, capacity) = TIERS[tier];
        self.tiers[tier].refusals += 1;
        let for_class = self.idle(tier).saturating_sub(self.tiers[tier].marks[class]);
        let free = if wanted > capacity { 0 } else { for_class };
        Refusal::Exhausted {
            tier: name,
            wanted,
            free,
            reserved: self.reserved(tier),
            waiting: self.queue(tier).count(),
        }
    }

    /// `by` had no room for `n` slots more: it is wanted by a tenant that is within its soft limits, and so are those below `by`.
    fn want(&mut self, by: usize, tenant: usize, tier: usize, n: usize) -> bool {
        let is_within = |at: usize| {
            let Account { held, soft, .. } = &self.accounts[at];
            (0..2).all(|unit| held[unit] + price(tier, n)[unit] <= soft[unit])
        };
        let wants = tenant != NOBODY && up(tenant).take_while(|&at| at != by).all(is_within);
        self.accounts[by].wanted |= wants;
        wants
    }

    /// Puts `n` slots on the accounts of a tenant and its ancestors, if all have room. Soft limits count below what is wanted, and
    /// everywhere while somebody waits who wants.
    fn pay(&mut self, tier: usize, tenant: usize, n: usize) -> Result<(), Refusal> {
        let waited_for = self.waiters.values().any(|one| one.wants);
        for at in up(tenant) {
            let softly = waited_for || up(at).skip(1).chain([NOBODY]).any(|above| self.accounts[above].wanted);
            let Account { hard, soft, held, .. } = self.accounts[at];
            for (unit, price) in price(tier, n).into_iter().enumerate() {
                let (hard, soft, held) = (hard[unit], soft[unit], held[unit]);
                let limit = if softly { hard.min(soft) } else { hard };
                if price > limit.saturating_sub(held) {
                    self.want(at, tenant, tier, n);
                    self.tiers[tier].denied += 1;
                    let (tenant, unit) = (TENANTS[at].0.to_owned(), UNITS[unit]);
                    return Err(Refusal::Quota { tenant, unit, limit, held, soft: limit < hard });
                }
            }
        }
        self.charge(tier, tenant, n);
        Ok(())
    }

    fn charge(&mut self, tier: usize, tenant: usize, n: usize) {
        let price = price(tier, n);
        up(tenant).for_each(|at| (0..2).for_each(|unit| self.accounts[at].held[unit] += price[unit]));
    }

    pub fn pay_back(&mut self, tier: usize, tenant: usize, n: usize) {
        let price = price(tier, n);
        up(tenant).for_each(|at| (0..2).for_each(|unit| self.accounts[at].held[unit] -= price[unit]));
    }

    pub fn give_back(&mut self, tier: usize, tenant: usize, n: usize) {
        self.tiers[tier].held -= n;
        self.pay_back(tier, tenant, n);
    }

    /// Pays and takes, or neither.
    fn buy(&mut self, tier: usize, want: &Want, n: usize) -> Result<(), Refusal> {
        let paid = n.min(TIERS[tier].2);
        self.pay(tier, want.tenant, paid)?;
        if self.take(tier, want.class, n) {
            return Ok(());
        }
        self.pay_back(tier, want.tenant, paid);
        Err(self.refuse(tier, want.class, n))
    }

    fn route(&self, want: &Want) -> Result<usize, Refusal> {
        match TIERS[..OVERFLOW].iter().position(|&(_, bytes, _)| want.bytes <= bytes) {
            _ if want.spill == Spill::System && !self.has_overflow() => Err(Refusal::NoOverflow),
            Some(tier) => Ok(tier),
            None if want.spill == Spill::System => Ok(OVERFLOW),
            None => Err(Refusal::TooLarge),
        }
    }

    /// The tier has refused somebody who does not wait.
    fn note_refused(&mut self, tier: usize, class: usize, why: &Refusal) {
        self.tiers[tier].refused[class] += u64::from(matches!(why, Refusal::Exhausted { .. }));
    }

    /// `n` slots of another tier than the one that fits best.
    fn spill(&mut self, first: usize, want: &Want, n: usize) -> Option<usize> {
        let beyond = match want.spill {
            Spill::NextLarger => first + 1..OVERFLOW,
            Spill::System if first < OVERFLOW => OVERFLOW..OVERFLOW + 1,
            _ => return None,
        };
        for tier in beyond {
            match self.buy(tier, want, n) {
                Ok(()) => {
                    self.tiers[tier].spilled += 1;
                    return Some(tier);
                }
                Err(why) => self.note_refused(tier, want.class, &why),
            }
            self.absorbed += 1;
        }
        None
    }

    /// Which tier gives a slot.
    pub fn allocate(&mut self, want: &Want) -> Result<usize, Refusal> {
        let first = self.route(want)?;
        match self.buy(first, want, 1) {
            Ok(()) => Ok(first),
            Err(why @ Refusal::Quota { .. }) => Err(why),
            Err(why) => self.instead(first, want, 1, why),
        }
    }

    /// What there is elsewhere, after the tier that fits best has refused.
    fn instead(&mut self, first: usize, want: &Want, n: usize, why: Refusal) -> Result<usize, Refusal> {
        if let Refusal::Exhausted { .. } = why {
            self.want(NOBODY, want.tenant, first, n.min(TIERS[first].2));
        }
        self.note_refused(first, want.class, &why);
        let tier = self.spill(first, want, n).ok_or(why)?;
        self.absorbed += 1;
        Ok(tier)
    }

    /// Which tier gives all `n`.
    pub fn reserve(&mut self, want: &Want, n: usize) -> Result<usize, Refusal> {
        let first = self.route(want)?;
        match self.buy(first, want, n) {
            Ok(()) => Ok(first),
            Err(why) => self.instead(first, want, n, why),
        }
    }

    /// Which tiers give each a slot. They are asked in their order.
    pub fn group(&mut self, wants: &[Want]) -> Result<Vec<usize>, Refusal> {
        let routes = wants.iter().map(|want| self.route(want)).collect::<Result<Vec<_>, _>>()?;
        let mut order: Vec<_> = (0..wants.len()).collect();
        order.sort_by_key(|&place| routes[place]);
        for &place in &order {
            let (tier, class) = (routes[place], wants[place].class);
            let capacity = TIERS[tier].2 - self.tiers[tier].marks[class];
            let wanted = order.iter().filter(|&&at| routes[at] == tier && wants[at].class <= class).count();
            if wanted > capacity {
                return Err(Refusal::GroupTooLarge { tier: TIERS[tier].0, wanted, capacity });
            }
        }
        let mut tiers = vec![0; wants.len()];
        for (taken, &place) in order.iter().enumerate() {
            match self.allocate(&wants[place]) {
                Ok(tier) => tiers[place] = tier,
                Err(why) => {
                    order[..taken].iter().for_each(|&back| self.give_back(tiers[back], wants[back].tenant, 1));
                    return Err(why);
                }
            }
        }
        Ok(tiers)
    }

    /// The first poll of a future: a slot, or a place in the queue. Who comes after a waiter stays behind it. It pays, but
    /// has not paid while it looks elsewhere.
    pub fn wait(&mut self, want: &Want, ticket: u64) -> Result<Option<usize>, Refusal> {
        let Want { tenant, class, .. } = *want;
        let tier = self.route(want)?;
        self.pay(tier, tenant, 1)?;
        if self.queue(tier).next().is_none() && self.take(tier, class, 1) {
            return Ok(Some(tier));
        }
        self.pay_back(tier, tenant, 1);
        if let Some(elsewhere) = self.spill(tier, want, 1) {
            return Ok(Some(elsewhere));
        }
        self.pay(tier, tenant, 1)?;
        let wants = self.want(NOBODY, tenant, tier, 0);
        self.waiters.insert(ticket, Waiter { tier, class, tenant, place: Place::Waiting, wants, waker: ticket });
        Ok(None)
    }

    /// Nobody waits with that ticket any more. Whom it was.
    pub fn end_wait(&mut self, ticket: u64, served: bool) -> Waiter {
        let one = self.waiters.remove(&ticket).unwrap();
        let end = if served { 0 } else { 2 };
        self.tiers[one.tier].waits[one.class][end] += 1;
        self.accounts[one.tenant].waits[end] += 1;
        one
    }

    fn waits(&self, tier: usize, class: usize, tenant: usize) -> bool {
        self.queue(tier).any(|(_, one)| (one.class, one.tenant) == (class, tenant))
    }

    /// As long as the most urgent who waits for a tier may have a slot, one of them was granted it and `called`: of its tenant
    /// the first, and of a tenant whose turn it was. Nobody else was.
    pub fn serve(&mut self, called: Vec<u64>) {
        let mut called = called.into_iter();
        for tier in 0..self.tiers.len() {
            self.keep_leads();
            while let Some(class) = self.queue(tier).map(|(_, one)| one.class).max()
                && self.take(tier, class, 1)
            {
                let waker = called.next().expect("there is a slot for who waits, who was not called");
                let (ticket, Waiter { class: its, tenant, .. }) =
                    self.queue(tier).find(|(_, one)| one.waker == waker).expect("who was called waits there");
                assert_eq!(its, class, "a more urgent one waits");
                let first = self.queue(tier).find(|(_, one)| (one.class, one.tenant) == (class, tenant));
                assert_eq!(first.map(|(first, _)| first), Some(ticket), "another of its tenant came first");
                for other in (0..TENANTS.len()).filter(|&other| other != tenant) {
                    // All weights divide 6.
                    let [turn, of_other] = [tenant, other].map(|tenant| 6 / TENANTS[tenant].2 as i32);
                    if self.waits(tier, class, other) {
                        *self.lead.entry([tier, class, other, tenant]).or_default() -= turn;
                        let lead = self.lead.entry([tier, class, tenant, other]).or_default();
                        *lead += turn;
                        assert!(*lead <= turn + of_other, "it was the turn of {}", TENANTS[other].0);
                    }
                }
                self.waiters.entry(ticket).and_modify(|one| one.place = Place::Granted);
                self.keep_leads();
            }
        }
        assert_eq!(called.next(), None, "called for nothing");
    }

    /// Turns count between those who wait.
    fn keep_leads(&mut self) {
        let mut lead = std::mem::take(&mut self.lead);
        lead.retain(|&[tier, class, one, other], _| self.waits(tier, class, one) && self.waits(tier, class, other));
        self.lead = lead;
    }

    /// Wants are forgotten, and grants taken back.
    pub fn pass_time(&mut self) {
        self.accounts.iter_mut().for_each(|account| account.wanted = false);
        for one in self.waiters.values_mut().filter(|one| one.place == Place::Granted) {
            one.place = Place::Revoked;
            self.tiers[one.tier].held -= 1;
        }
    }

    /// Whether the limits fit to the others' and into the pool; then they count.
    pub fn set_quota(&mut self, tenant: usize, hard: Limit, soft: Limit) -> bool {
        let tiers = (0..self.tiers.len()).map(|tier| price(tier, TIERS[tier].2));
        let all = tiers.fold([0; 2], |[slots, bytes], tier| [slots + tier[0], bytes + tier[1]]);
        let is_in = |a: Amounts, b: Amounts| (0..2).all(|unit| a[unit] == u64::MAX || a[unit] <= b[unit]);
        let mut accounts = self.accounts.clone();
        (accounts[tenant].hard, accounts[tenant].soft) = (amounts(hard), amounts(soft));
        let fits = (1..TENANTS.len()).all(|at| {
            let Account { hard, soft, .. } = accounts[at];
            is_in(hard, all) && is_in(soft, hard) && up(at).all(|above| is_in(hard, accounts[above].hard))
        });
        if fits {
            self.accounts = accounts;
        }
        fits
    }

    /// Whether they are in order, and leave something; then they count.
    pub fn set_marks(&mut self, tier: usize, Watermarks { min, low, high }: Watermarks) -> bool {
        let fits = min <= low && low <= high && high < TIERS[tier].2;
        if fits {
            self.tiers[tier].marks = [high, low, min, 0];
        }
        fits
    }
}
