//! What a pool's tenants may hold: paid for before a tier is asked, on the accounts of the [`quota`](crate::admission::quota).
//!
//! Whoever allocates takes a credit out of the purse of its magazine, which is a store and two loads as long as there is one,
//! and the slot's header keeps on whose account it is. Whatever ends the use of the slot brings the credit back
//! ([`account`](crate::tier::account)), into the purse of the thread that does it.

use std::sync::Arc;

use super::error::{RequestError, ShortName};
use crate::admission::quota::{Accounts, Refused};
use crate::admission::tenants::Tenant;
use crate::clock;
use crate::tier::account::{self, Accountant};
use crate::tier::allocate::Caller;
use crate::tier::attach;
use crate::tier::core::Core;
use crate::tier::credit::{Drawing, KEEP};
use crate::tier::lease::Lease;

/// The accounts, for one tier.
pub(super) struct Books {
    pub(super) accounts: Arc<Accounts>,
    /// The tier's row.
    pub(super) row: usize,
}

impl Accountant for Books {
    fn give_back(&self, account: u16, magazine: Option<usize>) {
        let (Books { accounts, row }, tenant) = (self, Tenant(account));
        let purse = magazine.and_then(|magazine| accounts.purse(*row, magazine));
        if let Some(purse) = purse
            && accounts.may_relax(purse, clock::ticks())
            && purse.give_back(tenant.index())
        {
            return;
        }
        match purse.and_then(|purse| purse.cell(tenant.index())) {
            Some(cell) => accounts.give_back(tenant, cell, 1, KEEP, clock::ticks),
            None => accounts.give_back_by_anybody(*row, tenant, 1),
        }
    }

    fn name(&self, account: u16) -> Option<&str> {
        Some(self.accounts.name(Tenant(account)))
    }
}

impl Books {
    /// Pays for `n` slots, on behalf of a tenant.
    ///
    /// # Errors
    /// Whose limit is reached. Nothing was paid then.
    #[inline(always)]
    pub(super) fn pay(&self, core: &'static Core, caller: &Caller, tenant: Tenant, n: u32) -> Result<(), Refused> {
        if let Some(magazine) = caller.magazine
            && let Some(purse) = account::purse(magazine)
            && let Some(cell) = purse.cell(tenant.index())
        {
            return match cell.take(n, core.fence) {
                Ok(()) => Ok(()),
                Err(drawing) => self.draw(core, tenant, drawing),
            };
        }
        self.pay_without_magazine(core, tenant, n)
    }

    #[cold]
    #[inline(never)]
    fn draw(&self, core: &'static Core, tenant: Tenant, drawing: Drawing<'_>) -> Result<(), Refused> {
        clock::tick();
        self.accounts.draw(self.row, tenant, drawing, KEEP, core.fence, clock::ticks())
    }

    /// The first time that a thread meets the tier, or because it gets no magazine any more.
    #[cold]
    #[inline(never)]
    fn pay_without_magazine(&self, core: &'static Core, tenant: Tenant, n: u32) -> Result<(), Refused> {
        let magazine = attach::attach(core);
        let purse = magazine.and_then(|magazine| self.accounts.purse(self.row, core.number_of(magazine)));
        if let (Some(magazine), Some(purse)) = (magazine, purse) {
            account::set_purse(magazine, purse);
        }
        let lent = if purse.is_none() { self.accounts.lend(self.row) } else { None };
        match purse.or(lent.as_deref()).and_then(|purse| purse.cell(tenant.index())) {
            Some(cell) => match cell.take(n, core.fence) {
                Ok(()) => Ok(()),
                Err(drawing) => self.draw(core, tenant, drawing),
            },
            None => Err(self.accounts.crowded(tenant)),
        }
    }

    /// Takes back what was paid for a slot that was not to be had.
    #[cold]
    pub(super) fn unpay(&self, core: &Core, tenant: Tenant, n: u32) {
        let magazine = attach::current(core).map(|magazine| core.number_of(magazine));
        (0..n).for_each(|_| self.give_back(tenant.number(), magazine));
    }

    /// The tier had nothing free for a tenant: others shall not exceed their soft limits for a while.
    #[cold]
    pub(super) fn wants(&self, core: &Core, tenant: Tenant) {
        clock::tick();
        self.accounts.wants(self.row, tenant, 1, core.fence, clock::ticks());
    }

    /// The error of a refused payment.
    #[cold]
    pub(super) fn why(&self, refused: Refused) -> RequestError {
        let Refused { tenant, unit, limit, held, soft } = refused;
        RequestError::Quota { tenant: ShortName::new(self.accounts.name(tenant)), unit, limit, held, soft }
    }
}

/// Slots to come that are paid for. Dropped, they go back to the tenant's account.
pub(super) struct Paid<'p> {
    books: &'p Books,
    core: &'static Core,
    tenant: Tenant,
    slots: u32,
}

impl<'p> Paid<'p> {
    /// Pays for `slots` slots.
    pub(super) fn new(
        books: &'p Books,
        core: &'static Core,
        caller: &Caller,
        tenant: Tenant,
        slots: u32,
    ) -> Result<Self, RequestError> {
        match books.pay(core, caller, tenant, slots) {
            Ok(()) => Ok(Paid { books, core, tenant, slots }),
            Err(refused) => Err(books.why(refused)),
        }
    }

    /// The lease is one of the slots, if they had to be paid for: it takes over what was paid.
    pub(super) fn charge<K: 'static>(paid: Option<Self>, lease: Lease<K>) -> Lease<K> {
        if let Some(mut paid) = paid {
            paid.charge_one(&lease);
        }
        lease
    }

    /// The lease is one of the slots.
    pub(super) fn charge_one<K: 'static>(&mut self, lease: &Lease<K>) {
        debug_assert!(self.slots > 0);
        lease.charge(self.tenant.number());
        self.slots -= 1;
    }

    /// The tenant has to wait: others shall not exceed their soft limits for a while.
    pub(super) fn wants(&self) {
        self.books.wants(self.core, self.tenant);
    }
}

impl Drop for Paid<'_> {
    fn drop(&mut self) {
        if self.slots > 0 {
            self.books.unpay(self.core, self.tenant, self.slots);
        }
    }
}
