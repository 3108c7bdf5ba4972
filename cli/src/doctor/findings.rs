//! What is wrong with a machine for latency, and the one line that mends each.

use serde::Serialize;
use tierpool::{Figure, Stall};

use super::Machine;
use crate::units::{bytes, counted};

/// Something that costs latency, or that will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, for programs.
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What is so, and what it does.
    pub what: String,
    /// The line that mends it.
    pub fix: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Something better can be had.
    Note,
    /// It costs latency.
    Warning,
    /// Something will fail.
    Problem,
}

/// A part of the time, in percent, from which on tasks stand still for too long.
const STALL: f32 = 1.0;
/// The same for processors: who shares them always waits a little.
const CPU_STALL: f32 = 10.0;
/// A disk with less than this part free is nearly full.
const NEARLY_FULL: f64 = 0.05;
/// A machine with less than this part of its memory left is short of it.
const SHORT: f64 = 0.1;

/// All that is wrong, the worst first.
pub fn of(machine: &Machine) -> Vec<Finding> {
    let all = [memory(machine), swap(machine), pages(machine), cpu(machine), system(machine), disk(machine)];
    let mut all: Vec<Finding> = all.into_iter().flatten().chain(stalls(machine)).collect();
    all.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    all
}

fn finding(id: &'static str, level: Level, what: String, fix: impl Into<String>) -> Finding {
    Finding { id, level, what, fix: fix.into() }
}

fn value<T: Copy>(figure: &Option<Figure<T>>) -> Option<T> {
    figure.as_ref().map(|figure| figure.value)
}

fn memory(machine: &Machine) -> Vec<Finding> {
    let now = machine.resources.availability();
    let (Some(left), Some(whole)) = (now.memory_bytes, now.memory_of_bytes) else { return Vec::new() };
    let mut all = Vec::new();
    if (left as f64) < whole as f64 * SHORT {
        let what = format!("Only {} of {} of memory are left: a pool cannot grow.", bytes(left), bytes(whole));
        let short = machine.resources.memory.available_bytes.as_ref().map_or("", |figure| &figure.source);
        let fix = match short.split_once(" less ").map_or(short, |(limit, _)| limit) {
            "getrlimit(RLIMIT_AS)" => "ulimit -v unlimited".to_owned(),
            "getrlimit(RLIMIT_DATA)" => "ulimit -d unlimited".to_owned(),
            source if source.starts_with("/proc") => {
                "ps aux --sort=-rss | head    # and stop what is not needed".to_owned()
            }
            file => format!("raise the limit: {file} (Kubernetes: resources.limits.memory)"),
        };
        all.push(finding("memory-short", Level::Problem, what, fix));
    }
    if let Some(limit) =
        value(&machine.resources.memory.lock_limit_bytes).filter(|limit| *limit < left && !machine.may_lock_all)
    {
        let what = format!(
            "The process may lock {} of memory: a tier with `lock` that is larger is refused, and one without it may be swapped out.",
            bytes(limit)
        );
        let fix = "ulimit -l unlimited    # systemd: LimitMEMLOCK=infinity; Docker: --ulimit memlock=-1";
        all.push(finding("lock-limit", Level::Note, what, fix));
    }
    all
}

fn swap(machine: &Machine) -> Vec<Finding> {
    let Some(swap) = value(&machine.resources.memory.swap_bytes).filter(|swap| *swap > 0) else { return Vec::new() };
    let what = format!("{} of swap space may be used: a page that was swapped out takes milliseconds.", bytes(swap));
    let in_use = swap.saturating_sub(value(&machine.resources.memory.swap_free_bytes).unwrap_or(0));
    let fix = if in_use > machine.resources.availability().memory_bytes.unwrap_or(0) / 2 {
        "memory.swap.max = 0 for the program's group, and `lock` for its tiers    # what is swapped out now does not fit into memory"
    } else {
        "sudo swapoff -a    # a container: memory.swap.max = 0"
    };
    vec![finding("swap", Level::Warning, what, fix)]
}

fn pages(machine: &Machine) -> Vec<Finding> {
    let mut all = Vec::new();
    let memory = &machine.resources.memory;
    let choice = memory.transparent_huge_pages.as_ref();
    let madvise = choice.map_or(String::new(), |choice| format!("echo madvise | sudo tee {}", choice.source));
    match choice.map(|choice| choice.value.as_str()) {
        Some("always") => {
            let what =
                "The kernel makes huge pages of any memory by itself: a page fault may then zero or compact 2 MiB."
                    .to_owned();
            all.push(finding("thp-always", Level::Warning, what, madvise));
        }
        Some("never") => {
            let what = "The kernel makes no huge pages, even where a tier asks for them.".to_owned();
            all.push(finding("thp-never", Level::Note, what, madvise));
        }
        _ => {}
    }
    if let (Some(0), Some(size)) = (value(&memory.huge_pages), value(&memory.huge_page_bytes)) {
        // An eighth of what is left, and a GiB at most: what is set apart serves nothing else.
        let left = value(&memory.available_bytes).unwrap_or(0);
        let pages = (left / 8).min(1 << 30) / size.max(1);
        if pages > 0 {
            let what =
                format!("No huge pages of {} are set apart: a tier that insists on them is refused.", bytes(size));
            let fix = format!(
                "sudo sysctl vm.nr_hugepages={pages}    # {}, which then serves nothing else",
                bytes(pages * size)
            );
            all.push(finding("huge-pages", Level::Note, what, fix));
        }
    }
    all
}

