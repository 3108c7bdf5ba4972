//! Which cores a thread may run on: read, narrowed to one, and given back.
//!
//! Guarantee: a thread that was pinned has its former cores again when the last of its [`Pinned`] has gone, in whatever order and on
//! whichever thread they go. Each remembers the cores before it; one that goes from below another leaves them to that one.
//!
//! The system knows threads by numbers that it uses again. So a thread that is pinned has a record, which says when it exits; whoever
//! un-pins it holds the record's lock meanwhile, and the thread's own exit waits for that: the number is its own. That lock is held for
//! a system call at most.

use std::fmt;
use std::io;

pub(crate) use self::system::{Pinned, allowed, pin, run_on, siblings};

/// Why a thread could not be pinned to a core. It may run where it could before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this thread cannot be pinned to core {cpu}: {why}")]
pub struct PinError {
    cpu: u16,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there is only one reason"))]
enum Why {
    System(i16),
    Ends,
    Unsupported,
}

impl PinError {
    fn new(cpu: usize, why: Why) -> Self {
        PinError { cpu: u16::try_from(cpu).unwrap_or(u16::MAX), why }
    }

    /// The core.
    pub fn cpu(&self) -> usize {
        self.cpu.into()
    }

    /// What the system said, if it was asked.
    pub fn raw_os_error(&self) -> Option<i32> {
        if let Why::System(code) = self.why { Some(code.into()) } else { None }
    }

    /// Whether this system cannot pin threads at all.
    pub fn is_unsupported(&self) -> bool {
        self.why == Why::Unsupported
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::System(code) => {
                let error = io::Error::from_raw_os_error((*code).into());
                write!(f, "{error}; has the core been taken away from the process since the tier was built? ")?;
                f.write_str("`taskset -pc` and cpuset.cpus.effective of its cgroup say which it has")
            }
            Why::Ends => f.write_str("it is about to exit, and its thread-local values have gone"),
            Why::Unsupported => f.write_str("this system cannot pin threads; on Linux it can"),
        }
    }
}

/// Numbers of cores as the system writes them: `0-3,7`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List<'a>(pub(crate) &'a [usize]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, run) in self.0.chunk_by(|one, next| one + 1 == *next).enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                _ => write!(f, "{comma}{}", run[0])?,
            }
        }
        Ok(())
    }
}

