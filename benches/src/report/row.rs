//! One row: a subject in a workload, with its ratios to the best peers of the same run.

use crate::run::series::Series;
use crate::subject::Kind;
use crate::workload::floor::ATOMIC_ADD;

/// One subject in one workload.
#[derive(Clone, Debug)]
pub struct Row {
    /// The workload's name.
    pub workload: &'static str,
    /// How many threads worked at once.
    pub threads: usize,
    /// The subject's name.
    pub subject: &'static str,
    /// What the subject is.
    pub kind: Kind,
    /// Nanoseconds an operation, the median sample; not a number where something else is measured.
    pub median: f64,
    /// The same, the 99th of a hundred samples.
    pub p99: f64,
    /// Whatever else there is, by name.
    pub extras: Vec<(&'static str, f64)>,
    /// How this compares.
    pub ratios: Ratios,
}

/// What is compared, divided by the least of the same workload's others; not a number where there is no other.
#[derive(Clone, Copy, Debug)]
pub struct Ratios {
    /// To the best peer: pool or allocator.
    pub peer: f64,
    /// To the best pool.
    pub pool: f64,
    /// To the best allocator.
    pub allocator: f64,
    /// To one uncontended atomic add, measured between the same batches.
    pub atomic_add: f64,
}

impl Row {
    /// A row of batches: the samples' median, 99th percentile, least, and median distance from the median.
    pub fn of_batches(
        workload: &'static str,
        threads: usize,
        subject: &'static str,
        kind: Kind,
        series: &Series,
    ) -> Self {
        let extras = vec![("ns_min", series.min()), ("spread", series.spread())];
        let times = (series.median(), series.quantile(0.99));
        Self::new(workload, threads, subject, kind, times, extras)
    }

    /// A row of single operations: their median and the slow ones.
    pub fn of_singles(
        workload: &'static str,
        threads: usize,
        subject: &'static str,
        kind: Kind,
        series: &Series,
    ) -> Self {
        let extras = vec![("ns_p99_99", series.quantile(0.9999)), ("ns_max", series.max())];
        let times = (series.median(), series.quantile(0.99));
        Self::new(workload, threads, subject, kind, times, extras)
    }

    /// A row without ratios yet.
    pub fn new(
        workload: &'static str,
        threads: usize,
        subject: &'static str,
        kind: Kind,
        (median, p99): (f64, f64),
        extras: Vec<(&'static str, f64)>,
    ) -> Self {
        let none = f64::NAN;
        let ratios = Ratios { peer: none, pool: none, allocator: none, atomic_add: none };
        Self { workload, threads, subject, kind, median, p99, extras, ratios }
    }

    /// An extra by its name.
    pub fn extra(&self, name: &str) -> Option<f64> {
        self.extras.iter().find(|extra| extra.0 == name).map(|extra| extra.1)
    }

    /// What is compared: the time, or the bytes.
    pub fn compared(&self) -> f64 {
        self.extra("bytes").unwrap_or(self.median)
    }
}

/// Adds to each of one workload's rows how it compares with `subject`.
pub fn add_ratio(rows: &mut [Row], name: &'static str, subject: &str) {
    let base = rows.iter().find(|row| row.subject == subject).map_or(f64::NAN, Row::compared);
    rows.iter_mut().for_each(|row| row.extras.push((name, row.compared() / base)));
}

/// Fills in the ratios of one workload's rows. A peer is compared with the best of all peers, itself included.
pub fn compare(rows: &mut [Row]) {
    let least = |wanted: &dyn Fn(&Row) -> bool| {
        let values = rows.iter().filter(|row| wanted(row)).map(Row::compared);
        values.fold(f64::NAN, f64::min)
    };
    let pool = least(&|row| row.kind == Kind::Pool);
    let allocator = least(&|row| row.kind == Kind::Allocator);
    let atomic_add = least(&|row| row.subject == ATOMIC_ADD);
    for row in rows {
        let value = row.compared();
        row.ratios = Ratios {
            peer: value / pool.min(allocator),
            pool: value / pool,
            allocator: value / allocator,
            atomic_add: value / atomic_add,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_the_best_of_each_kind() {
        let row = |subject, kind, median| Row::new("pair", 1, subject, kind, (median, 0.0), vec![]);
        let mut rows = vec![
            row("tierpool", Kind::Ours, 5.0),
            row("slow", Kind::Pool, 20.0),
            row("quick", Kind::Pool, 10.0),
            row("heap", Kind::Allocator, 8.0),
        ];
        compare(&mut rows);
        let ratios = rows[0].ratios;
        assert_eq!((ratios.peer, ratios.pool, ratios.allocator), (0.625, 0.5, 0.625));
        assert!(ratios.atomic_add.is_nan());
    }
}
