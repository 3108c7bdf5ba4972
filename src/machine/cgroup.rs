//! Control groups, versions 1 and 2: how much memory and processor time this process's container may have.
//!
//! A limit holds for a group and all below it, so every level up to the mount counts and the tightest wins: a container's own file often
//! says "max" while its pod's does not. Where a process stands is said by two files: `/proc/self/cgroup` names its group in each
//! hierarchy, `/proc/self/mountinfo` says where each hierarchy, or the part of it that the container sees, is mounted.

use std::path::{Component, Path, PathBuf};

use super::root::Root;

/// From here on, a limit of version 1 is none: it is kept as a number of pages that fits into a signed word.
const NO_LIMIT: u64 = 1 << 62;

/// Where a process stands in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// Version 2: one hierarchy for all controllers.
    unified: bool,
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    /// The group's directory, which is the mount or below it.
    group: PathBuf,
}

/// The groups that limit this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups {
    memory: Option<Place>,
    cpu: Option<Place>,
    unified: Option<Place>,
}

/// A limit of memory, at one level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    pub(crate) bytes: u64,
    /// What the group uses.
    pub(crate) used: u64,
    /// The part of that which the kernel takes back before it refuses anybody: files that nobody has read of late, and half of the others and of
    /// its own caches, as it counts them for the machine.
    pub(crate) reclaimable: u64,
    /// The file that the limit is from.
    pub(crate) file: String,
}

impl MemoryLimit {
    /// What the group uses and the kernel does not take back.
    pub(crate) fn used_for_good(&self) -> u64 {
        self.used.saturating_sub(self.reclaimable)
    }
}

/// A limit of processor time, at one level.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CpuQuota {
    /// How many processors' time.
    pub(crate) cpus: f64,
    pub(crate) file: String,
}

impl Groups {
    /// Those of this process; none where there are no control groups.
    pub(crate) fn of_this_process(root: &Root) -> Self {
        let read = |file| root.text(file).unwrap_or_default();
        find(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
    }

    /// The directory of the group of version 2, if there is that hierarchy.
    pub(crate) fn unified(&self) -> Option<&Path> {
        self.unified.as_ref().map(|place| place.group.as_path())
    }

    /// Each limit of memory, from this process's own group upwards.
    pub(crate) fn memory_limits(&self, root: &Root) -> Vec<MemoryLimit> {
        let Some(place) = &self.memory else { return Vec::new() };
        place.levels().filter_map(|level| memory_limit(root, level, place.unified)).collect()
    }

    /// The tightest limit of swap space, and the file that it is from.
    pub(crate) fn swap_limit(&self, root: &Root) -> Option<(u64, String)> {
        let place = self.memory.as_ref()?;
        let limit = |level: &Path| {
            let number = |file: &str| root.number(level.join(file));
            let (bytes, file) = if place.unified {
                (number("memory.swap.max")?, "memory.swap.max")
            } else {
                // Of memory and swap space together.
                let file = "memory.memsw.limit_in_bytes";
                let both = number(file).filter(|bytes| *bytes < NO_LIMIT)?;
                (both.saturating_sub(number("memory.limit_in_bytes")?), file)
            };
            Some((bytes, level.join(file).display().to_string()))
        };
        place.levels().filter_map(limit).min_by_key(|(bytes, _)| *bytes)
    }

    /// The tightest limit of processor time.
    pub(crate) fn cpu_quota(&self, root: &Root) -> Option<CpuQuota> {
        let place = self.cpu.as_ref()?;
        let quotas = place.levels().filter_map(|level| cpu_quota(root, level, place.unified));
        quotas.min_by(|one, other| one.cpus.total_cmp(&other.cpus))
    }
}

impl Place {
    /// The group's directory, that of the group above it, and so on to the mount.
    fn levels(&self) -> impl Iterator<Item = &Path> {
        self.group.ancestors().take_while(|level| level.starts_with(&self.mount))
    }
}

fn memory_limit(root: &Root, level: &Path, unified: bool) -> Option<MemoryLimit> {
    let number = |file: &str| root.number(level.join(file));
    let (file, bytes) = if unified {
        // Above `high` the kernel lets allocations wait, which for us is as bad as none.
        let both = ["memory.max", "memory.high"].map(|file| Some((file, number(file)?)));
        both.into_iter().flatten().min_by_key(|(_, bytes)| *bytes)?
    } else {
        let file = "memory.limit_in_bytes";
        (file, number(file).filter(|bytes| *bytes < NO_LIMIT)?)
    };
    let (used, fields) = if unified {
        ("memory.current", ["inactive_file", "active_file", "slab_reclaimable"])
    } else {
        ("memory.usage_in_bytes", ["total_inactive_file", "total_active_file", "total_slab_reclaimable"])
    };
    let stat = root.text(level.join("memory.stat")).unwrap_or_default();
    let [inactive, active, slab] = fields.map(|name| field(&stat, name).unwrap_or(0));
    Some(MemoryLimit {
        bytes,
        used: number(used)?,
        reclaimable: inactive.saturating_add(active / 2).saturating_add(slab / 2),
        file: level.join(file).display().to_string(),
    })
}

fn cpu_quota(root: &Root, level: &Path, unified: bool) -> Option<CpuQuota> {
    if unified {
        let file = level.join("cpu.max");
        return Some(CpuQuota { cpus: quota(&root.text(&file)?)?, file: file.display().to_string() });
    }
    let file = level.join("cpu.cfs_quota_us");
    let text = format!("{} {}", root.text(&file)?.trim(), root.number(level.join("cpu.cfs_period_us"))?);
    Some(CpuQuota { cpus: quota(&text)?, file: file.display().to_string() })
}

/// A quota and its period, in one unit: `200000 100000`; none if the quota is `max`, -1 or no number.
pub(crate) fn quota(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let mut number = || words.next()?.parse::<u32>().ok().filter(|number| *number > 0);
    Some(f64::from(number()?) / f64::from(number()?))
}

/// A field of a file of names and numbers.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The places by the two files' texts. Lines that are not understood are passed over.
pub(crate) fn find(groups: &str, mounts: &str) -> Groups {
    let mounts: Vec<Mount> = mounts.lines().filter_map(mount).collect();
    // Of each line `number:controllers:group`.
    let lines = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        Some((parts.next()?, parts.next()?, parts.next()?))
    });
    let lines: Vec<_> = lines.collect();
    let of = |controller: &str| {
        let (_, _, group) = lines.iter().find(|(_, names, _)| names.split(',').any(|name| name == controller))?;
        let mount = mounts.iter().find(|mount| mount.controllers.iter().any(|name| name == controller))?;
        Some(mount.place(group))
    };
    let unified =
        lines.iter().find(|(number, names, _)| *number == "0" && names.is_empty()).and_then(|(_, _, group)| {
            let mount = mounts.iter().find(|mount| mount.unified)?;
            Some(mount.place(group))
        });
    // A machine with both has its controllers in version 1.
    Groups { memory: of("memory").or(unified.clone()), cpu: of("cpu").or(unified.clone()), unified }
}

