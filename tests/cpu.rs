//! CPU tiers on the real machine: which cores they have, and on which a thread may run before, during and after a lease.

#![cfg(all(target_os = "linux", not(loom)))]

pub mod common;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use std::{fs, io, mem, process, thread};

use common::process::in_child;
use common::system::skip;
use tierpool::{Cpu, CpuError, CpuTier, Lease, Pool, PoolError, Request, RequestError, Resource, ResourcePool};
use tierpool::{ResourceRequest, Spill, TierKind};

/// The cores on which the calling thread may run, as the system says.
fn mask() -> Vec<usize> {
    mask_of(0)
}

fn mask_of(thread: i32) -> Vec<usize> {
    let mut words = [0u64; 128];
    // SAFETY: the pointer and the size are those of the array.
    let code = unsafe { libc::sched_getaffinity(thread, size_of_val(&words), words.as_mut_ptr().cast()) };
    assert!(code >= 0, "{}", io::Error::last_os_error());
    (0..8192).filter(|cpu| words[cpu / 64] >> (cpu % 64) & 1 == 1).collect()
}

/// Lets the calling thread run on these cores only, as `taskset` does.
fn narrow(cpus: &[usize]) {
    let mut words = [0u64; 128];
    cpus.iter().for_each(|cpu| words[cpu / 64] |= 1 << (cpu % 64));
    // SAFETY: the pointer and the size are those of the array.
    let code = unsafe { libc::sched_setaffinity(0, size_of_val(&words), words.as_ptr().cast()) };
    assert!(code >= 0, "{}", io::Error::last_os_error());
}

/// Runs `body` where at least `cpus` cores are allowed; says so where they are not.
fn with_cores(cpus: usize, body: impl FnOnce(Vec<usize>)) {
    let all = mask();
    if all.len() < cpus { skip("what needs several cores", format!("there are {}", all.len())) } else { body(all) }
}

fn pool() -> Pool {
    Pool::builder().cpu("cores").build().unwrap()
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("there is a core free"),
    }
}

#[test]
fn a_slot_for_each_core_that_the_process_may_use() {
    let pool = pool();
    let cores: Vec<_> = mask().iter().map(|_| pool.try_allocate(Request::cpu()).unwrap()).collect();
    let ids: BTreeSet<_> = cores.iter().map(|core| core.id()).collect();
    assert_eq!(ids, [mask(), cores.iter().map(|core| core.id()).collect()].concat().into_iter().collect());
    assert!(matches!(pool.try_allocate(Request::cpu()), Err(RequestError::Tier(_))));
    drop(cores);
    let status = pool.monitor();
    assert_eq!((status.tiers[0].kind, status.tiers[0].snapshot.capacity), (TierKind::Cpu, mask().len()));
    assert!(status.to_string().contains("core"), "{status}");
}

#[test]
fn a_lease_pins_its_thread_and_gives_its_cores_back() {
    let pool = pool();
    let before = mask();
    let prepared = pool.prepare(Request::cpu()).unwrap();
    let long = Duration::from_secs(10);
    let forms: [&dyn Fn() -> Lease<Cpu>; 8] = [
        &|| pool.try_allocate(Request::cpu()).unwrap(),
        &|| pool.allocate(Request::cpu()).unwrap(),
        &|| pool.allocate_timeout(Request::cpu(), long).unwrap(),
        &|| pool.try_allocate(Request::of::<Cpu>("cores")).unwrap(),
        &|| prepared.try_allocate().unwrap(),
        &|| prepared.allocate().unwrap(),
        &|| pool.allocate_group((Request::cpu(),)).unwrap().0,
        &|| pool.reserve(Request::cpu(), 1).unwrap().draw().unwrap(),
    ];
    for (at, form) in forms.into_iter().enumerate() {
        let core = form();
        assert!(core.is_pinned(), "form {at}");
        assert_eq!(mask(), [core.id()], "form {at}");
        core.release();
        assert_eq!(mask(), before, "form {at}");
    }
    drop(pool.try_allocate(Request::cpu()).unwrap());
    assert_eq!(mask(), before);
}

#[test]
fn a_lease_that_waited_pins_the_thread_that_waited() {
    let pool = Pool::builder().cpu_tier(CpuTier::new("one").cpus([mask()[0]])).build().unwrap();
    let core = pool.try_allocate(Request::cpu()).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let before = mask();
            let core = pool.allocate(Request::cpu()).unwrap();
            assert_eq!(mask(), [core.id()]);
            drop(core);
            assert_eq!(mask(), before);
        });
        while pool.monitor().tiers[0].snapshot.waiting == 0 {
            thread::yield_now();
        }
        drop(core);
        waiter.join().unwrap();
    });
}

