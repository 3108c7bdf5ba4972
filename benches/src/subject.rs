//! What every pool and allocator is asked to do, so that each workload is written once.
//!
//! A workload is generic over [`Subject`] and monomorphised: no dynamic call is ever timed.

use std::ops::DerefMut;

use crate::payload::Payload;

/// What a subject is, for the ratios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// tierpool, in one of its forms.
    Ours,
    /// A peer that hands out prepared objects.
    Pool,
    /// A peer that hands out raw memory.
    Allocator,
    /// Not a peer: what the machine takes for a single step.
    Floor,
}

impl Kind {
    /// Its name in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Pool => "pool",
            Self::Allocator => "allocator",
            Self::Floor => "floor",
        }
    }
}

/// What a subject can do; a workload that needs more leaves it out.
#[derive(Clone, Copy, Debug)]
pub struct Able {
    /// Several threads may allocate.
    pub several: bool,
    /// It refuses when its capacity is reached, rather than growing.
    pub refuse: bool,
    /// A slot that one thread released can be taken by any other, so that a full pool is full for all.
    pub shared: bool,
}

/// A pool, or an allocator in the place of one.
pub trait Subject: Send + Sync + Sized + 'static {
    /// Its name in the output.
    const NAME: &'static str;
    /// What it is.
    const KIND: Kind;
    /// What it can do.
    const ABLE: Able;

    /// What one thread works with: a reference for most, a private magazine for some.
    type Hand<'a>
    where
        Self: 'a;
    /// What an allocation gives, in the subject's cheapest form; it can be released by another thread.
    type Held<'a>: Send
    where
        Self: 'a;

    /// A new pool with all its slots made.
    fn build() -> Self;

    /// This thread's way in.
    fn hand(&self) -> Self::Hand<'_>;

    /// Takes a slot, or is refused.
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Held<'a>>;

    /// Writes one byte to the payload.
    fn touch<'a>(held: &mut Self::Held<'a>);

    /// Reads that byte back; only for checks.
    fn byte<'a>(hand: &Self::Hand<'a>, held: &Self::Held<'a>) -> u8;

    /// Gives the slot back.
    fn release<'a>(hand: &mut Self::Hand<'a>, held: Self::Held<'a>);

    /// The bytes beside the payload that the subject itself reports, if it does.
    fn overhead(&self) -> Option<usize> {
        None
    }
}

/// A pool that hands out guards, which lead to the payload and release their slots when they are dropped.
pub trait Guards: Send + Sync + Sized + 'static {
    /// Its name in the output.
    const NAME: &'static str;
    /// What it can do.
    const ABLE: Able;
    /// What it is: most are pools of others.
    const KIND: Kind = Kind::Pool;

    /// What a slot holds.
    type Payload: Payload;
    /// What one thread works with.
    type Hand<'a>
    where
        Self: 'a;
    /// What an allocation gives.
    type Guard<'a>: DerefMut<Target = Self::Payload> + Send
    where
        Self: 'a;

    /// A new pool with all its slots made.
    fn build() -> Self;

    /// This thread's way in.
    fn hand(&self) -> Self::Hand<'_>;

    /// Takes a slot, or is refused.
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Guard<'a>>;

    /// Gives the slot back: for most, by dropping the guard.
    #[inline(always)]
    fn release<'a>(_: &mut Self::Hand<'a>, guard: Self::Guard<'a>) {
        drop(guard);
    }

    /// The bytes beside the payload that the subject itself reports, if it does.
    fn overhead(&self) -> Option<usize> {
        None
    }
}

/// A guard is used in the same way whoever made it.
impl<G: Guards> Subject for G {
    const NAME: &'static str = <G as Guards>::NAME;
    const KIND: Kind = <G as Guards>::KIND;
    const ABLE: Able = <G as Guards>::ABLE;

    type Hand<'a> = <G as Guards>::Hand<'a>;
    type Held<'a> = <G as Guards>::Guard<'a>;

