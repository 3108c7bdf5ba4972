//! The machine around a pool.
//!
//! [`resources`] says what there is and [`detector`] looks: memory, processors, disk, as this process may use them. [`health`] judges: it holds
//! what was seen against [`threshold`]s, tells [`issue`]s, and has pools give back what is idle while memory is short.

pub(crate) mod detector;
pub(crate) mod health;
pub(crate) mod issue;
pub(crate) mod resources;
pub(crate) mod threshold;
