//! TORTURE 28: a thread that is really stopped, by a signal or at a chosen machine instruction, stops nobody else and
//! hides no free slot. Guarantees 2 and 3 of the design, taken at their word.
//!
//! The *victim* runs operations; its signal handler halts it wherever it happens to be. While it stands, the *other*
//! must get every slot that is free by its word, then an exact refusal, and must be able to release, bulk, and close.
#![cfg(target_os = "linux")]

pub mod common;

use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

use common::accounted;
use halt::Victim;
use tierpool::{Lease, Leases, Tier};

/// How a thread is halted and let go: a handler that waits on a futex, which may be done inside a signal handler.
mod halt {
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// How often the victim was halted, and how often it was let go.
    static STOPS: AtomicU32 = AtomicU32::new(0);
    static GOES: AtomicU32 = AtomicU32::new(0);
    /// Instructions until a single-stepped victim halts.
    static STEPS: AtomicU64 = AtomicU64::new(0);
    static QUIT: AtomicBool = AtomicBool::new(false);
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    fn futex(word: &AtomicU32, operation: libc::c_int, value: u32) {
        // SAFETY: the word is a static; a null timeout means none; the call keeps to these arguments.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, ptr::null::<libc::timespec>()) };
    }

    fn wait_until(word: &AtomicU32, reached: impl Fn(u32) -> bool) {
        loop {
            let now = word.load(Ordering::SeqCst);
            if reached(now) {
                return;
            }
            futex(word, libc::FUTEX_WAIT, now);
        }
    }

    /// Halts the calling thread until it is let go. Only atomics and system calls: it may stand anywhere.
    fn halt() {
        // SAFETY: errno is this thread's own; a handler must leave it as it was.
        let errno = unsafe { *libc::__errno_location() };
        let stop = STOPS.fetch_add(1, Ordering::SeqCst) + 1;
        futex(&STOPS, libc::FUTEX_WAKE, 1);
        wait_until(&GOES, |goes| goes >= stop);
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
    }

    extern "C" fn on_signal(_: libc::c_int) {
        halt();
    }

    extern "C" fn on_step(_: libc::c_int) {
        if STEPS.fetch_sub(1, Ordering::SeqCst) == 1 {
            halt();
        }
    }

    fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
        // SAFETY: all zeros is a `sigaction` with an empty mask; the handlers are async-signal-safe.
        unsafe {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
        }
    }

    /// The other's hold on the victim; one test at a time has one.
    pub struct Victim {
        thread: AtomicU64,
        _alone: MutexGuard<'static, ()>,
    }

    impl Victim {
        pub fn new() -> Self {
            let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
            STOPS.store(0, Ordering::SeqCst);
            GOES.store(0, Ordering::SeqCst);
            QUIT.store(false, Ordering::SeqCst);
            handle(libc::SIGUSR1, on_signal);
            handle(libc::SIGTRAP, on_step);
            Victim { thread: AtomicU64::new(0), _alone: alone }
        }

        /// The calling thread is the victim.
        pub fn enlist(&self) {
            // SAFETY: no arguments, cannot fail.
            self.thread.store(unsafe { libc::pthread_self() }, Ordering::SeqCst);
        }

        /// Whether the victim shall end.
        pub fn quits(&self) -> bool {
            QUIT.load(Ordering::SeqCst)
        }

        /// Halts the victim where it is.
        pub fn stop(&self) {
            let victim = loop {
                match self.thread.load(Ordering::SeqCst) {
                    0 => std::thread::yield_now(),
                    victim => break victim,
                }
            };
            let before = STOPS.load(Ordering::SeqCst);
            // SAFETY: the victim runs until `QUIT`, which is not yet set, so the thread exists.
            assert_eq!(unsafe { libc::pthread_kill(victim, libc::SIGUSR1) }, 0);
            wait_until(&STOPS, |stops| stops != before);
        }

        /// Waits until a single-stepped victim has halted; false if it has come to the end instead.
        pub fn stopped(&self, before: u32) -> bool {
            wait_until(&STOPS, |stops| stops != before);
            STOPS.load(Ordering::SeqCst) != u32::MAX
        }

        pub fn stops(&self) -> u32 {
            STOPS.load(Ordering::SeqCst)
        }

        /// Lets the victim run to its end, whatever has happened here.
        pub fn quit(&self) {
            QUIT.store(true, Ordering::SeqCst);
            STEPS.store(0, Ordering::SeqCst);
            GOES.store(u32::MAX, Ordering::SeqCst);
            futex(&GOES, libc::FUTEX_WAKE, 1);
        }

        /// Lets it go on, and halts it again after so many instructions if it is single-stepped.
        pub fn go(&self, steps: u64) {
            STEPS.store(steps, Ordering::SeqCst);
            GOES.store(STOPS.load(Ordering::SeqCst), Ordering::SeqCst);
            futex(&GOES, libc::FUTEX_WAKE, 1);
        }

        /// The first halt of a victim that is not yet single-stepped.
        #[cfg(target_arch = "x86_64")]
        pub fn set_steps(&self, steps: u64) {
            STEPS.store(steps, Ordering::SeqCst);
        }

        /// The victim has come to the end.
        #[cfg(target_arch = "x86_64")]
        pub fn end(&self) {
            STOPS.store(u32::MAX, Ordering::SeqCst);
            futex(&STOPS, libc::FUTEX_WAKE, 1);
        }

        /// Runs `f` with a trap after each instruction.
        #[cfg(target_arch = "x86_64")]
        pub fn step<R>(f: impl FnOnce() -> R) -> R {
            // SAFETY: sets the trap flag, whose signal is handled, and clears it again; the stack is as before after
            // each.
            unsafe { std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
            let result = f();
            // SAFETY: as above.
            unsafe { std::arch::asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
            result
        }
    }

    /// Pins the calling thread to the first core that it may use.
    pub fn pin() {
        // SAFETY: the sets are plain bits on this stack, and the calls keep to their size.
        unsafe {
            let mut all = MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init();
            assert_eq!(libc::sched_getaffinity(0, size_of_val(&all), &mut all), 0);
            let first = (0..libc::CPU_SETSIZE as usize).find(|&cpu| libc::CPU_ISSET(cpu, &all)).unwrap();
            let mut one = MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init();
            libc::CPU_SET(first, &mut one);
            assert_eq!(libc::sched_setaffinity(0, size_of_val(&one), &one), 0);
        }
    }
}

const DEBUG: bool = cfg!(debug_assertions);
const CAPACITY: usize = 256;
/// The most slots that a victim holds at once: more than a magazine, so that it refills and flushes.
const BURST: usize = 70;

fn tier(capacity: usize) -> Tier<u64> {
    Tier::builder("stopped").capacity(capacity).build_with(|| 0).unwrap()
}

/// What the victim does: all ways to take and to give back, in singles and in bursts. Nothing here may use the
/// system allocator, whose locks a halted thread would hold.
struct Operations {
    tier: Tier<u64>,
    held: Vec<Lease<u64>>,
    bulk: Leases<u64>,
    random: fastrand::Rng,
}

impl Operations {
    fn new(tier: &Tier<u64>, seed: u64) -> Self {
        let mut operations = Operations {
            tier: tier.clone(),
            held: Vec::with_capacity(BURST),
            bulk: Leases::with_capacity(BURST),
            random: fastrand::Rng::with_seed(seed),
        };
        // The first use registers the thread, which does allocate.
        operations.pair();
        operations
    }

    fn pair(&mut self) {
        if let Ok(mut lease) = self.tier.try_allocate() {
            *lease += 1;
        }
    }

    fn burst(&mut self, n: usize) {
        for _ in 0..n {
            self.held.extend(self.tier.try_allocate());
        }
        while let Some(lease) = self.held.pop() {
            lease.release();
        }
    }

    fn bulk(&mut self, n: usize) {
        let _ = self.tier.try_allocate_into(&mut self.bulk, n);
        self.bulk.release_all();
    }

    fn by_handle(&mut self) {
        let Ok(lease) = self.tier.try_allocate() else { return };
        let handle = self.tier.attach(lease.detach()).unwrap().detach();
        self.tier.release(handle).unwrap();
        assert!(self.tier.release(handle).is_err());
    }

    fn any(&mut self) {
        match self.random.u32(..8) {
            0..3 => self.pair(),
            3 => self.burst(5),
            4 => self.burst(BURST),
            5 => self.bulk(20),
            6 => self.bulk(BURST),
            _ => self.by_handle(),
        }
    }
}

/// What the other finds while the victim stands.
struct Other {
    tier: Tier<u64>,
    held: Vec<Lease<u64>>,
}

impl Other {
    fn new(tier: &Tier<u64>) -> Self {
        Other { tier: tier.clone(), held: Vec::with_capacity(tier.capacity()) }
    }

    /// Takes every slot that is free; the victim holds at most `most`.
    #[track_caller]
    fn takes_all(&mut self, most: usize) {
        let now = self.tier.snapshot();
        assert_eq!(now.free + now.leased + now.claimed + now.detached, now.capacity, "{now:?}");
        let mine = self.held.len();
        assert!(now.capacity - now.free - mine <= most, "the victim hides slots: {now:?}, {mine} are mine");
        for taken in 0..now.free {
            match self.tier.try_allocate() {
                Ok(lease) => self.held.push(lease),
                Err(error) => {
                    panic!("false exhaustion after {taken} of {}: {error}; {:?}", now.free, self.tier.snapshot())
                }
            }
        }
        for _ in 0..2 {
            assert!(self.tier.try_allocate().is_err(), "there was a slot that no word said was free");
        }
        assert_eq!(self.tier.snapshot().free, 0);
    }

    /// Gives some back, one by one.
    fn gives(&mut self, n: usize) {
        let rest = self.held.len() - n.min(self.held.len());
        self.held.truncate(rest);
    }
}

/// Halts a victim at random moments, as many times as `stops` says.
fn at_random_moments(stops: usize, pinned: bool) {
    let tier = tier(CAPACITY);
    let victim = Victim::new();
    thread::scope(|threads| {
        let victim = LetGo(&victim);
        let (handle, tier) = (victim.0, &tier);
        threads.spawn(move || {
            if pinned {
                halt::pin();
            }
            let mut operations = Operations::new(tier, 1);
            handle.enlist();
            let work = || {
                while !handle.quits() {
                    operations.any();
                }
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                // Signals go to a thread that must still be there.
                while !handle.quits() {
                    thread::yield_now();
                }
                resume_unwind(panic);
            }
        });
        if pinned {
            halt::pin();
        }
        let mut other = Other::new(tier);
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..stops {
            victim.0.stop();
            other.takes_all(BURST);
            // Often nothing is given back, or little: then the victim runs into scarcity, and what it gives back in a short
            // time must be found.
            let n = match random.u32(..4) {
                0 => 0,
                1 => random.usize(..3),
                2 => random.usize(..CAPACITY),
                _ => CAPACITY,
            };
            other.gives(n);
            if random.bool() {
                other.takes_all(BURST);
                other.gives(n);
            }
            victim.0.go(0);
            if pinned {
                thread::sleep(Duration::from_micros(random.u64(..50)));
            } else if random.bool() {
                (0..random.u32(..2_000)).for_each(|_| spin_loop());
            } else {
                (0..random.u32(..20)).for_each(|_| drop(tier.try_allocate()));
            }
        }
        other.gives(CAPACITY);
    });
    assert_eq!(accounted(&tier).free, CAPACITY);
}

/// Lets the victim go before its scope waits for it, even if an assertion has failed.
struct LetGo<'a>(&'a Victim);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.quit();
    }
}

