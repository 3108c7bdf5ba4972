//! A real Prometheus scrapes `tierpool demo`: it takes the metrics, answers queries, knows the alert rules, and names the planted line.
//!
//! Needs `prometheus` and `promtool`; skipped where they are not, unless `TIERPOOL_REQUIRE_PROMETHEUS` is set.
#![cfg(unix)]

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Demo, LONG};
use serde_json::Value;

/// Both programs, or `None` where one is missing.
fn installed() -> Option<[PathBuf; 2]> {
    let path = std::env::var_os("PATH")?;
    let find = |program| std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    let found = find("prometheus").zip(find("promtool"));
    if found.is_none() {
        assert!(
            std::env::var_os("TIERPOOL_REQUIRE_PROMETHEUS").is_none(),
            "`prometheus` and `promtool` are not installed: apt-get install prometheus"
        );
        eprintln!("skipped: `prometheus` and `promtool` are not installed");
    }
    found.map(|(prometheus, promtool)| [prometheus, promtool])
}

fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring")
}

/// Runs `promtool`, with that as its input; what it has said, if it is content.
fn promtool(program: &Path, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(documents())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may not read it.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// A server, killed when it is dropped.
struct Prometheus {
    child: Child,
    url: String,
    directory: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `target` each second, with the alert rules.
    fn start(program: &Path, target: &str) -> Prometheus {
        let directory = tempfile::tempdir().unwrap();
        let rules = documents().join("alerts.yml").canonicalize().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [{rules:?}]\n\
             scrape_configs:\n- job_name: demo\n  static_configs: [{{ targets: [{target:?}] }}]\n"
        );
        let file = directory.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        // Free now, and hardly taken by the time that it is needed.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Prometheus { child, url: format!("http://{address}/api/v1/"), directory }
    }

    /// What the interface answers to that, as soon as it is `right`.
    fn ask(&self, what: &str, right: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + LONG;
        let mut last = String::new();
        while Instant::now() < end {
            match minreq::get(format!("{}{what}", self.url)).with_timeout(10).send() {
                Ok(answer) => {
                    let text = answer.as_str().unwrap();
                    let json: Value = serde_json::from_str(text).unwrap_or_default();
                    if json["status"] == "success" && right(&json["data"]) {
                        return json["data"].clone();
                    }
                    last = text.to_owned();
                }
                Err(error) => last = error.to_string(),
            }
            thread::sleep(Duration::from_millis(250));
        }
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        panic!("{what}: it never became so: {last}\n{log}");
    }

    /// The series of an instant query, as soon as there are any.
    fn query(&self, query: &str) -> Vec<Value> {
        let coded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self
            .ask(&format!("query?query={coded}"), |data| data["result"].as_array().is_some_and(|all| !all.is_empty()));
        data["result"].as_array().unwrap().clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn it_scrapes_the_demo_and_names_the_planted_line() {
    let Some([prometheus, promtool_program]) = installed() else { return };
    let demo = Demo::start(&["--seconds", "300"]);
    let line = demo.leaking.clone().unwrap();
    let target = demo.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let server = Prometheus::start(&prometheus, &target);

    let targets = server.ask("targets", |data| data["activeTargets"][0]["health"] == "up");
    assert_eq!(targets["activeTargets"][0]["lastError"], "", "{targets:#}");
    let sum = server.query("sum(tierpool_allocations_total) > 0");
    let count: f64 = sum[0]["value"][1].as_str().unwrap().parse().unwrap();
    assert!(count > 0.0, "{sum:#?}");
    let capacity = server.query("sum(tierpool_slots) - sum(tierpool_capacity_slots)");
    assert_eq!(capacity[0]["value"][1], "0");

    let held = server.query(&format!("tierpool_site_held_slots{{site=\"{line}\"}} > 0"));
    assert_eq!(held[0]["metric"]["tier"], "packets", "{held:#?}");
    let leaks = server.query("sum by (site) (tierpool_suspect_slots{verdict=~\"leak|likely-leak\"}) > 0");
    assert_eq!(leaks[0]["metric"]["site"], line.as_str(), "{leaks:#?}");
    let firing = server.query("ALERTS{alertname=\"TierpoolLeak\",alertstate=\"firing\"}");
    assert_eq!(firing[0]["metric"]["site"], line.as_str(), "{firing:#?}");

    let names = |data: &Value| {
        let rules = data["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        rules.iter().map(|rule| (rule["name"].to_string(), rule["health"].to_string())).collect::<Vec<_>>()
    };
    let rules = server.ask("rules", |data| names(data).iter().all(|(_, health)| health != "\"unknown\""));
    let rules = names(&rules);
    assert!(rules.len() >= 10, "{rules:?}");
    assert!(rules.iter().all(|(_, health)| health == "\"ok\""), "{rules:?}");

    // What Prometheus itself would complain of.
    let said = promtool(&promtool_program, &["check", "metrics"], &demo.get("metrics"));
    assert_eq!(said.as_deref(), Ok(""), "promtool has something against the metrics");
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    let Some([_, program]) = installed() else { return };
    let checked = promtool(&program, &["check", "rules", "alerts.yml"], "").unwrap_or_else(|why| panic!("{why}"));
    assert!(checked.contains("rules found"), "{checked}");
    promtool(&program, &["test", "rules", "alerts_test.yml"], "").unwrap_or_else(|why| panic!("{why}"));
}
