//! Which processors this process may use.

/// Their numbers, rising, and who said so: the calling thread's affinity, which its cpuset has narrowed already. Elsewhere than on
/// Linux as many numbers from 0 as the system says there are.
pub(crate) fn allowed() -> (Vec<usize>, &'static str) {
    imp::allowed()
}

#[cfg(target_os = "linux")]
mod imp {
    /// Masks of this many processors are tried last; the kernel knows no more.
    const MOST: usize = 1 << 16;
    const WORD: usize = usize::BITS as usize;

    pub(super) fn allowed() -> (Vec<usize>, &'static str) {
        let mut mask = vec![0usize; 1024 / WORD];
        // The kernel refuses a mask that is shorter than its own.
        while mask.len() <= MOST / WORD {
            // SAFETY: writes at most the bytes that it is told of, which the mask has.
            let done = unsafe { libc::sched_getaffinity(0, size_of_val(&*mask), mask.as_mut_ptr().cast()) };
            if done == 0 {
                let is_in = |cpu: &usize| mask[cpu / WORD] >> (cpu % WORD) & 1 == 1;
                return ((0..mask.len() * WORD).filter(is_in).collect(), "sched_getaffinity");
            }
            mask = vec![0; mask.len() * 2];
        }
        super::by_count()
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    pub(super) fn allowed() -> (Vec<usize>, &'static str) {
        super::by_count()
    }
}

fn by_count() -> (Vec<usize>, &'static str) {
    ((0..std::thread::available_parallelism().map_or(1, usize::from)).collect(), "available_parallelism")
}