/// TORTURE 28: a thread stopped anywhere inside allocate or release.
#[test]
fn a_stopped_thread_hides_no_slot() {
    at_random_moments(if DEBUG { 3_000 } else { 20_000 }, false);
}

/// TORTURE 28: two threads on one core.
#[test]
fn a_stopped_thread_hides_no_slot_from_one_on_the_same_core() {
    at_random_moments(if DEBUG { 1_000 } else { 3_000 }, true);
}

#[cfg(target_arch = "x86_64")]
mod at_each_instruction {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Runs `script` on a tier of `capacity`, which single-steps through parts of itself, halting it after every `stride` instructions.
    /// After each halt the other gives back as many slots as `gives` says. Returns how often it was.
    ///
    /// Every now and then the victim gets a longer run: the depot is lock-free, not wait-free, so that an adversary
    /// who changes it between any two of the victim's instructions could keep it there for ever.
    fn walk(
        capacity: usize,
        stride: u64,
        gives: impl Fn(usize) -> usize,
        script: impl Fn(&mut Operations) + Send,
    ) -> usize {
        let tier = tier(capacity);
        let victim = Victim::new();
        victim.set_steps(stride);
        let mut random = fastrand::Rng::with_seed(stride);
        // Enough instructions for the slowest operation: two passes over the words.
        let leap = (600 + 20 * capacity as u64) * if DEBUG { 12 } else { 1 };
        let mut halts = 0;
        thread::scope(|threads| {
            let victim = LetGo(&victim);
            let (handle, tier) = (victim.0, &tier);
            threads.spawn(move || {
                let mut operations = Operations::new(tier, 1);
                let outcome = catch_unwind(AssertUnwindSafe(|| script(&mut operations)));
                handle.end();
                if let Err(panic) = outcome {
                    resume_unwind(panic);
                }
            });
            let mut other = Other::new(tier);
            let mut before = 0;
            while victim.0.stopped(before) {
                halts += 1;
                other.takes_all(BURST.min(capacity));
                other.gives(gives(halts));
                before = victim.0.stops();
                victim.0.go(if random.u32(..64) == 0 { leap } else { random.u64(1..=2 * stride - 1) });
            }
        });
        assert_eq!(accounted(&tier).free, capacity);
        halts
    }

