//! The program as a person or a script runs it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A directory of its own for a test, gone when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Scratch {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tierpool(arguments: &[&str], files: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tierpool")).args(arguments).args(files).output().unwrap()
}

/// The objects that a successful run prints.
fn json(arguments: &[&str], files: &[&Path]) -> Vec<Value> {
    let output = tierpool(&[&["replay", "--json", "--rounds", "2"], arguments].concat(), files);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert_eq!(err, "", "stderr is for errors, and for a progress bar on a terminal");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The message of a run that must be refused: exit code 2, and nothing on stdout.
fn refused(arguments: &[&str], files: &[&Path]) -> String {
    let output = tierpool(&[&["replay", "--rounds", "1"], arguments].concat(), files);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing may be half printed");
    err
}

/// The traces that lie beside the project's tree, if they do here.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: ../shared/traces/{name} is not here");
    None
}

#[track_caller]
fn has(object: &Value, expected: &[(&str, u64)]) {
    for (key, value) in expected {
        assert_eq!(object[key], *value, "{key} in {object}");
    }
}

const SMALL: &str = "Alloc(48),\nAlloc(5000),\nFree(0),\nFree(0),\nAlloc(0),\nAlloc(48),\nFree(1),\nFree(0),\n";

#[test]
fn json_tells_the_counts_of_one_pass() {
    let scratch = Scratch::new("json");
    let small = scratch.file("small.trace", SMALL);
    let [object] = &json(&[], &[&small])[..] else { panic!("one object") };
    has(object, &[("allocations", 4), ("releases", 2), ("double_releases", 2), ("leaked", 2), ("refusals", 0)]);
    assert_eq!(object["leaks"], serde_json::json!([{"size": 48, "lines": [6]}, {"size": 0, "lines": [5]}]));
    has(object, &[("skipped", 0), ("threads", 1), ("rounds", 2)]);
    for times in [
        &object["allocate_ns"],
        &object["release_ns"],
        &object["system"]["allocate_ns"],
        &object["system"]["release_ns"],
    ] {
        let [p50, p99, p9999, max] = ["p50", "p99", "p9999", "max"].map(|key| times[key].as_f64().unwrap());
        assert!(0.0 <= p50 && p50 <= p99 && p99 <= p9999 && p9999 <= max * 1.01, "{times}");
        assert_eq!(times.as_object().unwrap().len(), 4);
    }
    assert!((0.0..=1.0).contains(&object["hit_rate"].as_f64().unwrap()));
    assert!(object["overhead_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_trace_without_releases_has_no_release_times() {
    let scratch = Scratch::new("no-releases");
    let file = scratch.file("a.trace", "Alloc(16),\n");
    let objects = json(&[], &[&file]);
    has(&objects[0], &[("allocations", 1), ("releases", 0), ("leaked", 1)]);
    assert!(objects[0]["release_ns"].is_null());
}

#[test]
fn rounds_and_threads_do_not_change_the_counts() {
    let scratch = Scratch::new("threads");
    let small = scratch.file("small.trace", SMALL);
    for arguments in [&["--threads", "4"][..], &["--threads", "4", "--rounds", "9"], &["--rounds", "9"]] {
        let arguments: Vec<&str> = arguments.to_vec();
        let output = tierpool(&[&["replay", "--json"], &arguments[..]].concat(), &[&small]);
        assert!(output.status.success());
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        has(&object, &[("allocations", 4), ("releases", 2), ("double_releases", 2), ("leaked", 2), ("refusals", 0)]);
    }
}

#[test]
fn a_too_small_capacity_refuses_and_counts_what_it_refused() {
    let scratch = Scratch::new("capacity");
    let file =
        scratch.file("a.trace", "Alloc(10),\nAlloc(11),\nAlloc(100),\nFree(1),\nFree(1),\nFree(0),\nAlloc(12),\n");
    for threads in ["1", "4"] {
        let objects = json(&["--capacity", "1", "--threads", threads], &[&file]);
        has(
            &objects[0],
            &[("allocations", 3), ("releases", 1), ("leaked", 2), ("refusals", 1), ("double_releases", 0)],
        );
    }
    let output = tierpool(&["replay", "--capacity", "1", "--rounds", "1"], &[&file]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("refused, no slot left"));
}

#[test]
fn several_files_and_directories_give_an_object_each() {
    let scratch = Scratch::new("several");
    let b = scratch.file("b.log", "--7-- malloc(16) = 0xA0\n--7-- free(0xA0)\n");
    let a = scratch.file("a.trace", SMALL);
    scratch.file("notes.md", "no trace");
    let files = |objects: &[Value]| -> Vec<String> {
        objects.iter().map(|object| object["file"].as_str().unwrap().to_owned()).collect()
    };
    let [a_name, b_name] = [&a, &b].map(|path| path.to_string_lossy().into_owned());
    assert_eq!(files(&json(&[], &[&b, &a])), [b_name.clone(), a_name.clone()]);
    assert_eq!(files(&json(&[], &[&scratch.0])), [a_name, b_name], "a directory's traces come by name");
    let output = tierpool(&["replay", "--rounds", "1"], &[&scratch.0]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("a.trace: 4 allocations") && text.contains("b.log: 1 allocation,"), "{text}");
}

#[test]
fn one_bad_file_among_good_ones_prints_nothing() {
    let scratch = Scratch::new("one-bad");
    let good = scratch.file("good.trace", SMALL);
    let bad = scratch.file("bad.trace", "Alloc(1),\nAlloc(2)\nnonsense\n");
    let message = refused(&[], &[&good, &bad]);
    assert!(message.contains("bad.trace:3: found `nonsense`; expected `Alloc(bytes),`"), "{message}");
}

#[test]
fn the_report_for_people_explains_itself_on_one_screen() {
    let scratch = Scratch::new("report");
    let small = scratch.file("small.trace", SMALL);
    let output = tierpool(&["replay", "--rounds", "1"], &[&small]);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "tierpool",
        "system",
        "double releases caught",
        "2, each refused",
        "leaked",
        "1 × 48 B from line 6",
        "goal",
        "< 50 MB",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(text.lines().count() <= 40 && text.lines().all(|line| line.chars().count() <= 80), "\n{text}");
}

#[test]
fn without_arguments_the_samples_are_replayed() {
    let output = tierpool(&[], &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("sqlite3.log: 15,010 allocations, 15,008 releases"), "{text}");
}

#[test]
fn the_shared_traces_have_their_known_counts() {
    for (name, allocations, releases) in [
        ("malloc-gcc-hello.trace", 11_431, 6_344),
        ("malloc-ffmpeg.trace", 1_832, 1_805),
        ("malloc-source-map.trace", 2_087, 315),
        ("malloc-find.trace", 567, 563),
    ] {
        let Some(path) = shared(name) else { continue };
        let objects = json(&["--threads", "2"], &[&path]);
        has(&objects[0], &[("allocations", allocations), ("releases", releases), ("leaked", allocations - releases)]);
        has(&objects[0], &[("double_releases", 0), ("refusals", 0), ("skipped", 0)]);
    }
    for name in ["azure-llm-code.csv", "cache-arc-P3.lis.zst"] {
        if let Some(path) = shared(name) {
            assert!(refused(&[], &[&path]).contains(&format!("{name}:1: ")));
        }
    }
}

#[test]
fn torture_29_every_bad_file_is_refused_with_file_line_and_expectation() {
    let scratch = Scratch::new("torture");
    let cases: &[(&str, &[u8], &str)] = &[
        ("empty", b"", "empty: the file is empty; expected"),
        ("truncated", b"Alloc(48),\nAllo", "truncated:2: the file is cut off within its last line, `Allo`; expected"),
        ("truncated-log", b"--7-- malloc(1) = 0x4D", "truncated-log:1: the file is cut off within its last line"),
        ("binary", b"\x7fELF\x02\x01\x01\0\0\0", "binary:1: byte 0x02 is not text; expected"),
        (
            "same-id-twice",
            b"--7-- malloc(1) = 0xA0\n--7-- malloc(1) = 0xA0\n",
            "same-id-twice:2: allocates address 0xA0, which line 1",
        ),
        (
            "backwards",
            b"Alloc(1),\nFree(7),\n",
            "backwards:2: releases allocation 7, but only 1 were made before it; expected",
        ),
        (
            "backwards-log",
            b"--00:00:02 7-- malloc(1) = 0xA0\n--00:00:01 7-- free(0xA0)\n",
            "backwards-log:2: the time stamp 00:00:01 is earlier than 00:00:02",
        ),
        ("crlf-nonsense", b"Alloc(1),\r\nAlloc(x),\r\n", "crlf-nonsense:2: found `Alloc(x),`; expected"),
    ];
    for (name, content, expected) in cases {
        let message = refused(&[], &[&scratch.file(name, content)]);
        assert!(message.contains(expected), "{name}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn torture_29_crlf_is_accepted() {
    let scratch = Scratch::new("crlf");
    let file = scratch.file("a.trace", SMALL.replace('\n', "\r\n"));
    has(&json(&[], &[&file])[0], &[("allocations", 4), ("releases", 2), ("double_releases", 2)]);
}

#[test]
fn torture_29_ten_gigabytes_are_refused_at_once() {
    let scratch = Scratch::new("huge");
    let zeros = scratch.0.join("zeros.trace");
    // Sparse: nothing but its length is on the disk.
    File::create(&zeros).unwrap().set_len(10 << 30).unwrap();
    assert!(refused(&[], &[&zeros]).contains("zeros.trace:1: byte 0x00 is not text"));
    let tail = scratch.file("tail.trace", "Alloc(1),\n");
    File::options().write(true).open(&tail).unwrap().set_len(10 << 30).unwrap();
    assert!(refused(&[], &[&tail]).contains("tail.trace:2: byte 0x00 is not text"));
}

#[test]
fn a_trace_that_needs_too_much_memory_is_refused_with_the_flag_that_helps() {
    let scratch = Scratch::new("memory");
    let file = scratch.file("a.trace", "Alloc(4000000000),\nFree(0),\n");
    let message = refused(&[], &[&file]);
    assert!(message.contains("more than the 2 GiB that are allowed") && message.contains("--memory"), "{message}");
    // Far too much for any machine, but only if it were touched.
    assert!(refused(&["--capacity", "9999999999999"], &[&file]).contains("--memory"));
}

#[test]
fn files_that_are_not_there_and_directories_without_traces_are_named() {
    let scratch = Scratch::new("missing");
    assert!(refused(&[], &[&scratch.0.join("none.trace")]).contains("none.trace: could not be read"));
    assert!(refused(&[], &[&scratch.0]).contains("expected files that end in .trace or .log"));
}

#[test]
fn the_format_can_be_forced_and_the_beginning_replayed() {
    let scratch = Scratch::new("format");
    let file = scratch.file("a.trace", SMALL);
    assert!(
        refused(&["--format", "valgrind"], &[&file])
            .contains("a.trace:1: found `Alloc(48),`; expected a line of valgrind")
    );
    has(
        &json(&["--format", "text", "--first", "3"], &[&file])[0],
        &[("allocations", 2), ("releases", 1), ("leaked", 1)],
    );
}

#[test]
fn a_reader_that_stops_early_makes_no_noise() {
    let scratch = Scratch::new("pipe");
    let small = scratch.file("small.trace", SMALL);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tierpool"))
        .args(["replay", "--rounds", "1"])
        .arg(&small)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut noise = String::new();
    child.stderr.take().unwrap().read_to_string(&mut noise).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(noise, "");
}

#[cfg(unix)]
#[test]
fn a_pipe_can_be_replayed() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tierpool"))
        .args(["replay", "--json", "--rounds", "1", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(SMALL.as_bytes()).unwrap();
    let object: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    has(&object, &[("allocations", 4), ("releases", 2)]);
}

/// The command that `samples/README.md` and `--help` give.
#[test]
fn a_program_recorded_under_valgrind_can_be_replayed() {
    let scratch = Scratch::new("valgrind");
    let recorded = Command::new("valgrind")
        .args(["-q", "--tool=dhat", "--dhat-out-file=/dev/null", "--trace-malloc=yes"])
        .args(["--run-libc-freeres=no", "--run-cxx-freeres=no", "--log-file=ls.%p.log", "ls", "/"])
        .current_dir(&scratch.0)
        .stdout(Stdio::null())
        .status();
    if recorded.is_err() {
        println!("skipped: valgrind is not installed");
        return;
    }
    let objects = json(&[], &[&scratch.0]);
    assert_eq!(objects.len(), 1);
    assert!(objects[0]["allocations"].as_u64().unwrap() > 10, "{}", objects[0]);
    has(&objects[0], &[("double_releases", 0), ("skipped", 0)]);
}
