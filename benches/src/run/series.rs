//! Samples and what is read off them.

/// A sample: nanoseconds an operation, and how many operations took that long.
pub type Sample = (f64, u64);

/// All samples of one subject in one workload.
#[derive(Debug, Default)]
pub struct Series {
    samples: Vec<Sample>,
}

impl Series {
    /// Adds samples.
    pub fn extend(&mut self, samples: impl IntoIterator<Item = Sample>) {
        self.samples.extend(samples);
        self.samples.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        self.samples.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The value that a share `q` of all operations does not exceed.
    pub fn quantile(&self, q: f64) -> f64 {
        let total: u64 = self.samples.iter().map(|sample| sample.1).sum();
        let wanted = ((total as f64 * q).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        for (value, count) in &self.samples {
            seen += count;
            if seen >= wanted {
                return *value;
            }
        }
        f64::NAN
    }

    /// The same, with a clock that moves in steps in mind: between two values that occur, in proportion to how many
    /// operations each has. So that a small change does not show as a whole step, or not at all.
    pub fn between(&self, q: f64) -> f64 {
        let total: u64 = self.samples.iter().map(|sample| sample.1).sum();
        let wanted = total as f64 * q;
        let (mut seen, mut below) = (0.0, None);
        for &(value, count) in &self.samples {
            let next = seen + count as f64;
            if next >= wanted {
                let below = below.unwrap_or(value);
                return below + (value - below) * (wanted - seen) / count as f64;
            }
            (seen, below) = (next, Some(value));
        }
        f64::NAN
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The least.
    pub fn min(&self) -> f64 {
        self.samples.first().map_or(f64::NAN, |sample| sample.0)
    }

    /// The longest.
    pub fn max(&self) -> f64 {
        self.samples.last().map_or(f64::NAN, |sample| sample.0)
    }

    /// The median distance from the median: half of all samples lie within it.
    pub fn spread(&self) -> f64 {
        let median = self.median();
        let mut distances = Series::default();
        distances.extend(self.samples.iter().map(|(value, count)| ((value - median).abs(), *count)));
        distances.median()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_count_each_operation() {
        let mut series = Series::default();
        series.extend([(3.0, 1), (1.0, 98), (2.0, 1)]);
        assert_eq!(series.median(), 1.0);
        assert_eq!(series.quantile(0.99), 2.0);
        assert_eq!(series.max(), 3.0);
        assert_eq!(series.spread(), 0.0);
    }

    #[test]
    fn between_two_steps_of_a_clock_lies_what_the_counts_say() {
        let mut series = Series::default();
        series.extend([(10.0, 90), (20.0, 10)]);
        assert_eq!(series.between(0.95), 15.0);
        assert_eq!(series.between(0.9), 10.0);
        assert_eq!(series.between(1.0), 20.0);
    }
}
