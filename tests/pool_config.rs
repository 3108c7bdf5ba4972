//! Pools from TOML: every option reaches the pool, and every fault is told with its line.

#![cfg(all(feature = "config", not(loom)))]

use std::time::Duration;

use tierpool::{AllocateError, HugePages, Memory, Pool, PoolError, Request, RequestError, Spill, Tier, TierKind};

/// Two lines in front, a table each for two tiers.
const TWO: &str = r#"spill = "next-larger"
overflow = 4

[[memory]]
name = "small"
bytes = 64
slots = 2

[[memory]]
name = "large"
bytes = "1.5 KiB"
slots = 3
min_slots = 1

[[tenant]]
name = "md"
"#;

#[test]
fn a_file_is_what_code_would_say() {
    let pool = Pool::from_toml(TWO).unwrap();
    let status = pool.monitor();
    let tiers: Vec<_> =
        status.tiers.iter().map(|tier| (tier.name, tier.snapshot.capacity, tier.min_capacity)).collect();
    assert_eq!(tiers, [("small", 2, 2), ("large", 3, 1), ("overflow", 4, 4)]);
    let held: Vec<_> = (0..5).map(|_| pool.try_allocate(Request::memory(10).tenant("md")).unwrap()).collect();
    assert_eq!(held.iter().map(|lease| lease.capacity()).collect::<Vec<_>>(), [64, 64, 1536, 1536, 1536]);
    assert!(pool.try_allocate(Request::memory(10)).is_err());
    assert!(pool.try_allocate(Request::memory(10).spill(Spill::System)).is_ok());
}

#[test]
fn a_file_and_code_go_together() {
    let numbers = Tier::builder("numbers").capacity(1).build_with(|| 7u64).unwrap();
    let pool = Pool::builder().toml(TWO).unwrap().tier(numbers).memory("middle", 256, 1).build().unwrap();
    assert_eq!(*pool.try_allocate(Request::of::<u64>("numbers")).unwrap(), 7);
    assert_eq!(pool.try_allocate(Request::memory(100)).unwrap().capacity(), 256);
}

