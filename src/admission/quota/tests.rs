//! Quotas against a reference that knows everything, and against threads that all want the last credit.

use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::thread;

use proptest::prelude::*;

use super::super::tenants::TenantRules;
use super::*;

/// Accounts, and what the pool does around them.
struct Bench {
    accounts: Accounts,
    fence: Fence,
    batch: u32,
}

impl Bench {
    fn new(rules: QuotaRules, bytes_a_slot: &[u64], owners: usize, batch: u32) -> Self {
        let accounts = Accounts::new(&rules, Limit::NONE, bytes_a_slot, owners).unwrap();
        Bench { accounts, fence: Fence::chosen(), batch }
    }

    fn tenant(&self, name: &str) -> Tenant {
        self.accounts.tenant(name).unwrap()
    }

    fn cell(&self, owner: usize, tier: usize, tenant: Tenant) -> &Cell {
        self.accounts.purse(tier, owner).unwrap().cell(tenant.index()).unwrap()
    }

    fn take_at(&self, owner: usize, tier: usize, tenant: Tenant, n: u32, now: u64) -> Result<(), Refused> {
        match self.cell(owner, tier, tenant).take(n, self.fence) {
            Ok(()) => Ok(()),
            Err(drawing) => self.accounts.draw(tier, tenant, drawing, self.batch, self.fence, now),
        }
    }

    fn take(&self, owner: usize, tenant: Tenant) -> Result<(), Refused> {
        self.take_at(owner, 0, tenant, 1, 0)
    }

    fn give(&self, owner: usize, tier: usize, tenant: Tenant) {
        self.give_at(owner, tier, tenant, 0);
    }

    fn give_at(&self, owner: usize, tier: usize, tenant: Tenant, now: u64) {
        self.accounts.give_back(tenant, self.cell(owner, tier, tenant), 1, self.batch, || now);
    }
}

fn desk_and_two() -> QuotaRules {
    QuotaRules::new()
        .tenant(TenantRules::new("desk").hard(Limit::slots(10)))
        .tenant(TenantRules::new("md").parent("desk").hard(Limit::slots(8)).soft(Limit::slots(5)))
        .tenant(TenantRules::new("rx").parent("desk").soft(Limit::slots(5)))
}

#[test]
fn tenants_are_looked_up_by_name() {
    let rules = QuotaRules::new().tenant(TenantRules::new("a").weight(3)).tenant(TenantRules::new("b").parent("a"));
    let accounts = Accounts::new(&rules, Limit::NONE, &[], 0).unwrap();
    let b = accounts.tenant("b").unwrap();
    assert_eq!((accounts.name(b), accounts.weight(b), accounts.weight(accounts.tenant("a").unwrap())), ("b", 1, 3));
    assert_eq!((accounts.tenant("c"), accounts.tenant("")), (None, None));
    assert_eq!(accounts.tenants().count(), 2);
}

#[test]
fn a_tenant_gets_its_limit_to_the_slot() {
    let bench = Bench::new(desk_and_two(), &[64], 1, 32);
    let md = bench.tenant("md");
    (0..8).for_each(|_| bench.take(0, md).unwrap());
    let refused = bench.take(0, md).unwrap_err();
    assert_eq!(refused, Refused { tenant: md, unit: Unit::Slots, limit: 8, held: 8, soft: false });
    bench.give(0, 0, md);
    bench.take(0, md).unwrap();
}

#[test]
fn children_share_their_parents_limit() {
    let bench = Bench::new(desk_and_two(), &[64], 1, 32);
    let (desk, md, rx) = (bench.tenant("desk"), bench.tenant("md"), bench.tenant("rx"));
    (0..8).for_each(|_| bench.take(0, md).unwrap());
    (0..2).for_each(|_| bench.take(0, rx).unwrap());
    let refused = bench.take(0, rx).unwrap_err();
    assert_eq!((refused.tenant, refused.held), (desk, 10));
    assert_eq!(bench.accounts.held(md, Unit::Slots), 8);
    assert_eq!(bench.accounts.held(desk, Unit::Bytes), 640);
}

