//! What an exporter writes, read by a strict parser: one series a name and label set, counters that never fall, the same numbers as the
//! pool's own, whatever things are called.
#![cfg(all(feature = "prometheus", not(loom)))]

mod exposed;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use exposed::{exporter_of, rich};
use openmetrics_parser::openmetrics::parse_openmetrics;
use openmetrics_parser::prometheus::parse_prometheus;
use openmetrics_parser::{MetricFamily, MetricNumber, OpenMetricsType, OpenMetricsValue};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tierpool::{
    Exporter, Limit, Memory, MemoryTier, Pool, Priority, Request, ResourceIssue, Severity, TenantRules, TextFormat,
};

/// A sample's name and labels, as they would be in a query.
type Series = BTreeMap<String, String>;

/// What was exposed: each series and its value. Panics if a series comes twice.
struct Exposed(Vec<(String, Series, f64)>);

/// The families of a text. The parser takes histograms without units only, which the standard does not ask for.
fn families(text: &str) -> HashMap<String, MetricFamily<OpenMetricsType, OpenMetricsValue>> {
    let is_of_histogram = |line: &str| {
        let family = line.strip_prefix("# UNIT ").and_then(|rest| rest.split_once(' '));
        family.is_some_and(|(name, _)| text.contains(&format!("# TYPE {name} histogram\n")))
    };
    let lines = text.lines().filter(|line| !is_of_histogram(line));
    let rest: String = lines.flat_map(|line| [line, "\n"]).collect();
    parse_openmetrics(&rest).unwrap_or_else(|error| panic!("{error}\n{text}")).families
}

impl Exposed {
    fn parse(text: &str) -> Self {
        let mut samples = Vec::new();
        for family in families(text).values() {
            for sample in family.iter_samples() {
                let labels = sample.get_labelset().unwrap();
                let labels: Series = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
                let mut add = |suffix: &str, value: &MetricNumber| {
                    samples.push((format!("{}{suffix}", family.family_name), labels.clone(), value.as_f64()));
                };
                match &sample.value {
                    OpenMetricsValue::Gauge(value) | OpenMetricsValue::Unknown(value) => add("", value),
                    OpenMetricsValue::Counter(counter) => add("_total", &counter.value),
                    OpenMetricsValue::Info => add("_info", &MetricNumber::Int(1)),
                    OpenMetricsValue::Histogram(histogram) => {
                        histogram.sum.as_ref().into_iter().for_each(|sum| add("_sum", sum));
                        let count = MetricNumber::Int(histogram.count.unwrap_or_default() as i64);
                        add("_count", &count);
                    }
                    other => panic!("{} has {other:?}", family.family_name),
                }
            }
        }
        let mut seen = HashSet::new();
        for (name, labels, _) in &samples {
            assert!(seen.insert((name.clone(), labels.clone())), "twice: {name}{labels:?}");
        }
        Exposed(samples)
    }

    fn of(exporter: &Exporter) -> Self {
        Exposed::parse(&exporter.text(TextFormat::OpenMetrics))
    }

    /// The sum of all series of that name with those labels.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let all = self.0.iter().filter(|(own, series, _)| {
            own == name && labels.iter().all(|(label, value)| series.get(*label).is_some_and(|own| own == value))
        });
        all.map(|sample| sample.2).sum()
    }

    fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.0.iter().any(|(own, series, _)| {
            own == name && labels.iter().all(|(label, value)| series.get(*label).is_some_and(|own| own == value))
        })
    }
}

/// Tells threads to stop, even if the test fails.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn two_tiers() -> Pool {
    Pool::builder().memory("packets", 2048, 8).memory("frames", 65536, 4).build().unwrap()
}