#[test]
fn options_of_a_tier_reach_it() {
    let with = |options: &str| {
        let text = format!("[[memory]]\nname = \"m\"\nbytes = 64\nslots = 2\n{options}\n[[tenant]]\nname = \"a\"");
        Pool::from_toml(&text).unwrap()
    };
    let take = |pool: &Pool| [(); 2].map(|()| pool.try_allocate(Request::memory(1)).unwrap());

    let pool = with("max_waiters = 0");
    let held = take(&pool);
    let error = pool.allocate(Request::memory(1)).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::QueueFull { .. })), "{error}");
    drop(held);

    for (scrub, own, other) in [("on-change", 7, 0), ("after-use", 0, 0), ("keep", 7, 7)] {
        let pool = with(&format!("scrub = \"{scrub}\""));
        for mut lease in take(&pool) {
            lease[0] = 7;
        }
        pool.reclaim();
        assert_eq!(pool.try_allocate(Request::memory(1)).unwrap()[0], own, "{scrub}");
        assert_eq!(pool.try_allocate(Request::memory(1).tenant("a")).unwrap()[0], other, "{scrub}");
    }

    let pool = with("align = \"8 KiB\"\nprefault = false\nguard_pages = true\nlock = false\nhuge_pages = \"none\"");
    assert!(take(&pool).iter().all(|lease| lease.as_ptr().addr().is_multiple_of(8192)));
    // Regions are for Linux.
    if let Some(memory) = &pool.monitor().tiers[0].memory {
        assert_eq!((memory.align, memory.prefaulted, memory.guard_pages, memory.locked), (8192, false, true, false));
        let got = with("huge_pages = \"transparent\"").monitor().tiers[0].memory.clone().unwrap();
        assert_eq!((got.huge_pages_wanted, got.prefaulted), (HugePages::Transparent, true));
        assert!(with("lock = true").monitor().tiers[0].memory.as_ref().unwrap().locked);
    }

    let pool = with("leak_after = \"0ms\"");
    let held = take(&pool);
    std::thread::sleep(Duration::from_millis(50));
    pool.reclaim();
    assert_eq!(pool.monitor().tiers[0].snapshot.reclaimed.leaks, 2);
    drop(held);

    let pool = with("max_age = \"1ns\"");
    std::thread::sleep(Duration::from_millis(50));
    pool.reclaim();
    assert_eq!(pool.monitor().tiers[0].snapshot.reclaimed.renewed, 2);

    let pool = with("min_slots = 0\nidle_timeout = \"1us\"");
    drop(take(&pool));
    for _ in 0..2 {
        pool.reclaim();
        std::thread::sleep(Duration::from_millis(50));
    }
    pool.reclaim();
    assert_eq!(pool.monitor().tiers[0].snapshot.slots(), 0);

    let pool = with("discard_on_panic = true");
    let lease = pool.try_allocate(Request::memory(1)).unwrap();
    let first = lease.as_ptr();
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _lease = lease;
        panic!("on purpose");
    }));
    let second = pool.try_allocate(Request::memory(1)).unwrap();
    assert_eq!(pool.monitor().tiers[0].snapshot.free, 1);
    // Its bytes are new: zero, whether or not they lie where the others did.
    assert!(second.iter().all(|&byte| byte == 0), "{first:?}");

    // Nobody polls the first future: the slot goes to the second at once, or stays with the first.
    for (limit, passes_on) in [("0ns", true), ("1h", false)] {
        let pool = with(&format!("grant_limit = \"{limit}\""));
        let held = take(&pool);
        let mut futures = [(); 2].map(|()| Box::pin(pool.allocate_async(Request::memory(1))));
        let waker = std::task::Waker::noop();
        let mut poll = |which: usize| futures[which].as_mut().poll(&mut std::task::Context::from_waker(waker));
        use std::future::Future;
        assert!(poll(0).is_pending() && poll(1).is_pending());
        let [first, second] = held;
        drop(first);
        std::thread::sleep(Duration::from_millis(50));
        pool.reclaim();
        assert_eq!(poll(1).is_ready(), passes_on, "{limit}");
        drop(second);
    }

    // Beside somebody who waits, a newcomer may have a slot, or may not.
    for (barging, may) in [("barging = \"1h\"", true), ("", false)] {
        let pool = with(barging);
        let held = take(&pool);
        let mut waiter = Box::pin(pool.allocate_async(Request::memory(1)));
        let waker = std::task::Waker::noop();
        use std::future::Future;
        assert!(waiter.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
        let [first, second] = held;
        drop(first);
        assert_eq!(pool.try_allocate(Request::memory(1)).is_ok(), may, "{barging}");
        drop(second);
    }
}

