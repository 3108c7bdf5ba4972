//! Quotas: what a tenant and its children may hold, never exceeded, and never refused while there is some left.
//!
//! An allocation by a tenant takes a [credit](crate::tier::credit) from its thread's own cell: no shared write. Only a thread that has
//! none at hand comes here, and *draws* a batch: it charges the meters of the tenant and of all its ancestors (slots and bytes each), and then
//! has its cell granted that many.
//!
//! # What holds
//! - **Never over.** At every moment, what the meter of an account says is at least what the cells below it were granted, and that is at least
//!   what is in use. No charge goes beyond the limit.
//! - **No false refusal.** A draw is refused only if there was a moment during the call at which the limit was reached by what was in use, whatever
//!   idle or stopped threads have in their cells or had begun.
//! - **Nobody waits.** Threads that draw at the same time may call one another off, but one that is stopped stops nobody.
//!
//! # Meters are only ever charged
//! Nobody takes anything off a meter: what a thread lets go of ([`Cell::trim`]), what a drain takes back, what a draw that was called off or
//! refused half-way had charged, just stays on it. Only when a meter reaches its limit, somebody *recounts*: as a collector of garbage does, by
//! what is still there. So nothing needs to be handed back at the right moment, and nothing is lost that somebody drops. A recount
//!
//! 1. by exchange, puts its ticket onto the meter; every charge by another takes it off again;
//! 2. drains all cells below the account, and calls their owners' draws off;
//! 3. adds up what is granted still;
//! 4. by exchange, sets the meter to that, if the ticket is still there.
//!
//! Whoever raised a cell after it was added up has charged the meter after the ticket was put, so that step 4 fails, or before: then step
//! 2 has found its owner drawing, and has called that off; it begins anew, and charges again. (A draw is *drawing* before it charges. The exchanges
//! on meters acquire and release, so that whoever finds a charge finds its owner drawing.)
//!
//! # Refusing
//! Two looks at all cells below the account with equal sums are a snapshot of a moment between them. If nothing is lifted in
//! it, and what is used leaves no room, that is the proof. A draw in flight counts as not used: to refuse on
//! its account, one would have to know that it succeeds.
//!
//! # Limits that change
//! Whoever lowers a limit stores it, makes a heavy fence and drains; a draw says that it is drawing, makes a light fence and reads the limits. So
//! either the draw sees the new limit, or it is called off.
//!
//! # Soft limits
//! When a tenant is refused that is within its soft limits, and below the account that refused it so are all its ancestors,
//! that account is *wanted* for [`RECENTLY`]; while such a tenant waits for a slot of a tier, the whole pool is. While an account is
//! wanted, nobody below it draws beyond a soft limit of its own or of an ancestor in between. What it has, it keeps.
//!
//! So that it does not keep it for ever by taking again what it gives back, its cells are *tight* meanwhile: what is given back goes at once. So it is,
//! too, when a limit was lowered below what is held, until a draw succeeds.

use crossbeam_utils::CachePadded;

use super::tenants::{Limit, QuotaError, QuotaRules, Tenant, Unit, check_limits};
use crate::sync::fence::Fence;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::tier::credit::{Cell, Drain, Drawing, Lent, Purse, Purses};

/// For how many ticks of the coarse clock a refusal keeps others from exceeding their soft limits: a second.
pub(crate) const RECENTLY: u64 = 100;
/// A draw takes this part of what is left at most, so that the first to come leaves some for the next.
const PART: u64 = 4;

/// What an account has handed out of one unit, and may.
struct Meter {
    /// In the lower 44 bits, at least what the cells below were granted; above them the ticket of a recount, or 0.
    charged: AtomicU64,
    hard: AtomicU64,
    soft: AtomicU64,
}

impl Meter {
    const AMOUNT: u64 = (1 << 44) - 1;
    /// Where even an account without a limit ends, so that a charge never runs into the ticket.
    const END: u64 = Self::AMOUNT / 2;

