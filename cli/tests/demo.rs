//! `tierpool demo` as a person runs it: the page's figures, the metrics, the log and the summary name the planted line.

mod common;

use std::net::TcpListener;
use std::process::Command;

use common::Demo;

#[test]
#[cfg(unix)]
fn the_planted_line_is_named_everywhere() {
    let demo = Demo::start(&["--seconds", "300"]);
    let line = demo.leaking.clone().expect("it leaks unless it is told not to");
    assert!(line.starts_with("cli/src/demo/") || line.starts_with(r"cli\src\demo\"), "{line}");

    let of_it =
        |list: &serde_json::Value| list.as_array().unwrap().iter().find(|it| it["site"] == line.as_str()).cloned();
    let pool = demo.pool(|pool| of_it(&pool["leaks"]).is_some_and(|leak| leak["is_leak"] == true));
    let leak = of_it(&pool["leaks"]).unwrap();
    assert_eq!((&leak["tier"], &leak["tenant"], &leak["tag"]), (&"packets".into(), &"md".into(), &"rx".into()));
    assert!(of_it(&pool["holders"]).is_some(), "{pool:#}");
    assert!(demo.get("metrics").contains(&line));
    assert!(demo.logged(&["leak", &line]).contains("packets"));

    // Quota, bursts and outages come, too.
    let pool = demo.pool(|pool| {
        let tiers = pool["tiers"].as_array().unwrap();
        let waited =
            |tier: &serde_json::Value| tier["waits"].as_array().unwrap().iter().any(|it| it["served_total"] != 0);
        let quota = tiers.iter().any(|tier| tier["denied_total"] != 0);
        quota
            && tiers.iter().any(waited)
            && tiers.iter().any(|tier| tier["breaker"]["refused_total"].as_u64() > Some(0))
    });
    let report = pool["leaks"].as_array().unwrap().iter().find(|it| it["tag"] == "report");
    assert!(report.is_none_or(|it| it["is_leak"] == false), "held for as long as it is wanted: {report:?}");

    demo.interrupt();
    let (status, summary) = demo.end();
    assert!(status.success(), "{status}");
    for part in ["tenant", "venue", "Who holds how much", "Held for too long", &line] {
        assert!(summary.contains(part), "{part}: {summary}");
    }
}

#[test]
fn without_the_leak_none_is_found() {
    let demo = Demo::start(&["--no-leak", "--seconds", "8"]);
    assert_eq!(demo.leaking, None);
    let (status, summary) = demo.end();
    assert!(status.success(), "{status}");
    let (_, late) = summary.split_once("Held for too long").unwrap();
    assert!(!late.contains("a leak"), "{summary}");
}

#[test]
fn a_port_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_tierpool")).args(["demo", "--port", &port]).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains(&port) && err.contains("another program does") && err.contains("--port 0"), "{err}");
    assert!(output.stdout.is_empty());
}
