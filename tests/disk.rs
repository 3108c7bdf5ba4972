//! Disk tiers on real file systems: what can be read and written, by whom, and what happens when there is no space.

#![cfg(all(target_os = "linux", not(loom)))]

pub mod common;

use std::error::Error;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use common::process::in_child;
use common::system::{limit_file_size, names, remount, skip, with_file_system};
use tempfile::{TempDir, tempdir};
use tierpool::{BuildError, DiskError, DiskTier, Extent, Lease, Pool, PoolError, Request, RequestError, Resource};
use tierpool::{ResourcePool, ResourceRequest, Scrub, Spill, Tier, TierKind, Zeroing};

const KIB: u64 = 1024;

fn pool(dir: impl AsRef<Path>, bytes: u64, extents: usize) -> Pool {
    Pool::builder().disk("spill", dir, bytes, extents).build().unwrap()
}

fn extent(pool: &Pool) -> Lease<Extent> {
    pool.try_allocate(Request::of::<Extent>("spill")).unwrap()
}

fn bytes_of(extent: &Extent) -> Vec<u8> {
    let mut bytes = vec![1; extent.len() as usize];
    extent.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The blocks, of 512 bytes, of the file without a name that this process has in a directory.
fn blocks(dir: &TempDir) -> u64 {
    let of_dir = |entry: io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        fs::read_link(&path).ok()?.starts_with(dir.as_ref()).then_some(path)
    };
    let paths: Vec<PathBuf> = fs::read_dir("/proc/self/fd").unwrap().filter_map(of_dir).collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    fs::metadata(&paths[0]).unwrap().blocks()
}

/// What kept a pool from being built.
fn why(error: PoolError) -> DiskError {
    match error {
        PoolError::Disk { tier, source } => {
            assert_eq!(tier, "spill");
            source
        }
        PoolError::Tier(BuildError::Factory { source, .. }) => *source.downcast().unwrap(),
        error => panic!("{error:?}"),
    }
}

#[test]
fn extents_are_read_and_written_at_offsets_and_do_not_overlap() {
    let dir = tempdir().unwrap();
    let pool = pool(&dir, 10_000, 5);
    let mut all: Vec<_> = (0..5).map(|_| extent(&pool)).collect();
    assert!(pool.try_allocate(Request::disk(1)).is_err());
    for (at, extent) in all.iter_mut().enumerate() {
        assert_eq!((extent.len(), extent.capacity()), (10_000, 10_000));
        assert!(bytes_of(extent).iter().all(|&byte| byte == 0), "a new extent is zero");
        extent.write_all_at(&vec![at as u8 + 1; 10_000], 0).unwrap();
    }
    for (at, extent) in all.iter_mut().enumerate() {
        assert!(bytes_of(extent).iter().all(|&byte| byte == at as u8 + 1));
        assert_eq!(extent.write_at(b"here", 9_996).unwrap(), 4);
        extent.sync().unwrap();
        let mut read = [0; 6];
        assert_eq!(extent.read_at(&mut read, 9_994).unwrap(), 6);
        assert_eq!(read, [at as u8 + 1, at as u8 + 1, b'h', b'e', b'r', b'e']);
    }
}

/// Guarantee 1, for bytes: what reaches beyond an extent is refused, and touches nothing.
#[test]
fn nothing_reaches_beyond_an_extent() {
    let dir = tempdir().unwrap();
    let pool = pool(&dir, 8 * KIB, 2);
    let mut first = pool.try_allocate(Request::disk(5000)).unwrap();
    let mut second = extent(&pool);
    assert_eq!((first.len(), first.capacity(), second.len()), (5000, 8192, 8192));
    for (bytes, offset) in [(1, 5000), (5001, 0), (2, 4999), (1, 8192), (1, u64::MAX), (5000, u64::MAX - 10), (0, 5001)]
    {
        let mut buffer = vec![7; bytes];
        let errors = [
            first.write_at(&buffer, offset).unwrap_err(),
            first.write_all_at(&buffer, offset).unwrap_err(),
            first.read_at(&mut buffer, offset).unwrap_err(),
            first.read_exact_at(&mut buffer, offset).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(text.contains("\"spill\"") && text.contains("5000 bytes"), "{text}");
            assert!(text.contains(&format!("offset {offset}")), "{text}");
        }
        assert!(buffer.iter().all(|&byte| byte == 7));
    }
    assert_eq!(first.write_at(&[], 5000).unwrap(), 0);
    assert!(bytes_of(&first).iter().chain(&bytes_of(&second)).all(|&byte| byte == 0));
    second.write_all_at(&[1; 8192], 0).unwrap();
    assert!(bytes_of(&first).iter().all(|&byte| byte == 0));
}