/// Whoever ends it, however: the thread that was pinned has its cores back.
#[test]
fn every_end_of_a_lease_on_another_thread_unpins_the_first() {
    let pool = Pool::builder().cpu("cores").build().unwrap();
    let before = mask();
    type End = fn(&Pool, Lease<Cpu>);
    let ends: [(&str, End); 8] = [
        ("drop", |_, core| drop(core)),
        ("release", |_, core| core.release()),
        ("into the pool", |pool, core| pool.release(core).unwrap()),
        ("a handle", |pool, core| pool.release_handle(core.detach()).unwrap()),
        ("attach", |pool, core| drop(pool.attach::<Cpu>(core.detach()).unwrap())),
        ("discard", |_, core| core.discard()),
        ("take", |_, core| drop(core.take())),
        ("shared", |_, core| drop(core.into_shared())),
    ];
    for (name, end) in ends {
        let core = pool.try_allocate(Request::cpu()).unwrap();
        assert_eq!(mask(), [core.id()]);
        thread::scope(|scope| scope.spawn(|| end(&pool, core)).join().unwrap());
        assert_eq!(mask(), before, "{name}");
    }
    // A deadline that passes.
    let handle = pool.try_allocate(Request::cpu()).unwrap().detach_for(Duration::from_millis(1));
    assert_eq!(mask().len(), 1, "it stays pinned for who attaches it");
    while mask() != before {
        thread::sleep(Duration::from_millis(5));
        pool.reclaim();
    }
    assert!(pool.attach::<Cpu>(handle).is_err());
    // A panic.
    let panicked = thread::scope(|scope| {
        let unwind = || {
            let _core = pool.try_allocate(Request::cpu()).unwrap();
            panic!("on purpose");
        };
        scope.spawn(unwind).join().is_err()
    });
    assert!(panicked);
    assert_eq!(pool.monitor().tiers[0].held(), 0);
}

#[test]
fn a_core_that_was_taken_out_is_missing_until_it_is_dropped() {
    let pool = Pool::builder().cpu_tier(CpuTier::new("one").cpus([mask()[0]])).build().unwrap();
    let before = mask();
    let core = pool.try_allocate(Request::cpu()).unwrap().take();
    assert_eq!((mask(), core.is_pinned()), (vec![core.id()], true), "it goes on being pinned");
    assert_eq!(pool.monitor().tiers[0].snapshot.quarantined, 1, "no core is in two hands");
    drop(core);
    assert_eq!(mask(), before);
    thread::sleep(Duration::from_millis(50));
    pool.reclaim();
    assert!(pool.try_allocate(Request::cpu()).is_ok());
}

#[test]
fn the_last_pin_counts_and_the_last_release_gives_the_first_cores_back() {
    with_cores(2, |before| {
        let pool = pool();
        let two = || [(); 2].map(|()| pool.try_allocate(Request::cpu()).unwrap());
        let [first, second] = two();
        assert_eq!(mask(), [second.id()]);
        drop(second);
        assert_eq!(mask(), [first.id()], "as it was before that pin");
        drop(first);
        assert_eq!(mask(), before);

        let [first, second] = two();
        drop(first);
        assert_eq!(mask(), [second.id()], "it is pinned to a core that it has");
        drop(second);
        assert_eq!(mask(), before, "not for ever");

        let group = pool.allocate_group(vec![Request::cpu(); 2]).unwrap();
        assert_eq!(mask().len(), 1);
        drop(group);
        assert_eq!(mask(), before);

        // A group that cannot be had leaves nothing.
        let held = pool.try_allocate(Request::cpu()).unwrap();
        let whole = mask();
        assert!(pool.try_allocate_group(vec![Request::cpu(); before.len()]).is_err());
        assert_eq!(mask(), whole);
        drop(held);
        assert_eq!(mask(), before);
    });
}

/// The thread that polls is the executor's: it is to run other tasks, too.
#[test]
fn a_future_pins_nobody_until_told_to() {
    let pool = pool();
    let before = mask();
    let mut core = ready(pool.allocate_async(Request::cpu())).unwrap();
    assert_eq!((mask(), core.is_pinned()), (before.clone(), false));
    core.pin().unwrap();
    assert_eq!((mask(), core.is_pinned()), (vec![core.id()], true));
    core.unpin();
    assert_eq!((mask(), core.is_pinned()), (before.clone(), false));
    core.unpin();
    core.pin().unwrap();
    // Explicitly, on another thread: that one is pinned, and this one is not any more.
    let id = core.id();
    let pin_there = || {
        core.pin().unwrap();
        mask()
    };
    assert_eq!(thread::scope(|scope| scope.spawn(pin_there).join().unwrap()), [id]);
    assert_eq!(mask(), before);
    drop(core);
    let group = ready(pool.allocate_group_async((Request::cpu(),))).unwrap();
    assert_eq!(mask(), before);
    drop(group);
    let dynamic: &dyn tierpool::AsyncResourcePool = &pool;
    let core = ready(dynamic.allocate(&ResourceRequest::cpu())).unwrap();
    assert_eq!(mask(), before);
    drop(core);
}