    fn new() -> Self {
        Meter { charged: AtomicU64::new(0), hard: AtomicU64::new(u64::MAX), soft: AtomicU64::new(u64::MAX) }
    }

    /// Relaxed: a limit that was changed takes effect as soon as it is seen.
    fn limit(&self, softly: bool) -> u64 {
        let hard = self.hard.load(Ordering::Relaxed).min(Self::END);
        if softly { hard.min(self.soft.load(Ordering::Relaxed)) } else { hard }
    }

    /// How much can be charged.
    fn room(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.charged.load(Ordering::Relaxed) & Self::AMOUNT)
    }

    /// Charges `amount`, if the limit allows. Nothing can always be charged, however far a lowered limit is exceeded.
    fn charge(&self, amount: u64, limit: u64) -> bool {
        if amount == 0 {
            return true;
        }
        let mut now = self.charged.load(Ordering::Relaxed);
        loop {
            let sum = (now & Self::AMOUNT).saturating_add(amount);
            if sum > limit {
                return false;
            }
            // AcqRel: pairs with `begin`; that the drawer is drawing comes before the charge. Takes a ticket off.
            match self.charged.compare_exchange(now, sum, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => now = other,
            }
        }
    }

    /// Puts the ticket of a recount on. If another's is there it will do: nobody has charged since it was put, and whichever recount
    /// ends first is as good.
    fn begin(&self, ticket: u64) -> Option<u64> {
        // Acquire: as below; who put the ticket saw those who had charged before.
        let now = self.charged.load(Ordering::Acquire);
        if now > Self::AMOUNT {
            return Some(now);
        }
        let begun = now | ticket << 44;
        // AcqRel: pairs with `charge`; of who has charged before, the cells tell.
        self.charged.compare_exchange(now, begun, Ordering::AcqRel, Ordering::Relaxed).is_ok().then_some(begun)
    }

    /// The end of that: what is granted.
    fn end(&self, begun: u64, granted: u64) {
        // AcqRel: what was drained comes before what others can charge now. On failure somebody has charged, or recounts too.
        let _ = self.charged.compare_exchange(begun, granted, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// A tenant's.
struct Account {
    name: Box<str>,
    parent: Tenant,
    weight: u32,
    /// The tenant and all below it.
    below: Box<[Tenant]>,
    slots: Meter,
    bytes: Meter,
    /// The tick until which somebody within its soft limits wants what the account has.
    wanted_until: AtomicU64,
    /// The tick until which the tenant's cells keep nothing; beyond [`LOWERED`], the number of a lowered limit.
    tight_until: AtomicU64,
}

/// Later than every tick.
const LOWERED: u64 = 1 << 63;

impl Account {
    fn new(name: &str, parent: Tenant, weight: u32, below: Vec<Tenant>) -> Self {
        Account {
            name: name.into(),
            parent,
            weight,
            below: below.into(),
            slots: Meter::new(),
            bytes: Meter::new(),
            wanted_until: AtomicU64::new(0),
            tight_until: AtomicU64::new(0),
        }
    }

    fn meter(&self, unit: Unit) -> &Meter {
        match unit {
            Unit::Slots => &self.slots,
            Unit::Bytes => &self.bytes,
        }
    }

    /// Hard, and soft.
    fn limits(&self) -> (Limit, Limit) {
        let all = |limit: fn(&Meter) -> &AtomicU64| Limit {
            slots: limit(&self.slots).load(Ordering::Relaxed),
            bytes: limit(&self.bytes).load(Ordering::Relaxed),
        };
        (all(|meter| &meter.hard), all(|meter| &meter.soft))
    }

    fn set(&self, hard: Limit, soft: Limit) {
        for unit in UNITS {
            self.meter(unit).hard.store(hard.of(unit), Ordering::Relaxed);
            self.meter(unit).soft.store(soft.of(unit), Ordering::Relaxed);
        }
    }
}

const UNITS: [Unit; 2] = [Unit::Slots, Unit::Bytes];

/// The cells of one tier, and what a slot of it counts.
struct Counted {
    purses: Purses,
    bytes_a_slot: u64,
    /// By tenant: requests that wait for a slot, and have paid for it.
    waiting: Box<[AtomicU64]>,
}

impl Counted {
    fn price(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Slots => 1,
            Unit::Bytes => self.bytes_a_slot,
        }
    }
}

/// Why a draw was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The tenant itself or an ancestor, whose limit was reached.
    pub(crate) tenant: Tenant,
    pub(crate) unit: Unit,
    pub(crate) limit: u64,
    /// What it and its children held at that moment.
    pub(crate) held: u64,
    /// Whether it was the soft limit, which others who are within theirs make count.
    pub(crate) soft: bool,
}

