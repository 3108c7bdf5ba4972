//! tierpool's `Pool`: four memory tiers with nothing said about them, and with everything; and a few slots for many.

use std::time::Duration;

use tierpool::{
    BreakerRules, Lease, Limit, Memory, MemoryTier, Pool, Prepared, Priority, Request, Scrub, TenantRules, Tier,
    Watermarks,
};

use crate::ours::looked_at;
use crate::payload::MEMORY;
use crate::subject::{Able, Guards, Kind, Seats};

/// The tiers, by their bytes. The workloads use the one of [`MEMORY`] bytes.
const TIERS: [(&str, usize); 4] = [("small", 256), ("packets", 1024), ("pages", MEMORY), ("large", 4 * MEMORY)];

/// Bytes of a slot of [`Mebibytes`].
pub const MEBIBYTE: usize = 1 << 20;

/// So many tenants, each with a hard quota; together they may hold more than there is.
const TENANTS: usize = 8;

/// A pool of which nothing is said beside its tiers, and one prepared request.
pub struct Plain<const CAP: usize>(Prepared<Memory>);

impl<const CAP: usize> Guards for Plain<CAP> {
    const NAME: &'static str = "tierpool-pool-plain";
    const KIND: Kind = Kind::Ours;
    const ABLE: Able = Able { several: true, refuse: true, shared: true };

    type Payload = Memory;
    type Hand<'a> = &'a Prepared<Memory>;
    type Guard<'a> = Lease<Memory>;

    fn build() -> Self {
        let tiers = TIERS.into_iter();
        let builder = tiers.fold(Pool::builder(), |builder, (name, bytes)| builder.memory(name, bytes, CAP));
        let pool = builder.build().expect("a pool of known tiers");
        Self(pool.prepare(Request::memory(MEMORY)).expect("a request that fits"))
    }

    fn hand(&self) -> Self::Hand<'_> {
        &self.0
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Guard<'a>> {
        looked_at(hand.try_allocate())
    }
}

/// The same with a tier of buffers of a MiB, which leaves their bytes as they are.
pub struct Mebibytes<const CAP: usize>(Prepared<Memory>);

impl<const CAP: usize> Guards for Mebibytes<CAP> {
    const NAME: &'static str = Plain::<CAP>::NAME;
    const KIND: Kind = Kind::Ours;
    const ABLE: Able = Plain::<CAP>::ABLE;

    type Payload = Memory;
    type Hand<'a> = &'a Prepared<Memory>;
    type Guard<'a> = Lease<Memory>;

    fn build() -> Self {
        let tier = MemoryTier::new("mebibytes", MEBIBYTE, CAP).scrub(Scrub::Keep);
        let pool = Pool::builder().memory_tier(tier).build().expect("a pool of a known tier");
        Self(pool.prepare(Request::memory(MEBIBYTE)).expect("a request that fits"))
    }

    fn hand(&self) -> Self::Hand<'_> {
        &self.0
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Guard<'a>> {
        looked_at(hand.try_allocate())
    }
}

/// A pool with everything that has to do with who gets what: what each tier keeps back for urgent requests, tenants with
/// quotas and weights, ageing, and a circuit breaker for each tier. Each request is another tenant's, and of another
/// priority, than the one before.
///
/// Bytes that change tenants are left as they are, unless `SCRUBS`: zeroing a page takes longer than everything else.
pub struct Full<const CAP: usize, const SCRUBS: bool = false>([Prepared<Memory>; TENANTS]);

/// The same, with zeroes for each tenant that gets another's bytes.
pub type Scrubbing<const CAP: usize> = Full<CAP, true>;

/// The requests, and which one is next.
pub struct Rotation<'a> {
    requests: &'a [Prepared<Memory>; TENANTS],
    next: usize,
}

fn tenant(number: usize) -> String {
    format!("tenant-{number}")
}

impl<const CAP: usize, const SCRUBS: bool> Full<CAP, SCRUBS> {
    fn pool() -> Pool {
        let builder = Pool::builder().ageing(Duration::from_secs(1));
        let builder =
            TIERS.into_iter().fold(builder, |builder, (name, bytes)| builder.memory_tier(Self::tier(name, bytes)));
        let builder = (0..TENANTS).map(Self::rules).fold(builder, |builder, rules| builder.tenant(rules));
        builder.build().expect("a pool of known tiers")
    }

    fn of(pool: &Pool) -> Self {
        Self(std::array::from_fn(|number| Self::prepare(pool, number)))
    }

    fn tier(name: &str, bytes: usize) -> MemoryTier {
        MemoryTier::new(name, bytes, CAP)
            .scrub(if SCRUBS { Scrub::OnChange } else { Scrub::Keep })
            .watermarks(Watermarks { min: CAP / 64, low: CAP / 32, high: CAP / 16 })
            .breaker(BreakerRules::default())
    }

