//! The machine around a pool.
//!
//! [`resources`] says what there is and [`detector`] looks: memory, processors, disk, as this process may use them.

pub(crate) mod detector;
pub(crate) mod resources;