/// What the cells below an account add up to.
struct Sum {
    granted: u64,
    used: u64,
    settled: bool,
    changes: u64,
}

/// The accounts of a pool's tenants, and the cells of its tiers. See the module's header.
pub(crate) struct Accounts {
    /// By tenant; the first is the pool itself, which has no limits here: its tiers have.
    accounts: Box<[Account]>,
    tiers: Box<[Counted]>,
    capacity: Limit,
    /// Requests that wait, of tenants that were within their soft limits when they began to.
    wanting: CachePadded<AtomicU64>,
    /// Numbers recounts.
    tickets: AtomicU64,
    /// Held by who changes limits.
    changing: Mutex<()>,
}

impl Accounts {
    /// Accounts for the tenants of `rules`, in a pool with tiers of so many `bytes_a_slot`, and with `owners` magazines each.
    ///
    /// # Errors
    /// As [`QuotaRules::validate`].
    pub(crate) fn new(
        rules: &QuotaRules,
        capacity: Limit,
        bytes_a_slot: &[u64],
        owners: usize,
    ) -> Result<Self, QuotaError> {
        let parents = rules.parents(capacity)?;
        let tenants = (1..).map(Tenant).take(parents.len());
        let parent = |tenant: Tenant| parents[tenant.index() - 1];
        let is_below = |tenant: Tenant, top: Tenant| {
            std::iter::successors(Some(tenant), |&at| Some(parent(at)).filter(|&up| up != Tenant::NOBODY))
                .any(|at| at == top)
        };
        let accounts = rules.tenants.iter().zip(tenants.clone()).map(|(rules, tenant)| {
            let below = tenants.clone().filter(|&other| is_below(other, tenant)).collect();
            let account = Account::new(&rules.name, parent(tenant), rules.weight, below);
            account.set(rules.hard, rules.soft);
            account
        });
        let pool = Account::new("", Tenant::NOBODY, 0, Vec::new());
        let cells = parents.len() + 1;
        let counted = |&bytes_a_slot| Counted {
            purses: Purses::new(owners, cells),
            bytes_a_slot,
            waiting: (0..cells).map(|_| AtomicU64::new(0)).collect(),
        };
        Ok(Accounts {
            accounts: std::iter::once(pool).chain(accounts).collect(),
            tiers: bytes_a_slot.iter().map(counted).collect(),
            capacity,
            wanting: CachePadded::default(),
            tickets: AtomicU64::new(0),
            changing: Mutex::new(()),
        })
    }

    /// The tenant of that name.
    pub(crate) fn tenant(&self, name: &str) -> Option<Tenant> {
        self.tenants().find(|&tenant| self.name(tenant) == name)
    }

    /// How many tiers are counted.
    pub(crate) fn tiers(&self) -> usize {
        self.tiers.len()
    }

