//! Who gets what, against a model: priorities and watermarks, quotas, groups, reservations, spill-over, and waits.
//!
//! The model is counts, in plain code of one thread, for which the rules of a [`Pool`] are exact. It says which tier serves a
//! request, or how it is refused, to the last number; what each tenant holds, with its children; what of each tier is free,
//! kept back, leased, detached and waited for; and what is counted as refused, denied, spilled and absorbed, and of waits, how they
//! ended. Of those who wait it says when one of them must be called, of which class, and who came first of a tenant; that no tenant
//! gets ahead of another by more than their weights allow; and that others keep to their soft limits for as long as one waits who was within
//! his. Bytes of one tenant never reach another. In the end all slots are there, and nobody holds any.
//!
//! Time stands still until a case moves it: so a want lasts, and a grant stands, for as long as the case says.
#![no_main]

mod case;
mod model;
mod world;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tierpool::{Pool, TenantRules};

use crate::case::Case;
use crate::model::{NOBODY, OVERFLOW, TENANTS, TIERS};
use crate::world::{World, pass_time};

/// Nobody gets old.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

fuzz_target!(|case: Case| {
    let mut builder = Pool::builder().ageing(FOR_EVER);
    for (name, bytes, slots) in &TIERS[..OVERFLOW] {
        builder = builder.memory(name, *bytes, *slots);
    }
    for (name, parent, weight) in &TENANTS[1..] {
        let rules = TenantRules::new(name).weight(*weight);
        builder = builder.tenant(if *parent == NOBODY { rules } else { rules.parent(TENANTS[*parent].0) });
    }
    if case.overflow {
        builder = builder.overflow(TIERS[OVERFLOW].2);
    }
    let pool = builder.build().unwrap();
    // More than a case can take.
    pass_time(100);
    let mut world = World::new(&pool, case.overflow);
    for op in &case.ops.0 {
        world.step(op);
        world.look();
    }
    world.end();
});
