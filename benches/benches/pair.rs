//! Allocate, write one byte, release 4 KiB on one thread.

use criterion::{Criterion, criterion_group, criterion_main};
use tierpool_benches::machine::ticker;
use tierpool_benches::payload::Bytes;
use tierpool_benches::roster::{self, Visit};
use tierpool_benches::subject::{Subject, pair};

fn pairs(criterion: &mut Criterion) {
    struct Pair<'a>(&'a mut Criterion);
    impl Visit for Pair<'_> {
        fn visit<S: Subject>(&mut self) {
            let pool = S::build();
            let mut hand = pool.hand();
            let name = format!("pair-4096/{}", S::NAME);
            self.0.bench_function(&name, |bencher| bencher.iter(|| pair::<S>(&mut hand)));
        }
    }
    ticker::start();
    roster::each::<Bytes<4096>, 1024>(&mut Pair(criterion));
}

criterion_group!(benches, pairs);
criterion_main!(benches);
