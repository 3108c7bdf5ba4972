//! A pool from TOML (feature `config`). `docs/configuration.md` lists every option.
//!
//! The text is read into plain structures that know their lines, which then call the builder like any program: so what a file can say and
//! what it means are one thing with what code can. Whatever is wrong is told with its line.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use toml::Spanned;

use super::Pool;
use super::builder::PoolBuilder;
use super::error::PoolError;
use super::request::Spill;
use super::tiers::{Common, CpuTier, DiskTier, MemoryTier};
use crate::admission::breaker::rules::BreakerRules;
use crate::admission::breaker::window::BreakerWindow;
use crate::admission::line::Fairness;
use crate::admission::priority::Watermarks;
use crate::admission::tenants::{Limit, TenantRules};
use crate::resource::backing::HugePages;
use crate::resource::memory::Scrub;
use crate::tier::reclaim::Reclaimer;

/// A whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
struct File {
    spill: Option<Spill>,
    overflow: Option<usize>,
    reclaimer: Option<Who>,
    ageing: Option<Time>,
    fairness: Option<Fairness>,
    #[serde(default)]
    memory: Vec<Spanned<MemoryTable>>,
    #[serde(default)]
    cpu: Vec<Spanned<CpuTable>>,
    #[serde(default)]
    disk: Vec<Spanned<DiskTable>>,
    #[serde(default)]
    tenant: Vec<Spanned<TenantTable>>,
}

/// A table of a tier: the options of its kind, and those that all have. (What `serde` would flatten into it forgets its lines, and lets
/// unknown names pass.)
macro_rules! tier_table {
    ($(#[$about:meta])* struct $table:ident { $($own:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $table {
            name: String,
            $($own: $type,)*
            min_slots: Option<usize>,
            watermarks: Option<Watermarks>,
            watermarks_up_to: Option<Watermarks>,
            breaker: Option<BreakerTable>,
            reclaimer: Option<Who>,
            max_waiters: Option<usize>,
            barging: Option<Time>,
            grant_limit: Option<Time>,
            leak_after: Option<Time>,
            pin_limit: Option<Time>,
            max_age: Option<Time>,
            idle_timeout: Option<Time>,
            rebuild_backoff: Option<[Time; 2]>,
            discard_on_panic: Option<bool>,
        }

        impl $table {
            /// What it says that all tiers have.
            fn common<T: Send + 'static>(self, line: usize) -> Common<T> {
                let mut common = Common::new(&self.name);
                common.line = Some(line);
                common.watermarks = self.watermarks;
                common.most_watermarks = self.watermarks_up_to;
                common.breaker = self.breaker.map(BreakerRules::from);
                common.options.push(Box::new(move |mut tier| {
                    if let Some(slots) = self.min_slots {
                        tier = tier.min_capacity(slots);
                    }
                    if let Some(who) = self.reclaimer {
                        tier = tier.reclaimer(who.into());
                    }
                    if let Some(waiters) = self.max_waiters {
                        tier = tier.max_waiters(waiters);
                    }
                    if let Some(limit) = self.barging {
                        tier = tier.barging(limit.0);
                    }
                    if let Some(limit) = self.grant_limit {
                        tier = tier.grant_limit(limit.0);
                    }
                    if let Some(limit) = self.leak_after {
                        tier = tier.leak_after(limit.0);
                    }
                    if let Some(limit) = self.pin_limit {
                        tier = tier.pin_limit(limit.0);
                    }
                    if let Some(age) = self.max_age {
                        tier = tier.max_age(age.0);
                    }
                    if let Some(timeout) = self.idle_timeout {
                        tier = tier.idle_timeout(timeout.0);
                    }
                    if let Some([min, max]) = self.rebuild_backoff {
                        tier = tier.rebuild_backoff(min.0, max.0);
                    }
                    if self.discard_on_panic == Some(true) {
                        tier = tier.discard_on_panic();
                    }
                    tier
                }));
                common
            }
        }
    };
}

tier_table! {
    /// `[[memory]]`
    struct MemoryTable {
        bytes: Size,
        slots: usize,
        scrub: Option<Scrub>,
        align: Option<Size>,
        huge_pages: Option<HugePages>,
        prefault: Option<bool>,
        lock: Option<bool>,
        guard_pages: Option<bool>,
    }
}