#[test]
fn a_thread_with_fewer_cores_gets_those_and_keeps_them() {
    with_cores(2, |all| {
        let (inside, outside) = (all[1], all[0]);
        let run = || {
            narrow(&[inside]);
            let pool = pool();
            assert_eq!(pool.monitor().tiers[0].snapshot.capacity, 1);
            let core = pool.try_allocate(Request::cpu()).unwrap();
            assert_eq!(core.id(), inside);
            drop(core);
            assert_eq!(mask(), [inside], "not more than it had");

            let build = |cpus: &[usize]| {
                Pool::builder().cpu_tier(CpuTier::new("some").cpus(cpus.iter().copied())).build().unwrap_err()
            };
            let error = build(&[outside, inside, 8000]);
            let PoolError::Cpu { source: CpuError::NotAllowed { cpus, allowed }, .. } = &error else {
                panic!("{error:?}")
            };
            assert_eq!((cpus.as_slice(), allowed.as_slice()), (&[outside, 8000][..], &[inside][..]));
            let text = error.to_string();
            assert!(text.contains("\"some\"") && text.contains("8000") && text.contains("taskset"), "{text}");
            assert!(matches!(build(&[]), PoolError::Cpu { source: CpuError::Empty, .. }));
            assert!(matches!(build(&[inside, inside]), PoolError::Cpu { source: CpuError::Twice { .. }, .. }));
        };
        thread::scope(|scope| scope.spawn(run).join().unwrap());

        // A thread that is pinned by a lease may use more than that core.
        let first = pool();
        let core = first.try_allocate(Request::cpu()).unwrap();
        assert_eq!(pool().monitor().tiers[0].snapshot.capacity, all.len());
        drop(core);
    });
}

/// The whole process, as under `taskset -c 0`.
#[test]
fn a_process_with_fewer_cores() {
    let first = mask()[0];
    let taskset = |command: &mut process::Command| {
        use std::os::unix::process::CommandExt;
        let narrowed = move || {
            narrow(&[first]);
            Ok(())
        };
        // SAFETY: it makes one system call, and allocates nothing.
        unsafe { command.pre_exec(narrowed) };
    };
    in_child("a_process_with_fewer_cores", taskset, || {
        let pool = pool();
        let core = pool.try_allocate(Request::cpu()).unwrap();
        assert_eq!((core.id(), pool.monitor().tiers[0].snapshot.capacity), (mask()[0], 1));
        drop(core);
        assert_eq!(mask().len(), 1);
    });
}

/// Leaves a cpuset and removes it, however the test ends.
struct Gone<'a>(&'a str);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let _ = fs::write("/sys/fs/cgroup/cpuset/cgroup.procs", process::id().to_string());
        let _ = fs::remove_dir(self.0);
    }
}

/// TORTURE 27, for cores: one is taken away while the program runs. It is refused, and its slot is not lost.
#[test]
fn a_core_that_was_taken_away_is_refused() {
    let group = format!("/sys/fs/cgroup/cpuset/tierpool-test-{}", process::id());
    with_cores(2, |all| {
        in_child(
            "a_core_that_was_taken_away_is_refused",
            |_| {},
            || {
                let write = |file: &str, text: &str| fs::write(format!("{group}/{file}"), text);
                let memory = fs::read_to_string("/sys/fs/cgroup/cpuset/cpuset.mems").unwrap_or_default();
                let made = fs::create_dir(&group)
                    .and_then(|()| write("cpuset.mems", memory.trim()))
                    .and_then(|()| write("cpuset.cpus", &all[1].to_string()));
                if let Err(why) = made {
                    let _ = fs::remove_dir(&group);
                    return skip("a core that is taken away", format!("no cpuset of its own: {why}"));
                }
                let pool = Pool::builder().cpu_tier(CpuTier::new("cores").cpus([all[0], all[1]])).build().unwrap();
                let _gone = Gone(&group);
                write("cgroup.procs", &process::id().to_string()).unwrap();
                let mut refused = 0;
                let mut held = Vec::new();
                for _ in 0..4 {
                    match pool.try_allocate(Request::cpu()) {
                        Ok(core) => held.push(core),
                        Err(RequestError::NotPinned { tier, source }) => {
                            assert_eq!(
                                (tier, source.cpu(), source.raw_os_error()),
                                ("cores", all[0], Some(libc::EINVAL))
                            );
                            let text = source.to_string();
                            assert!(text.contains("taken away") && text.contains("cpuset"), "{text}");
                            refused += 1;
                        }
                        Err(why) => panic!("{why}"),
                    }
                }
                assert!(held.len() <= 1 && refused >= 3, "{} and {refused}", held.len());
                drop(held);
                assert_eq!(mask(), [all[1]]);
                assert_eq!((pool.monitor().tiers[0].held(), pool.monitor().tiers[0].snapshot.free), (0, 2));
            },
        );
    });
}

