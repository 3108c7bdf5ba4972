//! Slots that many read: shared leases, and handles read under a pin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tierpool::{HandleError, State, Tier};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn tier(capacity: usize) -> Tier<u64> {
    Tier::builder("shared").capacity(capacity).reset(|value| *value = 0).build_with(|| 0).unwrap()
}

#[test]
fn a_shared_value_is_read_under_a_pin_until_it_is_retired() -> Outcome {
    let tier = tier(2);
    let mut lease = tier.try_allocate()?;
    *lease = 7;
    let handle = lease.share();
    let pin = tier.pin();
    assert_eq!(tier.read(handle, &pin), Some(&7));
    let value = tier.read(handle, &pin).unwrap();
    assert!(matches!(tier.attach(handle), Err(HandleError::InUse { state: State::Shared, .. })));
    assert!(tier.release(handle).unwrap_err().to_string().contains("retire"));
    tier.retire(handle)?;
    assert_eq!(tier.read(handle, &pin), None);
    let again = tier.retire(handle).unwrap_err();
    assert!(matches!(again, HandleError::Stale { released_at: Some(_), allocated_at: Some(_), .. }), "{again:?}");
    assert_eq!(tier.reclaim().retired, 0, "the pin still sees the value");
    assert_eq!((*value, tier.snapshot().retired), (7, 1));
    drop(pin);
    assert_eq!(tier.reclaim().retired, 1);
    assert_eq!(tier.snapshot().free, 2);
    assert_eq!(*tier.try_allocate_many(2)?.iter().max().unwrap(), 0, "reset ran");
    Ok(())
}

/// Without a reclaimer too: an allocation that finds nothing free collects.
#[test]
fn an_allocation_collects_before_it_refuses() -> Outcome {
    let tier = tier(1);
    for _ in 0..100 {
        let lease = loop {
            // One attempt a tick.
            match tier.try_allocate() {
                Ok(lease) => break lease,
                Err(_) => thread::yield_now(),
            }
        };
        tier.retire(lease.share())?;
    }
    Ok(())
}

#[test]
fn nested_pins_protect_until_the_outermost_is_gone() -> Outcome {
    let tier = tier(1);
    let outer = tier.pin();
    let handle = tier.try_allocate()?.share();
    let inner = tier.pin();
    assert!(tier.read(handle, &inner).is_some());
    tier.retire(handle)?;
    drop(outer);
    assert_eq!(tier.reclaim().retired, 0);
    drop(inner);
    assert_eq!(tier.reclaim().retired, 1);
    Ok(())
}

#[test]
#[should_panic(expected = "another tier")]
fn a_pin_of_another_tier_is_refused() {
    let (tier, other) = (tier(1), tier(1));
    let handle = tier.try_allocate().unwrap().share();
    let pin = other.pin();
    tier.read(handle, &pin);
}

#[test]
fn a_shared_lease_goes_back_with_the_last_of_them() -> Outcome {
    let tier = tier(1);
    let mut lease = tier.try_allocate()?;
    *lease = 5;
    let first = lease.into_shared();
    let others: Vec<_> = (0..4).map(|_| first.clone()).collect();
    assert_eq!((first.sharers(), tier.snapshot().shared), (5, 1));
    assert_eq!(tier.holders()[0].state, State::SharedLease);
    let sum: u64 = others.into_iter().map(|other| thread::spawn(move || *other).join().unwrap()).sum();
    assert_eq!(sum, 20);
    let second = first.clone();
    let first = first.into_lease().unwrap_err();
    drop(second);
    let lease = first.into_lease().unwrap();
    assert_eq!(*lease, 5);
    let shared = lease.into_shared();
    drop(tier.clone());
    let name = shared.handle();
    drop(tier);
    assert_eq!(*shared, 5, "it outlives every tier");
    assert!(name.generation() > 0);
    drop(shared);
    Ok(())
}

/// Readers against a writer that replaces what is shared: nobody sees a value that was reset.
#[test]
fn readers_never_see_a_value_that_was_retired_before_their_pin() -> Outcome {
    let tier: Tier<[u64; 8]> =
        Tier::<[u64; 8]>::builder("published").capacity(4).reset(|value| value.fill(0)).build_with(|| [0; 8])?;
    let publish = |round: u64| {
        let mut lease = loop {
            if let Ok(lease) = tier.try_allocate() {
                break lease;
            }
            tier.reclaim();
        };
        lease.fill(round);
        lease.share()
    };
    let current = std::sync::Mutex::new(publish(1));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::Relaxed) {
                    let handle = *current.lock().unwrap();
                    let pin = tier.pin();
                    if let Some(value) = tier.read(handle, &pin) {
                        thread::yield_now();
                        assert!(value.iter().all(|&part| part == value[0] && part > 0), "{value:?}");
                        seen += 1;
                    }
                }
                assert!(seen > 0);
            });
        }
        for round in 2..2000 {
            let next = publish(round);
            let last = std::mem::replace(&mut *current.lock().unwrap(), next);
            tier.retire(last).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// TORTURE 12: handles that nobody brings back do not keep their slots for ever, shared ones neither; with the last tier all go.
#[test]
fn shared_values_go_with_the_last_tier() -> Outcome {
    let alive = Arc::new(());
    let value = alive.clone();
    let tier: Tier<Arc<()>> = Tier::builder("shared").capacity(4).build_with(move || value.clone())?;
    let kept = tier.try_allocate()?.share();
    tier.retire(tier.try_allocate()?.share())?;
    let shared = tier.try_allocate()?.into_shared();
    tier.close();
    assert!(tier.read(kept, &tier.pin()).is_some(), "still there for its readers");
    drop(tier);
    assert_eq!(Arc::strong_count(&alive), 3, "that of the shared lease, of the factory, and this");
    drop(shared);
    assert_eq!(Arc::strong_count(&alive), 1);
    Ok(())
}

#[test]
fn a_closed_tier_gives_up_what_is_retired() -> Outcome {
    let tier = tier(2);
    let handle = tier.try_allocate()?.share();
    tier.close();
    tier.retire(handle)?;
    tier.close_and_wait(std::time::Duration::from_secs(10))?;
    assert_eq!(tier.snapshot().absent, 2);
    Ok(())
}
