//! How urgent a request is. What that means is decided to the right of here; a slot's header says it of its holder.

use super::label::CLASSES;

/// How urgent a request is. Among those who wait the more urgent is served first; and where a tier has
/// [`Watermarks`](crate::Watermarks), it gets slots that the others do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Priority {
    /// Served when there is plenty.
    Low,
    /// What requests have that do not say.
    #[default]
    Normal,
    /// Before the ordinary ones.
    High,
    /// May have the last slot.
    Critical,
}

impl Priority {
    /// All of them, the least urgent first.
    pub const ALL: [Priority; CLASSES] = [Priority::Low, Priority::Normal, Priority::High, Priority::Critical];

    /// Its place among them.
    pub(crate) const fn class(self) -> u8 {
        self as u8
    }
}