/// Guarantee 7, TORTURE 26: on file systems that zero in one way and in the other.
#[test]
fn another_tenant_finds_zeroes_unless_bytes_are_kept() {
    let run = |dir: &Path, zeroing: Option<Zeroing>| {
        for (scrub, own, other) in [(Scrub::OnChange, 7, 0), (Scrub::AfterUse, 0, 0), (Scrub::Keep, 7, 7)] {
            let tier = DiskTier::new("spill", dir, 70_001, 1).scrub(scrub);
            let pool = Pool::builder().disk_tier(tier).tenant("a").tenant("b").build().unwrap();
            let take = |tenant| pool.try_allocate(Request::disk(70_001).tenant(tenant)).unwrap();
            let mut extent = take("a");
            zeroing.inspect(|&zeroing| assert_eq!(extent.zeroing(), zeroing));
            extent.write_all_at(&[7; 60_000], 10_001).unwrap();
            drop(extent);
            pool.reclaim();
            let all = |extent: &Extent, byte| bytes_of(extent)[10_001..].iter().all(|&it| it == byte);
            assert!(all(&take("a"), own), "{scrub:?}: its own");
            assert!(all(&take("b"), other), "{scrub:?}: another's");
            // By all ways in which a slot is passed on.
            let mut extent = take("b");
            extent.write_all_at(&[7; 70_001], 0).unwrap();
            drop(extent);
            pool.reclaim();
            let reserved = pool.reserve(Request::disk(70_001).tenant("a"), 1).unwrap();
            assert!(all(&reserved.draw().unwrap(), other), "{scrub:?}: drawn");
        }
    };
    let dir = tempdir().unwrap();
    run(dir.as_ref(), None);
    with_file_system("tmpfs", "size=4m", |dir| run(dir, Some(Zeroing::Written)));
    // It has neither `fallocate`, nor holes.
    with_file_system("ramfs", "", |dir| run(dir, Some(Zeroing::Written)));
}

/// What is thrown away, taken out or rebuilt leaves nothing behind either, on file systems that cannot punch holes too.
#[test]
fn a_value_that_is_made_anew_is_zero() {
    let run = |dir: &Path| {
        for scrub in [Scrub::OnChange, Scrub::Keep] {
            let tier = DiskTier::new("spill", dir, 16 * KIB, 1).scrub(scrub);
            let pool = Pool::builder().disk_tier(tier).tenant("a").tenant("b").build().unwrap();
            let take = || pool.try_allocate(Request::disk(16 * KIB)).unwrap();
            let mut extent = take();
            extent.write_all_at(&[7; 16384], 0).unwrap();
            extent.discard();
            // The old one goes first, so that its place can be the new one's.
            pool.reclaim();
            let mut extent = take();
            assert!(bytes_of(&extent).iter().all(|&byte| byte == 0), "discarded");
            extent.write_all_at(&[7; 16384], 0).unwrap();
            let value = extent.take();
            assert_eq!(bytes_of(&value)[0], 7, "it stays what it was");
            assert_eq!(pool.monitor().tiers[0].snapshot.quarantined, 1, "there is no second place");
            drop(value);
            thread::sleep(Duration::from_millis(50));
            pool.reclaim();
            assert!(bytes_of(&take()).iter().all(|&byte| byte == 0), "taken");
        }
    };
    let dir = tempdir().unwrap();
    run(dir.as_ref());
    with_file_system("tmpfs", "size=4m", run);
    with_file_system("ramfs", "", run);
}

#[test]
fn a_scratch_file_has_no_name_and_goes_with_the_pool() {
    let dir = tempdir().unwrap();
    let pool = pool(&dir, 64 * KIB, 16);
    assert_eq!(names(&dir), 0);
    assert!(blocks(&dir) * 512 >= 64 * KIB * 16, "its space is reserved");
    let held = extent(&pool);
    drop(pool);
    assert!(bytes_of(&held).iter().all(|&byte| byte == 0), "a lease outlives its pool");
    assert!(blocks(&dir) * 512 < 64 * KIB * 3, "what is free has gone");
    drop(held);
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    assert_eq!(open.filter(|path| path.starts_with(dir.as_ref())).count(), 0, "the file is closed");
}

