//! How many slots each line of a program has allocated from a tier, about: what tells a leak from a line that is just slow.
//!
//! The hot path counts nothing for it. One allocation in some thousand goes to a cold path anyway, to advance the coarse clock;
//! if the tier watches leaks, that one notes its line here, and stands for all of them. A bulk notes itself. The table has a
//! fixed size and no lock: what finds no place in it is not counted, and a pass takes the counts out.

use std::ptr;

use super::core::Core;
use crate::slot::header::Site;
use crate::slot::site::OnceSite;
use crate::sync::{AtomicU64, Ordering};

/// Lines that are counted at a time: more than a tier has, but for programs that are written by programs.
const PLACES: usize = if cfg!(loom) { 4 } else { 256 };
/// How many places a line may have. Those that it finds taken are others' for as long as the tier lives.
const TRIES: usize = if cfg!(loom) { 2 } else { 16 };

/// Bulks of so many slots are worth a count of their own.
pub(crate) const BULK: usize = 16;

struct Place {
    site: OnceSite,
    count: AtomicU64,
}

/// See the module's header.
pub(crate) struct Turnover(Box<[Place]>);

impl Turnover {
    pub(crate) fn new() -> Self {
        Turnover((0..PLACES).map(|_| Place { site: OnceSite::new(), count: AtomicU64::new(0) }).collect())
    }

    fn add(&self, site: Site, times: u64) {
        let scattered = (ptr::from_ref(site).addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let places = (scattered as usize..).take(TRIES).map(|at| &self.0[at % PLACES]);
        if let Some(place) = { places }.find(|place| ptr::eq(place.site.get_or_fill(site), site)) {
            place.count.fetch_add(times, Ordering::Relaxed);
        }
    }

    /// Which lines have allocated since the last call of this, and how often.
    pub(super) fn take(&self) -> impl Iterator<Item = (Site, u64)> {
        let counted = self.0.iter().filter(|place| place.count.load(Ordering::Relaxed) > 0);
        counted.filter_map(|place| Some((place.site.get()?, place.count.swap(0, Ordering::Relaxed))))
    }

    /// Bytes of the table.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// That line has allocated so often, if the tier wants to know.
pub(crate) fn note(core: &Core, site: Site, times: u64) {
    if let Some(turnover) = &core.life().turnover {
        turnover.add(site, times);
    }
}
