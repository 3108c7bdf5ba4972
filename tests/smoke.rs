//! The surface, used as the README does.

use tierpool::{AllocateError, Handle, HandleError, Leases, Tier};

fn tier(capacity: usize) -> Tier<Vec<u8>> {
    Tier::builder("frames").capacity(capacity).build_with(|| vec![0u8; 64]).unwrap()
}

#[test]
fn allocate_write_release() {
    let tier = tier(4);
    let mut lease = tier.try_allocate().unwrap();
    lease[0] = 1;
    drop(lease);
    let snapshot = tier.snapshot();
    assert_eq!((snapshot.free, snapshot.allocations, snapshot.releases), (4, 1, 1));
}

#[test]
fn every_slot_can_be_had_and_then_none() {
    for capacity in [1, 2, 3, 29, 30, 31, 64, 65, 1000] {
        let tier = tier(capacity);
        for _ in 0..3 {
            let leases: Vec<_> = (0..capacity).map(|_| tier.try_allocate().unwrap()).collect();
            for _ in 0..3 {
                assert!(matches!(tier.try_allocate(), Err(AllocateError::Exhausted(_))));
            }
            assert_eq!(tier.snapshot().leased, capacity);
            drop(leases);
            assert_eq!(tier.snapshot().free, capacity);
        }
        let snapshot = tier.snapshot();
        assert_eq!(snapshot.allocations, 3 * capacity as u64);
        assert_eq!(snapshot.releases, 3 * capacity as u64);
        assert_eq!(snapshot.refusals, 9);
    }
}

#[test]
fn a_handle_goes_through_bits_and_back() {
    let tier = tier(4);
    let mut lease = tier.try_allocate().unwrap();
    lease[0] = 7;
    let handle = Handle::from_bits(lease.detach().to_bits()).unwrap();
    assert_eq!(tier.snapshot().detached, 1);
    let lease = tier.attach(handle).unwrap();
    assert_eq!(lease[0], 7);
    assert!(matches!(tier.attach(handle), Err(HandleError::InUse { .. })));
    let second = lease.detach();
    assert!(matches!(tier.attach(handle), Err(HandleError::Stale { .. })));
    tier.release(second).unwrap();
    assert!(matches!(tier.release(second), Err(HandleError::Stale { .. })));
}

#[test]
fn many_at_once_all_or_nothing() {
    let tier = tier(100);
    let mut leases = tier.try_allocate_many(80).unwrap();
    assert_eq!(leases.len(), 80);
    leases.iter_mut().for_each(|value| value[0] = 9);
    assert!(leases.iter().all(|value| value[0] == 9));
    assert!(tier.try_allocate_many(21).is_err());
    assert_eq!(tier.snapshot().leased, 80);
    tier.try_allocate_into(&mut leases, 20).unwrap();
    assert_eq!(tier.snapshot().free, 0);
    leases.release_all();
    assert_eq!(tier.snapshot().free, 100);
    let mut leases = Leases::with_capacity(100);
    tier.try_allocate_into(&mut leases, 100).unwrap();
    let singles: Vec<_> = leases.into_iter().take(60).collect();
    assert_eq!(tier.snapshot().leased, 60);
    drop(singles);
    assert_eq!(tier.snapshot().free, 100);
}

#[test]
fn a_local_magazine_serves_and_returns() {
    let tier = tier(10);
    let mut local = tier.local();
    let lease = local.try_allocate().unwrap();
    local.release(lease);
    drop(local);
    assert_eq!(tier.try_allocate_many(10).unwrap().len(), 10);
}

#[test]
fn take_and_discard_rebuild_the_slot() {
    let tier = tier(1);
    let mut lease = tier.try_allocate().unwrap();
    lease[0] = 3;
    assert_eq!(lease.take()[0], 3);
    let mut lease = tier.try_allocate().unwrap();
    assert_eq!(lease[0], 0);
    lease[0] = 4;
    lease.discard();
    assert_eq!(tier.try_allocate().unwrap()[0], 0);
}

#[test]
fn a_closed_tier_refuses_and_its_leases_live_on() {
    let tier = tier(3);
    let lease = tier.try_allocate().unwrap();
    tier.close();
    assert!(matches!(tier.try_allocate(), Err(AllocateError::Closed { .. })));
    assert_eq!(tier.snapshot().absent, 2);
    assert_eq!(lease.len(), 64);
    let error = tier.close_and_wait(std::time::Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.holders.len(), 1);
    assert!(error.to_string().contains("smoke.rs"), "{error}");
    drop(lease);
    tier.close_and_wait(std::time::Duration::from_secs(10)).unwrap();
    assert_eq!(tier.snapshot().absent, 3);
}
