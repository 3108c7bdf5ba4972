//! Slots that have been held for too long, told by the line that allocated them, with a [`verdict`](super::verdict) on whether that is a leak.
//!
//! An allocation stamps the coarse clock, which may have stood still before; so a stamp alone can make a hold look older
//! than it is. What is certain is this: a stamp that is smaller than the tick of a pass was taken before that pass. A hold
//! is late when its stamp is smaller than the tick of a pass that is itself long enough ago. So no report comes too
//! early, and none later than the pause between two such passes: an eighth of the time allowed.
//!
//! Each look compares every header with what the last one saw there. So it knows of each line how many slots came and went, and
//! within which time; what is gone between two looks has been held for less than the time between them, and how many those are
//! [`sites`](super::sites) knows, about. In windows as long as the time allowed, a look notes the smallest number of late holds of each line.
//!
//! A line is told when it is first late, when it turns out to be a leak or not to be one after all, and when what is late has become
//! many more; one that leaks, once in that time if there is more. So what is slow by nature is not told for ever.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::allocate::SAMPLE_EVERY;
use super::census::ByNumber;
use super::core::Core;
use super::notice::{self, Report};
use super::report;
use super::suspect::Suspect;
use super::verdict::{self, Evidence, Verdict};
use crate::clock::{self, Tick};
use crate::slot::header::{Header, Record, Site};

/// How many passes fall into the time that a hold may last.
const LOOKS: u32 = 8;

/// What passes remember from one to the next.
#[derive(Default)]
pub(crate) struct Watch {
    /// Ticks of passes, the latest last: the first is the latest of those that are long enough ago.
    passes: VecDeque<Tick>,
    /// What the last look saw of each slot; empty until there was one.
    seen: Vec<Seen>,
    lines: Lines,
    /// Since when the smallest numbers are noted.
    window: Option<Tick>,
}

/// What a look saw of a slot.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    /// One more than the stamp of its hold; 0 if nobody held it.
    mark: u32,
    /// The number of its line, times two; one more if the hold was late.
    line: u32,
}

impl Seen {
    fn of(tick: Tick, number: usize) -> Self {
        Seen { mark: tick.0.wrapping_add(1), line: (number as u32) << 1 }
    }

    fn line(self) -> usize {
        (self.line >> 1) as usize
    }

    fn is_late(self) -> bool {
        self.line & 1 == 1
    }

    /// Whether both are of one hold, late or not.
    fn is_same(self, other: Seen) -> bool {
        (self.mark, self.line()) == (other.mark, other.line())
    }
}

/// Each line that was seen to hold a slot, under its number.
#[derive(Default)]
struct Lines {
    known: Vec<Line>,
    /// One line may have several addresses.
    by_address: ByNumber<usize, usize>,
    by_line: HashMap<Site, usize>,
}

impl Lines {
    fn number(&mut self, site: Site) -> usize {
        let Lines { known, by_address, by_line } = self;
        *by_address.entry(std::ptr::from_ref(site).addr()).or_insert_with(|| {
            *by_line.entry(site).or_insert_with(|| {
                known.push(Line::new(site));
                known.len() - 1
            })
        })
    }
}

/// What is known of a line.
struct Line {
    site: Site,
    /// What this look has found.
    now: Found,
    /// How many came back, as looks saw.
    back: u64,
    /// How many of those were late.
    late_back: u64,
    /// After how long the last of them had come back.
    longest: Duration,
    /// How many were allocated, by samples.
    sampled: u64,
    /// The smallest number of late holds in this window, and in the one before.
    floor: u64,
    last_floor: u64,
    /// For how many windows in a row it has grown, or stayed.
    rising: u32,
    steady: u32,
    told: Option<Told>,
}

/// What a look finds of a line.
#[derive(Clone, Copy, Default)]
struct Found {
    held: u64,
    late: u64,
    /// Late for the first time.
    new: u64,
    /// Late, and beyond the habit as it was before the look.
    beyond: u64,
    /// Whether the habit has changed.
    changed: bool,
    /// The stamp and the slot of the oldest that is late.
    oldest: Option<(Tick, u32)>,
}

/// What was told of a line.
struct Told {
    at: Tick,
    certainty: u8,
    /// The most that were late.
    late: u64,
}