    fn few(operations: &mut Operations) {
        Victim::step(|| {
            for _ in 0..ROUNDS {
                operations.pair();
                operations.burst(2);
                operations.by_handle();
                operations.bulk(3);
            }
        });
    }

    /// More than a magazine holds. A debugging build has too many instructions: it steps through one operation in sixteen.
    fn long(operations: &mut Operations) {
        fn sometimes<R>(operations: &mut Operations, f: impl FnOnce(&mut Operations) -> R) -> R {
            if DEBUG && operations.random.u32(..16) > 0 { f(operations) } else { Victim::step(|| f(operations)) }
        }
        for _ in 0..BURST {
            sometimes(operations, |operations| operations.held.extend(operations.tier.try_allocate()));
        }
        while let Some(lease) = operations.held.pop() {
            sometimes(operations, |_| lease.release());
        }
        sometimes(operations, |operations| operations.bulk(BURST));
        sometimes(operations, |operations| operations.bulk(BURST));
    }

    const STRIDE: u64 = if DEBUG { 31 } else { 1 };
    const ROUNDS: usize = if DEBUG { 2 } else { 20 };

    /// TORTURE 28: slots are plenty at every step: all that the victim does not hold.
    #[test]
    fn slots_are_found_behind_a_thread_that_stands_in_the_hot_path() {
        assert!(walk(8, STRIDE, |_| usize::MAX, few) > 100);
    }

    /// TORTURE 28: the other keeps what it takes, so that the victim's operations all meet scarcity; each slot that
    /// the victim gives back must be found at once, whatever the certificate says.
    #[test]
    fn refusals_are_exact_behind_a_thread_that_stands_in_the_refusal() {
        assert!(walk(8, STRIDE, |_| 0, few) > 100);
        // All back and nothing back by turns: scarcity ends and is certified anew between any two instructions.
        for period in [2, 3, 5, 8] {
            let gives = |halts: usize| if halts.is_multiple_of(period) { usize::MAX } else { 0 };
            assert!(walk(8, STRIDE, gives, few) > 100);
        }
        for period in [3, 50, 400] {
            assert!(walk(8, STRIDE, |halts| usize::from(halts.is_multiple_of(period)), few) > 100);
            // Enough at once that scarcity ends and begins again.
            assert!(walk(8, STRIDE, |halts| if halts.is_multiple_of(period) { 6 } else { 0 }, few) > 100);
        }
    }

