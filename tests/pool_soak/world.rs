//! The pool of a round, what its players give to each other, and the accounts at its end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tierpool::{
    BreakerRules, Fairness, Handle, Lease, Limit, Memory, MemoryTier, Pool, Reclaimer, SharedLease, Spill, TenantRules,
    Tier, Watermarks,
};

use crate::ledger::*;
use crate::player::Grave;
use crate::report::*;
use crate::values::*;

/// A lease and its entry in the ledger, which ends first.
pub struct Held<K: 'static> {
    pub entry: Entry,
    pub lease: Lease<K>,
}

/// What lies about for anybody.
#[derive(Default)]
pub struct Table {
    pub memory: Mutex<Vec<Held<Memory>>>,
    pub values: Mutex<Vec<Held<Value>>>,
    pub handles: Mutex<Vec<(Handle, Entry)>>,
    pub shared: Mutex<Vec<SharedLease<Value>>>,
}

pub struct World {
    pub pool: Pool,
    pub custom: Tier<Value>,
    pub census: Arc<Census>,
    pub ledger: Arc<Ledger>,
    pub table: Table,
    pub closes_busy: bool,
    pub most_waiting: usize,
}

/// Marks of a tier: each at least the ledger's.
pub fn marks(tier: usize, random: &mut fastrand::Rng) -> Watermarks {
    let (_, _, slots, low, high) = TIERS[tier];
    let low = random.usize(low..=high);
    Watermarks { min: random.usize(0..=low), low, high: random.usize(high.max(low)..slots / 2) }
}

pub fn limits(tenant: usize, random: &mut fastrand::Rng) -> (Limit, Limit) {
    let (_, _, slots, bytes) = TENANTS[tenant];
    let some = |most: i64, random: &mut fastrand::Rng| match most {
        i64::MAX => u64::MAX,
        most if random.bool() => most as u64,
        most => random.u64(most as u64 / 4..=most as u64),
    };
    let hard = Limit { slots: some(slots, random), bytes: some(bytes, random) };
    let soft = match random.u32(..3) {
        0 => Limit::slots(hard.slots.min(random.u64(1..40))),
        _ => Limit::NONE,
    };
    (hard, soft)
}

pub fn breaker(random: &mut fastrand::Rng) -> BreakerRules {
    BreakerRules {
        minimum_calls: random.u32(1..200),
        half_open_calls: random.u32(1..20),
        half_open_limit: Some(Duration::from_millis(random.u64(10..50))),
        open_min: Duration::from_millis(10),
        open_max: Duration::from_millis(random.u64(10..100)),
        slow_after: Duration::from_millis(random.u64(5..100)),
        ..BreakerRules::default()
    }
}

impl World {
    pub fn any(random: &mut fastrand::Rng) -> World {
        let census = Arc::new(Census::default());
        let reclaimer = if random.bool() { Reclaimer::Background } else { Reclaimer::Manual };
        let grant_limit = Duration::from_millis(random.u64(..30));
        let barging = random.bool().then(|| Duration::from_millis(random.u64(..20)));
        let most_waiting = if random.u32(..3) == 0 { 20 } else { 24_000 };
        let made = Arc::clone(&census);
        let mut custom = Tier::<Value>::builder("custom").capacity(TIERS[3].2).min_capacity(8).reclaimer(reclaimer);
        custom = custom.grant_limit(grant_limit).rebuild_backoff(Duration::from_millis(1), Duration::from_millis(20));
        custom = match random.u32(..3) {
            0 => custom.reset(Value::reset),
            1 => custom.clean(Value::reset),
            _ => custom,
        };
        if random.bool() {
            let census = Arc::clone(&census);
            custom = custom.validate_on_allocate(move |value: &mut Value| {
                value.is_alive();
                census.may_panic();
                !census.fails()
            });
        }
        if random.bool() {
            custom = custom.discard_on_panic();
        }
        if let Some(barging) = barging {
            custom = custom.barging(barging);
        }
        let custom = custom.try_build_with(move || {
            if made.fails() {
                return Err(TOLD);
            }
            made.may_panic();
            Ok(Value::new(&made))
        });
        let custom = custom.unwrap();
        let mut builder = Pool::builder().reclaimer(reclaimer).spill(Spill::NextLarger);
        builder = builder.ageing(Duration::from_millis([10, 50, 1000][random.usize(..3)]));
        if random.bool() {
            builder = builder.fairness(Fairness::DominantShares);
        }
        for (at, (name, bytes, slots, ..)) in TIERS.into_iter().enumerate() {
            if bytes > 0 {
                builder = builder.memory_tier(MemoryTier::new(name, bytes, slots).with(move |tier| {
                    let tier = tier.min_capacity(slots / 2).grant_limit(grant_limit);
                    match barging {
                        Some(limit) => tier.barging(limit),
                        None => tier,
                    }
                }));
            }
            let most = Watermarks { min: slots / 4, low: slots / 3, high: slots / 2 };
            builder = builder.watermarks(name, marks(at, random)).watermarks_up_to(name, most);
        }
        for (name, parent, slots, bytes) in TENANTS {
            let some = |most: i64| if most == i64::MAX { u64::MAX } else { most as u64 };
            let mut rules = TenantRules::new(name).hard(Limit { slots: some(slots), bytes: some(bytes) });
            rules = rules.weight(random.u32(1..5));
            if let Some(parent) = parent {
                rules = rules.parent(TENANTS[parent].0);
            }
            builder = builder.tenant(rules);
        }
        builder = builder.breaker("medium", breaker(random)).breaker("custom", breaker(random));
        let pool = builder.tier(custom.clone()).build().unwrap();
        census.fails.store([0, 5, 100][random.usize(..3)], Ordering::Relaxed);
        census.panics.store([0, 50, 1000][random.usize(..3)], Ordering::Relaxed);
        let closes_busy = random.u32(..4) == 0;
        World { pool, custom, census, ledger: Arc::default(), table: Table::default(), closes_busy, most_waiting }
    }