#[test]
fn bytes_count_across_tiers() {
    let rules = QuotaRules::new().tenant(TenantRules::new("md").hard(Limit::bytes(100)));
    let bench = Bench::new(rules, &[10, 60], 1, 4);
    let md = bench.tenant("md");
    bench.take_at(0, 1, md, 1, 0).unwrap();
    (0..4).for_each(|_| bench.take_at(0, 0, md, 1, 0).unwrap());
    let refused = bench.take_at(0, 0, md, 1, 0).unwrap_err();
    assert_eq!(refused, Refused { tenant: md, unit: Unit::Bytes, limit: 100, held: 100, soft: false });
    bench.give(0, 1, md);
    bench.take_at(0, 0, md, 6, 0).unwrap();
    assert!(bench.take_at(0, 0, md, 1, 0).is_err());
}

#[test]
fn what_idle_threads_have_at_hand_is_found() {
    let bench = Bench::new(desk_and_two(), &[64], 40, 32);
    let (md, rx) = (bench.tenant("md"), bench.tenant("rx"));
    // Every thread gives back what another has taken, and keeps what it may.
    for owner in 0..40 {
        bench.take(owner, md).unwrap();
        bench.give(39 - owner, 0, md);
    }
    (0..10).for_each(|_| bench.take(0, rx).unwrap());
    assert!(bench.take(1, rx).is_err());
}

#[test]
fn threads_without_a_magazine_take_and_give_back_too() {
    let bench = Bench::new(desk_and_two(), &[64], 1, 32);
    let md = bench.tenant("md");
    {
        let purse = bench.accounts.lend(0).unwrap();
        for _ in 0..8 {
            let drawing = purse.cell(md.index()).unwrap().take(1, bench.fence);
            drawing.or_else(|drawing| bench.accounts.draw(0, md, drawing, 2, bench.fence, 0)).unwrap();
        }
    }
    assert!(bench.take(0, md).is_err());
    bench.accounts.give_back_by_anybody(0, md, 3);
    assert_eq!(bench.accounts.held(md, Unit::Slots), 5);
    (0..3).for_each(|_| bench.take(0, md).unwrap());
    assert!(bench.take(0, md).is_err());
}

#[test]
fn a_draw_that_stopped_half_way_hides_nothing() {
    let bench = Bench::new(desk_and_two(), &[64], 2, 32);
    let md = bench.tenant("md");
    let stopped = bench.cell(1, 0, md).take(1, bench.fence).err().unwrap();
    let meters: Vec<_> = bench.accounts.meters(md, 0).collect();
    assert!(meters.iter().all(|&(at, unit, _)| bench.accounts.accounts[at.index()].meter(unit).charge(8, u64::MAX)));
    (0..8).for_each(|_| bench.take(0, md).unwrap());
    assert!(bench.take(0, md).is_err());
    let called_off = stopped.complete(8).err().unwrap();
    assert!(bench.accounts.draw(0, md, called_off, 32, bench.fence, 0).is_err());
    assert_eq!(bench.accounts.held(md, Unit::Slots), 8);
}

#[test]
fn a_recount_that_stopped_stops_nobody() {
    let bench = Bench::new(desk_and_two(), &[64], 1, 32);
    let md = bench.tenant("md");
    let meter = bench.accounts.accounts[md.index()].meter(Unit::Slots);
    let stopped = meter.begin(7).unwrap();
    (0..8).for_each(|_| bench.take(0, md).unwrap());
    meter.end(stopped, 0);
    assert!(bench.take(0, md).is_err(), "it was void as soon as somebody charged");
}

#[test]
fn a_soft_limit_counts_while_somebody_within_its_own_was_refused() {
    let bench = Bench::new(desk_and_two(), &[64], 1, 32);
    let (md, rx) = (bench.tenant("md"), bench.tenant("rx"));
    (0..8).for_each(|_| bench.take_at(0, 0, md, 1, 0).unwrap());
    (0..2).for_each(|_| bench.take_at(0, 0, rx, 1, 0).unwrap());
    assert!(bench.take_at(0, 0, rx, 1, 0).is_err());
    // What one within its soft limit wanted is not for one beyond.
    bench.give_at(0, 0, md, 1);
    let refused = bench.take_at(0, 0, md, 1, 1).unwrap_err();
    assert_eq!(refused, Refused { tenant: md, unit: Unit::Slots, limit: 5, held: 7, soft: true });
    bench.take_at(0, 0, rx, 1, 1).unwrap();
    bench.give_at(0, 0, md, 1);
    assert!(bench.take_at(0, 0, md, 1, RECENTLY - 1).is_err());
    bench.take_at(0, 0, md, 1, RECENTLY).unwrap();
}

