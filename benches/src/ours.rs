//! tierpool itself: a tier by this thread's magazine, by an explicit one ([`Tier::local`]), and with a reclaimer that watches it.
//!
//! The fourth form, with the portable fence in the place of membarrier, is [`Tierpool`] in a process of its own: the fence
//! is chosen once a process.

use std::hint::black_box;
use std::time::Duration;

use tierpool::{Lease, Local, Reclaimer, Tier};

use crate::payload::Payload;
use crate::subject::{Able, Guards, Kind, Waits};

/// How long a slot of [`Watched`] may be held before it is reported. What a program would take; a pass comes eight times as often.
const LEAK_AFTER: Duration = Duration::from_secs(1);

const ABLE: Able = Able { several: true, refuse: true, shared: true };

/// A tier of `CAP` payloads with nothing special about it.
pub fn tier<T: Payload, const CAP: usize>() -> Tier<T> {
    Tier::builder("compare").capacity(CAP).build_with(T::fresh).expect("a tier of a known capacity")
}

/// A refusal says why, so it is made and looked at, and not left out by the compiler.
#[inline(always)]
pub(crate) fn looked_at<T, E>(answer: Result<Lease<T>, E>) -> Option<Lease<T>> {
    match answer {
        Ok(lease) => Some(lease),
        Err(refusal) => {
            black_box(&refusal);
            None
        }
    }
}

/// A tier of `CAP` payloads; if it is to be watched, with the background reclaimer, which looks for leaks eight times a second.
pub struct Tierpool<T: Payload, const CAP: usize, const WATCHED: bool = false>(pub Tier<T>);

/// The same, watched.
pub type Watched<T, const CAP: usize> = Tierpool<T, CAP, true>;

impl<T: Payload, const CAP: usize, const WATCHED: bool> Guards for Tierpool<T, CAP, WATCHED> {
    const NAME: &'static str = if WATCHED { "tierpool+reclaimer" } else { "tierpool" };
    const KIND: Kind = Kind::Ours;
    const ABLE: Able = ABLE;

    type Payload = T;
    type Hand<'a> = &'a Tier<T>;
    type Guard<'a> = Lease<T>;

    fn build() -> Self {
        let builder = Tier::builder("compare").capacity(CAP);
        let builder = if WATCHED { builder.reclaimer(Reclaimer::Background).leak_after(LEAK_AFTER) } else { builder };
        Self(builder.build_with(T::fresh).expect("a tier of a known capacity"))
    }

    fn hand(&self) -> Self::Hand<'_> {
        &self.0
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Guard<'a>> {
        looked_at(hand.try_allocate())
    }

    fn overhead(&self) -> Option<usize> {
        Some(self.0.overhead_bytes())
    }
}

/// A tier that lets wait: [`Tier::allocate`].
pub struct Waiting<const BARGING: bool>(Tier<u64>);

impl<const BARGING: bool> Waits for Waiting<BARGING> {
    const NAME: &'static str = if BARGING { "tierpool-barging" } else { "tierpool" };
    const KIND: Kind = Kind::Ours;

    type Held<'a> = Lease<u64>;

    fn build(slots: usize) -> Self {
        let builder = Tier::builder("wake").capacity(slots);
        let builder = if BARGING { builder.barging(Duration::from_millis(1)) } else { builder };
        Self(builder.build_with(|| 0).expect("a tier of a known capacity"))
    }

    fn allocate(&self) -> Self::Held<'_> {
        self.0.allocate().expect("an open tier")
    }

    fn value<'a>(held: &'a mut Self::Held<'_>) -> &'a mut u64 {
        held
    }

    fn release(&self, held: Self::Held<'_>) {
        drop(held);
    }
}

/// A tier of `CAP` payloads, each thread with an explicit magazine.
pub struct Magazine<T: Payload, const CAP: usize>(Tier<T>);

impl<T: Payload, const CAP: usize> Guards for Magazine<T, CAP> {
    const NAME: &'static str = "tierpool-local";
    const KIND: Kind = Kind::Ours;
    const ABLE: Able = ABLE;

    type Payload = T;
    type Hand<'a> = Local<T>;
    type Guard<'a> = Lease<T>;

    fn build() -> Self {
        Self(tier::<T, CAP>())
    }

    fn hand(&self) -> Self::Hand<'_> {
        self.0.local()
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Guard<'a>> {
        looked_at(hand.try_allocate())
    }

    #[inline(always)]
    fn release<'a>(hand: &mut Self::Hand<'a>, guard: Self::Guard<'a>) {
        hand.release(guard);
    }

    fn overhead(&self) -> Option<usize> {
        Some(self.0.overhead_bytes())
    }
}