    fn rules(number: usize) -> TenantRules {
        TenantRules::new(&tenant(number)).weight(1 + number as u32 % 4).hard(Limit::slots(CAP as u64 / 4))
    }

    fn prepare(pool: &Pool, number: usize) -> Prepared<Memory> {
        let priority = Priority::ALL[number % Priority::ALL.len()];
        let request = Request::memory(MEMORY).priority(priority);
        pool.prepare(request.tenant(&*tenant(number))).expect("a request that fits")
    }
}

impl<const CAP: usize, const SCRUBS: bool> Guards for Full<CAP, SCRUBS> {
    const NAME: &'static str = if SCRUBS { "tierpool-pool-scrub" } else { "tierpool-pool" };
    const KIND: Kind = Kind::Ours;
    const ABLE: Able = Able { several: true, refuse: true, shared: true };

    type Payload = Memory;
    type Hand<'a> = Rotation<'a>;
    type Guard<'a> = Lease<Memory>;

    fn build() -> Self {
        Self::of(&Self::pool())
    }

    fn hand(&self) -> Self::Hand<'_> {
        Rotation { requests: &self.0, next: 0 }
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Guard<'a>> {
        hand.next = (hand.next + 1) % TENANTS;
        looked_at(hand.requests[hand.next].try_allocate())
    }
}

/// A pool that has fewer slots than users: tenants by their weights, and the urgent requests first if it knows `PRIORITIES`.
pub struct Scarce<const PRIORITIES: bool>(Pool);

/// The one tier of [`Scarce`].
const SCARCE: &str = "scarce";

impl<const PRIORITIES: bool> Seats for Scarce<PRIORITIES> {
    const NAME: &'static str = if PRIORITIES { "tierpool-pool" } else { "tierpool-pool-level" };
    const KIND: Kind = Kind::Ours;

    type Seat<'a> = Prepared<u64>;
    type Held<'a> = Lease<u64>;

    fn build(slots: usize, weights: &[u32]) -> Self {
        let tier = Tier::builder(SCARCE).capacity(slots).build_with(|| 0_u64).expect("a tier of a known capacity");
        let rules =
            weights.iter().enumerate().map(|(number, &weight)| TenantRules::new(&tenant(number)).weight(weight));
        let builder = rules.fold(Pool::builder().tier(tier), |builder, rules| builder.tenant(rules));
        Self(builder.build().expect("a pool of a known tier"))
    }

    fn seat(&self, number: usize, urgent: bool) -> Self::Seat<'_> {
        let priority = match urgent {
            _ if !PRIORITIES => Priority::Normal,
            true => Priority::High,
            false => Priority::Low,
        };
        let request = Request::of::<u64>(SCARCE).priority(priority);
        self.0.prepare(request.tenant(&*tenant(number))).expect("a request that fits")
    }

    fn allocate<'a>(seat: &Self::Seat<'a>) -> Self::Held<'a> {
        seat.allocate().expect("an open pool")
    }

    fn value<'a>(held: &'a mut Self::Held<'_>) -> &'a mut u64 {
        held
    }

    fn release<'a>(_: &Self::Seat<'a>, held: Self::Held<'a>) {
        drop(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Payload, TOUCHED};

    const CAP: usize = 64;

    #[test]
    fn everything_configured_is_in_force() {
        fn check<const SCRUBS: bool>() {
            let pool = Full::<CAP, SCRUBS>::pool();
            let full = Full::<CAP, SCRUBS>::of(&pool);
            let mut hand = full.hand();
            let mut held: Vec<_> = (0..TENANTS).map(|_| Full::<CAP, SCRUBS>::allocate(&mut hand).unwrap()).collect();
            for number in 0..TENANTS {
                let tenant = pool.tenant(&tenant(number)).unwrap();
                assert_eq!(pool.held(tenant).slots, 1, "each request is another tenant's");
            }
            held.iter_mut().for_each(|held| held.touch());
            assert!(held.iter().all(|held| held.byte() == TOUCHED));
            assert!(TIERS.iter().all(|(name, _)| pool.breaker(name).is_some()));
            // The quota: a quarter of all.
            let critical = &full.0[TENANTS - 1];
            let most: Vec<_> = (0..CAP).map_while(|_| critical.try_allocate().ok()).collect();
            assert_eq!(most.len(), CAP / 4 - 1);
        }
        check::<false>();
        check::<true>();
    }

    #[test]
    fn nothing_configured_gives_all_there_is() {
        let plain = Plain::<CAP>::build();
        let mut hand = plain.hand();
        let held: Vec<_> = (0..=CAP).map_while(|_| Plain::<CAP>::allocate(&mut hand)).collect();
        assert_eq!(held.len(), CAP);
    }
}