/// The number of a thread that has exited is another's soon: it is not touched.
#[test]
fn a_lease_outlives_the_thread_that_it_pinned() {
    let pool = pool();
    let before = mask();
    for _ in 0..20 {
        let core = thread::scope(|scope| scope.spawn(|| pool.try_allocate(Request::cpu()).unwrap()).join().unwrap());
        drop(core);
        assert_eq!(mask(), before);
    }
}

/// TORTURE 25: the child of a fork has the leases, but not the threads.
#[test]
fn a_forked_process_lets_the_parents_threads_be() {
    let pool = pool();
    let before = mask();
    let core = pool.try_allocate(Request::cpu()).unwrap();
    // SAFETY: it has no preconditions.
    let thread = unsafe { libc::gettid() };
    // SAFETY: the child uses this thread's things only, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(core);
        let fine = mask() == before && mask_of(thread).len() == 1;
        // SAFETY: it has no preconditions.
        unsafe { libc::_exit(if fine { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: the child is this process's, and the status is written.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!((waited, status), (child, 0), "the child is un-pinned, and its parent is not");
    assert_eq!(mask(), [core.id()]);
    drop(core);
    assert_eq!(mask(), before);
}

#[test]
fn siblings_are_avoided() {
    let pool = match Pool::builder().cpu_tier(CpuTier::new("cores").avoid_siblings()).build() {
        Ok(pool) => pool,
        Err(why) => {
            assert!(why.to_string().contains("avoid_siblings"), "{why}");
            return skip("siblings", why);
        }
    };
    let list = |cpu: &usize| {
        fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).unwrap()
    };
    let cores: BTreeSet<_> = mask().iter().map(list).collect();
    assert_eq!(pool.monitor().tiers[0].snapshot.capacity, cores.len());
}

#[test]
fn a_request_without_a_tier_for_it_says_so() {
    let pool = Pool::builder().memory("m", 64, 1).build().unwrap();
    let error = pool.try_allocate(Request::cpu()).unwrap_err();
    assert_eq!(error, RequestError::NoCpuTier);
    assert!(error.to_string().contains("`cpu(name)`"), "{error}");
}

#[test]
fn of_several_tiers_the_first_is_asked_and_the_next_if_the_request_says_so() {
    let one = |name: &str| CpuTier::new(name).cpus([mask()[0]]);
    let pool = Pool::builder().cpu_tier(one("b")).memory("m", 64, 1).cpu_tier(one("a")).build().unwrap();
    let first = pool.try_allocate(Request::cpu()).unwrap();
    assert!(pool.try_allocate(Request::cpu()).is_err());
    assert!(pool.try_allocate(Request::cpu().spill(Spill::System)).is_err(), "the system has no more");
    let second = pool.try_allocate(Request::cpu().spill(Spill::NextLarger)).unwrap();
    let names = |status: tierpool::ResourceStatus| -> Vec<_> {
        status.tiers.iter().map(|tier| (tier.name, tier.held())).collect()
    };
    assert_eq!(names(pool.monitor()), [("m", 0), ("b", 1), ("a", 1)]);
    drop((first, second));
}

#[test]
fn cores_by_the_dynamic_interface() {
    let pool = pool();
    let dynamic: &dyn ResourcePool = &pool;
    let before = mask();
    let resource = dynamic.allocate(&ResourceRequest::cpu()).unwrap();
    let Resource::Cpu(core) = &resource else { panic!("{resource:?}") };
    assert_eq!((mask(), resource.tier_name()), (vec![core.id()], "cores"));
    dynamic.release(resource).unwrap();
    assert_eq!(mask(), before);
    // A core has no bytes: what limits them does not limit cores.
    let tenant = tierpool::TenantRules::new("t").hard(tierpool::Limit::bytes(0));
    let pool = Pool::builder().cpu("cores").tenant(tenant).build().unwrap();
    assert!(pool.try_allocate(Request::cpu().tenant("t")).is_ok());
}

/// A lease that is forgotten leaves its thread pinned, and its slot held: reported like any other.
#[test]
fn a_forgotten_lease_is_seen() {
    let pool = pool();
    let held = thread::scope(|scope| {
        scope.spawn(|| mem::forget(pool.try_allocate(Request::cpu()).unwrap())).join().unwrap();
        pool.holders().len()
    });
    assert_eq!(held, 1);
}