#[test]
fn a_tier_that_shrinks_gives_space_back_and_takes_it_again() {
    let dir = tempdir().unwrap();
    let tier =
        DiskTier::new("spill", &dir, 64 * KIB, 64).with(|tier| tier.min_capacity(4).idle_timeout(Duration::ZERO));
    let pool = Pool::builder().disk_tier(tier).build().unwrap();
    let of_extents = |extents: u64| {
        let blocks = blocks(&dir) * 512 / (64 * KIB);
        assert!((extents..extents + 2).contains(&blocks), "{blocks} instead of {extents}");
    };
    of_extents(4);
    let mut held: Vec<_> = (0..64).map(|_| extent(&pool)).collect();
    of_extents(64);
    held.iter_mut().for_each(|extent| extent.write_all_at(&[7; 65536], 0).unwrap());
    drop(held);
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(15));
        pool.reclaim();
    }
    assert_eq!(pool.monitor().tiers[0].snapshot.slots(), 4);
    of_extents(4);
    let held: Vec<_> = (0..64).map(|_| extent(&pool)).collect();
    of_extents(64);
    assert_eq!(held.iter().filter(|extent| bytes_of(extent)[0] == 7).count(), 4, "those that stayed, for nobody again");
}

/// TORTURE 27: the disk is full when the pool is built, or when the tier grows.
#[test]
fn a_full_disk_is_met_when_the_pool_is_built_and_survived_when_it_grows() {
    with_file_system("tmpfs", "size=1m", |dir| {
        let error = Pool::builder().disk("spill", dir, 64 * KIB, 17).build().unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("\"spill\"") && text.contains(dir.to_str().unwrap()) && text.contains("free some"),
            "{text}"
        );
        assert!(matches!(why(error), DiskError::Io { source, .. } if source.kind() == ErrorKind::StorageFull));
        fs::write(dir.join("fits"), vec![1; 900 << 10]).expect("nothing is left of it");

        let tier = DiskTier::new("spill", dir, 64 * KIB, 16)
            .with(|tier| tier.min_capacity(1).rebuild_backoff(Duration::from_millis(1), Duration::from_millis(1)));
        let pool = Pool::builder().disk_tier(tier).build().unwrap();
        let mut held = Vec::new();
        let refused = loop {
            match pool.try_allocate(Request::disk(65536)) {
                Ok(extent) => held.push(extent),
                Err(why) => break why,
            }
        };
        assert_eq!(held.len(), 1, "124 KiB were left");
        assert!(matches!(refused, RequestError::Tier(_)), "{refused}");
        held[0].write_all_at(&[7; 65536], 0).expect("it goes on with what it has");
        fs::remove_file(dir.join("fits")).unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(pool.try_allocate(Request::disk(1)).is_ok(), "and by itself when there is space again");

        // Whatever fills the disk later: the space is the tier's.
        let mut held: Vec<_> = (0..4).map(|_| pool.try_allocate(Request::disk(65536)).unwrap()).collect();
        let _ = fs::write(dir.join("all"), vec![1; 1 << 20]);
        assert!(fs::write(dir.join("more"), [1; 4096]).is_err(), "it is full");
        held.iter_mut().for_each(|extent| extent.write_all_at(&[7; 65536], 0).unwrap());
    });
}

/// TORTURE 27: a tier that is told to grow says why it has not, and has what it had.
#[test]
fn a_tier_on_a_full_disk_says_why_it_cannot_grow() {
    with_file_system("tmpfs", "size=1m", |dir| {
        let (tell, told) = std::sync::mpsc::channel();
        let tier = DiskTier::new("spill", dir, 256 * KIB, 16).with(move |tier| {
            tier.min_capacity(2).on_report(move |report| {
                let _ = tell.send(format!("{report:?}"));
            })
        });
        let pool = Pool::builder().disk_tier(tier).build().unwrap();
        let held: Vec<_> = std::iter::from_fn(|| pool.try_allocate(Request::disk(1)).ok()).collect();
        assert!((3..=4).contains(&held.len()), "{}", held.len());
        pool.reclaim();
        let report = told.try_iter().last().unwrap();
        assert!(report.contains("BuildFailed") && report.contains("StorageFull"), "{report}");
        assert_eq!(pool.monitor().tiers[0].held(), held.len());
    });
}

