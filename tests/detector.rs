//! The detector: on this machine, and on the files of others.
#![cfg(all(target_os = "linux", not(loom), not(shuttle)))]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tierpool::ResourceDetector;

/// A field of `/proc/meminfo`, in bytes.
fn meminfo(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A machine's files below `root`.
fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let file = root.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}

#[test]
fn this_machine_is_as_the_system_says() {
    let directory = tempfile::tempdir().unwrap();
    let detector = ResourceDetector::builder().directory(directory.path()).directory("/not/there").build().unwrap();
    let now = detector.get_current_resources();
    let total = now.memory.total_bytes.as_ref().unwrap();
    assert_eq!((total.value, total.source.as_str()), (meminfo("MemTotal"), "/proc/meminfo MemTotal"));
    let available = now.memory.available_bytes.as_ref().unwrap();
    assert!(available.value > 0 && available.value <= total.value, "{available}");
    assert!(now.memory.swap_bytes.as_ref().unwrap().value <= meminfo("SwapTotal"), "or what a group may have of it");
    assert!(!now.cpu.allowed.value.is_empty());
    // Which rounds a quota down, and this up.
    let parallel = std::thread::available_parallelism().unwrap().get();
    assert!((parallel..=now.cpu.allowed.value.len()).contains(&now.cpu.usable()), "{:?}", now.cpu);

    let disk = now.disks[0].figures.as_ref().unwrap();
    assert!(disk.free_bytes.value <= disk.total_bytes.value && !disk.read_only);
    assert!(disk.free_bytes.source.contains(directory.path().to_str().unwrap()));
    let missing = now.disks[1].figures.as_ref().unwrap_err();
    assert!(missing.contains("No such file"), "{missing}");

    let numbers = detector.get_availability();
    assert_eq!(numbers, now.availability());
    assert_eq!(numbers.disk_bytes, Some(disk.free_bytes.value));
}

#[test]
fn a_container_is_as_its_tightest_limit_says() {
    let root = tempfile::tempdir().unwrap();
    write(
        root.path(),
        &[
            ("proc/meminfo", "MemTotal: 8000 kB\nMemAvailable: 6000 kB\n"),
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", "1 2 0:3 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("proc/pressure/memory", "some avg10=9.00 avg60=0.00 avg300=0.00 total=0\n"),
            ("sys/fs/cgroup/memory.max", "4096000\n"),
            ("sys/fs/cgroup/memory.current", "3072000\n"),
            ("sys/fs/cgroup/memory.stat", "inactive_file 1024000\n"),
            ("sys/fs/cgroup/memory.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=0\n"),
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
        ],
    );
    let detector = ResourceDetector::builder().root(root.path()).build().unwrap();
    let now = detector.get_current_resources();
    assert_eq!(now.memory.total_bytes.as_ref().unwrap().value, 8000 * 1024, "the machine's");
    let limit = now.memory.limit_bytes.as_ref().unwrap();
    assert_eq!((limit.value, limit.source.as_str()), (4_096_000, "/sys/fs/cgroup/memory.max"));
    let available = now.memory.available_bytes.as_ref().unwrap();
    assert_eq!(available.value, 2_048_000, "files that nobody reads are no use of it");
    assert_eq!(available.source, "/sys/fs/cgroup/memory.max less 2048000 used");
    assert_eq!(now.cpu.usable(), 1, "half a processor feeds one thread at a time");
    let stall = now.pressure.memory.as_ref().unwrap();
    assert_eq!((stall.value.some_10s, stall.source.as_str()), (1.5, "/sys/fs/cgroup/memory.pressure"), "its own");
    assert!(now.pressure.io.is_none(), "nobody says it");

    fs::write(root.path().join("sys/fs/cgroup/memory.current"), "4096000\n").unwrap();
    assert_eq!(detector.get_availability().memory_bytes, Some(2_048_000), "the last look");
    detector.refresh();
    assert_eq!(detector.get_availability().memory_bytes, Some(1_024_000));
    assert_eq!(now.memory.available_bytes.as_ref().unwrap().value, 2_048_000, "a look is one moment's");
}

#[test]
fn a_machine_that_says_nothing_is_unknown() {
    let root = tempfile::tempdir().unwrap();
    let now = ResourceDetector::builder().root(root.path()).build().unwrap().get_availability();
    assert_eq!((now.memory_bytes, now.memory_of_bytes, now.memory_stall), (None, None, None));
    assert!(now.cpus >= 1);
}

#[test]
fn the_reclaimer_looks_by_itself_until_the_detector_goes() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &[("proc/meminfo", "MemTotal: 1 kB\nMemAvailable: 1 kB\n")]);
    let detector = ResourceDetector::builder().root(root.path()).every(Duration::from_millis(10)).build().unwrap();
    let mut reader = detector.reader();
    for kilobytes in [2, 3] {
        // As a whole, so that no look sees half of it.
        let text = format!("MemTotal: {kilobytes} kB\nMemAvailable: 1 kB\n");
        fs::write(root.path().join("new"), text).unwrap();
        fs::rename(root.path().join("new"), root.path().join("proc/meminfo")).unwrap();
        let patience = Instant::now() + Duration::from_secs(30);
        while reader.get_availability().memory_of_bytes != Some(kilobytes * 1024) {
            assert!(Instant::now() < patience, "nobody has looked: {:?}", reader.get_current_resources());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let last = detector.get_current_resources();
    drop(detector);
    fs::write(root.path().join("proc/meminfo"), "MemTotal: 9 kB\n").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(reader.get_availability().memory_of_bytes, Some(3 * 1024), "nobody looks for nobody");
    assert_eq!(last.memory.total_bytes.as_ref().unwrap().value, 3 * 1024);
}