#[test]
fn one_beyond_its_soft_limit_makes_nobody_elses_count() {
    let bench = Bench::new(desk_and_two(), &[64], 1, 1);
    let (md, rx) = (bench.tenant("md"), bench.tenant("rx"));
    (0..6).for_each(|_| bench.take_at(0, 0, rx, 1, 0).unwrap());
    (0..4).for_each(|_| bench.take_at(0, 0, md, 1, 0).unwrap());
    assert!(bench.take_at(0, 0, rx, 1, 0).is_err());
    bench.give(0, 0, md);
    bench.take_at(0, 0, rx, 1, 0).unwrap();
}

#[test]
fn a_full_tier_makes_soft_limits_count_too() {
    let bench = Bench::new(desk_and_two(), &[64], 1, 1);
    let (md, rx) = (bench.tenant("md"), bench.tenant("rx"));
    (0..5).for_each(|_| bench.take_at(0, 0, md, 1, 0).unwrap());
    bench.accounts.wants(0, rx, 6, bench.fence, 0);
    bench.take_at(0, 0, md, 1, 0).unwrap();
    bench.accounts.wants(0, rx, 5, bench.fence, 0);
    assert!(bench.take_at(0, 0, md, 1, 0).unwrap_err().soft);
}

#[test]
fn limits_change_at_run_time() {
    let bench = Bench::new(desk_and_two(), &[64], 1, 32);
    let (desk, md) = (bench.tenant("desk"), bench.tenant("md"));
    (0..8).for_each(|_| bench.take(0, md).unwrap());
    let limits = |n| bench.accounts.set_limits(md, Limit::slots(n), Limit::NONE, bench.fence);
    limits(9).unwrap();
    bench.take(0, md).unwrap();
    limits(3).unwrap();
    let refused = bench.take(0, md).unwrap_err();
    assert_eq!((refused.limit, refused.held), (3, 9), "it keeps what it has");
    assert!(matches!(limits(11), Err(QuotaError::AboveParent { .. })));
    let below = bench.accounts.set_limits(desk, Limit::slots(2), Limit::NONE, bench.fence);
    assert!(matches!(below, Err(QuotaError::AboveParent { .. })), "a child's limit stands above it");
    assert!(bench.take(0, md).unwrap_err().limit == 3, "a change that was refused changes nothing");
}

/// What happens to a tree of four tenants.
#[derive(Debug, Clone)]
enum Step {
    Take { owner: usize, tier: usize, tenant: u16, n: u32 },
    Give { owner: usize, tier: usize, tenant: u16 },
    Limit { tenant: u16, slots: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let place = (0..3usize, 0..2usize, 1..=4u16);
    prop_oneof![
        6 => (place.clone(), 1..4u32).prop_map(|((owner, tier, tenant), n)| Step::Take { owner, tier, tenant, n }),
        5 => place.prop_map(|(owner, tier, tenant)| Step::Give { owner, tier, tenant }),
        1 => (1..=4u16, 0..20u64).prop_map(|(tenant, slots)| Step::Limit { tenant, slots }),
    ]
}

/// The slow reference: every slot in use, by tenant and tier.
#[derive(Default)]
struct Reference {
    used: HashMap<(u16, usize), u64>,
}

impl Reference {
    const PARENTS: [u16; 5] = [0, 0, 1, 1, 2];
    const BYTES: [u64; 2] = [1, 3];

    fn is_below(mut tenant: u16, top: u16) -> bool {
        while tenant != top && tenant != 0 {
            tenant = Self::PARENTS[usize::from(tenant)];
        }
        tenant == top
    }

    fn held(&self, top: u16) -> Limit {
        let below = || self.used.iter().filter(|((tenant, _), _)| Self::is_below(*tenant, top));
        Limit {
            slots: below().map(|(_, n)| n).sum(),
            bytes: below().map(|((_, tier), n)| n * Self::BYTES[*tier]).sum(),
        }
    }

