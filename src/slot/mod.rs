//! One slot: its state word, the header around it, and the handle that names it at one generation.

pub(crate) mod handle;
pub(crate) mod header;
pub(crate) mod label;
pub(crate) mod priority;
pub(crate) mod site;
pub(crate) mod word;