/// TORTURE 27: the system would end the process.
#[test]
fn a_file_size_limit_is_an_error_and_no_signal() {
    in_child(
        "a_file_size_limit_is_an_error_and_no_signal",
        |_| {},
        || {
            let dir = tempdir().unwrap();
            limit_file_size(Some(1 << 20));
            let error = Pool::builder().disk("spill", &dir, 64 * KIB, 17).build().unwrap_err();
            let text = error.to_string();
            assert!(text.contains("ulimit -f") && text.contains("1048576"), "{text}");
            assert!(matches!(why(error), DiskError::FileSize { limit: 1_048_576, wanted: 1_114_112, .. }));
            assert_eq!(pool(&dir, 64 * KIB, 16).monitor().tiers[0].snapshot.free, 16, "as many as it may have");
            let tier = DiskTier::new("spill", &dir, 64 * KIB, 32).with(|tier| tier.min_capacity(8));
            let pool = Pool::builder().disk_tier(tier).build().unwrap();
            let held: Vec<_> = std::iter::from_fn(|| pool.try_allocate(Request::disk(1)).ok()).collect();
            assert_eq!(held.len(), 16);
            assert_eq!(names(&dir), 0);
        },
    );
}

/// Guarantee 7, when it cannot be kept: nobody gets what he may not see.
#[test]
fn an_extent_that_cannot_be_zeroed_is_not_given_to_another_tenant() {
    let name = "an_extent_that_cannot_be_zeroed_is_not_given_to_another_tenant";
    in_child(
        name,
        |_| {},
        || {
            // SAFETY: it has no preconditions.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            with_file_system("tmpfs", "size=1m", |dir| {
                for scrub in [Scrub::OnChange, Scrub::AfterUse] {
                    let tier = DiskTier::new("spill", dir, 64 * KIB, 1).scrub(scrub);
                    let pool = Pool::builder().disk_tier(tier).tenant("a").tenant("b").build().unwrap();
                    let take = |tenant| pool.try_allocate(Request::disk(64 * KIB).tenant(tenant));
                    let mut extent = take("a").unwrap();
                    extent.write_all_at(&[7; 65536], 0).unwrap();
                    // On tmpfs zeroes are written, which this prevents.
                    limit_file_size(Some(0));
                    drop(extent);
                    pool.reclaim();
                    let error = take("b").unwrap_err();
                    assert_eq!(error, RequestError::NotZeroed { tier: "spill", os_error: libc::EFBIG });
                    assert!(error.to_string().contains("could not be zeroed"), "{error}");
                    assert_eq!((pool.monitor().tiers[0].held(), pool.monitor().tiers[0].snapshot.slots()), (0, 1));
                    limit_file_size(None);
                    assert!(bytes_of(&take("b").unwrap()).iter().all(|&byte| byte == 0));
                }
            });
        },
    );
}

#[test]
fn directories_that_are_none_are_refused() {
    let dir = tempdir().unwrap();
    let build = |dir: &Path| Pool::builder().disk("spill", dir, KIB, 1).build().unwrap_err();
    let says = |error: PoolError, kind: ErrorKind, what: &str| {
        let text = error.to_string();
        assert!(text.contains(what) && text.contains("\"spill\""), "{text}");
        let why = why(error);
        assert!(matches!(&why, DiskError::Io { source, .. } if source.kind() == kind), "{why:?}");
    };
    let missing = dir.as_ref().join("missing");
    says(build(&missing), ErrorKind::NotFound, missing.to_str().unwrap());
    fs::write(dir.as_ref().join("file"), "").unwrap();
    says(build(&dir.as_ref().join("file")), ErrorKind::NotADirectory, "name a directory");
    assert_eq!(names(&dir), 1);
    with_file_system("tmpfs", "size=1m", |dir| {
        remount(dir, libc::MS_RDONLY);
        says(build(dir), ErrorKind::ReadOnlyFilesystem, "mount its file system");
    });
}

