//! Quotas: credits that their owner uses without an exchange, while others take them away, and accounts that are recounted
//! meanwhile. Never more in use than the limit; never a refusal while there is some left; nothing lost.
#![cfg(all(loom, not(shuttle)))]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use loom::sync::atomic::{AtomicBool, Ordering};
use tierpool::internals::{Credits, Quotas};
use tierpool::{Limit, QuotaRules, TenantRules};
use tierpool_loom::{explore, spawn};

/// Quotas of a tenant "a" and its child "b", or of "a" alone, and who holds how much: plain `std` atomics, which are the observer's.
struct Bench {
    quotas: Quotas,
    limit: usize,
    held: AtomicUsize,
}

impl Bench {
    fn new(limit: usize, owners: usize) -> Arc<Self> {
        Self::of(QuotaRules::new().tenant(TenantRules::new("b").parent("a")), limit, owners)
    }

    fn alone(limit: usize, owners: usize) -> Arc<Self> {
        Self::of(QuotaRules::new(), limit, owners)
    }

    fn of(rules: QuotaRules, limit: usize, owners: usize) -> Arc<Self> {
        let rules = rules.tenant(TenantRules::new("a").hard(Limit::slots(limit as u64)));
        Arc::new(Bench { quotas: Quotas::new(&rules, owners), limit, held: AtomicUsize::new(0) })
    }

    fn take(&self, owner: usize, tenant: &str, batch: u32) -> bool {
        let taken = self.quotas.take(owner, self.quotas.tenant(tenant), batch);
        if taken {
            let held = self.held.fetch_add(1, SeqCst) + 1;
            assert!(held <= self.limit, "never more than the limit: {held}");
        }
        taken
    }

    fn give_back(&self, owner: usize, tenant: &str, batch: u32) {
        self.held.fetch_sub(1, SeqCst);
        self.quotas.give_back(owner, self.quotas.tenant(tenant), batch);
    }

    /// Charges the meters with `n` credits that nobody has: what a thread took, and let go of.
    fn charge(&self, n: usize) {
        for _ in 0..n {
            assert!(self.take(0, "a", 0));
            self.give_back(0, "a", 0);
        }
    }

    /// What is there at a quiet point, wherever it is: the limit, less what is held.
    fn assert_conserved(&self) {
        let held = self.held.load(SeqCst);
        assert_eq!(self.quotas.held(self.quotas.tenant("a")), held as u64, "what is held is counted");
        (held..self.limit).for_each(|_| assert!(self.take(0, "a", 0), "nothing is lost"));
        assert!(!self.take(0, "a", 0), "nothing is there twice");
    }
}

/// An owner takes one of its two credits, and the other, while somebody drains them.
///
/// Guards both fences, and what `Cell::settle` gives back.
#[test]
fn a_take_against_a_drain() {
    explore(3, || {
        let credits = Arc::new(Credits::new(2));
        let drainer = {
            let credits = Arc::clone(&credits);
            spawn(move || credits.drain())
        };
        let taken = u32::from(credits.take()) + u32::from(credits.take());
        let left = drainer.join().unwrap();
        assert!(left >= taken, "a drain takes nothing that is in use: {left} left, {taken} taken");
        assert_eq!(credits.drain(), taken, "a drain takes all that is not");
    });
}

/// The same, with two who drain: each may have to decide what the other has lifted.
///
/// Guards that `Cell::settle` exchanges, and that its heavy fence comes after the word was read.
#[test]
fn a_take_against_two_drains() {
    explore(2, || {
        let credits = Arc::new(Credits::new(1));
        let drainers = [(); 2].map(|()| {
            let credits = Arc::clone(&credits);
            spawn(move || credits.drain())
        });
        let taken = u32::from(credits.take());
        for drainer in drainers {
            let left = drainer.join().unwrap();
            assert!(left >= taken, "a drain takes nothing that is in use: {left} left, {taken} taken");
        }
        assert_eq!(credits.drain(), taken, "a drain takes all that is not");
    });
}

