//! Everything is held: a refusal.

use criterion::{Criterion, criterion_group, criterion_main};
use tierpool_benches::machine::ticker;
use tierpool_benches::payload::Bytes;
use tierpool_benches::roster::{self, Visit};
use tierpool_benches::subject::Subject;

fn refusals(criterion: &mut Criterion) {
    struct Refuse<'a>(&'a mut Criterion);
    impl Visit for Refuse<'_> {
        fn visit<S: Subject>(&mut self) {
            if !S::ABLE.refuse {
                return;
            }
            let pool = S::build();
            let mut hand = pool.hand();
            let held: Vec<_> = std::iter::from_fn(|| S::allocate(&mut hand)).collect();
            let name = format!("refuse/{}", S::NAME);
            let refused = |hand: &mut _| assert!(S::allocate(hand).is_none());
            self.0.bench_function(&name, |bencher| bencher.iter(|| refused(&mut hand)));
            held.into_iter().for_each(|held| S::release(&mut hand, held));
        }
    }
    ticker::start();
    roster::each::<Bytes<64>, 1024>(&mut Refuse(criterion));
}

criterion_group!(benches, refusals);
criterion_main!(benches);
