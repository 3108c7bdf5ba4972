//! The machine's memory on systems that have no `/proc`: as the library `sysinfo` asks for it.

use sysinfo::System;

use super::meminfo::Meminfo;

/// What it says; zero is nothing that a machine has.
pub(crate) fn meminfo() -> Meminfo {
    let Ok(mut system) = System::new() else { return Meminfo::default() };
    system.refresh_memory();
    let known = |bytes: u64| Some(bytes).filter(|bytes| *bytes > 0);
    Meminfo {
        total: known(system.total_memory()),
        available: known(system.available_memory()),
        swap_total: Some(system.total_swap()),
        swap_free: Some(system.free_swap()),
        ..Meminfo::default()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::machine::meminfo::{self, MEMINFO};
    use crate::machine::root::Root;

    #[test]
    fn it_says_what_the_file_says() {
        let (here, file) = (meminfo(), meminfo::parse(&Root::default().text(MEMINFO).unwrap()));
        // A container's limit counts for it, too.
        assert!(here.total.unwrap() <= file.total.unwrap() && here.total.unwrap() > 1 << 20);
        assert!(here.available.unwrap() <= here.total.unwrap());
        assert_eq!(here.swap_total, file.swap_total);
    }
}
