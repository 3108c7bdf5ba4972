//! `tierpool scarcity`: what is due, what a load may say, what is printed. Nothing here depends on how fast the machine is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tierpool_cli::scarcity::{Load, max_min};

const SMALL: &str = "slots = 3\nseconds = 0.2\nwatermarks = [0, 0, 1]\n\n[[tenant]]\nname = \"a\"\npriority = \"high\"\n\
                     threads = 1\nhold_ms = 1\nthink_ms = 1\n\n[[tenant]]\nname = \"b\"\npriority = \"low\"\nquota = 1\n\
                     threads = 4\nhold_ms = 1\n";

fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("scarcity-{}-{name}", std::process::id()));
    fs::write(&path, text).unwrap();
    path
}

fn tierpool(arguments: &[&str], path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tierpool")).arg("scarcity").args(arguments).arg(path).output().unwrap()
}

#[test]
fn what_one_leaves_goes_to_the_others_by_weight() {
    assert_eq!(max_min(12.0, &[(1.0, 9.0), (2.0, 9.0)]), [4.0, 8.0]);
    assert_eq!(max_min(12.0, &[(1.0, 2.0), (1.0, 9.0), (1.0, 9.0)]), [2.0, 5.0, 5.0]);
    assert_eq!(max_min(12.0, &[(1.0, 9.0), (3.0, 3.0)]), [9.0, 3.0]);
    assert_eq!(max_min(12.0, &[(1.0, 2.0), (1.0, 3.0)]), [2.0, 3.0]);
    assert_eq!(max_min(0.0, &[(1.0, 2.0)]), [0.0]);
    assert!(max_min(1.0, &[]).is_empty());
}

#[test]
fn due_is_bounded_by_demand_quota_and_marks() {
    let load = Load::parse(SMALL, Path::new("")).unwrap();
    // One thread, half of the time; a quota of one of the two slots that low requests may have.
    assert_eq!(load.due(), [0.5, 1.0]);
    assert_eq!(load.without_rules().due(), [0.5, 2.5]);
}

/// Threads that want several slots at a time are due as many times more, and have all of them or none.
#[test]
fn a_thread_may_want_several_slots() {
    let text = SMALL.replace("threads = 1\n", "threads = 1\nslots_each = 3\n").replace("[0, 0, 1]", "[0, 0, 0]");
    assert_eq!(Load::parse(&text, Path::new("")).unwrap().due(), [1.5, 1.0]);
    let output = tierpool(&["--json"], &file("several.toml", &text));
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let a = &object["with"]["tenants"][0];
    assert!(a["served"].as_u64().unwrap() > 0 && object["with"]["lost_slots"] == 0, "{a}");
    assert!(a["got_slots"].as_f64().unwrap() <= 3.01, "{a}");
}

#[test]
fn a_bad_load_is_refused_with_its_line() {
    for (from, to, line, word) in [
        ("slots = 3", "slots = 0", 1, "slots = 0"),
        ("slots = 3", "slots = \"x\"", 1, "invalid type"),
        ("seconds = 0.2", "seconds = nan", 2, "0.05 to 600"),
        ("[0, 0, 1]", "[0, 0, 3]", 3, "below slots"),
        ("[0, 0, 1]", "[1, 0, 2]", 3, "rising"),
        ("threads = 1", "thread = 1", 8, "unknown field `thread`"),
        ("\"high\"", "\"urgent\"", 7, "unknown variant `urgent`"),
        ("\"b\"", "\"a\"", 12, "a name of its own"),
        ("quota = 1", "quota = 9", 12, "quota out of range"),
        ("quota = 1", "weight = 0", 12, "weight 0"),
        ("threads = 4", "threads = 99999", 12, "threads"),
        ("threads = 4", "threads = 4\nslots_each = 4", 12, "slots_each"),
        ("threads = 4", "threads = 4\nslots_each = 0", 12, "slots_each"),
        ("hold_ms = 1\nthink_ms = 1", "hold_ms = -1", 5, "hold_ms"),
        ("slots = 3", "slots == 3", 1, ""),
    ] {
        assert!(SMALL.contains(from), "{from}");
        let error = Load::parse(&SMALL.replacen(from, to, 1), Path::new("")).expect_err(to);
        assert_eq!(error.line, line, "{to}: {error}");
        assert!(error.problem.contains(word), "{to}: {error}");
    }
}