    /// All tenants.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = Tenant> {
        (1..).map(Tenant).take(self.accounts.len() - 1)
    }

    /// Whether there is such a tenant; nobody is always there.
    #[inline]
    pub(crate) fn has(&self, tenant: Tenant) -> bool {
        tenant.index() < self.accounts.len()
    }

    /// A tenant's name.
    pub(crate) fn name(&self, tenant: Tenant) -> &str {
        &self.accounts[tenant.index()].name
    }

    /// The tenant whose limits it shares, or nobody.
    pub(crate) fn parent(&self, tenant: Tenant) -> Tenant {
        self.accounts[tenant.index()].parent
    }

    /// A tenant's weight.
    pub(crate) fn weight(&self, tenant: Tenant) -> u32 {
        self.accounts[tenant.index()].weight
    }

    /// The purse of a magazine's owner in a tier: for the owner. `None` if there are not so many magazines.
    #[inline]
    pub(crate) fn purse(&self, tier: usize, owner: usize) -> Option<&Purse> {
        self.tiers[tier].purses.of(owner)
    }

    /// A purse in a tier for a thread that has no magazine. `None` if 16 such threads are allocating already: the one exception to
    /// that nobody is refused while there is something left.
    pub(crate) fn lend(&self, tier: usize) -> Option<Lent<'_>> {
        self.tiers[tier].purses.lend()
    }

    /// The refusal of a thread that none could be lent to.
    pub(crate) fn crowded(&self, tenant: Tenant) -> Refused {
        let meter = self.accounts[tenant.index()].meter(Unit::Slots);
        let (limit, held) = (meter.limit(false), self.held(tenant, Unit::Slots));
        Refused { tenant, unit: Unit::Slots, limit, held, soft: false }
    }

    /// `n` slots of `tenant` are back, by a thread that has no magazine.
    pub(crate) fn give_back_by_anybody(&self, tier: usize, tenant: Tenant, n: u32) {
        let cell = self.tiers[tier].purses.of_nobody().and_then(|purse| purse.cell(tenant.index()));
        if let Some(cell) = cell {
            cell.give_back_by_anybody(n);
        }
    }

    /// For a claim that its cell could not cover, which is that of `tenant` in a purse of `tier`: draws up to `batch` credits more than it
    /// needs, after draining others if need be, and makes it good.
    ///
    /// Two exchanges on the cell and one for each unit of each account up the tree; at a limit, some looks at all cells below it,
    /// and one heavy fence for every [32](crate::tier::credit) of them that have something to drain.
    #[cold]
    pub(crate) fn draw(
        &self,
        tier: usize,
        tenant: Tenant,
        mut drawing: Drawing<'_>,
        batch: u32,
        fence: Fence,
        now: u64,
    ) -> Result<(), Refused> {
        let (tier, least) = (&self.tiers[tier], u64::from(drawing.claim()));
        let tight_until = &self.accounts[tenant.index()].tight_until;
        let lowered = tight_until.load(Ordering::Relaxed);
        loop {
            // Pairs with the heavy fence of who changes limits: either this sees the new ones, or the cell is found drawing.
            fence.light();
            let mut most = least + u64::from(batch);
            for (at, unit, softly) in self.meters(tenant, now) {
                let (price, meter) = (tier.price(unit), self.accounts[at.index()].meter(unit));
                let amount = least.saturating_mul(price);
                if let Err(refused) = self.make_room(at, unit, softly, amount, &drawing, fence) {
                    self.note_refused(tenant, refused.tenant, tier, least, fence, now);
                    return Err(refused);
                }
                most = most.min((meter.room(meter.limit(softly)) / PART).checked_div(price).unwrap_or(most));
            }
            let most = most.max(least);
            let charged = self.meters(tenant, now).all(|(at, unit, softly)| {
                let meter = self.accounts[at.index()].meter(unit);
                meter.charge(most.saturating_mul(tier.price(unit)), meter.limit(softly))
            });
            if charged {
                match drawing.complete(most as u32) {
                    Ok(()) => {
                        // A draw that charged nothing of a unit says nothing about the limit of that.
                        if lowered >= LOWERED && UNITS.into_iter().all(|unit| tier.price(unit) > 0) {
                            // Relaxed: if it fails, another limit was lowered meanwhile.
                            let _ = tight_until.compare_exchange(lowered, 0, Ordering::Relaxed, Ordering::Relaxed);
                        }
                        return Ok(());
                    }
                    Err(called_off) => drawing = called_off,
                }
            }
        }
    }

    /// A tenant and its ancestors, from below.
    fn up(&self, tenant: Tenant) -> impl Iterator<Item = Tenant> {
        let some = |tenant: Tenant| Some(tenant).filter(|&tenant| tenant != Tenant::NOBODY);
        std::iter::successors(some(tenant), move |&at| some(self.accounts[at.index()].parent))
    }

    /// What a tenant's draw charges, and whether the soft limit counts.
    fn meters(&self, tenant: Tenant, now: u64) -> impl Iterator<Item = (Tenant, Unit, bool)> {
        self.up(tenant).flat_map(move |at| {
            let softly = self.is_wanted_above(at, now);
            UNITS.map(|unit| (at, unit, softly))
        })
    }

    /// Whether somebody wants what an account above has.
    fn is_wanted_above(&self, tenant: Tenant, now: u64) -> bool {
        let wanted = |at: Tenant| self.accounts[at.index()].wanted_until.load(Ordering::Relaxed) > now;
        self.is_waited_for() || wanted(Tenant::NOBODY) || self.up(tenant).skip(1).any(wanted)
    }

    /// Whether somebody waits for whom others are not to exceed their soft limits.
    fn is_waited_for(&self) -> bool {
        // Relaxed: it takes effect as soon as it is seen.
        self.wanting.load(Ordering::Relaxed) > 0
    }

    /// Sees to it that `amount` can be charged, or proves that there was a moment when it was not there.
    fn make_room(
        &self,
        at: Tenant,
        unit: Unit,
        softly: bool,
        amount: u64,
        drawing: &Drawing<'_>,
        fence: Fence,
    ) -> Result<(), Refused> {
        let meter = self.accounts[at.index()].meter(unit);
        loop {
            let limit = meter.limit(softly);
            if meter.room(limit) >= amount {
                return Ok(());
            }
            let sum = self.add_up(at, unit);
            if !sum.settled || sum.used.saturating_add(amount) <= limit {
                self.recount(at, unit, drawing, fence);
            } else if self.add_up(at, unit).changes == sum.changes {
                let soft = limit < meter.limit(false);
                return Err(Refused { tenant: at, unit, limit, held: sum.used, soft });
            }
        }
    }

    /// Sets a meter to what is granted, after draining; once, which may come to nothing if others charge it meanwhile.
    fn recount(&self, at: Tenant, unit: Unit, drawing: &Drawing<'_>, fence: Fence) {
        let meter = self.accounts[at.index()].meter(unit);
        // Relaxed: a number is enough. 20 bits of it, of which 0 means that there is none: a recount would have to be stopped
        // for a million others to take the ticket of one for its own.
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed) % ((1 << 20) - 1) + 1;
        let Some(begun) = meter.begin(ticket) else { return };
        self.drain(at, Some(drawing), fence);
        meter.end(begun, self.add_up(at, unit).granted);
    }

    /// Takes back what is free in the cells below an account, and calls draws off, except one.
    fn drain(&self, at: Tenant, except: Option<&Drawing<'_>>, fence: Fence) {
        let mut drain = Drain::new(fence);
        let cells = self.tiers.iter().flat_map(|tier| self.cells(tier, at));
        cells.filter(|cell| !except.is_some_and(|drawing| drawing.is_of(cell))).for_each(|cell| drain.add(cell));
        drain.finish();
    }

    /// A tier's cells of a tenant and all below it.
    fn cells<'a>(&'a self, tier: &'a Counted, at: Tenant) -> impl Iterator<Item = &'a Cell> {
        self.accounts[at.index()].below.iter().flat_map(|tenant| tier.purses.cells(tenant.index()))
    }

    /// One look at each cell below an account.
    fn add_up(&self, at: Tenant, unit: Unit) -> Sum {
        let mut sum = Sum { granted: 0, used: 0, settled: true, changes: 0 };
        for tier in &self.tiers {
            let (mut granted, mut used) = (0u32, 0u32);
            for look in self.cells(tier, at).map(Cell::look) {
                granted = granted.wrapping_add(look.granted);
                used = used.wrapping_add(look.used);
                sum.settled &= look.settled;
                sum.changes = sum.changes.wrapping_add(look.changes);
            }
            // Cells that are below zero and above it add up to what there is; between two looks, to less than nothing at times.
            let amount =
                |credits: u32| u64::from(credits.cast_signed().max(0).cast_unsigned()).saturating_mul(tier.price(unit));
            sum.granted = sum.granted.saturating_add(amount(granted));
            sum.used = sum.used.saturating_add(amount(used));
        }
        sum
    }

    /// What a tenant and its children hold of a unit: a look at each cell. Exact at a quiet point.
    pub(crate) fn held(&self, tenant: Tenant, unit: Unit) -> u64 {
        self.add_up(tenant, unit).used
    }

    /// The same of both units.
    pub(crate) fn held_of_all(&self, tenant: Tenant) -> Limit {
        Limit { slots: self.held(tenant, Unit::Slots), bytes: self.held(tenant, Unit::Bytes) }
    }

    /// What a tenant and its children may hold: hard, and soft.
    pub(crate) fn limits(&self, tenant: Tenant) -> (Limit, Limit) {
        self.accounts[tenant.index()].limits()
    }

    /// One request more, or less, of a tenant waits for a slot of a tier.
    pub(crate) fn waits(&self, tier: usize, tenant: Tenant, more: bool) {
        // Relaxed: a number for `slots_of`, which is exact at quiet points only.
        let waiting = &self.tiers[tier].waiting[tenant.index()];
        waiting.fetch_add(if more { 1 } else { u64::MAX }, Ordering::Relaxed);
    }

    /// Slots of one tier that a tenant itself holds, without those that it only waits for, a look at a cell for each thread. Exact
    /// at a quiet point, if [`waits`](Self::waits) is told.
    pub(crate) fn slots_of(&self, tier: usize, tenant: Tenant) -> u64 {
        let cells = self.tiers[tier].purses.cells(tenant.index());
        let used = cells.fold(0u32, |sum, cell| sum.wrapping_add(cell.look().used));
        let used: u64 = used.cast_signed().max(0).cast_unsigned().into();
        used.saturating_sub(self.tiers[tier].waiting[tenant.index()].load(Ordering::Relaxed))
    }

    /// Owner: whether the purse need not be tight any more; then it is not.
    pub(crate) fn may_relax(&self, purse: &Purse, now: u64) -> bool {
        purse.relax();
        let until = |account: &Account| account.tight_until.load(Ordering::Relaxed);
        let tight = self.is_waited_for() || self.accounts.iter().any(|account| until(account) > now);
        if tight {
            purse.tighten();
        }
        !tight
    }

    /// What comes back into any purse is to be looked at.
    fn tighten(&self) {
        self.tiers.iter().flat_map(|tier| tier.purses.all()).for_each(Purse::tighten);
    }

    /// `n` slots of `tenant` are back, into its cell in the purse of the calling thread, which keeps `batch` credits or, when it is
    /// tight, none.
    #[inline(always)]
    pub(crate) fn give_back(&self, tenant: Tenant, cell: &Cell, n: u32, batch: u32, now: impl FnOnce() -> u64) {
        cell.give_back(n);
        // Relaxed: it takes effect as soon as it is seen.
        let tight_until = self.accounts[tenant.index()].tight_until.load(Ordering::Relaxed);
        let tight = tight_until != 0 && (self.is_waited_for() || tight_until > now());
        cell.trim(if tight { 0 } else { batch });
    }

    /// `by` was full, for `n` slots beyond what it holds: if the tenant is within its soft limits, which is returned, others may not
    /// exceed theirs for a while.
    fn note_refused(&self, tenant: Tenant, by: Tenant, tier: &Counted, n: u64, fence: Fence, now: u64) -> bool {
        let is_within = self.up(tenant).take_while(|&at| at != by).all(|at| {
            UNITS.into_iter().all(|unit| {
                let soft = self.accounts[at.index()].meter(unit).soft.load(Ordering::Relaxed);
                soft == u64::MAX || self.held(at, unit).saturating_add(n.saturating_mul(tier.price(unit))) <= soft
            })
        });
        if is_within {
            self.accounts[by.index()].wanted_until.store(now + RECENTLY, Ordering::Relaxed);
            let soft = || self.tenants().filter(|&other| self.has_soft_limit(other, by));
            // Relaxed: the fence orders it.
            let tighten = |other: Tenant| {
                self.accounts[other.index()].tight_until.fetch_max(now + RECENTLY, Ordering::Relaxed) <= now
            };
            if soft().filter(|&other| tighten(other)).count() > 0 {
                self.tighten();
                fence.heavy(); // pairs with the light fence in `draw`
                soft().for_each(|other| self.drain(other, None, fence));
            }
        }
        is_within
    }

    /// Whether a tenant is below that account, and has a soft limit, its own or that of an ancestor in between.
    fn has_soft_limit(&self, tenant: Tenant, below: Tenant) -> bool {
        let mut soft = false;
        for at in self.up(tenant) {
            if at == below {
                return soft;
            }
            soft |= UNITS.into_iter().any(|unit| {
                let meter = self.accounts[at.index()].meter(unit);
                meter.soft.load(Ordering::Relaxed) != u64::MAX
            });
        }
        soft && below == Tenant::NOBODY
    }

    /// The tenant was refused because a tier had nothing free: if it is within its soft limits, which is returned, others may not
    /// exceed theirs for [`RECENTLY`].
    pub(crate) fn wants(&self, tier: usize, tenant: Tenant, n: u32, fence: Fence, now: u64) -> bool {
        self.note_refused(tenant, Tenant::NOBODY, &self.tiers[tier], n.into(), fence, now)
    }

    /// The same for one that waits, for a slot that it has paid for: if true, until [`wants_no_more`](Self::wants_no_more).
    pub(crate) fn keeps_wanting(&self, tier: usize, tenant: Tenant, fence: Fence, now: u64) -> bool {
        let wants = self.wants(tier, tenant, 0, fence, now);
        if wants {
            // Relaxed: for a second what was said just now will do.
            self.wanting.fetch_add(1, Ordering::Relaxed);
        }
        wants
    }

    /// The end of that.
    pub(crate) fn wants_no_more(&self) {
        self.wanting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Changes a tenant's limits. Who holds more than the new ones keeps it, and gets no more: credits at hand are taken back, and draws
    /// that know the old limits called off.
    ///
    /// # Errors
    /// [`QuotaError`], if they do not fit to those of the others; then nothing has changed.
    pub(crate) fn set_limits(&self, tenant: Tenant, hard: Limit, soft: Limit, fence: Fence) -> Result<(), QuotaError> {
        let _changing = self.changing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut limits: Vec<_> = self.accounts[1..].iter().map(Account::limits).collect();
        let (old_hard, old_soft) = std::mem::replace(&mut limits[tenant.index() - 1], (hard, soft));
        let lower = |new: Limit, old: Limit| UNITS.into_iter().any(|unit| new.of(unit) < old.of(unit));
        let is_lower = lower(hard, old_hard) || lower(soft, old_soft);
        let parents: Vec<_> = self.accounts[1..].iter().map(|account| account.parent).collect();
        check_limits(&|at| &self.accounts[at].name, &parents, &limits, self.capacity)?;
        let account = &self.accounts[tenant.index()];
        account.set(hard, soft);
        if !is_lower {
            return Ok(());
        }
        let lowered = LOWERED + self.tickets.fetch_add(1, Ordering::Relaxed);
        account.below.iter().for_each(|at| self.accounts[at.index()].tight_until.store(lowered, Ordering::Relaxed));
        self.tighten();
        fence.heavy(); // pairs with the light fence in `draw`
        self.drain(tenant, None, fence);
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
