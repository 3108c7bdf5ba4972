//! On whose account slots are held, for a tier whose pool counts what its tenants hold.
//!
//! Who allocates has paid before, and the slot's header says on which account ([`Label::account`](crate::slot::label::Label)). Whatever
//! ends the use of the slot gives back what it took ([`settle`]), once: the header forgets the account.
//! It has to: a slot that is free may be taken aside and given back, which ends no use. That comes before
//! the slot is anybody else's, so that an account is never charged for less than what is held on it.

use std::sync::Arc;

use super::core::{Core, flags};
use super::credit::Purse;
use super::magazine::Magazine;
use crate::sync::Ordering;

/// Keeps the accounts.
pub(crate) trait Accountant: Send + Sync {
    /// A slot that was held on an account is back, by the owner of the magazine with that number, or by a thread without one.
    /// Neither waits nor panics.
    fn give_back(&self, account: u16, magazine: Option<usize>);

    /// Whose account it is.
    fn name(&self, account: u16) -> Option<&str>;
}

/// From now on slots may be held on account. False if somebody keeps accounts for this tier already.
pub(crate) fn appoint(core: &Core, accountant: Arc<dyn Accountant>) -> bool {
    let appointed = core.life().accountant.set(accountant).is_ok();
    // Relaxed: who releases a slot that is held on an account has it from who allocated it after this.
    core.flags.fetch_or(flags::GOVERNED, Ordering::Relaxed);
    appointed
}

/// For the holder of a slot at the end of its use: gives back what was paid for it.
#[inline(always)]
pub(crate) fn settle(core: &Core, magazine: Option<&Magazine>, index: u32) {
    if core.flags.load(Ordering::Relaxed) & flags::GOVERNED != 0 {
        give_back(core, magazine, core.header(index).take_account());
    }
}

#[inline(always)]
fn give_back(core: &Core, magazine: Option<&Magazine>, account: u16) {
    let paid = account == 0 || magazine.and_then(purse).is_some_and(|purse| purse.give_back(account.into()));
    if !paid {
        tell(core, magazine, account);
    }
}

#[cold]
fn tell(core: &Core, magazine: Option<&Magazine>, account: u16) {
    if let Some(accountant) = core.life().accountant.get() {
        accountant.give_back(account, magazine.map(|magazine| core.number_of(magazine)));
    }
}

/// The credits at hand for a magazine's owner, once they were [set](set_purse): for the owner, who holds a slot or has a
/// [`Tier`](super::Tier) of what lives in the block, for as long as that is so.
#[inline(always)]
pub(crate) fn purse(magazine: &Magazine) -> Option<&Purse> {
    // SAFETY: null, or a purse of the accountant of the tier that lives in the block: it is cleared before another tier
    // moves in, and the accountant lasts as long as the tier, which the caller's slot or `Tier` keeps from ending.
    unsafe { magazine.purse.load(Ordering::Relaxed).as_ref() }
}

/// For the owner, as above: that is its purse from now on. It belongs to the tier's accountant.
pub(crate) fn set_purse(magazine: &Magazine, purse: &Purse) {
    magazine.purse.store(std::ptr::from_ref(purse).cast_mut(), Ordering::Relaxed);
}

/// Whose account a slot is held on.
pub(crate) fn name(core: &Core, account: u16) -> Option<String> {
    let accountant = core.life().accountant.get()?;
    accountant.name(account).filter(|_| account != 0).map(str::to_owned)
}