/// Unknown names, wrong types, values out of range, contradictions: what, where, and what is possible.
#[test]
fn every_fault_names_its_line() {
    let faults = [
        // (what is replaced, by what, the line, what the error says)
        ("slots = 2", "slotz = 2", 7, "unknown field `slotz`, expected one of `name`, `bytes`, `slots`"),
        ("overflow = 4", "overfow = 4", 2, "unknown field `overfow`"),
        ("name = \"md\"", "name = \"md\"\nwait = 1", 17, "unknown field `wait`"),
        ("name = \"md\"", "name = \"md\"\nweight = 0", 15, "weight 0"),
        ("name = \"md\"", "name = \"md\"\nparent = \"no\"", 15, "which is no tenant"),
        ("name = \"md\"", "name = \"md\"\nhard = { slots = 9999 }", 15, "the pool has only"),
        ("name = \"md\"", "name = \"md\"\nhard = { slot = 1 }", 17, "unknown field `slot`"),
        ("slots = 2", "slots = 2\nwatermarks = { min = 0, low = 1, high = 2 }", 4, "`high` leaves nothing"),
        ("slots = 2", "slots = 2\nbreaker = { window = 0 }", 4, "`window` is 0"),
        ("slots = 2", "slots = 2\nbreaker = { window = \"x\" }", 8, "a number of calls"),
        ("slots = 2", "slots = 2\nalign = 48", 4, "power of two from 64 bytes"),
        ("slots = 2", "slots = 2\nalign = \"3 pages\"", 8, "a whole number of bytes"),
        ("slots = 2", "slots = 2\nguard_pages = true\nhuge_pages = \"prefer\"", 4, "leave out either"),
        (
            "slots = 2",
            "slots = 2\nhuge_pages = \"2 MiB\"",
            8,
            "expected one of `none`, `transparent`, `explicit`, `prefer`",
        ),
        ("next-larger\"", "next-larger\"\nageing = \"1ms\"", 0, "too short"),
        ("slots = 2", "slots = -2", 7, "-2"),
        ("slots = 2", "slots = \"two\"", 7, "invalid type: string \"two\""),
        ("slots = 2\n", "", 4, "missing field `slots`"),
        ("bytes = 64", "bytes = -64", 6, "a whole number of bytes"),
        ("1.5 KiB", "1.5 kb", 11, "such as 2048, \"2 KiB\""),
        ("1.5 KiB", "1.5 B", 11, "a whole number of bytes"),
        ("min_slots = 1", "leak_after = \"5\"", 13, "a time with its unit"),
        ("min_slots = 1", "leak_after = 5", 13, "a time with its unit"),
        ("min_slots = 1", "scrub = \"never\"", 13, "unknown variant `never`, expected one of `on-change`, `after-use`"),
        ("next-larger", "larger", 1, "unknown variant `larger`, expected one of `refuse`, `next-larger`, `system`"),
        ("min_slots = 1", "rebuild_backoff = [\"1s\"]", 13, "length 1"),
        ("[[memory]]\nname = \"small\"", "[[memory]\nname = \"small\"", 4, ""),
        ("slots = 2", "slots = 0", 4, "tier \"small\" cannot have 0 slots"),
        ("bytes = 64", "bytes = 0", 4, "memory tier \"small\" cannot have slots of 0 bytes"),
        ("name = \"large\"", "name = \"small\"", 9, "named \"small\""),
        ("1.5 KiB", "64 B", 9, "both have slots of 64 bytes"),
        ("name = \"small\"", "name = \"\"", 4, "tier name \"\" is empty"),
        ("min_slots = 1", "min_slots = 4", 9, "smallest size is larger"),
        ("min_slots = 1", "idle_timeout = \"1s\"", 9, "no room to shrink"),
        ("name = \"md\"", "name = \"m\\\"d\"", 15, "tenant name"),
        ("name = \"md\"", "name = \"md\"\n[[tenant]]\nname = \"md\"", 17, "tenant \"md\" is there twice"),
    ];
    for (old, new, line, says) in faults {
        assert!(TWO.contains(old), "{old}");
        let text = TWO.replacen(old, new, 1);
        let error = Pool::from_toml(&text).unwrap_err();
        let at = match error {
            PoolError::Config { line, .. } | PoolError::At { line, .. } => line,
            PoolError::Ageing { .. } => 0, // of the whole
            _ => panic!("{error:?} of {new:?} should have a line"),
        };
        assert!(at == line && error.to_string().contains(says), "{new:?} in line {line}: {error}");
    }
    // What concerns the whole has no line.
    let error = Pool::from_toml("").unwrap_err();
    assert!(matches!(error, PoolError::NoTiers), "{error}");
    let error = Pool::from_toml(&TWO.replace("overflow = 4", "").replace("next-larger", "system")).unwrap_err();
    assert!(matches!(error, PoolError::NoOverflow), "{error}");
}

/// A table each for cores and disk space.
const CORES_AND_DISK: &str = r#"[[cpu]]
name = "cores"
max_waiters = 0

[[disk]]
name = "spill"
dir = "DIR"
bytes = "8 KiB"
extents = 4
min_slots = 2
scrub = "keep"

[[tenant]]
name = "a"
"#;

