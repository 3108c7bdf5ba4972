//! A place for a source line that is filled once, by whoever comes first, and never waits.

use std::panic::Location;
use std::ptr;

use super::header::Site;
use crate::sync::{AtomicPtr, Ordering};

/// See the module's header. Null while it is empty.
pub(crate) struct OnceSite(AtomicPtr<Location<'static>>);

impl OnceSite {
    pub(crate) fn new() -> Self {
        OnceSite(AtomicPtr::new(ptr::null_mut()))
    }

    /// The line in it.
    pub(crate) fn get(&self) -> Option<Site> {
        // SAFETY: null, or made of a `&'static Location` in `get_or_fill`. Relaxed: the line is as old as the program, so nothing
        // has to be seen with its address.
        unsafe { self.0.load(Ordering::Relaxed).as_ref() }
    }

    /// The line in it, which is this one if there was none.
    pub(crate) fn get_or_fill(&self, site: Site) -> Site {
        self.get().unwrap_or_else(|| {
            let wanted = ptr::from_ref(site).cast_mut();
            // Relaxed, both: as above.
            match self.0.compare_exchange(ptr::null_mut(), wanted, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => site,
                Err(_) => self.get().unwrap_or(site),
            }
        })
    }
}