#[test]
fn the_numbers_are_those_of_the_pool() {
    let desk = TenantRules::new("desk").hard(Limit::slots(6));
    let pool = Pool::builder().memory("packets", 2048, 8).memory("frames", 65536, 4).tenant(desk).build().unwrap();
    let (exporter, observer) = exporter_of(&pool, "gateway");
    let held: Vec<_> =
        (0..6).map(|_| pool.try_allocate(Request::memory(100).tenant("desk").tag("rx")).unwrap()).collect();
    pool.try_allocate(Request::memory(100).tenant("desk")).unwrap_err();
    drop(pool.try_allocate(Request::memory(50_000).priority(Priority::High)).unwrap());
    observer.look();
    let (exposed, status) = (Exposed::of(&exporter), pool.monitor());
    for tier in &status.tiers {
        let whom = [("pool", "gateway"), ("tier", tier.name)];
        let sum = |name| exposed.sum(name, &whom);
        assert_eq!(sum("tierpool_slots"), tier.snapshot.capacity as f64);
        assert_eq!(sum("tierpool_capacity_slots"), tier.snapshot.capacity as f64);
        assert_eq!(sum("tierpool_held_slots"), tier.held() as f64);
        assert_eq!(sum("tierpool_site_held_slots"), tier.held() as f64);
        assert_eq!(sum("tierpool_allocations_total"), tier.snapshot.allocations as f64);
        assert_eq!(sum("tierpool_releases_total"), tier.snapshot.releases as f64);
        assert_eq!(sum("tierpool_magazine_hits_total"), tier.snapshot.hits as f64);
        assert_eq!(sum("tierpool_denied_requests_total"), tier.denied as f64);
        assert_eq!(sum("tierpool_refusals_total"), tier.reasons.all() as f64);
        assert_eq!(sum("tierpool_label_allocations_total"), tier.snapshot.allocations as f64);
        assert_eq!(sum("tierpool_allocate_seconds_count"), tier.latency.count() as f64);
        assert_eq!(sum("tierpool_allocate_seconds_sum"), tier.latency.total().as_secs_f64());
    }
    assert_eq!(exposed.sum("tierpool_slot_size_bytes", &[("tier", "packets")]), 2048.0);
    assert_eq!(exposed.sum("tierpool_refusals_total", &[("tier", "packets"), ("reason", "quota")]), 1.0);
    let desk = [("tenant", "desk"), ("tag", "rx"), ("priority", "normal")];
    assert_eq!(exposed.sum("tierpool_label_allocations_total", &desk), 6.0);
    let tenant = [("pool", "gateway"), ("tenant", "desk")];
    assert_eq!(exposed.sum("tierpool_tenant_allocations_total", &tenant), 6.0);
    assert_eq!(exposed.sum("tierpool_tenant_refusals_total", &tenant), 1.0);
    assert_eq!(exposed.sum("tierpool_tenant_held_slots", &tenant), 6.0);
    assert_eq!(exposed.sum("tierpool_tenant_held_bytes", &tenant), 6.0 * 2048.0);
    assert_eq!(exposed.sum("tierpool_tenant_limit_slots", &[("limit", "hard")]), 6.0);
    assert!(exposed.0.iter().all(|sample| sample.2.is_finite()));
    assert!(!exposed.has("tierpool_tenant_limit_slots", &[("limit", "soft")]), "there is none");
    let line = format!("{}:", file!());
    let sites = exposed.0.iter().filter(|(name, series, _)| {
        name == "tierpool_site_held_slots" && series["site"].starts_with(&line) && series["tag"] == "rx"
    });
    assert_eq!(sites.map(|sample| sample.2).collect::<Vec<_>>(), [6.0]);
    drop(held);
}