    /// What lies on the table goes back.
    pub fn clear_table(&self) {
        let Table { memory, values, handles, shared } = &self.table;
        lock(memory).drain(..).for_each(give_back);
        lock(values).drain(..).for_each(give_back);
        for (handle, entry) in lock(handles).drain(..) {
            drop(entry);
            guard(|| check!(self.pool.release_handle(handle).is_ok(), "nobody else may release it"));
        }
        lock(shared).drain(..).for_each(give_back);
    }

    /// Everything has been given back, and some futures were left alone: the accounts are exact, and all can be had again.
    pub fn settle(&self, graves: &[Grave]) {
        let pool = &self.pool;
        eventually(&|| format!("somebody still holds or waits:\n{}", pool.monitor()), || {
            guard(|| pool.reclaim());
            pool.monitor().tiers.iter().all(|tier| {
                let now = &tier.snapshot;
                tier.held() + now.retired + now.dirty + now.maintenance + now.quarantined + now.waiting == 0
            })
        });
        for tier in pool.monitor().tiers {
            let now = tier.snapshot;
            check!(now.free + now.reserved + now.absent == now.capacity, "{} does not add up: {now:?}", tier.name);
        }
        // All must be there again: those of the reserve for the most urgent.
        self.held_by_graves(graves);
        for name in ["medium", "custom"] {
            pool.breaker(name).unwrap().disable();
        }
        for (at, (name, ..)) in TIERS.into_iter().enumerate() {
            let marks = Watermarks { min: 1, low: TIERS[at].3.max(1), high: TIERS[at].4 };
            pool.set_watermarks(name, marks).unwrap();
            let now = pool.monitor().tier(name).unwrap().snapshot;
            check!(
                now.reserved == marks.high.min(now.free + now.reserved),
                "{name} keeps back {}: {now:?}",
                marks.high
            );
        }
        let values = self.census.alive();
        let now = self.custom.snapshot();
        check!(values == (now.free + now.reserved) as u64, "{values} values: {now:?}");
    }

    /// What is held is what those pay for who were left alone while they waited, and no more.
    fn held_by_graves(&self, graves: &[Grave]) {
        for (at, (name, ..)) in TENANTS.into_iter().enumerate() {
            let held = self.pool.held(self.pool.tenant(name).unwrap());
            let paid = graves.iter().filter(|grave| up(grave.tenant).any(|tenant| tenant == at));
            let (slots, bytes) = paid.fold((0, 0), |(slots, bytes), grave| (slots + 1, bytes + grave.bytes));
            check!(held == Limit { slots, bytes }, "{name} holds {held:?}, not {slots} slots, {bytes} bytes");
        }
    }

    /// Nobody has anything, once handles have expired.
    pub fn all_is_paid_back(&self) {
        eventually(&|| format!("something is held:\n{}", self.pool.monitor()), || {
            guard(|| self.pool.reclaim());
            self.pool.monitor().tiers.iter().all(|tier| tier.held() == 0)
        });
        self.held_by_graves(&[]);
    }

    /// Closes the pool, with nobody in it.
    pub fn end(&self) {
        let pool = &self.pool;
        guard(|| pool.close());
        eventually(&|| format!("not empty after its end:\n{}", pool.monitor()), || {
            guard(|| pool.reclaim());
            pool.monitor().tiers.iter().all(|tier| tier.snapshot.absent == tier.snapshot.capacity)
        });
        check!(self.census.alive() == 0, "values are left: {:?}", self.census);
    }
}
