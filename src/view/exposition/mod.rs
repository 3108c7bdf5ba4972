//! Metrics for Prometheus, and whatever else reads OpenMetrics or Prometheus' own text.
//!
//! Guarantees: no series comes twice, whatever pools, tiers, tenants and tags are called; no family has more series than its limit allows, and
//! what is beyond is summed, not lost; a counter that was shown stays, and never falls. Relies on the [`Observer`]'s last look alone.
//!
//! Read in this order: [`sheet`] (how a sample is written), [`shown`] (which of many labels have a series of their own), [`families`] (what there is).

mod families;
mod sheet;
mod shown;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

use self::sheet::Sheet;
use self::shown::Shown;
use crate::host::health::HealthMonitor;
use crate::pool::observe::{Observation, Observer};

/// Shows what observers have seen as metrics: in a registry that the program has, or as a text.
///
/// A clone is another reference to the same. Asks no pool anything, however many read it: it shows each [`Observer`]'s last look, and how old that
/// is. Keeps its observers looking, and no pool open; the series of a pool that is gone are no longer shown. Every metric stands in
/// [`docs::monitoring`](crate::docs::monitoring).
///
/// ```
/// use prometheus_client::registry::Registry;
/// use tierpool::{Exporter, Pool, TextFormat};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder().memory("packets", 2048, 64).build()?;
/// let exporter = Exporter::new();
/// exporter.add(&pool.observe("gateway")?);
///
/// let mut registry = Registry::default();                             // the program's own
/// registry.register_collector(Box::new(exporter.clone()));
///
/// let text = exporter.text(TextFormat::OpenMetrics);                  // or without one
/// assert!(text.contains(r#"tierpool_slots{pool="gateway",tier="packets",state="free"} 64"#));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Exporter {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    sources: Vec<Source>,
    health: Option<HealthMonitor>,
    limit: usize,
}

struct Source {
    /// What the pool is called here, by no two.
    name: String,
    observer: Observer,
    shown: Shown,
}

/// What is shown of one pool.
struct Seen<'s> {
    name: &'s str,
    now: Arc<Observation>,
    shown: &'s mut Shown,
}

/// How many label sets of a family and tier have a series of their own, unless the program says otherwise.
const LIMIT: usize = 100;

/// A format in which metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TextFormat {
    /// OpenMetrics 1.0, which Prometheus asks for.
    OpenMetrics,
    /// Prometheus' own text, version 0.0.4: what those get who do not ask, such as `curl` and `promtool check metrics`.
    #[default]
    Prometheus,
}

impl TextFormat {
    /// What goes into the header `Content-Type` of an answer.
    pub const fn content_type(self) -> &'static str {
        match self {
            TextFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            TextFormat::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }

    /// The format for who sent that header `Accept`: OpenMetrics if it is named and not refused with `q=0`, else Prometheus' own.
    pub fn for_accept(accept: &str) -> Self {
        let takes = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
            let refused = parts.filter_map(|part| part.strip_prefix("q=")).any(|q| q.parse() == Ok(0.0));
            named && !refused
        };
        if accept.split(',').any(takes) { TextFormat::OpenMetrics } else { TextFormat::Prometheus }
    }
}

impl Exporter {
    /// One that shows nothing yet.
    pub fn new() -> Self {
        let inner = Inner { sources: Vec::new(), health: None, limit: LIMIT };
        Exporter { inner: Arc::new(Mutex::new(inner)) }
    }

    /// How many label sets of a family have a series of their own in each tier, where there may be any number: lines, tags, tenants. The others
    /// are summed in one series. Default: 100. For pools that are added afterwards.
    pub fn label_limit(self, limit: usize) -> Self {
        self.inner().limit = limit;
        self
    }

    /// Shows one more pool, under the name that its observer has; one that is added again is shown once.
    ///
    /// A name that another pool has already, which is still there, gets a number: the second `gateway` is `gateway#2`. Prometheus would refuse
    /// everything if there were two series of one name. A pool keeps the name that it got.
    pub fn add(&self, observer: &Observer) {
        let mut inner = self.inner();
        inner.sources.retain(|source| !source.observer.is_gone());
        if inner.sources.iter().any(|source| source.observer.is(observer)) {
            return;
        }
        let wanted = observer.latest().pool.clone();
        let is_free = |name: &String| inner.sources.iter().all(|source| source.name != *name);
        let numbered = (2..).map(|number| format!("{wanted}#{number}"));
        let name = std::iter::once(wanted.clone()).chain(numbered).find(is_free);
        let shown = Shown::new(inner.limit);
        inner.sources.push(Source { name: name.unwrap_or(wanted), observer: observer.clone(), shown });
    }

    /// Shows how well all is, too, as that monitor says.
    pub fn watch(&self, health: &HealthMonitor) {
        self.inner().health = Some(health.clone());
    }

    /// All metrics as a text: what is answered to who asks for `/metrics`, with [`TextFormat::content_type`]. A pass over what was seen, and a
    /// line of text a series: the workload `exposition` of the benches times it.
    pub fn text(&self, format: TextFormat) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut out = String::new();
        let written = match format {
            TextFormat::OpenMetrics => text::encode(&mut out, &registry),
            TextFormat::Prometheus => prometheus_text::encode(&mut out, &registry),
        };
        debug_assert!(written.is_ok(), "a `String` takes whatever is written");
        out
    }

    /// A panic leaves at worst a label that is shown one look later.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Exporter {
    fn default() -> Self {
        Exporter::new()
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        let pools: Vec<_> = inner.sources.iter().map(|source| &source.name).collect();
        f.debug_struct("Exporter").field("pools", &pools).finish_non_exhaustive()
    }
}

impl Collector for Exporter {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Inner { sources, health, .. } = &mut *self.inner();
        let there = sources.iter_mut().filter(|source| !source.observer.is_gone());
        let seen = there.map(|Source { name, observer, shown }| Seen { name, now: observer.latest(), shown });
        families::write(&mut Sheet::new(encoder), &mut seen.collect::<Vec<_>>(), health.as_ref())
    }
}