tier_table! {
    /// `[[cpu]]`
    struct CpuTable {
        cpus: Option<Vec<usize>>,
        avoid_siblings: Option<bool>,
    }
}

tier_table! {
    /// `[[disk]]`
    struct DiskTable {
        dir: PathBuf,
        bytes: Size,
        extents: usize,
        direct: Option<bool>,
        scrub: Option<Scrub>,
    }
}

/// `breaker = { … }`; what is not said is as by default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerTable {
    window: Option<WindowText>,
    minimum_calls: Option<u32>,
    failure_rate: Option<f64>,
    slow_rate: Option<f64>,
    slow_after: Option<Time>,
    half_open_calls: Option<u32>,
    half_open_limit: Option<Time>,
    open_min: Option<Time>,
    open_max: Option<Time>,
}

/// A window: `100` calls, or a time, `"10s"`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number of calls, such as 100, or a time with its unit, such as \"10s\"")]
enum WindowText {
    Calls(u32),
    Time(Time),
}

impl From<BreakerTable> for BreakerRules {
    fn from(table: BreakerTable) -> Self {
        let default = BreakerRules::default();
        let time = |time: Option<Time>, default| time.map_or(default, |Time(time)| time);
        BreakerRules {
            window: match table.window {
                Some(WindowText::Calls(calls)) => BreakerWindow::Calls(calls),
                Some(WindowText::Time(Time(time))) => BreakerWindow::Time(time),
                None => default.window,
            },
            minimum_calls: table.minimum_calls.unwrap_or(default.minimum_calls),
            failure_rate: table.failure_rate.unwrap_or(default.failure_rate),
            slow_rate: table.slow_rate.unwrap_or(default.slow_rate),
            slow_after: time(table.slow_after, default.slow_after),
            half_open_calls: table.half_open_calls.unwrap_or(default.half_open_calls),
            half_open_limit: table.half_open_limit.map(|Time(time)| time).or(default.half_open_limit),
            open_min: time(table.open_min, default.open_min),
            open_max: time(table.open_max, default.open_max),
        }
    }
}

/// `[[tenant]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantTable {
    name: String,
    parent: Option<String>,
    weight: Option<u32>,
    #[serde(default)]
    hard: LimitTable,
    #[serde(default)]
    soft: LimitTable,
}

/// `{ slots = 100, bytes = "2 MiB" }`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LimitTable {
    slots: Option<u64>,
    bytes: Option<Size>,
}

impl From<LimitTable> for Limit {
    fn from(table: LimitTable) -> Self {
        let bytes = table.bytes.map_or(u64::MAX, |Size(bytes)| bytes as u64);
        Limit { slots: table.slots.unwrap_or(u64::MAX), bytes }
    }
}

impl TenantTable {
    fn rules(self) -> TenantRules {
        let rules = TenantRules::new(&self.name).hard(self.hard.into()).soft(self.soft.into());
        let rules = self.weight.into_iter().fold(rules, TenantRules::weight);
        self.parent.iter().fold(rules, |rules, parent| rules.parent(parent))
    }
}

/// Who makes the passes.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Who {
    Manual,
    Background,
}

impl From<Who> for Reclaimer {
    fn from(who: Who) -> Self {
        match who {
            Who::Manual => Reclaimer::Manual,
            Who::Background => Reclaimer::Background,
        }
    }
}

/// A number of bytes: `2048`, `"2 KiB"`.
struct Size(usize);

/// A time: `"250us"`, `"10ms"`, `"1.5s"`, `"2m"`, `"1h"`.
#[derive(Clone, Copy)]
struct Time(Duration);

/// A number and its unit, of which `units` says what each stands for.
fn quantity(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (text[..end].parse::<f64>().ok()?, text[end..].trim());
    let (_, worth) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number * worth)
}

const SIZES: [(&str, f64); 5] = [("", 1.0), ("B", 1.0), ("KiB", 1024.0), ("MiB", 1048576.0), ("GiB", 1073741824.0)];

