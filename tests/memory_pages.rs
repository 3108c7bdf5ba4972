//! The pages behind a pool's memory tiers, on the real machine: where buffers lie, what the system says of their pages, what is refused
//! under which limit, what comes back. A test that changes or measures its process has one of its own.
#![cfg(all(target_os = "linux", not(loom)))]

pub mod common;

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use common::process::{alone, end_of, kibibytes, of_process};
use tierpool::{
    HugePages, Lease, Memory, MemoryError, MemoryStatus, MemoryTier, Pool, PoolError, Report, Request, Scrub,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const PAGE: usize = 4096;
const HUGE: usize = 2 << 20;

fn pool(tier: MemoryTier) -> Result<Pool, PoolError> {
    Pool::builder().memory_tier(tier).tenant("a").tenant("b").build()
}

fn take(pool: &Pool) -> Lease<Memory> {
    pool.try_allocate(Request::of::<Memory>("m")).unwrap()
}

fn status(pool: &Pool) -> MemoryStatus {
    pool.monitor().tiers[0].memory.clone().unwrap()
}

fn is_all(bytes: &[u8], byte: u8) -> bool {
    bytes.chunks(PAGE).all(|chunk| *chunk == [byte; PAGE][..chunk.len()])
}

/// A tier that goes down to `min` slots when it is told to.
fn shrinks(tier: MemoryTier, min: usize) -> MemoryTier {
    tier.with(move |tier| tier.min_capacity(min).idle_timeout(Duration::from_nanos(1)))
}

/// Has the tier remove what nobody holds.
fn shrink(pool: &Pool, slots: usize) {
    for _ in 0..1000 {
        if pool.monitor().tiers[0].snapshot.slots() <= slots {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
        pool.reclaim();
    }
    panic!("it does not shrink: {:?}", pool.monitor().tiers[0].snapshot);
}

/// Which pages of a range are in memory; `None` where there is no range.
fn resident(start: *const u8, bytes: usize) -> Option<usize> {
    let first = start as usize / PAGE * PAGE;
    let pages = (start as usize + bytes).div_ceil(PAGE) - first / PAGE;
    let mut each = vec![0u8; pages];
    // SAFETY: writes a byte a page to a buffer with as many.
    let known = unsafe { libc::mincore(first as *mut libc::c_void, pages * PAGE, each.as_mut_ptr()) } == 0;
    known.then(|| each.iter().filter(|&&page| page & 1 == 1).count())
}

/// What `/proc/self/smaps` says of the mapping that an address is in.
fn mapping(address: *const u8) -> String {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut found = String::new();
    let mut here = false;
    for line in text.lines() {
        let range = line.split(' ').next().unwrap().split_once('-');
        let number = |text| usize::from_str_radix(text, 16).ok();
        if let Some((start, end)) = range.and_then(|(start, end)| Some((number(start)?, number(end)?))) {
            here = (start..end).contains(&(address as usize));
        }
        if here {
            found += line;
            found.push('\n');
        }
    }
    found
}

fn limit(of: &str, bytes: u64) {
    let which = match of {
        "data" => libc::RLIMIT_DATA,
        "address space" => libc::RLIMIT_AS,
        _ => libc::RLIMIT_MEMLOCK,
    };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes to a local, and reads it.
    unsafe {
        assert_eq!(libc::getrlimit(which, &mut limit), 0);
        limit.rlim_cur = bytes.min(limit.rlim_max);
        assert_eq!(libc::setrlimit(which, &limit), 0);
    }
}

#[test]
fn buffers_begin_at_multiples_of_their_alignment() -> Outcome {
    for (bytes, align, expected) in [
        (100, None, 64),
        (5000, None, PAGE),
        (100, Some(64), 64),
        (5000, Some(64), 64),
        (100, Some(PAGE), PAGE),
        (100, Some(HUGE), HUGE),
        (3 << 20, Some(HUGE), HUGE),
    ] {
        let tier = MemoryTier::new("m", bytes, 5);
        let pool = pool(align.into_iter().fold(tier, MemoryTier::align))?;
        let mut held: Vec<_> = (0..5).map(|_| take(&pool)).collect();
        held.iter_mut().for_each(|lease| lease.fill(1));
        assert!(held.iter().all(|lease| lease.len() == bytes && lease.as_ptr().addr().is_multiple_of(expected)));
        assert_eq!(status(&pool).align, expected);
    }
    Ok(())
}

#[test]
fn what_makes_no_sense_is_refused() {
    let tier = || MemoryTier::new("m", 100, 1);
    for align in [0, 1, 32, 96, HUGE * 2, usize::MAX] {
        let why = pool(tier().align(align)).unwrap_err();
        assert!(matches!(&why, PoolError::Backing { tier, .. } if tier == "m"), "{why}");
        assert!(why.to_string().contains("power of two from 64 bytes"), "{why}");
    }
    for huge_pages in [HugePages::Transparent, HugePages::Explicit, HugePages::Prefer] {
        let why = pool(tier().guard_pages(true).huge_pages(huge_pages)).unwrap_err();
        assert!(why.to_string().contains("leave out either"), "{why}");
    }
    let why = pool(MemoryTier::new("m", 100, 1 << 20).guard_pages(true)).unwrap_err();
    assert!(matches!(why, PoolError::Memory { source: MemoryError::Mappings { .. }, .. }), "{why}");
    assert!(why.to_string().contains("sysctl vm.max_map_count="), "{why}");
    let why = pool(MemoryTier::new("m", isize::MAX as usize, 3)).unwrap_err();
    assert!(
        matches!(why, PoolError::Memory { source: MemoryError::System { what: "address space", .. }, .. }),
        "{why}"
    );
}

#[test]
fn transparent_huge_pages_are_asked_for_and_what_was_got_is_told() -> Outcome {
    let pool = pool(MemoryTier::new("m", HUGE, 4).huge_pages(HugePages::Transparent))?;
    let mut lease = take(&pool);
    lease.fill(1);
    let (got, mapping) = (status(&pool), mapping(lease.as_ptr()));
    assert!(pool.monitor().to_string().contains(&format!("m: huge pages: got {}, because", got.huge_pages)));
    if got.huge_pages == HugePages::None {
        eprintln!("skipped: this system gives none: {got}");
        return Ok(());
    }
    assert_eq!(got.huge_pages, HugePages::Transparent);
    assert_eq!(lease.as_ptr() as usize % HUGE, 0, "or no buffer could be one huge page");
    assert!(mapping.lines().any(|line| line.starts_with("VmFlags:") && line.contains(" hg")), "{mapping}");
    if kibibytes(&mapping, "AnonHugePages") < HUGE {
        eprintln!("the system had no huge page at hand");
    }
    Ok(())
}

/// The system's reserve of huge pages; as it was when this goes.
struct Reserve(usize);

impl Reserve {
    const FILE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

    fn read(name: &str) -> usize {
        let text = std::fs::read_to_string(Self::FILE.replace("nr_hugepages", name)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    fn free() -> usize {
        Self::read("free_hugepages") - Self::read("resv_hugepages")
    }

    /// So many more than there are; `None` if they are not to be had.
    fn more(pages: usize) -> Option<Self> {
        let before = Reserve(Self::read("nr_hugepages"));
        std::fs::write(Self::FILE, (before.0 + pages).to_string()).ok()?;
        (Self::read("nr_hugepages") == before.0 + pages).then_some(before)
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        std::fs::write(Self::FILE, self.0.to_string()).unwrap();
    }
}

#[test]
fn explicit_huge_pages_are_had_or_refused() -> Outcome {
    if !alone("explicit_huge_pages_are_had_or_refused") {
        return Ok(());
    }
    // More than any machine has set aside.
    let why = pool(MemoryTier::new("m", HUGE, 1 << 20).huge_pages(HugePages::Explicit)).unwrap_err();
    let PoolError::Memory { tier, source: MemoryError::HugePages { needed, free, total, .. } } = &why else {
        panic!("{why}")
    };
    assert_eq!((&**tier, *needed), ("m", 1 << 20));
    let line = format!("echo {} > {}", total + needed - free, Reserve::FILE);
    assert!(why.to_string().contains(&line), "{why}");

    let prefer = |slots| pool(shrinks(MemoryTier::new("m", HUGE, slots), 1).huge_pages(HugePages::Prefer));
    let fallback = status(&prefer(1 << 20)?);
    assert_ne!(fallback.huge_pages, HugePages::Explicit);
    assert!(fallback.because.contains("explicit ones could not be had"), "{fallback}");

    let Some(_reserve) = Reserve::more(6) else {
        eprintln!("skipped: this machine lets nobody set six huge pages aside");
        return Ok(());
    };
    let (free, unused) = (Reserve::free(), Reserve::read("free_hugepages"));
    let tier = shrinks(MemoryTier::new("m", HUGE, 4), 1).huge_pages(HugePages::Explicit);
    let pool = pool(tier)?;
    assert_eq!(Reserve::free(), free - 4, "they are set aside for all slots");
    let mut held: Vec<_> = (0..4).map(|_| take(&pool)).collect();
    held.iter_mut().for_each(|lease| lease.fill(7));
    let mapping = mapping(held[0].as_ptr());
    assert_eq!(kibibytes(&mapping, "KernelPageSize"), HUGE, "{mapping}");
    let got = status(&pool);
    assert_eq!((got.huge_pages, got.locked, got.committed_bytes), (HugePages::Explicit, true, 4 * HUGE));
    held.truncate(1);
    shrink(&pool, 1);
    // Some kernels go on setting them aside for the tier.
    assert_eq!(Reserve::read("free_hugepages"), unused - 1, "they are back in the reserve");
    assert_eq!(status(&pool).committed_bytes, HUGE);
    held.extend((0..3).map(|_| take(&pool)));
    assert!(held[1..].iter().all(|lease| is_all(lease, 0)));
    drop((pool, held));
    assert_eq!(Reserve::free(), free);
    assert_eq!(status(&prefer(2)?).huge_pages, HugePages::Explicit);
    Ok(())
}

#[test]
fn prefaulted_pages_are_there_before_the_first_touch() -> Outcome {
    const SLOTS: usize = 64;
    for (prefault, min) in [(false, SLOTS), (true, SLOTS), (true, 0)] {
        for bytes in [16 * PAGE, 1024] {
            let tier = MemoryTier::new("m", bytes, SLOTS).prefault(prefault).with(move |tier| tier.min_capacity(min));
            let pool = pool(tier)?;
            let mut held: Vec<_> = (0..SLOTS).map(|_| take(&pool)).collect();
            // Slots that come again are touched again.
            for again in [false, true] {
                if again {
                    held.iter_mut().for_each(|lease| lease.fill(7));
                    held.drain(..).for_each(Lease::discard);
                    held.extend((0..SLOTS).map(|_| take(&pool)));
                }
                for lease in &held {
                    let pages = resident(lease.as_ptr(), bytes).unwrap();
                    // One that is zeroed by hand has been touched.
                    assert!(pages > 0 || !prefault, "{bytes} bytes");
                    assert!(pages == 0 || prefault || again, "{bytes} bytes");
                    assert!(!prefault || pages == bytes.div_ceil(PAGE));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn locked_memory_is_locked_as_long_as_it_is_there() -> Outcome {
    if !alone("locked_memory_is_locked_as_long_as_it_is_there") {
        return Ok(());
    }
    let before = of_process("VmLck");
    let pool = pool(shrinks(MemoryTier::new("m", 1 << 19, 8), 2).lock(true))?;
    assert_eq!(of_process("VmLck") - before, 2 << 19);
    let held: Vec<_> = (0..8).map(|_| take(&pool)).collect();
    assert_eq!(of_process("VmLck") - before, 8 << 19);
    assert_eq!(resident(held[7].as_ptr(), 1 << 19), Some((1 << 19) / PAGE));
    drop(held);
    shrink(&pool, 2);
    assert_eq!(of_process("VmLck") - before, 2 << 19);
    drop(pool);
    assert_eq!(of_process("VmLck"), before);
    Ok(())
}

/// TORTURE 27: `mlock` is refused, in the build and while a tier grows.
#[test]
fn a_lock_beyond_the_limit_is_refused_and_says_how_to_raise_it() -> Outcome {
    if !alone("a_lock_beyond_the_limit_is_refused_and_says_how_to_raise_it") {
        return Ok(());
    }
    limit("locks", 1 << 20);
    // SAFETY: asks for, and gives up, the rights of this process, in which this is the only test.
    if unsafe { libc::geteuid() == 0 && libc::setuid(65534) != 0 } {
        eprintln!("skipped: this process can lock what it will, and cannot give that up");
        return Ok(());
    }
    let why = pool(MemoryTier::new("m", 1 << 19, 8).lock(true)).unwrap_err();
    let PoolError::Memory { source: MemoryError::Lock { bytes, all, limit, .. }, .. } = &why else { panic!("{why}") };
    assert_eq!((*bytes, *all, *limit), (1 << 19, 8 << 19, Some(1 << 20)));
    assert!(why.to_string().contains("RLIMIT_MEMLOCK") && why.to_string().contains("`ulimit -l 4096`"), "{why}");
    assert_eq!(of_process("VmLck"), 0, "what was locked before went back");

    let (tell, told) = std::sync::mpsc::channel();
    let tier = MemoryTier::new("m", 1 << 19, 8).lock(true).with(move |tier| {
        tier.min_capacity(1).on_report(move |report| {
            let Report::BuildFailed { source: Some(why), .. } = report else { return };
            tell.send(why.downcast_ref::<MemoryError>().unwrap().to_string()).unwrap();
        })
    });
    let pool = pool(tier)?;
    let held = [take(&pool), take(&pool)];
    let refused = pool.try_allocate(Request::memory(1)).unwrap_err();
    assert!(refused.to_string().contains("could not be built"), "{refused}");
    assert_eq!(told.recv()?, why.to_string().split_once(": ").ok_or("no tier")?.1, "the same reason");
    assert_eq!((of_process("VmLck"), status(&pool).committed_bytes), (1 << 20, 1 << 20));
    drop(held);
    drop(take(&pool));
    Ok(())
}

#[test]
fn a_write_beyond_a_guarded_buffer_ends_the_process() -> Outcome {
    const TEST: &str = "a_write_beyond_a_guarded_buffer_ends_the_process";
    if let Some(status) = end_of(TEST) {
        assert_eq!(status.signal(), Some(libc::SIGSEGV), "{status}");
        return Ok(());
    }
    // All that is within bounds is to be had; an end that went wrong before the last write would be no signal.
    for (bytes, gap) in [(PAGE, 0), (64, 0), (1536, 0), (1500, 36), (3 * PAGE + 64, PAGE - 64)] {
        let pool = pool(MemoryTier::new("m", bytes, 3).guard_pages(true))?;
        for mut lease in [(); 3].map(|()| take(&pool)) {
            lease.fill(7);
            let end = lease.as_ptr() as usize + bytes + gap;
            assert_eq!(end % PAGE, 0, "{bytes} bytes end at the guard");
            assert_eq!(resident(end as *const u8, 1), Some(0), "it has no memory");
            let guard = mapping(end as *const u8);
            assert!(guard.lines().next().is_some_and(|line| line.contains("---p")), "{guard}");
        }
    }
    let pool = pool(MemoryTier::new("m", 2048, 2).guard_pages(true))?;
    let mut lease = take(&pool);
    // SAFETY: none; the system is to stop it.
    unsafe { lease.as_mut_ptr().add(2048).write_volatile(1) };
    Err("nothing has stopped it".into())
}

/// What shrinks goes back to the system at once, and comes back zero: slots larger than a segment, and many in one.
#[test]
fn memory_goes_back_when_a_tier_shrinks() -> Outcome {
    if !alone("memory_goes_back_when_a_tier_shrinks") {
        return Ok(());
    }
    for (bytes, slots) in [(1 << 20, 24), (64 << 10, 400), (2048, 4096)] {
        let all = bytes * slots;
        let pool = pool(shrinks(MemoryTier::new("m", bytes, slots), 1).scrub(Scrub::Keep))?;
        let before = of_process("VmRSS");
        for _ in 0..2 {
            let mut held: Vec<_> = (0..slots).map(|_| take(&pool)).collect();
            assert!(held[1..].iter().all(|lease| is_all(lease, 0)), "{bytes} bytes a slot");
            held.iter_mut().for_each(|lease| lease.fill(7));
            let full = of_process("VmRSS") - before;
            assert!(full > all / 10 * 9, "{full} bytes resident");
            assert_eq!(status(&pool).committed_bytes, all);
            drop(held);
            shrink(&pool, 1);
            let rest = of_process("VmRSS").saturating_sub(before);
            assert!(rest < all / 8, "{rest} bytes still resident, of {full}, with {bytes} a slot");
            assert!(status(&pool).committed_bytes <= 1 << 20);
        }
    }
    Ok(())
}

/// TORTURE 6: bytes stay with their lease, and the address space goes with the last of them.
#[test]
fn leases_outlive_the_pool_and_the_last_frees_its_memory() -> Outcome {
    if !alone("leases_outlive_the_pool_and_the_last_frees_its_memory") {
        return Ok(());
    }
    let pool = pool(MemoryTier::new("m", 64 << 10, 16))?;
    let mut held: Vec<_> = (0..3).map(|_| take(&pool)).collect();
    let taken = held.pop().ok_or("none")?.take();
    drop(pool);
    for lease in &mut held {
        lease.fill(7);
        assert!(is_all(lease, 7));
    }
    let (start, moved) = (taken.as_ptr(), std::thread::spawn(move || drop(held)));
    moved.join().map_err(|_| "it panicked")?;
    assert_eq!(taken[100], 0);
    assert!(resident(start, 1).is_some(), "one is left");
    drop(taken);
    assert_eq!(resident(start, 1), None, "nothing is mapped there any more");
    Ok(())
}

/// TORTURE 26, where a buffer is replaced rather than scrubbed: the place's next owner is another tenant.
#[test]
fn a_place_that_changes_owners_carries_nothing_of_the_last() -> Outcome {
    let tiers = [
        MemoryTier::new("m", 1000, 4),
        MemoryTier::new("m", 20_000, 4),
        MemoryTier::new("m", 1 << 20, 4),
        MemoryTier::new("m", 20_000, 4).prefault(false),
        MemoryTier::new("m", 20_000, 4).guard_pages(true),
        MemoryTier::new("m", 20_000, 4).huge_pages(HugePages::Transparent),
    ];
    for tier in tiers {
        let pool = pool(tier.scrub(Scrub::Keep))?;
        let mut places = Vec::new();
        for tenant in ["a", "b", "a"] {
            let request = || Request::of::<Memory>("m").tenant(tenant);
            let mut held: Vec<_> = (0..4).map(|_| pool.try_allocate(request()).unwrap()).collect();
            assert!(held.iter().all(|lease| is_all(lease, 0)));
            held.iter_mut().for_each(|lease| lease.fill(7));
            let mut now: Vec<_> = held.iter().map(|lease| lease.as_ptr() as usize).collect();
            now.sort_unstable();
            assert!(places.is_empty() || places == now, "the places are the same");
            places = now;
            held.into_iter().for_each(Lease::discard);
        }
    }
    Ok(())
}

/// TORTURE 27: growth stops before a limit is met, so that the program can still allocate, and goes on when it is raised.
#[test]
fn growth_stops_before_the_limit_of_data_is_met() -> Outcome {
    if !alone("growth_stops_before_the_limit_of_data_is_met") {
        return Ok(());
    }
    const SLOT: usize = 1 << 20;
    let backoff = Duration::from_millis(1);
    let tier = |min| {
        let tier = MemoryTier::new("m", SLOT, 1000);
        pool(tier.with(move |tier| tier.min_capacity(min).rebuild_backoff(backoff, backoff)))
    };
    let pool = tier(1)?;
    let room = 64 << 20;
    let data = of_process("VmData");
    limit("data", (data + room) as u64);
    let why = tier(1000).unwrap_err();
    assert!(matches!(why, PoolError::Memory { source: MemoryError::NoRoom { wanted: 0x10_0000, .. }, .. }), "{why}");
    // Control blocks stay; they are some megabytes, and its buffers were nearly all that there is room for.
    let left = of_process("VmData") - data;
    assert!(left < room / 4, "what it had got went back, but for {left} bytes");
    let mut held = Vec::new();
    let why = loop {
        match pool.try_allocate(Request::of::<Memory>("m")) {
            Ok(lease) => held.push(lease),
            Err(why) => break why,
        }
    };
    let margin = 4 << 20;
    assert!((room - 2 * (margin + SLOT)..room - margin).contains(&((held.len() - 1) * SLOT)), "{} slots", held.len());
    assert!(why.to_string().contains("could not be built"), "{why}");
    held.iter_mut().for_each(|lease| lease.fill(7));
    std::hint::black_box(vec![1u8; 2 << 20]); // the program's own
    limit("data", libc::RLIM_INFINITY);
    std::thread::sleep(Duration::from_millis(50));
    held.push(take(&pool));
    drop(held);

    let all = std::fs::read_to_string("/proc/self/status")?;
    limit("address space", (kibibytes(&all, "VmSize") + (256 << 20)) as u64);
    let why = tier(1).unwrap_err();
    let PoolError::Memory { source: MemoryError::System { what, bytes, .. }, .. } = &why else { panic!("{why}") };
    assert_eq!((*what, *bytes), ("address space", 1000 * SLOT));
    assert!(why.to_string().contains("ulimit -v"), "{why}");
    Ok(())
}

#[cfg(feature = "bytemuck")]
#[test]
fn a_lease_is_seen_as_values_of_a_type() -> Outcome {
    let pool = pool(MemoryTier::new("m", 1 << 16, 2))?;
    let mut lease = pool.try_allocate(Request::memory(1000 * 8).tenant("a"))?;
    for (at, value) in lease.as_mut_slice_of::<f64>()?.iter_mut().enumerate() {
        *value = at as f64;
    }
    assert_eq!(lease.as_slice_of::<f64>()?.iter().sum::<f64>(), 999.0 * 500.0);
    lease.set_len(1001);
    let why = lease.as_mut_slice_of::<u64>().unwrap_err();
    assert!(matches!(why, tierpool::ViewError::Length { size: 8, len: 1001, .. }), "{why}");
    drop(lease);
    let other = pool.try_allocate(Request::memory(1000 * 8).tenant("b"))?;
    assert!(other.as_slice_of::<u64>()?.iter().all(|&value| value == 0), "what was written by a view is scrubbed");
    Ok(())
}