/// An owner gives back, lets go, and takes again, while somebody drains.
///
/// Guards the exchange in `Cell::let_go`.
#[test]
fn a_trim_against_a_drain() {
    explore(3, || {
        let credits = Arc::new(Credits::new(2));
        assert!(credits.take() && credits.take());
        let drainer = {
            let credits = Arc::clone(&credits);
            spawn(move || credits.drain())
        };
        credits.give_back();
        credits.trim(0);
        let taken = 1 + u32::from(credits.take());
        let left = drainer.join().unwrap();
        assert!(left >= taken, "a drain takes nothing that is in use: {left} left, {taken} taken");
        assert_eq!(credits.drain(), taken, "a drain takes all that is not");
    });
}

/// Two threads want the only credit, of a tenant and of its child: exactly one gets it.
///
/// Guards the exchange in `Meter::charge`, that a recount calls draws off (`Cell::lift`) and is void if somebody has charged
/// (`Meter::end`), and that it looks again before it refuses.
#[test]
fn the_last_credit_goes_to_one() {
    explore(2, || {
        let bench = Bench::new(1, 2);
        let other = {
            let bench = Arc::clone(&bench);
            spawn(move || bench.take(1, "b", 1))
        };
        let taken = bench.take(0, "a", 1);
        let other = other.join().unwrap();
        assert!(taken != other, "one is refused, since the other has it: {taken}, {other}");
        bench.assert_conserved();
    });
}

/// Two threads want a credit each, and there are two, but both have been charged already.
///
/// Guards that a refusal counts what is used, and nothing that others have let go of or are drawing.
#[test]
fn what_others_draw_is_not_used() {
    explore(1, || {
        let bench = Bench::new(2, 2);
        bench.charge(2);
        let other = {
            let bench = Arc::clone(&bench);
            spawn(move || bench.take(1, "b", 1))
        };
        assert!(bench.take(0, "a", 1), "there is one for each");
        assert!(other.join().unwrap(), "there is one for each");
        bench.assert_conserved();
    });
}

/// A thread gives back its credit under one owner and takes one under another: it never holds two, so there is always one of
/// the two left.
///
/// Guards the second look in `Accounts::make_room`.
#[test]
fn a_credit_that_moves_is_not_counted_twice() {
    explore(1, || {
        let bench = Bench::alone(2, 3);
        bench.charge(1);
        assert!(bench.take(0, "a", 0));
        let mover = {
            let bench = Arc::clone(&bench);
            spawn(move || {
                bench.give_back(0, "a", 1);
                assert!(bench.take(1, "a", 0), "there is one for each");
            })
        };
        assert!(bench.take(2, "a", 0), "there is one for each");
        mover.join().unwrap();
        bench.assert_conserved();
    });
}

/// What one thread has taken is given back by another, while a third wants it: it gets it, if it comes after that.
///
/// Guards that a recount drains (`Cell::lift`), and that what is given back counts where it was given back.
#[test]
fn a_credit_given_back_elsewhere_can_be_had() {
    explore(3, || {
        let bench = Bench::new(1, 3);
        assert!(bench.take(0, "b", 0));
        let is_back = Arc::new(AtomicBool::new(false));
        let giver = {
            let (bench, is_back) = (Arc::clone(&bench), Arc::clone(&is_back));
            spawn(move || {
                bench.give_back(1, "b", 1);
                is_back.store(true, Ordering::Release);
            })
        };
        let expected = is_back.load(Ordering::Acquire);
        let taken = bench.take(2, "a", 0);
        assert!(taken || !expected, "it was there");
        giver.join().unwrap();
        bench.assert_conserved();
    });
}

/// A limit is lowered while a thread draws: afterwards it has nothing at hand beyond the new one.
///
/// Guards the drain in `Accounts::set_limits`, the heavy fence before it, and the light fence in `Accounts::draw`.
#[test]
fn a_lowered_limit_leaves_nothing_at_hand() {
    explore(3, || {
        let bench = Bench::new(8, 1); // of which a draw takes two
        let changer = {
            let bench = Arc::clone(&bench);
            spawn(move || bench.quotas.set_limit(bench.quotas.tenant("a"), Limit::slots(1)))
        };
        let taken = bench.take(0, "a", 1);
        changer.join().unwrap();
        assert!(taken, "there was one before and after");
        assert!(!bench.take(0, "a", 1), "no more than the new limit");
    });
}
