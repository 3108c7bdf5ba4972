//! A pool: a request gets what it asked for, from the smallest tier that has it, and a refusal says why.
//!
//! In reading order: [`building`], [`routing`] (which tier serves, and spilling over), [`forms`] (all forms of allocation),
//! [`waiting`], [`reservations`], [`giving_back`] (leases, handles, closing), [`tenants`] (and what becomes of their bytes),
//! [`dynamic`] (`ResourcePool`), [`metrics`] (what is shown), [`optimize`] and [`optimize_reserve`]. Beside them, in files of their own, stands what
//! needs a process or a feature to itself (`pool_breaker.rs`, `factory_breaker.rs`, `pool_waits.rs`, which move the clock; `pool_config.rs`), what a pool does when there is not enough
//! (`rules.rs`), and what is taken together (`groups.rs`, `sessions.rs`).

#![cfg(not(loom))] // tokio has a loom of its own under that flag

#[path = "../common/mod.rs"]
pub mod common;

mod building;
mod dynamic;
mod forms;
mod giving_back;
mod metrics;
mod optimize;
mod optimize_reserve;
mod reservations;
mod routing;
mod tenants;
mod waiting;

use tierpool::{Lease, Memory, Pool, Tier};

/// Three sizes of two slots each, and a tier of numbers.
fn pool() -> Pool {
    let numbers = Tier::builder("numbers").capacity(2).build_with(|| 7u64).unwrap();
    Pool::builder()
        .memory("large", 4096, 2)
        .memory("small", 64, 2)
        .memory("middle", 512, 2)
        .tier(numbers)
        .tenant("md")
        .tenant("orders")
        .build()
        .unwrap()
}

/// The tier that a lease is from, by its size.
fn served_by(lease: &Lease<Memory>) -> usize {
    lease.capacity()
}

fn free(pool: &Pool, tier: &str) -> usize {
    pool.monitor().tier(tier).unwrap().snapshot.free
}