#[test]
fn a_directory_that_may_not_be_written_is_refused() {
    // SAFETY: it has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return skip("a directory that may not be written", "only root can make one, and be somebody else");
    }
    let name = "a_directory_that_may_not_be_written_is_refused_to_nobody";
    // The directory is root's.
    let dir = tempdir().unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--ignored"])
        .env("TIERPOOL_TEST_DIR", dir.as_ref())
        .uid(65534)
        .gid(65534)
        .output();
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
        }
        Err(why) => skip("a directory that may not be written", why),
    }
}

#[test]
#[ignore = "is run by the one above, as another user"]
fn a_directory_that_may_not_be_written_is_refused_to_nobody() {
    let Ok(dir) = std::env::var("TIERPOOL_TEST_DIR") else { return };
    let error = Pool::builder().disk("spill", &dir, KIB, 1).build().unwrap_err();
    assert!(error.to_string().contains("let the process write there"), "{error}");
    assert!(matches!(why(error), DiskError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied));
}

#[test]
fn sizes_that_are_none_are_refused() {
    let dir = tempdir().unwrap();
    let build = |bytes, extents| why(Pool::builder().disk("spill", &dir, bytes, extents).build().unwrap_err());
    assert!(matches!(build(0, 1), DiskError::Bytes { .. }));
    assert!(matches!(build(u64::MAX / 2, 3), DiskError::Bytes { .. }));
    let error = Pool::builder().disk("spill", &dir, KIB, 0).build().unwrap_err();
    assert!(matches!(error, PoolError::Tier(BuildError::Capacity { .. })), "{error}");
    let tier = DiskTier::new("spill", &dir, 5000, 1).direct(true);
    let error = why(Pool::builder().disk_tier(tier).build().unwrap_err());
    assert!(matches!(error, DiskError::Alignment { bytes: 5000 }) && error.to_string().contains("4096"), "{error}");
}

#[test]
fn direct_reads_and_writes_are_aligned() {
    let dir = tempdir().unwrap();
    let tier = DiskTier::new("spill", &dir, 16 * KIB, 2).direct(true);
    let pool = match Pool::builder().memory("m", 8192, 2).disk_tier(tier).tenant("a").build() {
        Ok(pool) => pool,
        Err(PoolError::Disk { source: source @ DiskError::Direct { .. }, .. }) => return skip("direct I/O", source),
        Err(why) => panic!("{why}"),
    };
    let mut extent = pool.try_allocate(Request::disk(5000)).unwrap();
    assert_eq!(extent.len(), 8192, "whole sectors");
    let mut buffer = pool.try_allocate(Request::memory(8192)).unwrap();
    buffer.fill(7);
    extent.write_all_at(&buffer, 0).unwrap();
    buffer.fill(0);
    extent.read_exact_at(&mut buffer, 0).unwrap();
    assert!(buffer.iter().all(|&byte| byte == 7));
    for (from, bytes, offset) in [(0, 4096, 1), (0, 4095, 0), (1, 4096, 0)] {
        let error = extent.write_at(&buffer[from..from + bytes], offset).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("multiples of 4096"), "{error}");
    }
    drop(extent);
    let extent = pool.try_allocate(Request::disk(8192).tenant("a")).unwrap();
    extent.read_exact_at(&mut buffer, 0).unwrap();
    assert!(buffer.iter().all(|&byte| byte == 0), "another tenant");
}

#[test]
fn a_file_system_without_direct_reads_and_writes_is_refused() {
    with_file_system("ramfs", "", |dir| {
        let build = |direct| {
            let tier = DiskTier::new("spill", dir, 16 * KIB, 2).direct(direct);
            Pool::builder().disk_tier(tier).build()
        };
        let error = build(true).unwrap_err();
        assert!(error.to_string().contains("leave `direct` out"), "{error}");
        assert!(matches!(why(error), DiskError::Direct { .. }));
        assert!(build(false).is_ok());
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    });
}

