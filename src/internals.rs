//! What the models in `loom-tests` reach beside the public surface. In the loom build only.

use std::panic::Location;

use crate::admission::quota::Accounts;
use crate::admission::tenants::{Limit, QuotaRules, Tenant, Unit};
use crate::resource::places::Places;
use crate::slot::label::Label;
use crate::slot::word::Word;
use crate::sync::Ordering;
use crate::sync::arena::zeroed_slice;
use crate::sync::fence::Fence;
use crate::tier::allocate::{self, Caller};
use crate::tier::chain::{Chain, Link};
use crate::tier::core::{Core, flags};
use crate::tier::credit::{Cell, Drain};
use crate::tier::depot::Depot;
use crate::tier::registry;
use crate::tier::reserve::{self, Marks};
use crate::tier::{Tier, attach};
use crate::tier::{epoch, grow, help, scarcity, segments, wait};
use crate::{Allocate, AllocateError, Handle, Lease, clock};

/// Ends the calling thread's use of all tiers, as its exit does.
pub fn exit_thread() {
    attach::exit();
}

/// The last resort of an allocation, without the hints that come before it.
#[track_caller]
pub fn search<T: Send + 'static>(tier: &Tier<T>) -> Option<Lease<T>> {
    let caller = Caller { site: Location::caller(), label: Label::NONE, magazine: None };
    let taken = scarcity::find_or_refuse(tier.core(), &caller)?;
    // SAFETY: as in `Tier::try_allocate`.
    Some(unsafe { Lease::new(tier.core(), taken.index) })
}

/// The last step of that: the proof, by the count if there is a certificate.
#[track_caller]
pub fn scan<T: Send + 'static>(tier: &Tier<T>) -> Option<Lease<T>> {
    let caller = Caller { site: Location::caller(), label: Label::NONE, magazine: None };
    let now = tier.core().flags.load(Ordering::Relaxed);
    let counting = (now & flags::CERTIFIED != 0).then_some(now);
    let taken = scarcity::scan(tier.core(), &caller, counting)?;
    // SAFETY: as in `Tier::try_allocate`.
    Some(unsafe { Lease::new(tier.core(), taken.index) })
}

/// Sets the time of the calling model, in ticks of the coarse clock.
pub fn set_clock(ticks: u32) {
    clock::set(ticks);
}

/// An execution begins, which knows of none before it.
pub fn begin() {
    clock::set(0);
    registry::restart();
}

/// A chain of slots alone.
pub struct Slots {
    chain: Chain,
    links: &'static [Link],
}

impl Slots {
    /// A chain for `slots` slots, without any.
    pub fn new(slots: usize) -> Option<Self> {
        Some(Slots { chain: Chain::new(), links: zeroed_slice(slots)? })
    }

    /// Adds a slot that is not in it.
    pub fn add(&self, index: u32) {
        self.chain.add(self.links, index);
    }

    /// Takes the slot that was added last.
    pub fn take(&self) -> Option<u32> {
        let (index, _) = self.chain.take(self.links, |_| Word::from_bits(0))?;
        Some(index)
    }
}

/// Who needs the memory of a segment; no memory.
pub struct Users(segments::Word);

impl Default for Users {
    fn default() -> Self {
        Users(segments::Word::new())
    }
}

impl Users {
    /// One more user; whether there is memory. `None` while it is being taken.
    pub fn enter(&self) -> Option<bool> {
        self.0.enter()
    }

    /// There is memory.
    pub fn back(&self) {
        self.0.back();
    }

    /// One user less; true if the caller is to take the memory back.
    pub fn leave(&self) -> bool {
        self.0.leave().is_some()
    }

    /// It was taken back.
    pub fn bare(&self) {
        self.0.bare();
    }
}

/// Which places of a region are taken; no region.
pub struct Spots(Places);

impl Spots {
    /// So many.
    pub fn new(places: usize) -> Self {
        Spots(Places::new(places))
    }

    /// Takes one.
    pub fn take(&self) -> Option<usize> {
        self.0.take(0)
    }

    /// Gives it back.
    pub fn give_back(&self, place: usize) {
        self.0.give_back(place);
    }
}

/// A depot alone.
pub struct Hints(Depot);

impl Hints {
    /// A depot for the hints of `slots` slots.
    pub fn new(slots: usize) -> Option<Self> {
        Depot::new(slots).map(Hints)
    }

    /// Stores one hint; false if there was no room.
    pub fn store(&self, hint: u32) -> bool {
        self.0.store(std::iter::once(hint))
    }

    /// Takes one hint.
    pub fn take(&self) -> Option<u32> {
        let mut taken = None;
        self.0.take(|_| {}, |hint| taken = Some(hint));
        taken
    }
}

/// An allocation of this class of urgency, from 0 (may always be refused) to 3.
#[track_caller]
pub fn allocate_as<T: Send + 'static>(tier: &Tier<T>, class: u8) -> Option<Lease<T>> {
    let label = Label::of_class(class);
    let caller = Caller { site: Location::caller(), label, magazine: attach::current(tier.core()) };
    let index = allocate::allocate(tier.core(), caller)?;
    // SAFETY: the core is that of a `Tier<T>`, and the slot has just been leased to this call.
    Some(unsafe { Lease::new(tier.core(), index) })
}

/// How many slots each class leaves in the reserve, the least urgent first.
pub fn set_marks<T: Send + 'static>(tier: &Tier<T>, marks: [u32; 4]) {
    assert!(reserve::set_marks(tier.core(), Marks(marks)).is_ok(), "nothing panics here");
}