/// Where a hierarchy, or a part of one, is mounted.
struct Mount {
    unified: bool,
    controllers: Vec<String>,
    /// The group that is seen as the mount's own directory.
    root: PathBuf,
    point: PathBuf,
}

/// A line of `mountinfo`, if it is of control groups: `31 23 0:28 root point options … - type source controllers`.
fn mount(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut back = back.split(' ');
    let unified = match back.next()? {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    let controllers = back.nth(1).unwrap_or_default().split(',').map(str::to_owned);
    let mut front = front.split(' ').skip(3);
    let [root, point] = [front.next()?, front.next()?].map(|path| PathBuf::from(unescape(path)));
    let controllers = if unified { Vec::new() } else { controllers.collect() };
    point.is_absolute().then_some(Mount { unified, controllers, root, point })
}

impl Mount {
    fn place(&self, group: &str) -> Place {
        let group = Path::new(group);
        // A group outside of what is mounted is not seen; what is seen is the container's own.
        let is_plain = group.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let below = group.strip_prefix(&self.root).ok().filter(|below| is_plain && *below != Path::new(""));
        let group = below.map_or_else(|| self.point.clone(), |below| self.point.join(below));
        Place { unified: self.unified, mount: self.point.clone(), group }
    }
}

/// `mountinfo` writes spaces and the like as `\040`.
fn unescape(path: &str) -> String {
    let mut parts = path.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        match code {
            Some(code) => {
                plain.push(code.into());
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(groups: &str, mounts: &str) -> String {
        find(groups, mounts).memory.map_or("none".to_owned(), |place| place.group.display().to_string())
    }

    #[test]
    fn a_process_is_found_in_both_versions() {
        let v1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n";
        let v2 = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(group("4:memory:/a/b\n0::/c\n", &format!("{v2}{v1}")), "/sys/fs/cgroup/memory/a/b");
        assert_eq!(group("0::/c\n", v2), "/sys/fs/cgroup/unified/c");
        assert_eq!(group("4:memory:/a/b\n", v2), "none", "not mounted where it can be seen");
        assert_eq!(group("", ""), "none");
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        let mount = "1 2 0:3 /docker/1f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        assert_eq!(group("4:memory:/docker/1f", mount), "/sys/fs/cgroup/memory");
        assert_eq!(group("4:memory:/docker/1f/child", mount), "/sys/fs/cgroup/memory/child");
        assert_eq!(group("4:memory:/", mount), "/sys/fs/cgroup/memory", "in a name space of its own");
        assert_eq!(group("4:memory:/../../x", mount), "/sys/fs/cgroup/memory", "outside of its name space");
    }

    #[test]
    fn names_with_spaces_and_colons_are_read() {
        let mount = r"1 2 0:3 / /sys/fs/c\040group ro - cgroup2 none rw";
        assert_eq!(group("0::/a:b", mount), "/sys/fs/c group/a:b");
        assert_eq!(unescape(r"\04"), r"\04");
        assert_eq!(unescape(r"a\134b\999"), r"a\b\999");
    }

    #[test]
    fn quotas_of_both_versions_are_read() {
        assert_eq!(quota("150000 100000\n"), Some(1.5));
        for text in ["max 100000", "-1 100000", "100000", "0 100000", "1 0", "", "a b"] {
            assert_eq!(quota(text), None, "{text:?}");
        }
    }

    /// A machine's files, in a directory of their own.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = directory.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let root = Root::at(directory.path());
        (directory, root)
    }

    #[test]
    fn the_tightest_level_of_a_hierarchy_counts() {
        let (_files, root) = machine(&[
            ("proc/self/cgroup", "0::/pod/app\n"),
            ("proc/self/mountinfo", "1 2 0:3 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/pod/app/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/app/memory.high", "800\n"),
            ("sys/fs/cgroup/pod/app/memory.current", "300\n"),
            ("sys/fs/cgroup/pod/app/memory.stat", "anon 100\ninactive_file 40\nactive_file 10\nslab_reclaimable 10\n"),
            ("sys/fs/cgroup/pod/app/memory.swap.max", "max\n"),
            ("sys/fs/cgroup/pod/memory.swap.max", "7\n"),
            ("sys/fs/cgroup/pod/memory.max", "1000\n"),
            ("sys/fs/cgroup/pod/memory.current", "900\n"),
            ("sys/fs/cgroup/pod/app/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/pod/cpu.max", "250000 100000\n"),
        ]);
        let groups = Groups::of_this_process(&root);
        let limits = groups.memory_limits(&root);
        let told: Vec<_> = limits
            .iter()
            .map(|limit| (limit.file.as_str(), limit.bytes, limit.bytes - limit.used_for_good()))
            .collect();
        assert_eq!(
            told,
            [("/sys/fs/cgroup/pod/app/memory.high", 800, 550), ("/sys/fs/cgroup/pod/memory.max", 1000, 100)]
        );
        let quota = CpuQuota { cpus: 2.5, file: "/sys/fs/cgroup/pod/cpu.max".to_owned() };
        assert_eq!(groups.cpu_quota(&root), Some(quota));
        assert_eq!(groups.swap_limit(&root), Some((7, "/sys/fs/cgroup/pod/memory.swap.max".to_owned())));
    }

    #[test]
    fn version_1_has_its_own_files() {
        let (_files, root) = machine(&[
            ("proc/self/cgroup", "4:memory:/app\n1:cpu,cpuacct:/app\n"),
            (
                "proc/self/mountinfo",
                "1 2 0:3 / /cg/memory rw - cgroup cgroup rw,memory\n1 2 0:4 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
            ),
            ("cg/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cg/memory/memory.usage_in_bytes", "5\n"),
            ("cg/memory/app/memory.limit_in_bytes", "1000\n"),
            ("cg/memory/app/memory.usage_in_bytes", "700\n"),
            ("cg/memory/app/memory.stat", "inactive_file 1\ntotal_inactive_file 100\n"),
            ("cg/cpu/app/cpu.cfs_quota_us", "50000\n"),
            ("cg/cpu/app/cpu.cfs_period_us", "100000\n"),
            ("cg/cpu/cpu.cfs_quota_us", "-1\n"),
            ("cg/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        let groups = Groups::of_this_process(&root);
        let limits = groups.memory_limits(&root);
        assert_eq!(limits.len(), 1, "{limits:?}");
        assert_eq!(limits[0].bytes - limits[0].used_for_good(), 400);
        assert_eq!(groups.cpu_quota(&root).map(|quota| quota.cpus), Some(0.5));
    }
}
