//! Allocated here, released there.

use criterion::{Criterion, criterion_group, criterion_main};
use tierpool_benches::machine::ticker;
use tierpool_benches::payload::Bytes;
use tierpool_benches::roster::{self, Visit};
use tierpool_benches::subject::Subject;
use tierpool_benches::workload::handoff;

fn handoffs(criterion: &mut Criterion) {
    struct Handoff<'a>(&'a mut Criterion);
    impl Visit for Handoff<'_> {
        fn visit<S: Subject>(&mut self) {
            let name = format!("handoff/{}", S::NAME);
            self.0.bench_function(&name, |bencher| {
                bencher.iter_custom(handoff::timed::<S>);
            });
        }
    }
    ticker::start();
    roster::each::<Bytes<4096>, 1024>(&mut Handoff(criterion));
}

criterion_group!(benches, handoffs);
criterion_main!(benches);