#[test]
fn both_formats_are_read_by_a_strict_parser_and_say_the_same() {
    let (_pool, exporter, monitor) = rich();
    let text = exporter.text(TextFormat::OpenMetrics);
    assert!(text.ends_with("# EOF\n"), "{text}");
    let families = families(&text);
    for family in families.values() {
        check_family(family);
    }
    let other = exporter.text(TextFormat::Prometheus);
    let other = parse_prometheus(&other).unwrap_or_else(|error| panic!("{error}\n{other}"));
    assert_eq!(other.families.len(), families.len());
    let exposed = Exposed::parse(&text);
    assert_eq!(exposed.sum("tierpool_health", &[("level", "healthy")]), 1.0);
    monitor.alert_resource_issue(ResourceIssue::new("upstream", Severity::Unhealthy, "it does not answer"));
    let exposed = Exposed::of(&exporter);
    assert_eq!(exposed.sum("tierpool_health", &[("level", "unhealthy")]), 1.0);
    assert_eq!(exposed.sum("tierpool_health", &[]), 1.0);
    assert_eq!(exposed.sum("tierpool_ready", &[]), 0.0);
    assert_eq!(exposed.sum("tierpool_breaker_state", &[("tier", "packets"), ("breaker", "requests")]), 1.0);
    assert_eq!(exposed.sum("tierpool_breaker_state", &[("tier", "jobs"), ("state", "closed")]), 1.0);
    #[cfg(feature = "cache")]
    for result in ["hit", "miss"] {
        assert_eq!(exposed.sum("tierpool_cache_requests_total", &[("tier", "jobs"), ("result", result)]), 1.0);
    }
}

fn check_family(family: &MetricFamily<OpenMetricsType, OpenMetricsValue>) {
    let name = &family.family_name;
    assert!(name.starts_with("tierpool_"), "{name}");
    assert!(family.help.len() > 10 && family.help.ends_with('.'), "{name}: {:?}", family.help);
    if family.family_type == OpenMetricsType::Histogram {
        return assert!(name.ends_with("_seconds"), "{name}");
    }
    assert!(
        family.unit.is_empty() || ["seconds", "bytes"].contains(&family.unit.as_str()),
        "{name}: {:?}",
        family.unit
    );
    for unit in ["seconds", "bytes"] {
        assert_eq!(name.ends_with(unit), family.unit == unit, "{name} is in {:?}", family.unit);
    }
    assert!(!["milli", "micro", "nano", "kib", "_ms", "_ns"].iter().any(|part| name.contains(part)), "{name}");
}

#[test]
fn counters_never_fall_while_threads_allocate() {
    let pool = two_tiers();
    let (exporter, observer) = exporter_of(&pool, "busy");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for worker in 0..3 {
            let (pool, stop) = (&pool, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let request = Request::memory(100).tag(["a", "b", "c"][worker]);
                    let some: Vec<_> = (0..worker + 2).map(|_| pool.try_allocate(request)).collect();
                    drop(some);
                }
            });
        }
        let _stop = Stop(&stop);
        let mut before: BTreeMap<String, f64> = BTreeMap::new();
        for _ in 0..300 {
            observer.look();
            // Line by line: the parser takes a hundred times as long.
            let text = exporter.text(TextFormat::OpenMetrics);
            for (series, value) in text.lines().filter_map(|line| line.rsplit_once(' ')) {
                let name = series.split('{').next().unwrap();
                if !["_total", "_count", "_sum", "_bucket"].iter().any(|suffix| name.ends_with(suffix)) {
                    continue;
                }
                let value: f64 = value.parse().unwrap();
                let earlier = before.insert(series.to_owned(), value).unwrap_or(0.0);
                assert!(value >= earlier, "{series} fell from {earlier} to {value}");
            }
        }
        assert!(before.len() > 50, "{before:?}");
    });
    let all: f64 = pool.monitor().tiers.iter().map(|tier| tier.snapshot.allocations as f64).sum();
    observer.look();
    assert_eq!(Exposed::of(&exporter).sum("tierpool_allocations_total", &[]), all);
}

#[test]
fn names_with_anything_in_them_come_back_as_they_were() {
    let name = "a \"pool\"\\ of\nlines, {le=\"1\"} # 💧";
    let tag = "\\\"\n\\n} 1\ntierpool_evil{a=\"b";
    let pool = two_tiers();
    let (exporter, observer) = exporter_of(&pool, name);
    let _held = pool.try_allocate(Request::memory(100).tag(tag)).unwrap();
    observer.look();
    let exposed = Exposed::of(&exporter);
    assert_eq!(exposed.sum("tierpool_slots", &[("pool", name)]), 12.0);
    assert_eq!(exposed.sum("tierpool_site_held_slots", &[("tag", tag)]), 1.0);
    assert!(exposed.0.iter().all(|sample| sample.0 != "tierpool_evil"));
    parse_prometheus(&exporter.text(TextFormat::Prometheus)).unwrap();
}

