//! With the feature `tracing`, what tiers report and what breakers do are events, though nobody else was told of them.
#![cfg(feature = "tracing")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tierpool::{BreakerRules, BreakerState, Pool, Tier, clock};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The fields of an event.
#[derive(Clone, Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Fields {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Keeps the events of one thread.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(Level, Fields)>>>);

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tierpool"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.lock().unwrap().push((*event.metadata().level(), fields));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn events(of: impl FnOnce()) -> Vec<(Level, Fields)> {
    let kept = Kept::default();
    tracing::subscriber::with_default(kept.clone(), of);
    kept.0.lock().unwrap().clone()
}

#[test]
fn a_hold_that_is_too_long_is_an_event_though_nobody_asked_for_reports() {
    let limit = Duration::from_secs(5);
    let tier: Tier<u8> = Tier::builder("watched").capacity(4).leak_after(limit).build_with(|| 0).unwrap();
    let line = line!() + 1;
    let _held = tier.try_allocate().unwrap();
    let events = events(|| {
        for second in 0..12 {
            clock::tick_to(Instant::now() + Duration::from_secs(second));
            tier.reclaim();
        }
    });
    let [(level, fields)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(*level, Level::INFO, "it may be no leak");
    assert_eq!((fields.get("tier"), fields.get("kind")), (Some("watched"), Some("held-long")));
    assert_eq!((fields.get("verdict"), fields.get("late")), (Some("unclear"), Some("1")));
    assert!(fields.get("site").unwrap().contains(&format!("tests/events.rs:{line}:")), "{fields:?}");
    assert!(fields.get("message").unwrap().starts_with("tier \"watched\": held long"), "{fields:?}");
}

#[test]
fn a_breaker_that_changes_is_an_event_with_its_tier() {
    let pool = Pool::builder().memory("guarded", 64, 4).breaker("guarded", BreakerRules::default()).build().unwrap();
    let events = events(|| {
        pool.breaker("guarded").unwrap().force_open();
        pool.breaker("guarded").unwrap().reset();
    });
    let said: Vec<_> = events.iter().map(|(level, it)| (*level, it.get("tier"), it.get("state"))).collect();
    let (forced, closed) = (BreakerState::ForcedOpen.to_string(), BreakerState::Closed.to_string());
    assert_eq!(said, [(Level::WARN, Some("guarded"), Some(&*forced)), (Level::INFO, Some("guarded"), Some(&*closed))]);
}
