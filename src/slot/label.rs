//! What an allocation says of itself beside its line: what it is for, on whose behalf and account, and how urgent it is.
//!
//! Tag and account stand in the slot's header as long as it is held: the tag in the sixteen bits above the site's address, the
//! account beside the thread's number. So they cost no store of their own.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// See the module's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    /// What it is for.
    pub(crate) tag: Tag,
    /// Whose credits pay for the slot; 0: nobody's.
    pub(crate) account: u16,
    /// On whose behalf it is, paid for or not yet; 0: nobody's.
    pub(crate) tenant: u16,
    /// How urgent it is: [`CLASSES`] of them, the first comes last.
    pub(crate) class: u8,
}

/// One more than the largest number of an account.
pub(crate) const MAX_ACCOUNTS: usize = 1 << 12;

/// Classes of urgency.
pub(crate) const CLASSES: usize = 4;

impl Label {
    /// Of an allocation that says nothing.
    pub(crate) const NONE: Label = Label { tag: Tag::NONE, account: 0, tenant: 0, class: 1 };

    /// Bits of what tells uses apart: tag, tenant and class.
    pub(crate) const BITS: u32 = CLASS_AT + CLASSES.ilog2();

    /// These, in one number.
    #[inline(always)]
    pub(crate) fn bits(self) -> u32 {
        debug_assert!(usize::from(self.tenant) < MAX_ACCOUNTS && usize::from(self.class) < CLASSES);
        u32::from(self.tag.0) | u32::from(self.tenant) << TENANT_AT | u32::from(self.class) << CLASS_AT
    }

    /// The label of such a number; on nobody's account.
    pub(crate) fn from_bits(bits: u32) -> Label {
        let tenant = (bits >> TENANT_AT) as u16 % MAX_ACCOUNTS as u16;
        Label { tag: Tag(bits as u16), account: 0, tenant, class: (bits >> CLASS_AT) as u8 % CLASSES as u8 }
    }

    /// Whether it is as that of an allocation that says nothing.
    #[inline(always)]
    pub(crate) fn says_nothing(self) -> bool {
        self.bits() == Label::NONE.bits()
    }
}

/// Where the parts of a label begin in [`Label::bits`]; the tag is at 0.
const TENANT_AT: u32 = u16::BITS;
const CLASS_AT: u32 = TENANT_AT + MAX_ACCOUNTS.ilog2();

/// The number of a text that tells what a slot is for. The texts live as long as the process, 65,535 of them at most; what comes
/// after that many has no tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(pub(crate) u16);

#[derive(Default)]
struct Texts {
    numbers: HashMap<&'static str, u16>,
    texts: Vec<&'static str>,
}

static TEXTS: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);

/// A panic cannot leave the table half changed in a way that matters: at worst a number has no text.
fn texts() -> MutexGuard<'static, Texts> {
    TEXTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tag {
    pub(crate) const NONE: Tag = Tag(0);

    /// The number of this text, which is made at its first use.
    pub(crate) fn of(text: &str) -> Tag {
        let mut texts = texts();
        if let Some(&number) = texts.numbers.get(text) {
            return Tag(number);
        }
        let Ok(number) = u16::try_from(texts.texts.len() + 1) else { return Tag::NONE };
        let text: &'static str = Box::leak(Box::from(text));
        texts.texts.push(text);
        texts.numbers.insert(text, number);
        Tag(number)
    }

    /// The text.
    pub(crate) fn text(self) -> Option<&'static str> {
        let at = usize::from(self.0).checked_sub(1)?;
        texts().texts.get(at).copied()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_number() {
        let (rx, tx) = (Tag::of("rx, of this test"), Tag::of("tx, of this test"));
        assert_ne!(rx, tx);
        assert_eq!(Tag::of("rx, of this test"), rx);
        assert_eq!(rx.text(), Some("rx, of this test"));
        assert_eq!(Tag::NONE.text(), None);
    }
}