#[test]
fn pools_of_one_name_and_tiers_of_one_name_are_told_apart() {
    let (one, other, third) = (two_tiers(), two_tiers(), two_tiers());
    let exporter = Exporter::new();
    let observers =
        [(&one, "gateway"), (&other, "gateway"), (&third, "gateway#2")].map(|(pool, name)| pool.observe(name).unwrap());
    observers.iter().for_each(|observer| exporter.add(observer));
    exporter.add(&observers[0]);
    let exposed = Exposed::of(&exporter);
    assert_eq!(exposed.sum("tierpool_slots", &[]), 36.0, "each once");
    for name in ["gateway", "gateway#2", "gateway#2#2"] {
        assert_eq!(exposed.sum("tierpool_slots", &[("pool", name), ("tier", "packets")]), 8.0, "{name}");
    }
    drop(one);
    assert!(!Exposed::of(&exporter).has("tierpool_slots", &[("pool", "gateway")]), "it is gone");
    let again = two_tiers();
    exporter.add(&again.observe("gateway").unwrap());
    let exposed = Exposed::of(&exporter);
    assert!(exposed.has("tierpool_slots", &[("pool", "gateway")]), "its name is free");
    assert!(exposed.has("tierpool_slots", &[("pool", "gateway#2")]), "who has a name keeps it");
}

#[test]
fn beyond_the_limit_the_rest_is_summed_and_counted() {
    const TAGS: usize = 12;
    let pool = Pool::builder().memory("packets", 2048, 64).build().unwrap();
    let exporter = Exporter::new().label_limit(5);
    let observer = pool.observe("gateway").unwrap();
    exporter.add(&observer);
    // As many of each tag as its number; one of them is called what the rest is called.
    let mut held: Vec<tierpool::Lease<Memory>> = Vec::new();
    for number in 1..=TAGS {
        let tag = if number == 1 { "other".to_owned() } else { format!("tag {number}") };
        held.extend((0..number.min(5)).map(|_| pool.try_allocate(Request::memory(100).tag(&tag)).unwrap()));
    }
    observer.look();
    let exposed = Exposed::of(&exporter);
    let all = held.len() as f64;
    assert_eq!(exposed.sum("tierpool_site_held_slots", &[]), all);
    let other = exposed.sum("tierpool_site_held_slots", &[("site", "other")]);
    assert_eq!(other, all - 25.0, "five with five each are shown");
    let unlisted = [("family", "tierpool_site_held_slots")];
    assert_eq!(exposed.sum("tierpool_unlisted_label_sets", &unlisted), (TAGS - 5) as f64);
    let series = |exposed: &Exposed, name: &str| exposed.0.iter().filter(|sample| sample.0 == name).count();
    assert_eq!(series(&exposed, "tierpool_site_held_slots"), 6);
    assert_eq!(exposed.sum("tierpool_label_allocations_total", &[]), all);
    assert_eq!(series(&exposed, "tierpool_label_allocations_total"), 6);
    let unlisted = [("family", "tierpool_label_allocations")];
    assert_eq!(exposed.sum("tierpool_unlisted_label_sets", &unlisted), (TAGS - 5) as f64);
    drop(held);
    observer.look();
    let after = Exposed::of(&exporter);
    assert_eq!(after.sum("tierpool_site_held_slots", &[]), 0.0);
    assert_eq!(series(&after, "tierpool_site_held_slots"), 6, "who was shown stays, at zero");
}

