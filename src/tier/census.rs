//! Who holds how much: the holders of a tier counted by the line that allocated, by tenant, tag and priority; and what has
//! grown between two such counts.
//!
//! One pass over the headers, of loads only, each header read whole ([`Header::read`](crate::slot::header::Header::read)). A million slots make as few texts
//! as there are groups: a group is known by numbers until the pass is over.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::panic::Location;
use std::time::{Duration, Instant};

use super::core::Core;
use super::{account, report};
use crate::clock::{self, Tick};
use crate::slot::header::{Record, Site};
use crate::slot::label::Mark;
use crate::slot::priority::Priority;

/// How many threads are named as examples.
const EXAMPLES: usize = 3;

/// Slots that are held in one way: by one line, on one account, for one purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SiteHolders {
    /// The name of their tier.
    pub tier: &'static str,
    /// The number of their tier among those of the process; names may be the same.
    tier_id: u32,
    /// The line that allocated them.
    pub site: &'static Location<'static>,
    /// On whose account, if their pool keeps accounts.
    pub tenant: Option<String>,
    /// What they are for, if the requests said so.
    pub tag: Option<&'static str>,
    /// How urgent the requests were.
    pub priority: Priority,
    /// How many there are, one at least.
    pub count: usize,
    /// How long ago the oldest was allocated, by the coarse clock, as [`Holder::age`](crate::Holder::age).
    pub oldest: Duration,
    /// Some of the threads that allocated them, three at most: their names, or their numbers where they have none.
    pub threads: Vec<String>,
}

/// Who holds how much: [`Tier::holders_by_site`](crate::Tier::holders_by_site), [`Pool::holders_by_site`](crate::Pool::holders_by_site).
/// Its `Display` is a line for each site.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HoldersBySite {
    /// When they were counted.
    pub at: Instant,
    /// Each site, those that hold most first.
    pub sites: Vec<SiteHolders>,
}

/// What has grown between two counts: [`HoldersBySite::since`]. Its `Display` is a line for each site.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HoldersGrowth {
    /// The time between them.
    pub over: Duration,
    /// Each site that holds more than it did, those that have grown most first.
    pub sites: Vec<SiteGrowth>,
}

/// A site that holds more than it did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SiteGrowth {
    /// How it stands now.
    pub now: SiteHolders,
    /// How many it held before.
    pub before: usize,
}

impl SiteGrowth {
    /// By how many it has grown, one at least.
    pub fn grown(&self) -> usize {
        self.now.count - self.before
    }
}

impl SiteHolders {
    /// What it is a count of.
    fn of_what(&self) -> impl Eq + Hash {
        (self.tier_id, self.tier, self.site, self.tag, self.priority, self.tenant.as_deref())
    }
}

impl HoldersBySite {
    /// How many slots are held in all.
    pub fn held(&self) -> usize {
        self.sites.iter().map(|site| site.count).sum()
    }

    /// What holds more than it did at an earlier count: "what grew in the last minute".
    ///
    /// ```
    /// use tierpool::Tier;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tier: Tier<u64> = Tier::builder("jobs").capacity(8).build_with(|| 0)?;
    /// let before = tier.holders_by_site();
    /// let kept: Vec<_> = (0..3).map(|_| tier.try_allocate()).collect::<Result<_, _>>()?;
    /// let grown = tier.holders_by_site().since(&before);
    /// assert_eq!((grown.sites[0].grown(), grown.sites[0].before), (3, 0));
    /// println!("{grown}");              // +3 in 12.30µs: 3 held from src/main.rs:7:32, …
    /// # Ok(()) }
    /// ```
    pub fn since(&self, earlier: &HoldersBySite) -> HoldersGrowth {
        let before: HashMap<_, _> = earlier.sites.iter().map(|site| (site.of_what(), site.count)).collect();
        let grown = self.sites.iter().filter_map(|now| {
            let before = before.get(&now.of_what()).copied().unwrap_or(0);
            (now.count > before).then(|| SiteGrowth { now: now.clone(), before })
        });
        let mut sites: Vec<_> = grown.collect();
        // Stable: what has grown alike stays in the order of what it holds.
        sites.sort_by_key(|site| std::cmp::Reverse(site.grown()));
        HoldersGrowth { over: self.at.saturating_duration_since(earlier.at), sites }
    }

    /// Those of several tiers.
    pub(crate) fn of_all<'c>(cores: impl Iterator<Item = &'c Core>) -> Self {
        let mut sites: Vec<_> = cores.flat_map(of).collect();
        let place = |it: &SiteHolders| (it.tier, it.tier_id, it.site, it.priority);
        sites.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| place(a).cmp(&place(b))));
        HoldersBySite { at: Instant::now(), sites }
    }
}

