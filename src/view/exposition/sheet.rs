//! How samples are written: a family says what it is, and each of its samples has the labels of what it is about before its own.
//!
//! What is written are whole numbers, and others that are finite: there is no `NaN`, for nothing that has no value is shown.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{
    CounterValueEncoder, DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, GaugeValueEncoder, MetricEncoder,
    NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::tier::latency::Latency;

/// A label and its value.
pub(super) type Label<'l> = (&'l str, &'l str);

/// What a family is.
pub(super) struct Descriptor {
    /// Without the unit, and without `_total`.
    pub(super) name: &'static str,
    /// A sentence.
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    pub(super) unit: Base,
}

/// The base units that Prometheus knows; what counts things has none.
#[derive(Clone, Copy)]
pub(super) enum Base {
    Things,
    Seconds,
    Bytes,
}

impl Descriptor {
    const fn new(kind: MetricType, name: &'static str, help: &'static str) -> Self {
        Descriptor { name, help, kind, unit: Base::Things }
    }

    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        Descriptor::new(MetricType::Counter, name, help)
    }

    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Descriptor::new(MetricType::Gauge, name, help)
    }

    pub(super) const fn histogram(name: &'static str, help: &'static str) -> Self {
        Descriptor::new(MetricType::Histogram, name, help)
    }

    pub(super) const fn info(name: &'static str, help: &'static str) -> Self {
        Descriptor::new(MetricType::Info, name, help)
    }

    pub(super) const fn seconds(self) -> Self {
        Descriptor { unit: Base::Seconds, ..self }
    }

    pub(super) const fn bytes(self) -> Self {
        Descriptor { unit: Base::Bytes, ..self }
    }
}

/// What a sample says.
pub(super) enum Value {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Whole(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Value::Whole(number as u64)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Whole(u64::from(number))
    }
}

impl From<bool> for Value {
    fn from(holds: bool) -> Self {
        Value::Whole(u64::from(holds))
    }
}

impl From<Duration> for Value {
    fn from(time: Duration) -> Self {
        Value::Real(time.as_secs_f64())
    }
}

/// A share; 0 for what is no number.
impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value::Real(if number.is_finite() { number } else { 0.0 })
    }
}

impl EncodeCounterValue for Value {
    fn encode(&self, encoder: &mut CounterValueEncoder) -> fmt::Result {
        match self {
            Value::Whole(number) => EncodeCounterValue::encode(number, encoder),
            Value::Real(number) => EncodeCounterValue::encode(number, encoder),
        }
    }
}

impl EncodeGaugeValue for Value {
    fn encode(&self, encoder: &mut GaugeValueEncoder) -> fmt::Result {
        match self {
            Value::Whole(number) => EncodeGaugeValue::encode(number, encoder),
            Value::Real(number) => EncodeGaugeValue::encode(number, encoder),
        }
    }
}

/// Where families are written.
pub(super) struct Sheet<'e>(DescriptorEncoder<'e>);

impl<'e> Sheet<'e> {
    pub(super) fn new(encoder: DescriptorEncoder<'e>) -> Self {
        Sheet(encoder)
    }

    /// Begins a family; all its samples come before the next one's.
    pub(super) fn family(&mut self, what: &Descriptor) -> Result<Samples<'_>, fmt::Error> {
        let unit: Option<&'static Unit> = match what.unit {
            Base::Things => None,
            Base::Seconds => Some(&Unit::Seconds),
            Base::Bytes => Some(&Unit::Bytes),
        };
        Ok(Samples { metric: self.0.encode_descriptor(what.name, what.help, unit, what.kind)?, kind: what.kind })
    }
}

/// Where samples of one family are written.
pub(super) struct Samples<'e> {
    metric: MetricEncoder<'e>,
    kind: MetricType,
}

impl Samples<'_> {
    /// Those about something.
    pub(super) fn about<'s>(&'s mut self, whom: &'s [Label<'s>]) -> About<'s> {
        About { metric: &mut self.metric, kind: self.kind, whom }
    }
}

/// Finds out whether a family has samples, and refuses to take any.
#[derive(Default)]
pub(super) struct Probe {
    pub(super) found: bool,
}

impl Probe {
    /// Those about something.
    pub(super) fn about<'s>(&'s mut self, whom: &'s [Label<'s>]) -> About<'s> {
        About { metric: self, kind: MetricType::Unknown, whom }
    }
}

impl Metric for Probe {
    fn sample(&mut self, _: MetricType, _: (&[Label], &[Label]), _: Value) -> fmt::Result {
        self.found = true;
        Err(fmt::Error)
    }

    fn histogram(&mut self, _: (&[Label], &[Label]), _: f64, _: &[(f64, u64)]) -> fmt::Result {
        self.found = true;
        Err(fmt::Error)
    }
}

/// Where samples about one thing are written: a pool, a tier.
pub(super) struct About<'s> {
    metric: &'s mut dyn Metric,
    kind: MetricType,
    whom: &'s [Label<'s>],
}

/// A [`MetricEncoder`], whose lifetime matters to nobody here.
trait Metric {
    fn sample(&mut self, kind: MetricType, labels: (&[Label], &[Label]), value: Value) -> fmt::Result;
    fn histogram(&mut self, labels: (&[Label], &[Label]), sum: f64, buckets: &[(f64, u64)]) -> fmt::Result;
}

impl Metric for MetricEncoder<'_> {
    fn sample(&mut self, kind: MetricType, labels: (&[Label], &[Label]), value: Value) -> fmt::Result {
        match kind {
            MetricType::Counter => self.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None),
            MetricType::Info => self.encode_info(&labels),
            _ => self.encode_family(&labels)?.encode_gauge(&value),
        }
    }

    fn histogram(&mut self, labels: (&[Label], &[Label]), sum: f64, buckets: &[(f64, u64)]) -> fmt::Result {
        let count = buckets.iter().map(|bucket| bucket.1).sum();
        self.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }
}

impl About<'_> {
    /// Writes one.
    pub(super) fn add(&mut self, labels: &[Label], value: impl Into<Value>) -> fmt::Result {
        self.metric.sample(self.kind, (self.whom, labels), value.into())
    }

    /// Writes one if it has a value.
    pub(super) fn add_some(&mut self, labels: &[Label], value: Option<impl Into<Value>>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.add(labels, value))
    }

    /// Writes those of a histogram with those bounds, and an infinite one.
    pub(super) fn histogram(&mut self, labels: &[Label], times: &Latency, bounds: &[Duration]) -> fmt::Result {
        let up_to = times.cumulative(bounds);
        let ends = bounds.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        let counts = up_to.iter().copied().chain([times.count()]);
        let befores = [0].into_iter().chain(up_to.iter().copied());
        let in_each = counts.zip(befores).map(|(up_to, before)| up_to - before);
        let buckets: Vec<_> = ends.zip(in_each).collect();
        self.metric.histogram((self.whom, labels), times.total().as_secs_f64(), &buckets)
    }
}