fn cpu(machine: &Machine) -> Vec<Finding> {
    let mut all = Vec::new();
    let cpu = &machine.resources.cpu;
    let allowed = cpu.allowed.value.len();
    if let Some(quota) = cpu.quota.as_ref().filter(|quota| quota.value < allowed as f64) {
        let what = format!(
            "The container may use {} processors' time on {}: once that is used up, all its threads stand still for the rest of a period, mostly 100 ms.",
            quota.value,
            counted(allowed as u64, "processor")
        );
        // Rounded down: what is left over does not feed another thread.
        let fed = (quota.value as usize).max(1);
        let fix = format!(
            "taskset -c {} PROGRAM    # Kubernetes: whole CPUs, requests equal to limits, cpuManagerPolicy: static",
            cpu.list(fed)
        );
        all.push(finding("cpu-quota", Level::Warning, what, fix));
    }
    if let Some(governors) = &machine.governors {
        let slow: Vec<&str> =
            governors.value.iter().map(String::as_str).filter(|governor| *governor != "performance").collect();
        if !slow.is_empty() {
            let what = format!(
                "Processors slow down when idle (governor {}): the first work after a pause takes longer.",
                slow.join(", ")
            );
            all.push(finding("governor", Level::Warning, what, "sudo cpupower frequency-set -g performance"));
        }
    }
    all
}

fn system(machine: &Machine) -> Vec<Finding> {
    let mut all = Vec::new();
    if !machine.membarrier.value {
        let what = "There is no membarrier, or the environment forbids it: each release pays for a fence of its own."
            .to_owned();
        let fix = "unset TIERPOOL_FENCE    # and run on Linux 4.14 or later, not on gVisor, with a seccomp profile that allows membarrier";
        all.push(finding("no-membarrier", Level::Warning, what, fix));
    }
    // These are not read without a system call.
    let slow = ["hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit", "hyperv_clocksource_msr"];
    if let Some(clock) = machine.clock.as_ref().filter(|clock| slow.contains(&clock.value.as_str())) {
        let what = format!("The kernel's clock is {}: each look at it is a system call.", clock.value);
        all.push(finding("slow-clock", Level::Warning, what, format!("echo tsc | sudo tee {}", clock.source)));
    }
    if machine.overcommit.as_ref().is_some_and(|choice| choice.value == "2") {
        let what = "The kernel promises no more memory than there is: the address space that a tier sets apart to grow counts as used.".to_owned();
        all.push(finding("overcommit-never", Level::Warning, what, "sudo sysctl vm.overcommit_memory=0"));
    }
    all
}

fn disk(machine: &Machine) -> Vec<Finding> {
    let Some(disk) = machine.resources.disks.first() else { return Vec::new() };
    let place = disk.directory.display();
    let figures = match &disk.figures {
        Ok(figures) => figures,
        Err(why) => {
            let what = format!("What {place} has free is unknown: {why}.");
            return vec![finding(
                "disk-unknown",
                Level::Warning,
                what,
                "tierpool doctor --directory DIR    # another one",
            )];
        }
    };
    let (free, total) = (figures.free_bytes.value, figures.total_bytes.value);
    if figures.read_only {
        let what = format!("{place} is read-only: no disk tier can be there.");
        vec![finding("disk-read-only", Level::Problem, what, "tierpool doctor --directory DIR    # another one")]
    } else if (free as f64) < total as f64 * NEARLY_FULL {
        let what =
            format!("The disk of {place} has {} of {} free: a disk tier may be refused.", bytes(free), bytes(total));
        vec![finding(
            "disk-full",
            Level::Problem,
            what,
            format!("du -xh {place} | sort -h | tail    # and remove what is not needed"),
        )]
    } else {
        Vec::new()
    }
}

fn stalls(machine: &Machine) -> Vec<Finding> {
    let pressure = &machine.resources.pressure;
    let too_long = |id, of: &str, figure: &Option<Figure<Stall>>, limit, fix: &str| {
        let stall = figure.as_ref().filter(|figure| figure.value.some_60s >= limit)?;
        let what = format!(
            "Over the last minute tasks stood still for want of {of} for {:.1} % of the time ({}).",
            stall.value.some_60s, stall.source
        );
        Some(finding(id, Level::Warning, what, fix))
    };
    const MEMORY: &str =
        "ps aux --sort=-rss | head    # give it more memory, make the pool smaller, or stop what is not needed";
    const CPU: &str = "taskset -c N PROGRAM    # and keep others off these processors";
    const IO: &str = "ionice -c 3 OTHER    # what else uses the disk";
    let all = [
        too_long("memory-pressure", "memory", &pressure.memory, STALL, MEMORY),
        too_long("cpu-pressure", "a processor", &pressure.cpu, CPU_STALL, CPU),
        too_long("io-pressure", "the disk", &pressure.io, CPU_STALL, IO),
    ];
    all.into_iter().flatten().collect()
}