/// In nanoseconds.
const TIMES: [(&str, f64); 6] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Size;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a whole number of bytes, such as 2048, \"2 KiB\", \"1.5 MiB\" or \"1 GiB\"")
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<Size, E> {
                usize::try_from(bytes)
                    .map(Size)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(bytes), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                // Up to 2⁵³, whole numbers of this type are exact.
                let bytes = quantity(text, &SIZES).filter(|bytes| bytes.fract() == 0.0 && *bytes < 9e15);
                bytes
                    .map(|bytes| Size(bytes as usize))
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Time;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a time with its unit, ns, us, ms, s, m or h, such as \"250us\", \"10ms\" or \"1.5s\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                // A number this large is centuries.
                let time = quantity(text, &TIMES).filter(|nanoseconds| *nanoseconds < 1e19);
                let time = time.map(|nanoseconds| Time(Duration::from_nanos(nanoseconds.round() as u64)));
                time.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl MemoryTable {
    fn tier(self, line: usize) -> MemoryTier {
        let mut tier = MemoryTier::new(&self.name, self.bytes.0, self.slots).scrub(self.scrub.unwrap_or_default());
        if let Some(Size(bytes)) = self.align {
            tier = tier.align(bytes);
        }
        tier = tier
            .huge_pages(self.huge_pages.unwrap_or_default())
            .prefault(self.prefault.unwrap_or(true))
            .lock(self.lock.unwrap_or_default())
            .guard_pages(self.guard_pages.unwrap_or_default());
        tier.common = self.common(line);
        tier
    }
}

impl CpuTable {
    fn tier(mut self, line: usize) -> CpuTier {
        let mut tier = CpuTier::new(&self.name);
        if let Some(cpus) = self.cpus.take() {
            tier = tier.cpus(cpus);
        }
        if self.avoid_siblings == Some(true) {
            tier = tier.avoid_siblings();
        }
        tier.common = self.common(line);
        tier
    }
}

impl DiskTable {
    fn tier(self, line: usize) -> DiskTier {
        let tier = DiskTier::new(&self.name, &self.dir, self.bytes.0 as u64, self.extents);
        let mut tier = tier.direct(self.direct.unwrap_or_default()).scrub(self.scrub.unwrap_or_default());
        tier.common = self.common(line);
        tier
    }
}

/// The line of the byte at `offset`, counted from 1.
fn line(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

impl Pool {
    /// A pool as a TOML text describes it; see [`docs::configuration`](crate::docs::configuration). Needs the feature `config`.
    ///
    /// # Errors
    /// [`PoolError`] with the line: of syntax, of names that mean nothing, of values out of range, and of whatever
    /// [`build`](PoolBuilder::build) refuses.
    pub fn from_toml(text: &str) -> Result<Pool, PoolError> {
        Pool::builder().toml(text)?.build()
    }
}

impl PoolBuilder {
    /// Adds what a TOML text describes; see [`docs::configuration`](crate::docs::configuration). Needs the feature `config`.
    ///
    /// # Errors
    /// [`PoolError::Config`] with the line: of syntax, of names that mean nothing, of values out of range.
    pub fn toml(mut self, text: &str) -> Result<Self, PoolError> {
        let file: File = toml::from_str(text).map_err(|error| PoolError::Config {
            line: error.span().map_or(1, |span| line(text, span.start)),
            problem: error.message().to_owned(),
        })?;
        if let Some(spill) = file.spill {
            self = self.spill(spill);
        }
        if let Some(slots) = file.overflow {
            self = self.overflow(slots);
        }
        if let Some(fairness) = file.fairness {
            self = self.fairness(fairness);
        }
        if let Some(Time(ageing)) = file.ageing {
            self = self.ageing(ageing);
        }
        if let Some(who) = file.reclaimer {
            self = self.reclaimer(who.into());
        }
        for table in file.memory {
            let line = line(text, table.span().start);
            self = self.memory_tier(table.into_inner().tier(line));
        }
        for table in file.cpu {
            let line = line(text, table.span().start);
            self = self.cpu_tier(table.into_inner().tier(line));
        }
        for table in file.disk {
            let line = line(text, table.span().start);
            self = self.disk_tier(table.into_inner().tier(line));
        }
        for table in file.tenant {
            let line = line(text, table.span().start);
            self = self.tenant_at(table.into_inner().rules(), Some(line));
        }
        Ok(self)
    }
}
