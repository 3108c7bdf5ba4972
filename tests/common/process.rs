//! Tests in a process of their own, and what the system says of this one.

use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Runs the calling test in a process of its own; true in that process. Fails if it fails, or hangs.
pub fn alone(test: &str) -> bool {
    match end_of(test) {
        None => true,
        Some(status) => {
            assert!(status.success(), "{test}: {status}");
            false
        }
    }
}

/// Runs the calling test in a process of its own, which is this program again with the name of the test. How that ended; `None` in that
/// process. Fails if it hangs.
pub fn end_of(test: &str) -> Option<ExitStatus> {
    const MARK: &str = "TIERPOOL_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return None;
    }
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new(program)
        .args([test, "--exact", "--nocapture"])
        .env(MARK, "1")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if start.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("{test} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
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