impl Line {
    fn new(site: Site) -> Self {
        Line {
            site,
            now: Found::default(),
            back: 0,
            late_back: 0,
            longest: Duration::ZERO,
            sampled: 0,
            floor: u64::MAX,
            last_floor: 0,
            rising: 0,
            steady: 0,
            told: None,
        }
    }

    /// A hold that the last look saw has come back since, after so long at most.
    fn came_back(&mut self, seen: Seen, now: Tick) {
        self.back += 1;
        self.late_back += u64::from(seen.is_late());
        let age = Tick(seen.mark.wrapping_sub(1)).ago(now);
        if age > self.longest {
            self.longest = age;
            self.now.changed = true;
        }
    }

    /// The window is over.
    fn next_window(&mut self) {
        let (floor, last) = (std::mem::replace(&mut self.floor, u64::MAX), self.last_floor);
        if floor == u64::MAX {
            return; // it was met for the first time after the last look
        }
        self.rising = if floor > last { self.rising + 1 } else { 0 };
        self.steady = if floor > 0 && floor <= last && floor >= last - last / 8 { self.steady + 1 } else { 0 };
        self.last_floor = floor;
    }

    fn evidence(&self, gap: Duration, now: Tick) -> Evidence {
        let Found { held, late, beyond, changed, oldest, .. } = self.now;
        Evidence {
            late,
            // If something old came back just now, the next look knows what is older still.
            beyond: if changed { 0 } else { beyond },
            oldest: oldest.map_or(Duration::ZERO, |(tick, _)| tick.ago(now)),
            back: self.back.max(self.surely_sampled().saturating_sub(held)),
            late_back: self.late_back,
            habit: self.longest.max(gap),
            rising: self.rising,
            steady: self.steady,
        }
    }

    /// How many were allocated at least, with the luck of the samples taken off: twice their standard deviation. So a line that one
    /// or two samples have hit has allocated nothing yet.
    fn surely_sampled(&self) -> u64 {
        self.sampled.saturating_sub(2 * self.sampled.saturating_mul(SAMPLE_EVERY).isqrt())
    }

    /// How many have come back, about.
    fn about_back(&self) -> u64 {
        let sampled = if self.surely_sampled() > 0 { self.sampled } else { 0 };
        self.back.max(sampled.saturating_sub(self.now.held))
    }

    /// Whether a verdict is worth telling.
    fn is_news(&self, verdict: Verdict, now: Tick, limit: Duration) -> bool {
        let (Some(told), certainty, late) = (&self.told, verdict.certainty(), self.now.late) else { return true };
        let has_doubled = late >= told.late.saturating_mul(2);
        let goes_on = certainty > 0 && late > told.late && told.at.ago(now) >= limit;
        has_doubled || goes_on || certainty > told.certainty || (certainty == 0 && told.certainty > 0)
    }

    fn note_told(&mut self, verdict: Verdict, now: Tick) {
        let most = self.told.as_ref().map_or(0, |told| told.late);
        self.told = Some(Told { at: now, certainty: verdict.certainty(), late: most.max(self.now.late) });
    }
}

impl Watch {
    /// In a pass: looks for holds that last for longer than `limit`. Returns how many are new.
    pub(crate) fn look(&mut self, core: &Core, limit: Duration) -> usize {
        let now = clock::now();
        // The latest is always there; of the others, as many as differ enough to matter.
        if self.passes.len() >= 2 && self.passes[self.passes.len() - 2].ago(now) < pause(limit) {
            self.passes.pop_back();
        }
        self.passes.push_back(now);
        let long_ago = |then: &Tick| then.ago(now) >= limit;
        while self.passes.get(1).is_some_and(long_ago) {
            self.passes.pop_front();
        }
        let late_before = self.passes.front().copied().filter(long_ago);
        // What no look has seen lasted for less than the time between two of them.
        let gaps = self.passes.iter().zip(self.passes.iter().skip(1)).map(|(then, next)| then.ago(*next));
        let gap = gaps.max().unwrap_or(Duration::ZERO).max(pause(limit));

        self.compare(core, limit, now, late_before, gap);
        self.judge(core, limit, now, gap)
    }