    fn build() -> Self {
        <G as Guards>::build()
    }

    fn hand(&self) -> Self::Hand<'_> {
        <G as Guards>::hand(self)
    }

    #[inline(always)]
    fn allocate<'a>(hand: &mut Self::Hand<'a>) -> Option<Self::Held<'a>> {
        <G as Guards>::allocate(hand)
    }

    #[inline(always)]
    fn touch<'a>(held: &mut Self::Held<'a>) {
        Payload::touch(&mut **held);
    }

    fn byte<'a>(_: &Self::Hand<'a>, held: &Self::Held<'a>) -> u8 {
        Payload::byte(&**held)
    }

    #[inline(always)]
    fn release<'a>(hand: &mut Self::Hand<'a>, held: Self::Held<'a>) {
        <G as Guards>::release(hand, held);
    }

    fn overhead(&self) -> Option<usize> {
        <G as Guards>::overhead(self)
    }
}

/// A pool that lets its users wait for a slot, which holds a number.
pub trait Waits: Send + Sync + Sized + 'static {
    /// Its name in the output.
    const NAME: &'static str;
    /// What it is.
    const KIND: Kind;

    /// What an allocation gives.
    type Held<'a>
    where
        Self: 'a;

    /// A new pool.
    fn build(slots: usize) -> Self;

    /// Takes a slot, blocking the thread until there is one.
    fn allocate(&self) -> Self::Held<'_>;

    /// The number in it.
    fn value<'a>(held: &'a mut Self::Held<'_>) -> &'a mut u64;

    /// Gives it back.
    fn release(&self, held: Self::Held<'_>);
}

/// A pool that lets its users wait, and may tell them apart.
pub trait Seats: Send + Sync + Sized + 'static {
    /// Its name in the output.
    const NAME: &'static str;
    /// What it is.
    const KIND: Kind;

    /// What somebody allocates with.
    type Seat<'a>
    where
        Self: 'a;
    /// What an allocation gives.
    type Held<'a>
    where
        Self: 'a;

    /// A new pool, for tenants of these weights.
    fn build(slots: usize, weights: &[u32]) -> Self;

    /// The way in for a tenant, for urgent requests or for others.
    fn seat(&self, tenant: usize, urgent: bool) -> Self::Seat<'_>;

    /// Takes a slot, blocking the thread until there is one.
    fn allocate<'a>(seat: &Self::Seat<'a>) -> Self::Held<'a>;

    /// The number in it.
    fn value<'a>(held: &'a mut Self::Held<'_>) -> &'a mut u64;

    /// Gives it back.
    fn release<'a>(seat: &Self::Seat<'a>, held: Self::Held<'a>);
}

/// To most pools all users are the same.
impl<W: Waits> Seats for W {
    const NAME: &'static str = <W as Waits>::NAME;
    const KIND: Kind = <W as Waits>::KIND;

    type Seat<'a> = &'a W;
    type Held<'a> = <W as Waits>::Held<'a>;

    fn build(slots: usize, _: &[u32]) -> Self {
        <W as Waits>::build(slots)
    }

    fn seat(&self, _: usize, _: bool) -> Self::Seat<'_> {
        self
    }

    fn allocate<'a>(seat: &Self::Seat<'a>) -> Self::Held<'a> {
        W::allocate(seat)
    }

    fn value<'a>(held: &'a mut Self::Held<'_>) -> &'a mut u64 {
        W::value(held)
    }

    fn release<'a>(seat: &Self::Seat<'a>, held: Self::Held<'a>) {
        W::release(seat, held);
    }
}

/// Allocate, write one byte, release.
#[inline(always)]
pub fn pair<'a, S: Subject>(hand: &mut S::Hand<'a>) {
    let mut held = S::allocate(hand).expect("a free slot");
    S::touch(&mut held);
    S::release(hand, held);
}
