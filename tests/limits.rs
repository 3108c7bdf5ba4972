//! A tier against the system's limits: a fork, a limit on memory, memory that has to go back. Each test runs in a process of its
//! own, which is this program again with the name of the test.
#![cfg(target_os = "linux")]

pub mod common;

use std::time::{Duration, Instant};

use common::process::{alone, of_process};
use tierpool::{AllocateError, GrowError, Reclaimer, Tier};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// TORTURE 25: a program with a pool forks. The child, in which the reclaimer's thread does not exist, uses the tier, makes passes of
/// its own, even if the fork came in the middle of one, and exits.
#[test]
fn the_child_of_a_fork_uses_the_tier_and_exits() -> Outcome {
    if !alone("the_child_of_a_fork_uses_the_tier_and_exits") {
        return Ok(());
    }
    let tier: Tier<[u8; 64]> = Tier::builder("forked")
        .capacity(1000)
        .reclaimer(Reclaimer::Background)
        .clean(|value: &mut [u8; 64]| value[0] = 0)
        .build_with(|| [0; 64])?;
    for _ in 0..50 {
        // The reclaimer is kept busy, so that some forks come in the middle of a pass.
        drop(tier.try_allocate_many(900)?);
        // SAFETY: the child only uses the tier and exits; no other thread holds a lock that it would need.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            for _ in 0..100 {
                let Ok(lease) = tier.try_allocate() else { std::process::abort() };
                drop(lease);
            }
            tier.reclaim();
            // One may have been in the hands of the thread that is not there.
            if tier.snapshot().dirty > 1 {
                std::process::abort();
            }
            drop(tier);
            std::process::exit(0);
        }
        let start = Instant::now();
        loop {
            let mut status = 0;
            // SAFETY: waits for the child just made, and writes to a local.
            let done = unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) };
            if done == child {
                assert_eq!(status, 0, "the child's exit");
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "the child hangs");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    until("the parent's reclaimer goes on", || tier.snapshot().dirty == 0);
    Ok(())
}

/// TORTURE 27: a limit of memory is met while a tier grows. It goes on with what it has, says so, and grows again once it may.
#[test]
fn a_limit_is_met_while_a_tier_grows() -> Outcome {
    if !alone("a_limit_is_met_while_a_tier_grows") {
        return Ok(());
    }
    const SLOT: usize = 1 << 16;
    let tier: Tier<[u8; SLOT]> = Tier::<[u8; SLOT]>::builder("limited")
        .min_capacity(4)
        .capacity(4096)
        .rebuild_backoff(Duration::from_millis(10), Duration::from_millis(20))
        .build_with(|| [1; SLOT])?;
    let limit = |bytes: u64| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: reads a local.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &limit) }, 0);
    };
    limit(of_process("VmData") as u64 + (16 << 20));
    let mut held = Vec::new();
    let why = loop {
        match tier.try_allocate() {
            Ok(lease) => {
                assert_eq!(lease[SLOT - 1], 1);
                held.push(lease);
            }
            Err(why) => break why,
        }
    };
    assert!((100..300).contains(&held.len()), "16 MiB are room for about 250 slots, not {}", held.len());
    let AllocateError::Exhausted(why) = why else { panic!("{why}") };
    assert!(why.absent > 3000 && why.to_string().contains("could not be built"), "{why}");
    assert!(matches!(tier.grow_to(4096), Err(GrowError::OutOfMemory { .. })));
    held.pop();
    drop(tier.try_allocate()?);
    limit(libc::RLIM_INFINITY);
    until("it grows again", || tier.grow_to(1000).is_ok());
    held.push(tier.try_allocate()?);
    Ok(())
}

/// The payload's pages go back to the system when a tier shrinks, and come back when it grows.
#[test]
fn shrinking_gives_memory_back_to_the_system() -> Outcome {
    if !alone("shrinking_gives_memory_back_to_the_system") {
        return Ok(());
    }
    const SLOT: usize = 4096;
    const SLOTS: usize = 50_000;
    let tier: Tier<[u8; SLOT]> =
        Tier::<[u8; SLOT]>::builder("breathing").min_capacity(10).capacity(SLOTS).build_with(|| [1; SLOT])?;
    let before = of_process("VmRSS");
    for _ in 0..3 {
        tier.grow_to(SLOTS)?;
        let full = of_process("VmRSS") - before;
        assert!(full > SLOT * SLOTS, "{full} bytes resident");
        assert_eq!(tier.shrink_to(0), 10);
        let rest = of_process("VmRSS").saturating_sub(before);
        assert!(rest < SLOT * SLOTS / 20, "{rest} bytes still resident, of {full}");
    }
    Ok(())
}

/// Nothing due, no wake-up: the reclaimer's thread sleeps as long as nobody needs it, and is there when somebody does.
#[test]
fn the_reclaimer_sleeps_while_nothing_is_due() -> Outcome {
    if !alone("the_reclaimer_sleeps_while_nothing_is_due") {
        return Ok(());
    }
    let tier: Tier<u64> = Tier::builder("quiet")
        .min_capacity(7)
        .capacity(8)
        .reclaimer(Reclaimer::Background)
        .clean(|value| *value = 0)
        .build_with(|| 0)?;
    drop(tier.try_allocate_many(8)?); // it has grown as far as it can
    let thread = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        let comm = |task: &std::path::PathBuf| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        tasks.into_iter().find(|task| comm(task).starts_with("tierpool-recla"))
    };
    until("it starts to run, and names itself", || thread().is_some());
    let wake_ups = || -> u64 {
        let status = std::fs::read_to_string(thread().expect("it never ends").join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // A thread that ticked every ten milliseconds would wake up thirty times; one that is slow to fall asleep gets more tries.
    let sleeps = || {
        (0..50).any(|_| {
            let before = wake_ups();
            std::thread::sleep(Duration::from_millis(300));
            wake_ups() == before
        })
    };
    assert!(sleeps(), "it wakes up for nothing");
    let before = wake_ups();
    drop(tier.try_allocate()?);
    until("it cleans", || tier.snapshot().dirty == 0);
    assert!(wake_ups() > before);
    assert!(sleeps(), "it does not go back to sleep");
    Ok(())
}
