//! The files of a machine, as a detector reads them: whatever is in them, it neither panics nor makes up a figure.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tierpool::ResourceDetector;

/// The files, in the order in which the input's parts become them.
const FILES: [&str; 11] = [
    "proc/self/cgroup",
    "proc/self/mountinfo",
    "proc/meminfo",
    "cg/memory.max",
    "cg/memory.current",
    "cg/memory.stat",
    "cg/cpu.max",
    "cg/memory.limit_in_bytes",
    "cg/memory.usage_in_bytes",
    "cg/memory.pressure",
    "proc/pressure/io",
];

fn root() -> &'static PathBuf {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = std::env::temp_dir().join(format!("tierpool-machine-{}", std::process::id()));
        for file in FILES {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        }
        root
    })
}

fuzz_target!(|input: &[u8]| {
    let root = root();
    let mut parts = input.split(|byte| *byte == b'\x1e');
    let mut has = |file: &str| {
        let part = parts.next().unwrap_or_default();
        fs::write(root.join(file), part).unwrap();
        part.to_vec()
    };
    let written: Vec<Vec<u8>> = FILES.iter().map(|file| has(file)).collect();
    let detector = ResourceDetector::builder().root(root).build().unwrap();
    let now = detector.get_current_resources();

    // Each figure stands in the file that it names, as a number (of kB, in the one that counts in them).
    let texts: Vec<String> = written.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
    if let Some(total) = &now.memory.total_bytes {
        assert!(texts[2].contains(&(total.value / 1024).to_string()), "{total}");
    }
    let limits = now.memory.limit_bytes.iter().filter(|limit| !limit.source.starts_with("getrlimit"));
    for limit in limits {
        let is_there = |text: &String| text.trim().trim_start_matches(['0', '+']) == limit.value.to_string();
        assert!(limit.value == 0 || texts.iter().any(is_there), "{limit}");
    }
    for stall in [&now.pressure.cpu, &now.pressure.memory, &now.pressure.io].into_iter().flatten() {
        let all = [stall.value.some_10s, stall.value.some_60s, stall.value.full_10s, stall.value.full_60s];
        assert!(all.iter().all(|part| (0.0..=100.0).contains(part)), "{stall:?}");
    }
    if let Some(quota) = &now.cpu.quota {
        assert!(quota.value > 0.0 && quota.value.is_finite(), "{quota}");
    }
    assert!(now.cpu.usable() >= 1);
});