/// The reverse; `None` if it is no such list, or has numbers that no core has.
#[cfg(any(target_os = "linux", test))]
fn parse(text: &str) -> Option<Vec<usize>> {
    const MOST: usize = 1 << 16;
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|cpu| *cpu < MOST);
    let mut all = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(number(first)?..=number(last)?);
    }
    Some(all)
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::io;
    use std::mem::take;
    use std::process;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use super::{PinError, Why, parse};

    /// As many cores as Linux can be built for.
    const CPUS: usize = 8192;
    const WORDS: usize = CPUS / 64;

    /// A set of cores: a bit each.
    #[derive(Clone)]
    struct Cpus([u64; WORDS]);

    impl Cpus {
        const NONE: Cpus = Cpus([0; WORDS]);
        const ALL: Cpus = Cpus([u64::MAX; WORDS]);

        fn one(cpu: usize) -> Self {
            let mut one = Cpus::NONE;
            one.0[cpu / 64] |= 1 << (cpu % 64);
            one
        }

        fn list(&self) -> Vec<usize> {
            (0..CPUS).filter(|cpu| self.0[cpu / 64] >> (cpu % 64) & 1 == 1).collect()
        }

        /// Those of a thread; 0 is the calling one.
        fn of(thread: libc::pid_t) -> io::Result<Self> {
            let mut cpus = Cpus::NONE;
            // SAFETY: the pointer and the size are those of the array, which the call fills.
            let outcome = unsafe { libc::sched_getaffinity(thread, size_of_val(&cpus.0), cpus.0.as_mut_ptr().cast()) };
            if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(cpus) }
        }

        /// Lets a thread run on these, those of them that the process may use.
        fn set(&self, thread: libc::pid_t) -> io::Result<()> {
            // SAFETY: the pointer and the size are those of the array, which the call reads.
            let outcome = unsafe { libc::sched_setaffinity(thread, size_of_val(&self.0), self.0.as_ptr().cast()) };
            if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        }
    }

    /// The record of a thread that was pinned.
    #[derive(Debug)]
    struct Thread {
        process: u32,
        number: libc::pid_t,
        pins: Mutex<Pins>,
    }

    /// The pins of a thread, the first one first; none any more once it exits.
    #[derive(Debug, Default)]
    struct Pins {
        last: u64,
        stack: Vec<(u64, Box<Cpus>)>,
    }

    impl std::fmt::Debug for Cpus {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_list().entries(self.list()).finish()
        }
    }

    impl Pins {
        /// A pin of a thread that had these cores until now.
        fn push(&mut self, before: Cpus) -> u64 {
            self.last += 1;
            self.stack.push((self.last, Box::new(before)));
            self.last
        }

        /// A pin goes: the cores that the thread is to have now, if they change. Those that were to come back with this pin come back with
        /// the one above it.
        fn remove(&mut self, pin: u64) -> Option<Box<Cpus>> {
            let at = self.stack.iter().position(|(id, _)| *id == pin)?;
            let (_, before) = self.stack.remove(at);
            match self.stack.get_mut(at) {
                Some((_, cpus)) => {
                    *cpus = before;
                    None
                }
                None => Some(before),
            }
        }
    }

    impl Thread {
        fn pins(&self) -> MutexGuard<'_, Pins> {
            // Nothing panics while it is locked.
            self.pins.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// The calling thread's own reference to its record.
    struct Own(Arc<Thread>);

    impl Drop for Own {
        fn drop(&mut self) {
            // From here on nobody un-pins it: its number will be another's.
            drop(take(&mut *self.0.pins()));
        }
    }

    thread_local! {
        static OWN: Own = Own(Arc::new(Thread {
            process: process::id(),
            // SAFETY: it has no preconditions.
            number: unsafe { libc::gettid() },
            pins: Mutex::default(),
        }));
    }

    /// A thread runs on one core only, until this is dropped.
    #[derive(Debug)]
    pub(crate) struct Pinned {
        thread: Arc<Thread>,
        pin: u64,
    }

    /// Pins the calling thread to a core.
    pub(crate) fn pin(cpu: usize) -> Result<Pinned, PinError> {
        let failed = |error: io::Error| {
            let code = error.raw_os_error().and_then(|code| i16::try_from(code).ok());
            PinError::new(cpu, Why::System(code.unwrap_or_default()))
        };
        if cpu >= CPUS {
            return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let thread = OWN.try_with(|own| Arc::clone(&own.0)).map_err(|_| PinError::new(cpu, Why::Ends))?;
        let mut pins = thread.pins();
        let before = Cpus::of(0).map_err(failed)?;
        Cpus::one(cpu).set(0).map_err(failed)?;
        let pin = pins.push(before);
        drop(pins);
        Ok(Pinned { thread, pin })
    }

    impl Drop for Pinned {
        fn drop(&mut self) {
            let thread = &*self.thread;
            let own = OWN.try_with(|own| Arc::ptr_eq(&own.0, &self.thread)).unwrap_or(false);
            let forked = process::id() != thread.process;
            let pins = if forked {
                // Of the parent's threads this process has the calling one only; and that lock may have been held by another.
                if own { thread.pins.try_lock().ok() } else { None }
            } else {
                Some(thread.pins())
            };
            let Some(mut pins) = pins else { return };
            let Some(before) = pins.remove(self.pin) else { return };
            // Zero is the calling thread, also in a forked process, where its number is another.
            let number = if own { 0 } else { thread.number };
            if before.set(number).is_err() {
                // None of them is the process's any more: all that it has. If that fails too, the thread has gone.
                let _ = Cpus::ALL.set(number);
            }
        }
    }

    /// The cores that the calling thread may use when it is not pinned.
    pub(crate) fn allowed() -> io::Result<Vec<usize>> {
        let unpinned = OWN.try_with(|own| own.0.pins().stack.first().map(|(_, before)| before.list()));
        match unpinned {
            Ok(Some(cpus)) => Ok(cpus),
            _ => Cpus::of(0).map(|cpus| cpus.list()),
        }
    }

    /// Lets the calling thread run on these, or leaves it where it is if it may not.
    pub(crate) fn run_on(cpus: &[usize]) {
        let mut all = Cpus::NONE;
        cpus.iter().filter(|cpu| **cpu < CPUS).for_each(|cpu| all.0[cpu / 64] |= 1 << (cpu % 64));
        let _ = all.set(0);
    }

    /// The hardware threads of the core that has this one, itself among them.
    pub(crate) fn siblings(cpu: usize) -> io::Result<Vec<usize>> {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        let text = fs::read_to_string(&path).map_err(named)?;
        let unread = || named(io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no list of cores")));
        parse(&text).ok_or_else(unread)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn whatever_pin_goes_last_gives_the_first_cores_back() {
            for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                let mut pins = Pins::default();
                let ids = [7, 0, 1].map(|before| pins.push(Cpus::one(before)));
                let mut now = 2;
                for (at, which) in order.into_iter().enumerate() {
                    if let Some(before) = pins.remove(ids[which]) {
                        now = before.list()[0];
                    }
                    assert!(at == 2 || now != 7, "{order:?}");
                }
                assert_eq!(now, 7, "{order:?}");
                assert!(pins.remove(ids[0]).is_none());
            }
        }

        #[test]
        fn a_thread_that_has_gone_is_left_alone() {
            let pinned = std::thread::spawn(|| pin(allowed().unwrap()[0]).unwrap()).join().unwrap();
            assert!(pinned.thread.pins().stack.is_empty(), "its exit has forgotten its pins");
            drop(pinned);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::num::NonZero;
    use std::thread::available_parallelism;

    use super::{PinError, Why};

    /// Never made.
    #[derive(Debug)]
    pub(crate) enum Pinned {}

    /// Threads run where the system wants.
    pub(crate) fn pin(cpu: usize) -> Result<Pinned, PinError> {
        Err(PinError::new(cpu, Why::Unsupported))
    }

    /// Threads run where the system wants.
    pub(crate) fn run_on(_: &[usize]) {}

    /// As many as the system says, by numbers that mean nothing to it.
    pub(crate) fn allowed() -> io::Result<Vec<usize>> {
        Ok((0..available_parallelism().map(NonZero::get)?).collect())
    }

    /// Not known.
    pub(crate) fn siblings(_: usize) -> io::Result<Vec<usize>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this system does not say which cores are siblings"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_as_the_system_writes_them() {
        for (text, cpus) in
            [("0\n", vec![0]), ("0-3", vec![0, 1, 2, 3]), ("0,4\n", vec![0, 4]), ("1-2,7", vec![1, 2, 7])]
        {
            assert_eq!(parse(text).as_ref(), Some(&cpus), "{text}");
            assert_eq!(List(&cpus).to_string(), text.trim());
        }
        for text in ["", "x", "1-", "-1", "0-99999999999", "1,,2"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
