//! What an allocation says of itself beside its line: what it is for, on whose behalf and account, and how urgent it is.
//!
//! Tag, urgency and account stand in the slot's header as long as it is held: tag and urgency in the bits that the site's address
//! leaves, above it and below, the account beside the thread's number. So they cost no store of their own.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::priority::Priority;

/// See the module's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    /// What it is for, and how urgent it is.
    pub(crate) mark: Mark,
    /// Whose credits pay for the slot; 0: nobody's.
    pub(crate) account: u16,
    /// On whose behalf it is, paid for or not yet; 0: nobody's.
    pub(crate) tenant: u16,
}

/// One more than the largest number of an account.
pub(crate) const MAX_ACCOUNTS: usize = 1 << 12;

/// Classes of urgency.
pub(crate) const CLASSES: usize = 4;

impl Label {
    /// Of an allocation that says nothing.
    pub(crate) const NONE: Label = Label { mark: Mark::NONE, account: 0, tenant: 0 };

    /// Of an allocation that says only how urgent it is.
    pub(crate) const fn of_class(class: u8) -> Label {
        Label { mark: Mark::new(Tag::NONE, Priority::ALL[class as usize]), ..Label::NONE }
    }

    /// How urgent it is: [`CLASSES`] of them, the first comes last.
    #[inline(always)]
    pub(crate) const fn class(self) -> u8 {
        self.mark.class()
    }

    /// Bits of what tells uses apart: mark and tenant.
    pub(crate) const BITS: u32 = Mark::BITS + MAX_ACCOUNTS.ilog2();

    /// These, in one number; zero if it says nothing.
    #[inline(always)]
    pub(crate) fn bits(self) -> u32 {
        debug_assert!(usize::from(self.tenant) < MAX_ACCOUNTS);
        self.mark.0 | u32::from(self.tenant) << Mark::BITS
    }

    /// The label of such a number; on nobody's account.
    pub(crate) fn from_bits(bits: u32) -> Label {
        let tenant = (bits >> Mark::BITS) as u16 % MAX_ACCOUNTS as u16;
        Label { mark: Mark(bits % (1 << Mark::BITS)), account: 0, tenant }
    }

    /// Whether it is as that of an allocation that says nothing.
    #[inline(always)]
    pub(crate) fn says_nothing(self) -> bool {
        self.bits() == 0
    }
}

/// A tag and a class of urgency, as they stand around a site's address once they are turned by sixteen bits: the tag in the lower
/// sixteen, the class in two above them, and zero for what says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Mark(u32);

const TAG_BITS: u32 = u16::BITS;
/// The class whose bits are zero.
const ORDINARY: u8 = Priority::Normal.class();

impl Mark {
    /// Of an allocation that says nothing.
    pub(crate) const NONE: Mark = Mark(0);
    /// Bits that it takes.
    const BITS: u32 = TAG_BITS + CLASSES.ilog2();
    /// Bits of a site's address that the class takes.
    pub(crate) const LOW_BITS: u64 = CLASSES as u64 - 1;

    pub(crate) const fn new(tag: Tag, priority: Priority) -> Mark {
        Mark((((priority.class() ^ ORDINARY) as u32) << TAG_BITS) | tag.0 as u32)
    }

    pub(crate) const fn tag(self) -> Tag {
        Tag(self.0 as u16)
    }

    #[inline(always)]
    pub(crate) const fn class(self) -> u8 {
        (self.0 >> TAG_BITS) as u8 ^ ORDINARY
    }

    pub(crate) fn priority(self) -> Priority {
        Priority::ALL[usize::from(self.class())]
    }

    /// What goes around an address.
    #[inline(always)]
    pub(crate) const fn around(self) -> u64 {
        (self.0 as u64).rotate_right(TAG_BITS)
    }

    /// What stands around the address in these bits.
    pub(crate) const fn of(bits: u64) -> Mark {
        let turned = bits.rotate_left(TAG_BITS);
        Mark((turned & ((Mark::LOW_BITS << TAG_BITS) | u16::MAX as u64)) as u32)
    }
}

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
    fn a_mark_stands_around_an_address_and_says_nothing_of_what_is_ordinary() {
        assert_eq!(Mark::new(Tag::NONE, Priority::default()), Mark::NONE);
        let address = 0x7fff_ffff_fff8;
        for (tag, priority) in [0, 1, 0x8000, u16::MAX].into_iter().flat_map(|tag| Priority::ALL.map(|it| (tag, it))) {
            let mark = Mark::new(Tag(tag), priority);
            let bits = address | mark.around();
            assert_eq!((mark.tag(), mark.priority(), mark.class()), (Tag(tag), priority, priority.class()));
            assert_eq!(Mark::of(bits), mark);
            assert_eq!(bits & !mark.around(), address, "no bit of the address is touched");
        }
    }

    #[test]
    fn a_text_has_one_number() {
        let (rx, tx) = (Tag::of("rx, of this test"), Tag::of("tx, of this test"));
        assert_ne!(rx, tx);
        assert_eq!(Tag::of("rx, of this test"), rx);
        assert_eq!(rx.text(), Some("rx, of this test"));
        assert_eq!(Tag::NONE.text(), None);
    }
}