#[test]
fn a_bad_file_exits_with_2_and_prints_nothing_else() {
    let path = file("bad.toml", "slots = 0\nseconds = 1\n");
    for path in [path.as_path(), Path::new("/no/such/load.toml")] {
        let output = tierpool(&[], path);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(err.contains(&*path.to_string_lossy()) && err.lines().count() == 1, "{err}");
    }
}

#[test]
fn a_run_loses_no_slot_and_tells_all_in_json_and_in_the_chart() {
    let (path, chart) = (file("small.toml", SMALL), file("small.svg", ""));
    let output = tierpool(&["--json", "--chart", chart.to_str().unwrap()], &path);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    for run in [&object["without"], &object["with"]] {
        assert_eq!(run["lost_slots"], 0);
        let tenants = run["tenants"].as_array().unwrap();
        assert_eq!(tenants.iter().map(|got| got["tenant"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
        let got: f64 = tenants.iter().map(|got| got["got_slots"].as_f64().unwrap()).sum();
        assert!(got > 0.0 && got <= 3.01, "no more than there is: {got}");
    }
    assert_eq!(object["without"]["tenants"][1]["refused_quota"], 0);
    assert!(object["with"]["tenants"][1]["got_slots"].as_f64().unwrap() <= 1.01, "its quota is 1");
    let svg = fs::read_to_string(&chart).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
}

/// A tenant of 40 slots' worth of requests, beside one that takes a slot at a time.
const MODEL: &str = "slots = 40\nseconds = 0.3\n\n[[tenant]]\nname = \"model\"\nthreads = 3\nhold_ms = 1\n\
                     requests = { file = \"FILE\", speed = 10, times = 2 }\n\n[[tenant]]\nname = \"b\"\nthreads = 2\nhold_ms = 1\n";

#[test]
fn requests_to_a_model_are_served_by_the_block_or_not_at_all() {
    let recording = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 10:00:00.0,320,33\n2023-11-16 10:00:00.5,160,16\n\
                     2023-11-16 10:00:01.0,641,5\n";
    let csv = file("model.csv", recording);
    let path = file("model.toml", &MODEL.replace("FILE", csv.file_name().unwrap().to_str().unwrap()));
    let load = Load::parse(&fs::read_to_string(&path).unwrap(), path.parent().unwrap()).unwrap();
    // Twice 20 blocks for 0.66 s and 10 for 0.32 s and 41 for 0.1 s, with what they grow by, in 3 s of the recording.
    let due = 2.0 * (20.0 * 0.66 + 0.34 + 0.02 + 10.0 * 0.32 + 41.0 * 0.1) / 3.0;
    assert!((load.due()[0] - due).abs() < 1e-6, "{:?} instead of {due}", load.due());

    let output = tierpool(&["--json"], &path);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    for run in [&object["without"], &object["with"]] {
        assert_eq!(run["lost_slots"], 0);
        let model = &run["tenants"][0];
        assert_eq!(model["refused_tier"], 2, "one that could never be served, twice: {model}");
        assert_eq!(model["served"].as_u64().unwrap() + model["unfinished"].as_u64().unwrap(), 4, "{model}");
        assert!(run["tenants"][1]["served"].as_u64().unwrap() > 0);
    }
}

#[test]
fn a_recording_that_is_not_there_is_said_and_one_that_cannot_be_read_is_refused() {
    let path = file("none.toml", &MODEL.replace("FILE", "no-such-recording.csv"));
    let output = tierpool(&[], &path);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains("no-such-recording.csv is not there"), "{out}");

    let csv = file("bad.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,1\n");
    let text = MODEL.replace("FILE", csv.file_name().unwrap().to_str().unwrap());
    let error = Load::parse(&text, csv.parent().unwrap()).unwrap_err();
    assert!(error.line == 4 && error.problem.contains("line 2"), "{error}");
    let error = Load::parse(&text.replace("speed = 10", "speed = 0"), Path::new("")).unwrap_err();
    assert!(error.problem.contains("speed of 0.001"), "{error}");
}