    /// Compares every slot with what the last look saw of it.
    fn compare(&mut self, core: &Core, limit: Duration, now: Tick, late_before: Option<Tick>, gap: Duration) {
        let lines = &mut self.lines;
        if let Some(turnover) = &core.life().turnover {
            for (site, times) in turnover.take() {
                let number = lines.number(site);
                lines.known[number].sampled += times;
            }
        }
        lines.known.iter_mut().for_each(|line| line.now = Found::default());
        self.seen.resize(core.headers().len(), Seen::default());
        // Neighbours were often allocated together.
        let mut last: Option<(Site, usize)> = None;
        for (index, (header, seen)) in core.headers().iter().zip(&mut self.seen).enumerate() {
            let held = holder(header).map(|(tick, site)| {
                let known = last.filter(|(of, _)| std::ptr::eq(*of, site)).map(|(_, number)| number);
                let number = known.unwrap_or_else(|| lines.number(site));
                last = Some((site, number));
                (tick, number)
            });
            let present = held.map_or(Seen::default(), |(tick, number)| Seen::of(tick, number));
            if !seen.is_same(present) {
                if seen.mark != 0 {
                    lines.known[seen.line()].came_back(*seen, now);
                }
                *seen = present;
            }
            let Some((tick, number)) = held else { continue };
            let line = &mut lines.known[number];
            line.now.held += 1;
            if late_before.is_none_or(|before| before == tick || !tick.has_come(before)) {
                continue;
            }
            line.now.late += 1;
            line.now.new += u64::from(!seen.is_late());
            seen.line |= 1;
            line.now.beyond += u64::from(tick.ago(now) >= verdict::beyond(line.longest.max(gap)));
            if line.now.oldest.is_none_or(|(oldest, _)| oldest != tick && tick.has_come(oldest)) {
                line.now.oldest = Some((tick, index as u32));
            }
        }
        let is_over = self.window.is_some_and(|since| since.ago(now) >= limit);
        for line in &mut lines.known {
            line.floor = line.floor.min(line.now.late);
            if is_over {
                line.next_window();
            }
        }
        if is_over || self.window.is_none() {
            self.window = Some(now);
        }
    }

    /// Judges each line of which something is late, and tells what is new. Returns how many holds have become late.
    fn judge(&mut self, core: &Core, limit: Duration, now: Tick, gap: Duration) -> usize {
        let (mut suspects, mut new) = (Vec::new(), 0);
        for line in &mut self.lines.known {
            let Some((tick, slot)) = line.now.oldest else { continue };
            let ignored = |ignore: &super::life::Ignore| notice::guarded(|| ignore(line.site));
            if core.life().ignore_leaks.as_ref().is_some_and(ignored) {
                continue;
            }
            new += line.now.new;
            // It may have gone while the others were looked at.
            let Some((oldest, _)) = report::holder(core, slot).filter(|(_, since)| *since == tick) else { continue };
            let evidence = line.evidence(gap, now);
            let suspect = Suspect {
                tier: core.incarnation().name,
                site: line.site,
                verdict: verdict::judge(&evidence),
                late: line.now.late,
                new: line.now.new,
                held: line.now.held,
                oldest,
                came_back: line.about_back(),
                habit: evidence.habit,
                late_came_back: evidence.late_back,
                rising: evidence.rising,
            };
            if line.is_news(suspect.verdict, now, limit) {
                line.note_told(suspect.verdict, now);
                notice::tell(core, || Report::HeldLong(suspect.clone()));
            }
            suspects.push(suspect);
        }
        // The surest first, then those that hold most.
        suspects.sort_by_key(|it| std::cmp::Reverse((it.verdict.certainty(), it.late)));
        core.life().suspects.store((!suspects.is_empty()).then(|| Arc::new(suspects)));
        new as usize
    }
}

/// Since when a slot is held and from which line, read whole.
fn holder(header: &Header) -> Option<(Tick, Site)> {
    if !header.word().state().is_held() {
        return None;
    }
    let Record { word, site, tick, .. } = header.read()?;
    word.state().is_held().then_some((tick, site?))
}

/// How long after a pass the next look is due.
pub(crate) fn pause(limit: Duration) -> Duration {
    limit / LOOKS
}

/// What the last look has found.
pub(crate) fn suspects(core: &Core) -> Vec<Suspect> {
    core.life().suspects.load().as_deref().cloned().unwrap_or_default()
}

/// Bytes that it takes to watch a tier, but for a few hundred a line.
pub(super) fn bytes(core: &Core) -> usize {
    core.life().turnover.as_ref().map_or(0, |turnover| turnover.bytes() + core.headers().len() * size_of::<Seen>())
}
