//! `tierpool doctor`: it prints what the system's own tools print, plain and under limits; and it finds what is wrong.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tierpool::Pool;
use tierpool_cli::doctor::{Finding, Level, Machine, findings, show, suggest};

const TIERPOOL: &str = env!("CARGO_BIN_EXE_tierpool");

/// What a shell prints.
fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An examination as a script calls for it; the script's `$0` is the program.
fn doctor(script: &str) -> Value {
    let output = Command::new("sh").args(["-c", script, TIERPOOL]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn run(arguments: &[&str]) -> Output {
    Command::new(TIERPOOL).arg("doctor").args(arguments).output().unwrap()
}

fn number(object: &Value, key: &str) -> u64 {
    object[key].as_u64().unwrap_or_else(|| panic!("{key}: {}", object[key]))
}

fn ids(object: &Value) -> Vec<&str> {
    object["findings"].as_array().unwrap().iter().map(|finding| finding["id"].as_str().unwrap()).collect()
}

/// Both are of nearly the same moment.
#[track_caller]
fn assert_near(one: u64, other: u64) {
    assert!(one.abs_diff(other) as f64 <= one.max(other) as f64 * 0.05, "{one} and {other}");
}

#[test]
fn the_machine_is_as_the_systems_tools_say() {
    let object = doctor("\"$0\" doctor --json --directory /tmp");
    let field = |name: &str| {
        shell(&format!("awk '/^{name}:/ {{ printf \"%.0f\", $2 * 1024 }}' /proc/meminfo")).parse().unwrap()
    };
    assert_eq!(number(&object, "memory_total_bytes"), field("MemTotal"));
    if object["memory_limit_bytes"].is_null() {
        assert_near(number(&object, "memory_available_bytes"), field("MemAvailable"));
    }
    assert_eq!(number(&object, "cpus_allowed").to_string(), shell("nproc"));
    let list = "awk '/^Cpus_allowed_list/ { print $2 }' /proc/self/status";
    assert_eq!(object["cpus_allowed_list"], shell(list));
    assert_near(number(&object, "disk_free_bytes"), shell("df -B1 --output=avail /tmp | tail -1").parse().unwrap());
    assert_eq!(number(&object, "disk_total_bytes").to_string(), shell("df -B1 --output=size /tmp | tail -1"));
    match shell("ulimit -l").as_str() {
        "unlimited" => assert!(object["memory_lock_limit_bytes"].is_null()),
        kilobytes => assert_eq!(number(&object, "memory_lock_limit_bytes"), kilobytes.parse::<u64>().unwrap() * 1024),
    }
    assert!(object["sources"]["memory_total_bytes"].as_str().unwrap().contains("/proc/meminfo"));
}

#[test]
fn a_process_that_is_kept_to_one_processor_has_one() {
    let first = shell("awk '/^Cpus_allowed_list/ { split($2, a, /[,-]/); print a[1] }' /proc/self/status");
    let object = doctor(&format!("taskset -c {first} \"$0\" doctor --json"));
    assert_eq!(number(&object, "cpus_allowed"), 1);
    assert_eq!(object["cpus_allowed_list"], first);
}

#[test]
fn limits_of_the_process_are_limits() {
    let object = doctor("ulimit -v 4000000; ulimit -l 64; \"$0\" doctor --json");
    assert_eq!(number(&object, "memory_limit_bytes"), 4_000_000 * 1024);
    assert!(number(&object, "memory_available_bytes") < 4_000_000 * 1024, "the program itself is in it");
    assert_eq!(object["sources"]["memory_limit_bytes"], "getrlimit(RLIMIT_AS)");
    assert_eq!(number(&object, "memory_lock_limit_bytes"), 64 * 1024);
    let may = Machine::look(Path::new("."), Path::new("/")).unwrap().may_lock_all;
    assert_eq!(ids(&object).contains(&"lock-limit"), !may, "whoever has the capability may lock all the same");
}

/// A group below this process's own, which goes with this value.
struct Group(PathBuf);

impl Group {
    /// `None` where this user may make none, or the controller is not there.
    fn new(controller: &str, files: &[(&str, &str)]) -> Option<Group> {
        let v1 = Path::new("/sys/fs/cgroup").join(controller);
        let parent = if v1.is_dir() { v1 } else { PathBuf::from("/sys/fs/cgroup") };
        let group = Group(parent.join(format!("tierpool-{controller}-{}", std::process::id())));
        fs::create_dir(&group.0).ok()?;
        let file = files.iter().find(|(file, _)| group.0.join(file).exists())?;
        fs::write(group.0.join(file.0), file.1).ok()?;
        Some(group)
    }

    fn join(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.0.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn limits_of_the_container_are_limits() {
    let memory = [("memory.limit_in_bytes", "268435456"), ("memory.max", "268435456")];
    let cpu = [("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000")];
    let (Some(memory), Some(cpu)) = (Group::new("memory", &memory), Group::new("cpu", &cpu)) else {
        eprintln!("SKIPPED: this user may make no control group, or has no controllers of memory and cpu to give");
        return;
    };
    let object = doctor(&format!("{} && {} && exec \"$0\" doctor --json", memory.join(), cpu.join()));
    assert_eq!(number(&object, "memory_limit_bytes"), 256 << 20);
    assert!(number(&object, "memory_available_bytes") <= 256 << 20);
    let source = object["sources"]["memory_limit_bytes"].as_str().unwrap();
    assert!(source.starts_with(memory.0.to_str().unwrap()), "{source}");
    assert_eq!(object["cpu_quota"], 0.5);
    assert_eq!(number(&object, "usable_cpus"), 1);
    assert!(ids(&object).contains(&"cpu-quota"), "{object}");
}

/// A machine on which all is wrong.
fn bad_machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let cpu = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    let files = [
        (
            "proc/meminfo",
            "MemTotal: 1000000 kB\nMemAvailable: 50000 kB\nSwapTotal: 2048 kB\nHugePages_Total: 0\nHugepagesize: 2048 kB\n",
        ),
        ("proc/sys/vm/overcommit_memory", "2\n"),
        ("proc/pressure/memory", "some avg10=3.00 avg60=2.50 avg300=0.00 total=0\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"),
        (cpu, "powersave\n"),
    ];
    for (file, text) in files {
        let file = root.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    root
}

#[test]
fn what_is_wrong_is_found_and_has_its_remedy() {
    let root = bad_machine();
    let machine = Machine::look(root.path(), root.path()).unwrap();
    let found = findings::of(&machine);
    let has = |id: &str| found.iter().any(|finding| finding.id == id);
    for id in ["memory-short", "swap", "thp-always", "huge-pages", "slow-clock", "overcommit-never", "memory-pressure"]
    {
        assert!(has(id), "{id}: {found:?}");
    }
    let allows_0 = machine.resources.cpu.allowed.value.contains(&0);
    assert_eq!(has("governor"), allows_0, "only of processors that may be used");
    assert_eq!(found[0].level, Level::Problem, "the worst first");
    let is_whole =
        |finding: &Finding| !finding.what.is_empty() && !finding.fix.is_empty() && !finding.fix.contains('\n');
    assert!(found.iter().all(is_whole), "{found:?}");
    let text = show::text(&machine);
    for finding in &found {
        assert!(text.contains(&finding.what) && text.contains(&finding.fix), "{text}");
    }
}

#[test]
fn remedies_suit_the_machine() {
    let root = bad_machine();
    let fix = |id: &str| {
        let found = findings::of(&Machine::look(root.path(), root.path()).unwrap());
        found.into_iter().find(|finding| finding.id == id).map(|finding| finding.fix)
    };
    let write = |file: &str, text: &str| {
        let file = root.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    assert!(fix("huge-pages").unwrap().contains("vm.nr_hugepages=3 "), "an eighth of 50 MB");
    write(
        "proc/meminfo",
        "MemTotal: 1000000 kB\nMemAvailable: 900000 kB\nHugePages_Total: 0\nHugepagesize: 524288 kB\n",
    );
    assert_eq!(fix("huge-pages"), None, "not even one fits");
    assert_eq!((fix("memory-short"), fix("swap")), (None, None));

    // A limit that is wider than the machine limits nothing; one above the container's own does.
    write("proc/self/cgroup", "0::/pod/app\n");
    write("proc/self/mountinfo", "1 2 0:3 / /cg rw - cgroup2 cgroup2 rw\n");
    write("cg/pod/app/memory.max", "9000000000000\n");
    write("cg/pod/app/memory.current", "1000\n");
    assert_eq!(fix("memory-short"), None);
    write("cg/pod/memory.max", "500000000\n");
    write("cg/pod/memory.current", "499000000\n");
    assert!(fix("memory-short").unwrap().contains("/cg/pod/memory.max"));
    write("cg/pod/memory.stat", "active_file 400000000\nslab_reclaimable 10000000\n");
    assert_eq!(fix("memory-short"), None, "the kernel takes back what files have");

    // What a group may not swap is no swap.
    write("proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 900000 kB\nSwapTotal: 2048 kB\nSwapFree: 2048 kB\n");
    assert!(fix("swap").unwrap().contains("swapoff"));
    write("cg/pod/memory.swap.max", "0\n");
    assert_eq!(fix("swap"), None);

    let allowed = Machine::look(root.path(), root.path()).unwrap().resources.cpu.allowed.value;
    write("cg/pod/cpu.max", "90000 100000\n");
    assert!(fix("cpu-quota").unwrap().starts_with(&format!("taskset -c {} ", allowed[0])), "one that it may use");
}

#[test]
fn what_nobody_says_is_unknown() {
    let root = tempfile::tempdir().unwrap();
    let machine = Machine::look(root.path(), root.path()).unwrap();
    let object = show::json(&machine);
    for key in ["memory_total_bytes", "memory_available_bytes", "cpu_quota", "clock_source", "memory_stall_10s_percent"]
    {
        assert!(object.as_object().unwrap().contains_key(key) && object[key].is_null(), "{key}: {}", object[key]);
    }
    assert!(show::text(&machine).contains("unknown"));
}

#[test]
fn the_suggestion_is_a_configuration() {
    let machine = Machine::look(Path::new("."), Path::new("/")).unwrap();
    let text = suggest::configuration(&machine);
    let pool = Pool::from_toml(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
    let tiers = pool.monitor().tiers;
    assert_eq!(tiers.len(), 4);
    assert_eq!(tiers[3].snapshot.capacity, machine.resources.cpu.usable());
    let bad = bad_machine();
    let text = suggest::configuration(&Machine::look(bad.path(), bad.path()).unwrap());
    Pool::from_toml(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
}

#[test]
fn a_directory_that_is_not_there_is_refused() {
    let output = run(&["--directory", "/not/there"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("/not/there") && error.contains("give a directory"), "{error}");
    assert!(output.stdout.is_empty());
}

#[test]
fn people_get_a_table() {
    let output = run(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    for word in ["memory", "available", "processors", "membarrier", "disk of", "[[memory]]"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}