#[test]
fn the_smallest_tier_that_fits_is_asked() {
    let dir = tempdir().unwrap();
    let numbers = Tier::builder("numbers").capacity(1).build_with(|| 7u64).unwrap();
    let pool = Pool::builder()
        .disk("large", &dir, 1 << 20, 1)
        .memory("m", 4 << 20, 1)
        .disk("small", &dir, 4096, 1)
        .cpu("cores")
        .tier(numbers)
        .build()
        .unwrap();
    let names: Vec<_> = pool.monitor().tiers.iter().map(|tier| (tier.name, tier.kind)).collect();
    assert_eq!(
        names,
        [
            ("m", TierKind::Memory { bytes: 4 << 20 }),
            ("cores", TierKind::Cpu),
            ("small", TierKind::Disk { bytes: 4096 }),
            ("large", TierKind::Disk { bytes: 1 << 20 }),
            ("numbers", TierKind::Custom { type_name: "u64" }),
        ]
    );
    assert!(pool.monitor().to_string().contains("1 MiB on disk"), "{}", pool.monitor());
    let small = pool.try_allocate(Request::disk(4096)).unwrap();
    assert_eq!((small.len(), small.capacity()), (4096, 4096));
    assert!(pool.try_allocate(Request::disk(4096)).is_err());
    assert!(pool.try_allocate(Request::disk(4096).spill(Spill::System)).is_err(), "the system has none");
    let spilled = pool.try_allocate(Request::disk(4000).spill(Spill::NextLarger)).unwrap();
    assert_eq!((spilled.len(), spilled.capacity()), (4000, 1 << 20));
    drop(spilled);
    assert_eq!(pool.try_allocate(Request::disk(4097)).unwrap().capacity(), 1 << 20);
    assert_eq!(pool.try_allocate(Request::of::<Extent>("large")).unwrap().len(), 1 << 20);
    let error = pool.try_allocate(Request::disk((1 << 20) + 1)).unwrap_err();
    assert_eq!(error, RequestError::ExtentTooLarge { wanted: (1 << 20) + 1, largest: 1 << 20, tier: "large" });
    let error = Pool::builder().cpu("c").build().unwrap().try_allocate(Request::disk(1)).unwrap_err();
    assert_eq!(error, RequestError::NoDiskTier);
    drop(small);
}

#[test]
fn extents_by_the_dynamic_interface_and_on_account() {
    let dir = tempdir().unwrap();
    let tenant = tierpool::TenantRules::new("t").hard(tierpool::Limit::bytes(10_000));
    let pool = Pool::builder().disk("spill", &dir, 6000, 2).tenant(tenant).build().unwrap();
    let dynamic: &dyn ResourcePool = &pool;
    let request = ResourceRequest::disk(100).tenant("t").patience(Duration::ZERO);
    let resource = dynamic.allocate(&request).unwrap();
    let Resource::Disk(extent) = &resource else { panic!("{resource:?}") };
    assert_eq!((extent.len(), resource.tier_name()), (100, "spill"));
    let error = dynamic.allocate(&request).unwrap_err();
    assert!(matches!(error, RequestError::Quota { limit: 10_000, held: 6_000, .. }), "{error}");
    dynamic.release(resource).unwrap();
    assert_eq!(pool.monitor().tiers[0].held(), 0);
}

/// Errors tell their cause, as programs print them.
#[test]
fn errors_have_sources() {
    let error = Pool::builder().disk("spill", "/nowhere/at/all", KIB, 1).build().unwrap_err();
    let source = error.source().unwrap();
    assert!(source.source().is_some_and(|source| source.is::<io::Error>()), "{error:?}");
}

/// TORTURE 25: in the child of a fork the file is the parent's. Nothing that the child does, or drops, changes what is in it.
#[test]
fn a_forked_process_lets_the_parents_extents_be() {
    let dir = tempdir().unwrap();
    let pool = pool(&dir, 64 * KIB, 2);
    let mut mine = extent(&pool);
    mine.write_all_at(&[7; 1000], 0).unwrap();
    // SAFETY: the child uses this thread's things only, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = |outcome: io::Result<()>| outcome.is_err_and(|why| why.to_string().contains("forked"));
        let fine =
            refused(mine.write_all_at(&[1], 0)) && refused(mine.read_exact_at(&mut [0], 0)) && refused(mine.scrub());
        drop(mine);
        drop(pool);
        // SAFETY: it has no preconditions.
        unsafe { libc::_exit(if fine { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: the child is this process's, and the status is written.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!((waited, status), (child, 0), "the child is refused");
    assert_eq!(bytes_of(&mine)[..1000], [7; 1000]);
    assert!(blocks(&dir) >= 2 * 64 * KIB / 512, "and all its space is still reserved");
}