    /// TORTURE 28: a release that began before slots were scarce, and ends after the other has made certain that none is
    /// free: of one slot, and of several at once.
    #[test]
    fn a_release_that_stood_while_slots_became_scarce_is_found() {
        let releases = |operations: &mut Operations| {
            for _ in 0..10 * ROUNDS {
                // Not halted meanwhile, so that there is something to release.
                let lease = operations.tier.try_allocate();
                let _ = operations.tier.try_allocate_into(&mut operations.bulk, 3);
                Victim::step(|| {
                    operations.bulk.release_all();
                    drop(lease);
                });
            }
        };
        for period in [2, 3, 4, 7] {
            let gives = |halts: usize| if halts.is_multiple_of(period) { usize::MAX } else { 0 };
            assert!(walk(8, STRIDE, gives, releases) > 100);
        }
    }

    /// TORTURE 28: bursts beyond the magazine's size, so that the victim stands in refill and flush, and half of a batch is
    /// nowhere but in its hands.
    #[test]
    fn a_thread_that_stands_between_magazine_and_depot_hides_no_slot() {
        let stride = if DEBUG { 101 } else { 7 };
        let capacity = BURST + 10;
        assert!(walk(capacity, stride, |_| usize::MAX, long) > 100);
        assert!(walk(capacity, stride, |halts| halts % capacity, long) > 100);
    }

    static DROPS: AtomicUsize = AtomicUsize::new(0);

    /// A value whose drop is counted without the system allocator.
    struct Plain;

    impl Drop for Plain {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How a victim ends its lease.
    type Ending = fn(Option<&Tier<Plain>>, Lease<Plain>);

    /// Halts a victim after `steps` instructions of `ending`, and closes the tier, or drops it, meanwhile. False if the
    /// victim came to its end before.
    fn closes_after(steps: u64, drops_the_tier: bool, ending: Ending) -> bool {
        const SLOTS: usize = 3;
        DROPS.store(0, Ordering::SeqCst);
        let mut tier = Some(Tier::<Plain>::builder("closing").capacity(SLOTS).build_with(|| Plain).unwrap());
        let victim = Victim::new();
        victim.set_steps(steps);
        let halted = thread::scope(|threads| {
            let victim = LetGo(&victim);
            let handle = victim.0;
            let mut theirs = tier.clone();
            threads.spawn(move || {
                let lease = theirs.as_ref().unwrap().try_allocate().unwrap();
                // The first release has given this thread a magazine, so that the one under test is the hot one.
                drop(theirs.as_ref().unwrap().try_allocate());
                if drops_the_tier {
                    theirs = None;
                }
                let outcome = catch_unwind(AssertUnwindSafe(|| Victim::step(|| ending(theirs.as_ref(), lease))));
                handle.end();
                if let Err(panic) = outcome {
                    resume_unwind(panic);
                }
            });
            let halted = victim.0.stopped(0);
            if drops_the_tier {
                tier = None;
            } else if let Some(tier) = &tier {
                tier.close();
                assert!(tier.try_allocate().is_err());
            }
            assert!(DROPS.load(Ordering::SeqCst) >= SLOTS - 1, "a free value outlives the close");
            if halted {
                let before = victim.0.stops();
                victim.0.go(0);
                victim.0.stopped(before);
            }
            halted
        });
        assert_eq!(DROPS.load(Ordering::SeqCst), SLOTS, "at {steps} instructions");
        if let Some(tier) = tier {
            assert_eq!(accounted(&tier).absent, SLOTS, "at {steps} instructions");
        }
        halted
    }

    /// TORTURE 6 and 8 with 28: a tier is closed, or dropped, while a thread stands inside a release or detach. Whoever
    /// comes last drops the value; nobody waits, and no value is dropped twice or never.
    #[test]
    fn a_tier_closes_behind_a_thread_that_stands_in_a_release() {
        let stride = if DEBUG { 43 } else { 1 };
        let by_handle = |tier: Option<&Tier<Plain>>, lease: Lease<Plain>| {
            let handle = lease.detach();
            if let Some(tier) = tier {
                tier.release(handle).unwrap();
            }
        };
        let endings: [Ending; 3] = [|_, lease| drop(lease), |_, lease| lease.release(), by_handle];
        for ending in endings {
            for drops_the_tier in [false, true] {
                let closes = |&steps: &u64| closes_after(steps, drops_the_tier, ending);
                let halts = (1..).step_by(stride).take_while(closes).count();
                assert!(halts > 3, "{halts}");
            }
        }
    }
}
