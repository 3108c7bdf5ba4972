//! What a pool's tenants may hold: paid for before a tier is asked, on the accounts of the [`quota`](crate::admission::quota).
//!
//! Whoever allocates takes a credit out of the purse of its magazine, which is a store and two loads as long as there is one,
//! and the slot's header keeps on whose account it is. Whatever ends the use of the slot brings the credit back
//! ([`account`](crate::tier::account)), into the purse of the thread that does it.

use std::sync::Arc;

use super::error::{RequestError, ShortName};
use super::rows::Row;
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
    #[cold]
    #[inline(never)]
    fn draw(&self, core: &'static Core, tenant: Tenant, drawing: Drawing<'_>) -> Result<(), Refused> {
        clock::tick();
        self.accounts.draw(self.row, tenant, drawing, KEEP, core.fence, clock::ticks())
    }

    /// Pays for `n` slots, on behalf of a tenant: out of the purse of the thread's magazine, which from then on knows it, or, for a
    /// thread that gets no magazine any more, out of a spare one.
    ///
    /// # Errors
    /// Whose limit is reached. Nothing was paid then.
    #[cold]
    #[inline(never)]
    fn pay(&self, core: &'static Core, tenant: Tenant, n: u32) -> Result<(), Refused> {
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

    /// The tier had not `n` slots for a tenant, who may be nobody: others shall not exceed their soft limits for a while.
    #[cold]
    pub(super) fn wants(&self, core: &Core, tenant: Tenant, n: u32) {
        if tenant != Tenant::NOBODY {
            clock::tick();
            self.accounts.wants(self.row, tenant, n, core.fence, clock::ticks());
        }
    }

    /// The same, and the tenant waits. If true, the others shall not until [`wants_no_more`](Self::wants_no_more).
    pub(super) fn keeps_wanting(&self, core: &Core, tenant: Tenant) -> bool {
        if tenant == Tenant::NOBODY {
            return false;
        }
        clock::tick();
        self.accounts.keeps_wanting(self.row, tenant, core.fence, clock::ticks())
    }

    /// The end of that.
    pub(super) fn wants_no_more(&self) {
        self.accounts.wants_no_more();
    }

    /// The error of a refused payment.
    #[cold]
    pub(super) fn why(&self, refused: Refused) -> RequestError {
        let Refused { tenant, unit, limit, held, soft } = refused;
        RequestError::Quota { tenant: ShortName::new(self.accounts.name(tenant)), unit, limit, held, soft }
    }
}

/// Slots to come that are paid for; none, if nobody is to pay. Dropped, they go back to the tenant's account.
pub(super) struct Paid<'p> {
    row: &'p Row,
    tenant: Tenant,
    slots: u32,
}

impl<'p> Paid<'p> {
    /// Pays for `slots` slots of a row.
    ///
    /// # Errors
    /// [`RequestError::Quota`]. Nothing was paid then.
    pub(super) fn new(row: &'p Row, tenant: Tenant, slots: u32) -> Result<Self, RequestError> {
        let Some(books) = row.books.as_deref().filter(|_| tenant != Tenant::NOBODY) else {
            return Ok(Paid { row, tenant, slots: 0 });
        };
        match books.pay(row.tier.core(), tenant, slots) {
            Ok(()) => Ok(Paid { row, tenant, slots }),
            Err(refused) => Err(row.deny(books.why(refused))),
        }
    }

    /// Pays for one slot with what the caller has at hand; `None` if that is nothing.
    #[inline(always)]
    pub(super) fn at_hand(row: &'p Row, core: &Core, caller: &Caller, tenant: Tenant) -> Option<Self> {
        if tenant == Tenant::NOBODY {
            return Some(Paid { row, tenant, slots: 0 });
        }
        let cell = caller.magazine.and_then(account::purse).and_then(|purse| purse.cell(tenant.index()))?;
        // Who has to draw does so where there is time for it.
        cell.take(1, core.fence).ok().map(|()| Paid { row, tenant, slots: 1 })
    }

    /// The lease, which was put on the account as it was made, is what was paid for.
    #[inline(always)]
    pub(super) fn spend(self) {
        std::mem::forget(self);
    }

    /// The lease is one of the slots: it takes over what was paid.
    pub(super) fn charge<K: 'static>(mut self, lease: Lease<K>) -> Lease<K> {
        self.charge_one(&lease);
        lease
    }

    /// The same, of several.
    pub(super) fn charge_one<K: 'static>(&mut self, lease: &Lease<K>) {
        if self.slots > 0 {
            lease.charge(self.tenant.number());
            self.slots -= 1;
        }
    }
}

impl Drop for Paid<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.slots > 0 {
            give_back(self.row, self.tenant, self.slots);
        }
    }
}

#[cold]
#[inline(never)]
fn give_back(row: &Row, tenant: Tenant, slots: u32) {
    if let Some(books) = &row.books {
        let core = row.tier.core();
        let magazine = attach::current(core).map(|magazine| core.number_of(magazine));
        (0..slots).for_each(|_| books.give_back(tenant.number(), magazine));
    }
}
