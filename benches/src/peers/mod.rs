//! The peers, each at its newest release and in its cheapest form: one adapter a file.

pub mod bb8;
pub mod deadpool;
pub mod heap;
pub mod lockfree_object_pool;
pub mod nexus_pool;
pub mod object_pool;
pub mod opool;
pub mod sharded_slab;
pub mod waiting;