    fn may_take(&self, limits: &[Limit], tenant: u16, tier: usize, n: u64) -> bool {
        (1..=4).filter(|&at| Self::is_below(tenant, at)).all(|at| {
            let (held, limit) = (self.held(at), limits[usize::from(at)]);
            held.slots + n <= limit.slots && held.bytes + n * Self::BYTES[tier] <= limit.bytes
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// One thread after another: an allocation is refused exactly if a limit is reached, wherever the credits are.
    #[test]
    fn draws_agree_with_a_reference_that_knows_everything(
        steps in proptest::collection::vec(step(), 1..200),
        batch in 0..20u32,
    ) {
        let mut limits = vec![Limit::NONE, Limit { slots: 20, bytes: 40 }, Limit::slots(12), Limit::bytes(20), Limit::slots(6)];
        let rules = QuotaRules {
            tenants: (1..=4usize).map(|at| {
                let rules = TenantRules::new(&at.to_string()).hard(limits[at]);
                match Reference::PARENTS[at] { 0 => rules, parent => rules.parent(&parent.to_string()) }
            }).collect(),
        };
        let bench = Bench::new(rules, &Reference::BYTES, 3, batch);
        let mut reference = Reference::default();
        for step in steps {
            match step {
                Step::Take { owner, tier, tenant, n } => {
                    let taken = bench.take_at(owner, tier, Tenant(tenant), n, 0);
                    let may = reference.may_take(&limits, tenant, tier, n.into());
                    prop_assert_eq!(taken.is_ok(), may, "{:?}", taken);
                    if may {
                        *reference.used.entry((tenant, tier)).or_default() += u64::from(n);
                    }
                }
                Step::Give { owner, tier, tenant } => {
                    let used = reference.used.entry((tenant, tier)).or_default();
                    if *used > 0 {
                        *used -= 1;
                        bench.give(owner, tier, Tenant(tenant));
                    }
                }
                Step::Limit { tenant, slots } => {
                    let hard = Limit { slots, ..limits[usize::from(tenant)] };
                    if bench.accounts.set_limits(Tenant(tenant), hard, Limit::NONE, bench.fence).is_ok() {
                        limits[usize::from(tenant)] = hard;
                    }
                }
            }
            for at in 1..=4 {
                let held = reference.held(at);
                prop_assert_eq!(bench.accounts.held(Tenant(at), Unit::Slots), held.slots);
                prop_assert_eq!(bench.accounts.held(Tenant(at), Unit::Bytes), held.bytes);
            }
        }
    }
}

/// Threads take, hand over and give back at the limit of two levels; a counter of its own follows who holds how much.
#[test]
fn racing_threads_never_exceed_a_limit_and_lose_nothing() {
    const THREADS: usize = 4;
    const ROUNDS: usize = if cfg!(miri) { 50 } else { 40_000 };
    let rules = QuotaRules::new()
        .tenant(TenantRules::new("desk").hard(Limit::slots(10)))
        .tenant(TenantRules::new("md").parent("desk").hard(Limit::slots(8)))
        .tenant(TenantRules::new("rx").parent("desk"));
    let bench = Bench::new(rules, &[64], THREADS, 4);
    let tenants = [bench.tenant("md"), bench.tenant("rx")];
    let (holders, all) = ([const { AtomicI64::new(0) }; 2], AtomicI64::new(0));
    // How many of each tenant's credits are held by nobody in particular: any thread may give one back.
    let loose = [const { AtomicI64::new(0) }; 2];
    let refused = AtomicI64::new(0);
    thread::scope(|scope| {
        for owner in 0..THREADS {
            let (bench, holders, all, loose, refused) = (&bench, &holders, &all, &loose, &refused);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(owner as u64);
                for _ in 0..ROUNDS {
                    let which = random.usize(0..2);
                    if random.bool() {
                        if bench.take(owner, tenants[which]).is_ok() {
                            let held = holders[which].fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(held <= 8 || which != 0, "{held} of the first tenant at once");
                            let held = all.fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(held <= 10, "{held} of both at once");
                            loose[which].fetch_add(1, Ordering::SeqCst);
                        } else {
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                    } else if loose[which]
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n > 0).then_some(n - 1))
                        .is_ok()
                    {
                        holders[which].fetch_sub(1, Ordering::SeqCst);
                        all.fetch_sub(1, Ordering::SeqCst);
                        bench.give(owner, 0, tenants[which]);
                    }
                }
            });
        }
    });
    assert!(refused.into_inner() > 0, "the limit was never reached: nothing was tried");
    for (which, tenant) in tenants.into_iter().enumerate() {
        let left = loose[which].load(Ordering::SeqCst);
        assert_eq!(bench.accounts.held(tenant, Unit::Slots), left.cast_unsigned());
        (0..left).for_each(|_| bench.give(0, 0, tenant));
    }
    (0..8).for_each(|_| bench.take(0, tenants[0]).unwrap());
    (0..2).for_each(|_| bench.take(1, tenants[1]).unwrap());
    assert!(bench.take(2, tenants[1]).is_err());
}
