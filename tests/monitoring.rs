//! What operators are given (alert rules, a dashboard, the table of metrics) names what there is, and leaves nothing out.
#![cfg(all(feature = "prometheus", target_os = "linux", not(loom)))]

mod exposed;

use std::collections::BTreeSet;

use exposed::rich;
use tierpool::TextFormat;

const GUIDE: &str = include_str!("../docs/monitoring.md");
const TROUBLES: &str = include_str!("../docs/troubleshooting.md");
const RULES: &str = include_str!("../docs/monitoring/alerts.yml");
const RULE_TESTS: &str = include_str!("../docs/monitoring/alerts_test.yml");
const DASHBOARD: &str = include_str!("../docs/monitoring/grafana.json");

/// Words of a text that are names of metrics.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("tierpool_") && *word != "tierpool_").collect()
}

/// All names that are exposed, as they stand in queries, with the families' help.
fn there_are() -> BTreeSet<String> {
    let (_pool, exporter, _monitor) = rich();
    let text = exporter.text(TextFormat::Prometheus);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

fn family(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

#[test]
fn rules_and_dashboard_use_what_there_is() {
    let there = there_are();
    for (file, text) in [("alerts.yml", RULES), ("alerts_test.yml", RULE_TESTS), ("grafana.json", DASHBOARD)] {
        let used = named(text);
        assert!(used.len() > 5, "{file} uses {used:?}");
        for name in used {
            assert!(there.contains(name), "{file} uses {name}, which is not exposed");
        }
    }
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let there: BTreeSet<String> = there_are().iter().map(|name| family(name).to_owned()).collect();
    let rows = GUIDE.lines().filter_map(|line| line.strip_prefix("| `tierpool_"));
    let documented: BTreeSet<String> = rows.map(|row| format!("tierpool_{}", row.split('`').next().unwrap())).collect();
    let missing: Vec<_> = there.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/monitoring.md has no row for {missing:?}");
    let too_many: Vec<_> = documented.difference(&there).collect();
    assert!(too_many.is_empty(), "docs/monitoring.md tells of {too_many:?}, which are not exposed");
    for name in named(GUIDE).into_iter().chain(named(TROUBLES)) {
        assert!(there.contains(family(name)), "the documents name {name}, which is not exposed");
    }
}

#[test]
fn every_rule_leads_to_a_section_that_there_is() {
    let anchors: BTreeSet<String> = TROUBLES.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
    let alerts = RULES.matches("- alert:").count();
    let runbooks: Vec<_> = RULES.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")).collect();
    assert_eq!(runbooks.len(), alerts);
    assert_eq!(RULES.matches("summary: ").count(), alerts);
    assert_eq!(RULES.matches("description: ").count(), alerts);
    for runbook in runbooks {
        let section = runbook.trim_matches('"').strip_prefix("docs/troubleshooting.md#").unwrap();
        assert!(anchors.contains(section), "{section} is none of {anchors:?}");
    }
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn the_dashboard_is_one() {
    let json: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    assert!(json["schemaVersion"].as_u64() >= Some(39));
    let panels = json["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{}", panel["title"]);
        let (x, w) = (panel["gridPos"]["x"].as_u64().unwrap(), panel["gridPos"]["w"].as_u64().unwrap());
        assert!(x + w <= 24, "{}", panel["title"]);
    }
}
