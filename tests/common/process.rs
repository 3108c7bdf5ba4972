//! Tests in a process of their own, and what the system says of this one.

use std::io::{Read, Seek};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// Runs the calling test in a process of its own; true in that process. Fails if it fails, or hangs.
pub fn alone(test: &str) -> bool {
    alone_as(test, |_| ())
}

/// The same; `prepare` says how that process begins.
pub fn alone_as(test: &str, prepare: impl FnOnce(&mut Command)) -> bool {
    match run(test, prepare) {
        None => true,
        Some((status, text)) => {
            assert!(status.success() && text.contains("1 passed"), "{test}: {status}\n{text}");
            false
        }
    }
}

/// Runs the test of that name in a process of its own: there, `body` is called, and its panic is that of the test.
pub fn in_child(test: &str, prepare: impl FnOnce(&mut Command), body: impl FnOnce()) {
    if alone_as(test, prepare) {
        body();
    }
}

/// Runs the calling test in a process of its own, which is this program again with the name of the test. How that ended; `None` in that
/// process. Fails if it hangs.
pub fn end_of(test: &str) -> Option<ExitStatus> {
    run(test, |_| ()).map(|(status, _)| status)
}

/// How it ended, and what it printed.
fn run(test: &str, prepare: impl FnOnce(&mut Command)) -> Option<(ExitStatus, String)> {
    const MARK: &str = "TIERPOOL_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return None;
    }
    // A file: a pipe that nobody reads would stop whoever writes to it.
    let mut output = tempfile::tempfile().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(MARK, "1").stdout(output.try_clone().unwrap());
    prepare(&mut command);
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("{test} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = Vec::new();
    output.rewind().unwrap();
    output.read_to_end(&mut text).unwrap();
    Some((status, String::from_utf8_lossy(&text).into_owned()))
}

/// What `/proc/self/status` says of this process, in bytes: `VmRSS`, `VmData`, `VmLck`.
pub fn of_process(what: &str) -> usize {
    kibibytes(&std::fs::read_to_string("/proc/self/status").unwrap(), what)
}

/// The number of bytes in a line such as `VmRSS:  123 kB`.
pub fn kibibytes(text: &str, what: &str) -> usize {
    let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let number = line.unwrap_or_else(|| panic!("no {what}")).trim().trim_end_matches(" kB");
    number.parse::<usize>().unwrap() * 1024
}
