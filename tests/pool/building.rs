//! Building a pool: what cannot be one is refused with the reason, and options reach the tiers they are meant for.

use tierpool::{AllocateError, Memory, MemoryTier, Pool, PoolError, QuotaError, Request, RequestError, Spill, Tier};

#[test]
fn what_cannot_be_a_pool_is_refused_with_the_reason() {
    let numbers = |name: &str| Tier::builder(name).capacity(1).build_with(|| 0u8).unwrap();
    let refusals = [
        (Pool::builder(), "no tiers"),
        (Pool::builder().memory("m", 0, 1), "memory tier \"m\" cannot have slots of 0 bytes"),
        (Pool::builder().memory("m", usize::MAX, 1), "cannot have slots of 18446744073709551615 bytes"),
        (Pool::builder().memory("m", 64, 0), "tier \"m\" cannot have 0 slots"),
        (Pool::builder().memory("m", 64, 1 << 32), "tier \"m\" cannot have 4294967296 slots"),
        (Pool::builder().memory("a", 64, 1).memory("b", 64, 1), "\"a\" and \"b\" both have slots of 64 bytes"),
        (Pool::builder().memory("a", 64, 1).spill(Spill::System), "no overflow"),
        (Pool::builder().memory("a", 64, 1).overflow(0), "tier \"overflow\" cannot have 0 slots"),
        (Pool::builder().tier(numbers("n")).spill(Spill::NextLarger), "no memory tier"),
        (Pool::builder().tier(numbers("n")).overflow(1), "no memory tier"),
        (Pool::builder().memory("a", 64, 1).overflow(1).tier(numbers("overflow")), "named \"overflow\""),
        (Pool::builder().memory("a", 64, 1).tenant(""), "tenant name \"\" is empty"),
        (Pool::builder().memory("a", 64, 1).tenant("a\nb"), "tenant name \"a\\nb\" holds a control character"),
        (Pool::builder().memory("a", 64, 1).tenant("a").tenant("a"), "tenant \"a\" is there twice"),
        (
            Pool::builder().memory_tier(MemoryTier::new("m", 64, 4).with(|tier| tier.min_capacity(5))),
            "smallest size is larger",
        ),
    ];
    for (builder, reason) in refusals {
        let error = builder.build().unwrap_err();
        assert!(error.to_string().contains(reason), "{error} should say {reason}");
    }
    let crowd = (0..4096).fold(Pool::builder().memory("m", 64, 1), |pool, n| pool.tenant(n.to_string().as_str()));
    assert!(matches!(crowd.build().unwrap_err(), PoolError::Quota(QuotaError::TooMany { tenants: 4096 })));
}

/// TORTURE 22: names of tiers that are empty, that would garble a log or a metrics page, or that repeat.
#[test]
fn tier_names_that_are_no_use_are_refused() {
    for name in ["", "a \"quoted\" name", "two\nlines", "back\\slash", "nul\0", &"n".repeat(129)] {
        let error = Pool::builder().memory(name, 64, 1).build().unwrap_err();
        assert!(matches!(error, PoolError::Tier(tierpool::BuildError::Name { .. })), "{error:?}");
        assert!(!error.to_string().chars().any(char::is_control), "{error}");
    }
    let same = || Tier::builder("same").capacity(1).build_with(|| 0u8).unwrap();
    for builder in [
        Pool::builder().memory("same", 64, 1).memory("same", 128, 1),
        Pool::builder().memory("same", 64, 1).tier(same()),
        Pool::builder().tier(same()).tier(same()),
    ] {
        let error = builder.build().unwrap_err();
        assert!(matches!(&error, PoolError::DuplicateTier { name } if name == "same"), "{error:?}");
    }
    let odd = "frames {4 KiB}, für alle 🦀";
    let pool = Pool::builder().memory(odd, 64, 1).build().unwrap();
    assert!(pool.try_allocate(Request::of::<Memory>(odd)).is_ok());
}

#[test]
fn options_of_a_memory_tier_reach_it() {
    let tier = MemoryTier::new("m", 64, 8).with(|tier| tier.min_capacity(2)).with(|tier| tier.max_waiters(0));
    let pool = Pool::builder().memory_tier(tier).build().unwrap();
    let now = pool.monitor();
    assert_eq!((now.tiers[0].snapshot.slots(), now.tiers[0].snapshot.capacity), (2, 8));
    let _held: Vec<_> = (0..8).map(|_| pool.try_allocate(Request::memory(1)).unwrap()).collect();
    let error = pool.allocate(Request::memory(1)).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::QueueFull { .. })), "{error}");
}