/// A group, while it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key<S> {
    site: S,
    mark: Mark,
    account: u16,
}

#[derive(Clone, Copy)]
struct Group {
    count: usize,
    oldest: Tick,
    threads: [u32; EXAMPLES],
}

impl Group {
    fn new(record: &Record) -> Self {
        let mut threads = [0; EXAMPLES];
        threads[0] = record.thread;
        Group { count: 1, oldest: record.tick, threads }
    }

    fn add(&mut self, other: Group) {
        self.count += other.count;
        if other.oldest.has_come(self.oldest) {
            self.oldest = other.oldest;
        }
        if other.threads[0] == self.threads[0] && other.threads[1] == 0 {
            return;
        }
        for thread in other.threads {
            if let Some(at) = self.threads.iter().position(|&known| known == thread || known == 0) {
                self.threads[at] = thread;
            }
        }
    }
}

/// Addresses and small numbers, which are already as different as they get: two multiplications a key.
#[derive(Default)]
pub(super) struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        // The map takes its bits from both ends.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// A map whose keys are numbers.
pub(super) type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<Fold>>;

/// The holders of one tier, in no order. What changes hands too fast to be read is left out.
fn of(core: &Core) -> Vec<SiteHolders> {
    clock::tick();
    let now = clock::now();
    let mut numbers: ByNumber<Key<usize>, u32> = HashMap::default();
    let mut groups: Vec<(Key<Site>, Group)> = Vec::new();
    // Neighbours were often allocated together.
    let mut last: Option<(Key<usize>, u32)> = None;
    for header in core.headers() {
        if !header.word().state().is_held() {
            continue;
        }
        let Some(record) = header.read().filter(|record| record.word.state().is_held()) else { continue };
        let Some(site) = record.site else { continue };
        let (mark, account) = (record.mark, record.account);
        // One line may have several addresses; here they are different, and below the same.
        let key = Key { site: std::ptr::from_ref(site).addr(), mark, account };
        let known = last.filter(|(of, _)| *of == key).map(|(_, number)| number);
        let number = known.unwrap_or_else(|| {
            *numbers.entry(key).or_insert_with(|| {
                groups.push((Key { site, mark, account }, Group { count: 0, ..Group::new(&record) }));
                groups.len() as u32 - 1
            })
        });
        groups[number as usize].1.add(Group::new(&record));
        last = Some((key, number));
    }
    let mut by_line: HashMap<Key<Site>, Group> = HashMap::new();
    for (key, group) in groups {
        by_line.entry(key).and_modify(|known| known.add(group)).or_insert(group);
    }
    let named = |(Key { site, mark, account }, group): (Key<Site>, Group)| SiteHolders {
        tier: core.incarnation().name,
        tier_id: core.id,
        site,
        tenant: account::name(core, account),
        tag: mark.tag().text(),
        priority: mark.priority(),
        count: group.count,
        oldest: group.oldest.ago(now),
        threads: group.threads.into_iter().filter(|&thread| thread != 0).map(thread_text).collect(),
    };
    by_line.into_iter().map(named).collect()
}

fn thread_text(number: u32) -> String {
    crate::thread::name(number).unwrap_or_else(|| number.to_string())
}

impl fmt::Display for SiteHolders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} held from {} of tier {:?}", self.count, self.site, self.tier)?;
        report::write_purpose(f, self.tag, self.tenant.as_deref(), self.priority)?;
        write!(f, ", the oldest for {:.2?}", self.oldest)?;
        match &self.threads[..] {
            [] => Ok(()),
            [one] => write!(f, ", by thread {one}"),
            several => write!(f, ", by threads {}", several.join(", ")),
        }
    }
}

/// A line for each site.
impl fmt::Display for HoldersBySite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lines(f, "nothing is held", &self.sites)
    }
}

impl fmt::Display for SiteGrowth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}: {}", self.grown(), self.now)
    }
}

/// A line for each site that has grown.
impl fmt::Display for HoldersGrowth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "in {:.1?}:", self.over)?;
        lines(f, "nothing has grown", &self.sites)
    }
}

fn lines(f: &mut fmt::Formatter<'_>, nothing: &str, sites: &[impl fmt::Display]) -> fmt::Result {
    let Some((first, others)) = sites.split_first() else { return f.write_str(nothing) };
    write!(f, "{first}")?;
    others.iter().try_for_each(|site| write!(f, "\n{site}"))
}