#[test]
fn buckets_add_up_and_waits_are_in_them() {
    let pool = Pool::builder().memory("packets", 2048, 1).build().unwrap();
    let (exporter, observer) = exporter_of(&pool, "gateway");
    let held = pool.try_allocate(Request::memory(100)).unwrap();
    let patience = Duration::from_millis(2);
    pool.allocate_timeout(Request::memory(100).priority(Priority::High), patience).unwrap_err();
    drop(held);
    observer.look();
    let text = exporter.text(TextFormat::OpenMetrics);
    let line =
        |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}\n{text}"));
    let whom = r#"pool="gateway",tier="packets",priority="high"} "#;
    assert!(
        line(r#"tierpool_wait_seconds_bucket{le="0.001","#).contains("} 0"),
        "no wait was shorter than its patience"
    );
    assert!(text.contains(&format!("tierpool_wait_seconds_bucket{{le=\"+Inf\",{whom}1\n")), "{text}");
    assert!(text.contains(&format!("tierpool_wait_seconds_count{{{whom}1\n")), "{text}");
    let exposed = Exposed::parse(&text);
    assert!(exposed.sum("tierpool_wait_seconds_sum", &[("priority", "high")]) >= patience.as_secs_f64());
    assert_eq!(exposed.sum("tierpool_waits_total", &[("priority", "high"), ("end", "in_vain")]), 1.0);
}

#[test]
fn a_line_that_holds_too_long_is_a_suspect() {
    let tier = MemoryTier::new("packets", 2048, 8).with(|tier| tier.leak_after(Duration::from_millis(20)));
    let pool = Pool::builder().memory_tier(tier).build().unwrap();
    let (exporter, observer) = exporter_of(&pool, "gateway");
    let _held = pool.try_allocate(Request::memory(100)).unwrap();
    // As long as it takes: the limit is real time.
    while observer.look().leaks.is_empty() {
        thread::sleep(Duration::from_millis(5));
        pool.reclaim();
    }
    let exposed = Exposed::of(&exporter);
    assert_eq!(exposed.sum("tierpool_suspect_slots", &[("verdict", "unclear")]), 1.0);
    assert!(exposed.sum("tierpool_suspect_oldest_hold_seconds", &[]) >= 0.02);
    let site = exposed.0.iter().find(|sample| sample.0 == "tierpool_suspect_slots").unwrap();
    assert!(site.1["site"].starts_with(&format!("{}:", file!())), "{site:?}");
}

#[test]
fn it_is_a_collector_of_the_programs_own_registry() {
    let pool = two_tiers();
    let (exporter, _observer) = exporter_of(&pool, "gateway");
    let mut registry = Registry::with_prefix("app");
    registry.register_collector(Box::new(exporter));
    let mut out = String::new();
    text::encode(&mut out, &registry).unwrap();
    assert!(out.contains("app_tierpool_slots{pool=\"gateway\",tier=\"packets\",state=\"free\"} 8\n"), "{out}");
}

#[test]
fn the_format_goes_by_what_is_accepted() {
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(TextFormat::for_accept(prometheus), TextFormat::OpenMetrics);
    for accept in ["", "*/*", "text/plain", "text/html,*/*;q=0.8", "application/openmetrics-text;q=0", ";;,,q=,"] {
        assert_eq!(TextFormat::for_accept(accept), TextFormat::Prometheus, "{accept:?}");
    }
    assert!(TextFormat::OpenMetrics.content_type().starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(TextFormat::Prometheus.content_type().starts_with("text/plain; version=0.0.4"));
}

#[test]
fn reading_asks_the_pool_nothing() {
    let pool = two_tiers();
    let (exporter, observer) = exporter_of(&pool, "gateway");
    let number = observer.latest().number;
    let _held = pool.try_allocate(Request::memory(100)).unwrap();
    if observer.latest().number == number {
        let exposed = Exposed::of(&exporter);
        if observer.latest().number == number {
            assert_eq!(exposed.sum("tierpool_allocations_total", &[]), 0.0, "as at the last look");
        }
    }
    let later = observer.look().number;
    let exposed = Exposed::of(&exporter);
    assert!(exposed.sum("tierpool_looks_total", &[]) >= later as f64);
    assert_eq!(exposed.sum("tierpool_allocations_total", &[]), 1.0);
    assert!(exposed.sum("tierpool_look_age_seconds", &[]) < Duration::from_secs(3600).as_secs_f64());
}
