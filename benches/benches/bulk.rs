//! 512 out and back, in bulk and one by one.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tierpool::{Leases, Tier};
use tierpool_benches::machine::ticker;

const SLOTS: usize = 512;

fn bulk(criterion: &mut Criterion) {
    ticker::start();
    let tier = Tier::builder("bulk").capacity(1024).build_with(|| vec![0_u8; 4096]);
    let tier = tier.expect("a tier of a known capacity");
    let mut group = criterion.benchmark_group("bulk");
    group.throughput(Throughput::Elements(SLOTS as u64));
    group.bench_function("one by one", |bencher| {
        let mut leases = Vec::with_capacity(SLOTS);
        bencher.iter(|| {
            leases.extend((0..SLOTS).map(|_| tier.try_allocate().expect("a free slot")));
            leases.clear();
        });
    });
    group.bench_function("in bulk", |bencher| {
        let mut leases = Leases::with_capacity(SLOTS);
        bencher.iter(|| {
            tier.try_allocate_into(&mut leases, SLOTS).expect("free slots");
            leases.release_all();
        });
    });
    group.finish();
}

criterion_group!(benches, bulk);
criterion_main!(benches);
