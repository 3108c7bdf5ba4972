//! A line whose slots have been held for too long, as it is told: how many, who has the oldest, what it is and why.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use super::report::Holder;
use super::verdict::Verdict;

/// A line of which slots are held for longer than [`leak_after`](crate::TierBuilder::leak_after), as the last look at them found it: in
/// [`Report::HeldLong`](crate::Report::HeldLong), and from [`Tier::leaks`](crate::Tier::leaks). Its `Display` is one line for a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Suspect {
    /// The name of the slots' tier.
    pub tier: &'static str,
    /// The line that allocated them.
    pub site: &'static Location<'static>,
    /// Whether that is a leak, and how sure it is.
    pub verdict: Verdict,
    /// Slots from there that are held past the limit, one at least.
    pub late: u64,
    /// How many of them were not at the look before.
    pub new: u64,
    /// All slots from there that are held.
    pub held: u64,
    /// Who holds the oldest.
    pub oldest: Holder,
    /// How many others from there have come back, about: counted by samples where there are many.
    pub came_back: u64,
    /// Within which time all of those came back, as far as looks could see.
    pub habit: Duration,
    /// How many of those had been held past the limit.
    pub late_came_back: u64,
    /// In how many spans of `leak_after` in a row the number held past it has grown.
    pub rising: u32,
}

impl Suspect {
    /// What the verdict rests on, in words.
    pub fn why(&self) -> impl fmt::Display {
        Why(self)
    }
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Leak => "a leak, almost surely",
            Verdict::LikelyLeak => "probably a leak",
            Verdict::Unclear => "held long, and too little is known of that line to say why",
            Verdict::SlowUse => "held long, as is usual for that line",
        };
        let Suspect { tier, late, site, oldest, .. } = self;
        let slots = if *late == 1 { "slot" } else { "slots" };
        write!(f, "tier {tier:?}: {verdict}: {} {slots} held for {:.1?} from {site}", Count(*late), oldest.age)?;
        write!(f, ", {}; the oldest: {oldest}", Why(self))
    }
}

struct Why<'a>(&'a Suspect);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Suspect { came_back, habit, late_came_back, rising, .. } = *self.0;
        let back = About(came_back);
        match self.0.verdict {
            Verdict::Leak | Verdict::LikelyLeak => {
                write!(f, "while {back} others from there came back within {habit:.1?}")?;
                if rising > 1 { write!(f, ", and ever more stay") } else { Ok(()) }
            }
            _ if late_came_back > 0 => {
                write!(f, "while {} that were held as long came back, after up to {habit:.1?}", Count(late_came_back))
            }
            _ if came_back > 0 => write!(f, "while {back} others from there came back within {habit:.1?}"),
            _ if rising > 1 => {
                write!(f, "ever more of them, and none from there has come back yet: a cache that fills, or a leak")
            }
            _ => write!(f, "while no other from there has come back yet"),
        }
    }
}

/// A number as people write it.
struct Count(u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            small @ 0..1000 => write!(f, "{small}"),
            large => write!(f, "{},{:03}", Count(large / 1000), large % 1000),
        }
    }
}

/// A number that was counted by samples: two digits of it are worth saying.
struct About(u64);

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 100 {
            return write!(f, "{}", self.0);
        }
        let unit = 10_u64.pow(self.0.ilog10() - 1);
        write!(f, "about {}", Count(self.0.saturating_add(unit / 2) / unit * unit))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(Count(0).to_string(), "0");
        assert_eq!(Count(1_002_030).to_string(), "1,002,030");
        assert_eq!(About(99).to_string(), "99");
        assert_eq!(About(999_424).to_string(), "about 1,000,000");
        assert_eq!(About(1_249).to_string(), "about 1,200");
        assert_eq!(About(u64::MAX).to_string(), "about 18,000,000,000,000,000,000");
    }
}
