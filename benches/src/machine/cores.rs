//! The cores that this process may use, and threads pinned to them.

use std::sync::OnceLock;

use core_affinity::CoreId;

static CORES: OnceLock<Vec<CoreId>> = OnceLock::new();

/// The cores that this process may use. The first call must come from a thread that is not pinned: a pinned one sees only its own.
pub fn all() -> &'static [CoreId] {
    CORES.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default())
}

/// Pins this thread to the core of the `place`-th measuring thread. Counted from the last core, since interrupts and the
/// ticker like the first.
pub fn pin(place: usize) {
    let cores = all();
    if let Some(core) = cores.len().checked_sub(1 + place).map(|index| cores[index]) {
        core_affinity::set_for_current(core);
    }
}

/// Pins this thread to the first core, out of the way of the single measuring thread.
pub fn pin_aside() {
    if let Some(core) = all().first() {
        core_affinity::set_for_current(*core);
    }
}
