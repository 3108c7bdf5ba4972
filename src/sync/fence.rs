//! Light and heavy fence: a store-then-load barrier whose cost is paid by the rare side.
//!
//! Two threads that each store one location and then load the other's (Dekker's pattern) must not both miss the
//! other's store. Ordinarily each needs a full fence between its store and its load, some 10 ns. Here the frequent
//! side calls [`light`](Fence::light), which only stops the compiler, and the rare side calls [`heavy`](Fence::heavy), which makes every running
//! thread of the process execute a full fence (`membarrier(2)`, private expedited). Guarantee: *of a `light` and a
//! `heavy`, one comes first; what its thread stored before it is seen by what the other's thread loads after its own.*
//!
//! Where `membarrier` is missing (gVisor, old kernels, other systems), or where the environment says
//! `TIERPOOL_FENCE=fallback` when the first tier is built, both are `fence(SeqCst)`. Under loom both always are.
//!
//! The idea is the asymmetric barrier of liburcu and folly.

use std::sync::atomic::compiler_fence;

use super::Ordering;
use super::atomic::fence;

/// The pair of fences that this process uses: a byte that hot paths read from where they already are.
#[derive(Clone, Copy)]
pub(crate) struct Fence {
    fallback: bool,
}

impl Fence {
    /// Chooses between `membarrier` and the fallback, once a process.
    pub(crate) fn chosen() -> Self {
        Fence { fallback: imp::is_fallback() }
    }

    /// The frequent side. A compiler fence, or a full fence in the fallback.
    #[inline(always)]
    pub(crate) fn light(self) {
        if cfg!(loom) || self.fallback {
            fence(Ordering::SeqCst);
        } else {
            compiler_fence(Ordering::SeqCst);
        }
    }

    /// Whether the frequent side may use [`light_beside_membarrier`].
    #[inline(always)]
    pub(crate) fn is_membarrier(self) -> bool {
        // loom knows no membarrier, but is to explore the hot path: there the other function is a full fence too.
        cfg!(loom) || !self.fallback
    }

    /// The rare side: 0.4 µs, or some 8 µs while other cores run threads of this process.
    #[cold]
    pub(crate) fn heavy(self) {
        // SeqCst: orders the caller's own stores before its own loads; in the fallback that is all.
        fence(Ordering::SeqCst);
        if !self.fallback {
            imp::barrier();
            fence(Ordering::SeqCst);
        }
    }
}

/// The frequent side in a process that is known to use `membarrier`: a compiler fence.
#[inline(always)]
pub(crate) fn light_beside_membarrier() {
    if cfg!(loom) {
        fence(Ordering::SeqCst);
    } else {
        compiler_fence(Ordering::SeqCst);
    }
}

/// Which fence this process uses; fixed when the first tier is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FenceKind {
    /// A compiler fence on the hot path, `membarrier(2)` on the cold one.
    Membarrier,
    /// A full fence on both sides.
    Fallback,
}

/// Which fence this process uses. Builds nothing; decides if nothing has decided yet.
///
/// ```
/// let kind = tierpool::fence_kind(); // Membarrier on a current Linux, unless TIERPOOL_FENCE=fallback
/// println!("{kind:?}");
/// ```
pub fn fence_kind() -> FenceKind {
    if Fence::chosen().fallback { FenceKind::Fallback } else { FenceKind::Membarrier }
}

#[cfg(all(target_os = "linux", not(loom)))]
mod imp {
    use std::sync::OnceLock;
    use std::time::Duration;

    static FALLBACK: OnceLock<bool> = OnceLock::new();

    pub(super) fn is_fallback() -> bool {
        *FALLBACK.get_or_init(|| std::env::var_os("TIERPOOL_FENCE").is_some_and(|v| v == "fallback") || !register())
    }

    /// Every running thread of the process executes a full fence.
    pub(super) fn barrier() {
        let call = || membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        if !(call() || register() && call()) {
            // A sandbox installed after the first tier was built took the call away. Light fences are compiled
            // into running threads and cannot be made heavier now; but a store leaves its core's store buffer in
            // far less than a microsecond, and every context switch drains it. Wait much longer than that.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn register() -> bool {
        membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
    }

    fn membarrier(command: libc::c_int) -> bool {
        // SAFETY: the call takes three integers, touches no memory of ours, and fails with an error code on a
        // kernel that does not know it.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }
}

#[cfg(any(not(target_os = "linux"), loom))]
mod imp {
    pub(super) fn is_fallback() -> bool {
        true
    }

    pub(super) fn barrier() {
        unreachable!("the fallback has no barrier")
    }
}