#[cfg(unix)]
#[test]
fn cores_and_disk_space_from_a_file() {
    let text = CORES_AND_DISK.replace("DIR", std::env::temp_dir().to_str().unwrap());
    let pool = Pool::from_toml(&text).unwrap();
    let status = pool.monitor();
    let tiers: Vec<_> = status.tiers.iter().map(|tier| (tier.name, tier.kind, tier.min_capacity)).collect();
    let cores = status.tiers[0].snapshot.capacity;
    assert_eq!(tiers, [("cores", TierKind::Cpu, cores), ("spill", TierKind::Disk { bytes: 8192 }, 2)]);
    let held: Vec<_> = (0..cores).map(|_| pool.try_allocate(Request::cpu()).unwrap()).collect();
    let error = pool.allocate(Request::cpu()).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::QueueFull { .. })), "{error}");
    let mut one = vec![held.into_iter().next().unwrap().id()];

    let mut extent = pool.try_allocate(Request::disk(10)).unwrap();
    extent.write_all_at(b"kept", 0).unwrap();
    drop(extent);
    let mut read = [0; 4];
    pool.try_allocate(Request::disk(10).tenant("a")).unwrap().read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"kept", "`scrub` has reached it");

    let pool = Pool::from_toml(&format!("[[cpu]]\nname = \"one\"\ncpus = {one:?}")).unwrap();
    assert_eq!(pool.monitor().tiers[0].snapshot.capacity, 1);
    one.push(one[0]);
    let faults = [
        // (what is replaced, by what, the line, what the error says)
        ("max_waiters = 0", &format!("cpus = {one:?}")[..], 1, "twice"),
        ("max_waiters = 0", "cpus = []", 1, "is empty"),
        ("max_waiters = 0", "cpus = [60000]", 1, "may not use cores 60000"),
        ("max_waiters = 0", "cpus = 1", 3, "invalid type"),
        ("max_waiters = 0", "cores = 1", 3, "unknown field `cores`, expected one of `name`, `cpus`, `avoid_siblings`"),
        ("max_waiters = 0", "slots = 1", 3, "unknown field `slots`"),
        ("name = \"spill\"", "name = \"cores\"", 5, "two tiers of the pool are named \"cores\""),
        ("extents = 4", "slots = 4", 9, "expected one of `name`, `dir`, `bytes`, `extents`, `direct`, `scrub`"),
        ("extents = 4\n", "", 5, "missing field `extents`"),
        ("extents = 4", "extents = 1", 5, "smallest size is larger"),
        ("8 KiB", "8 kB", 8, "such as 2048, \"2 KiB\""),
        ("8 KiB", "0", 5, "from 1 byte"),
        ("8 KiB\"", "5000 B\"\ndirect = true", 5, "a multiple of 4096"),
        ("dir = \"", "dir = \"/nowhere", 5, "create the directory"),
        ("scrub = \"keep\"", "scrub = \"never\"", 11, "unknown variant `never`"),
        ("scrub = \"keep\"", "watermarks = { min = 1, low = 2, high = 4 }", 5, "`high` leaves nothing"),
    ];
    for (old, new, line, says) in faults {
        assert!(text.contains(old), "{old}");
        let error = Pool::from_toml(&text.replacen(old, new, 1)).unwrap_err();
        let (PoolError::Config { line: at, .. } | PoolError::At { line: at, .. }) = error else {
            panic!("{error:?} of {new:?} should have a line")
        };
        assert!(at == line && error.to_string().contains(says), "{new:?} in line {line}: {error}");
    }
}

/// The examples of the guide are pools, and its table of options leaves none out.
#[test]
fn the_guide_is_right() {
    let guide = include_str!("../docs/configuration.md");
    let mut examples = guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let every_option = examples.next().unwrap();
    // Not every process may use that core.
    let cores = Pool::builder().cpu("cores").build().unwrap();
    let allowed = cores.try_allocate(Request::cpu()).unwrap().id();
    let pool = Pool::from_toml(&every_option.replace("cpus = [0]", &format!("cpus = [{allowed}]"))).unwrap();
    assert_eq!(pool.try_allocate(Request::of::<Memory>("frames")).unwrap().len(), 65536);
    examples.for_each(|example| drop(Pool::from_toml(example).unwrap()));

    for table in ["memory", "cpu", "disk"] {
        let error = Pool::from_toml(&format!("[[{table}]]\nnothing = 1")).unwrap_err().to_string();
        let known: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        assert!(known.len() > 10, "{error}");
        for option in known {
            assert!(every_option.contains(&format!("{option} = ")), "{option} is missing in the example");
            assert!(guide.contains(&format!("| `{option}` |")), "{option} is missing in the table");
        }
    }
}