/// The end of a wait that takes too long, at this moment.
pub fn time_out<T: Send + 'static>(wait: Allocate<'_, T>) -> Result<Lease<T>, AllocateError> {
    wait.time_out(std::time::Instant::now())
}

/// What an allocation does before it is refused, and the reclaimer in its pass: takes back the grants that are overdue.
pub fn revoke<T: Send + 'static>(tier: &Tier<T>) {
    wait::revoke_overdue(tier.core());
}

/// A slot that was absent, for an allocation that finds nothing else.
#[track_caller]
pub fn build<T: Send + 'static>(tier: &Tier<T>) -> Option<Lease<T>> {
    let caller = Caller { site: Location::caller(), label: Label::NONE, magazine: None };
    let taken = help::lease(tier.core(), grow::one(tier.core())?, &caller);
    // SAFETY: as in `Tier::try_allocate`.
    Some(unsafe { Lease::new(tier.core(), taken.index) })
}

/// A slot that was retired, for an allocation that finds nothing else.
#[track_caller]
pub fn recycle<T: Send + 'static>(tier: &Tier<T>) -> Option<Lease<T>> {
    let caller = Caller { site: Location::caller(), label: Label::NONE, magazine: attach::current(tier.core()) };
    let taken = help::lease(tier.core(), epoch::one(tier.core())?, &caller);
    allocate::served(tier.core(), &caller);
    // SAFETY: the core is that of a `Tier<T>`, and the slot has just been leased to this call.
    Some(unsafe { Lease::new(tier.core(), taken.index) })
}

/// The handle of these bits, without a look at its slot: as it comes from another thread without order.
pub fn handle(bits: u128) -> Handle {
    Handle::unchecked(bits)
}

/// The background reclaimer's way to a tier: it keeps none alive.
pub struct Block(&'static Core);

impl Block {
    /// The block that the tier lives in.
    pub fn of<T: Send + 'static>(tier: &Tier<T>) -> Self {
        Block(tier.core())
    }

    /// Frees what was retired, if a tier lives here.
    pub fn collect(&self) {
        let Some(_entered) = self.0.enter() else { return };
        epoch::help(self.0);
    }
}

/// One owner's credits alone.
pub struct Credits(Cell);

impl Credits {
    /// `granted` credits, none of them in use.
    pub fn new(granted: u32) -> Self {
        let cell = Cell::new();
        if let Err(drawing) = cell.take(1, Fence::chosen()) {
            let _ = drawing.complete(granted);
            cell.give_back(1);
        }
        Credits(cell)
    }

    /// Owner: takes one of those at hand.
    pub fn take(&self) -> bool {
        self.0.take(1, Fence::chosen()).is_ok()
    }

    /// Owner: takes one of those at hand, or of `n` that it is granted if there is none. False if the draw was called off.
    pub fn draw(&self, n: u32) -> bool {
        self.0.take(1, Fence::chosen()).or_else(|drawing| drawing.complete(n)).is_ok()
    }

    /// Owner: gives one back.
    pub fn give_back(&self) {
        self.0.give_back(1);
    }

    /// Owner: keeps so many.
    pub fn trim(&self, keep: u32) {
        self.0.trim(keep);
    }

    /// Anybody: takes what is free, and says what is granted still.
    pub fn drain(&self) -> u32 {
        let mut drain = Drain::new(Fence::chosen());
        drain.add(&self.0);
        drain.finish();
        self.0.look().granted
    }
}

/// The accounts of a pool with one tier, of one byte a slot.
pub struct Quotas(Accounts);

impl Quotas {
    /// For so many threads, whose purses are there already: loom does not see `OnceLock`s.
    pub fn new(rules: &QuotaRules, owners: usize) -> Self {
        let accounts = Accounts::new(rules, Limit::NONE, &[1], owners).expect("rules that fit");
        (0..owners).for_each(|owner| assert!(accounts.purse(0, owner).is_some()));
        Quotas(accounts)
    }

    /// The tenant of that name.
    pub fn tenant(&self, name: &str) -> Tenant {
        self.0.tenant(name).expect("a tenant")
    }

    fn cell(&self, owner: usize, tenant: Tenant) -> &Cell {
        self.0.purse(0, owner).and_then(|purse| purse.cell(tenant.index())).expect("an owner")
    }

    /// Takes one credit of a tenant, by the thread that is that owner, drawing up to `batch` more if it must.
    pub fn take(&self, owner: usize, tenant: Tenant, batch: u32) -> bool {
        let fence = Fence::chosen();
        let taken = self.cell(owner, tenant).take(1, fence);
        taken.or_else(|drawing| self.0.draw(0, tenant, drawing, batch, fence, 0)).is_ok()
    }

    /// Gives one back, by the thread that is that owner, which keeps up to `batch`.
    pub fn give_back(&self, owner: usize, tenant: Tenant, batch: u32) {
        self.0.give_back(tenant, self.cell(owner, tenant), 1, batch, || 0);
    }

    /// Changes a tenant's hard limit.
    pub fn set_limit(&self, tenant: Tenant, hard: Limit) {
        self.0.set_limits(tenant, hard, Limit::NONE, Fence::chosen()).expect("limits that fit");
    }

    /// What it holds, in slots.
    pub fn held(&self, tenant: Tenant) -> u64 {
        self.0.held(tenant, Unit::Slots)
    }
}
