//! A scanner reads a header while its slot changes hands, and never mixes two holders (`DESIGN.md`, headers: read under the
//! word's generation, never torn).
#![cfg(loom)]

use tierpool::internals::allocate_as;
use tierpool::{HandleError, Priority};
use tierpool_loom::{Census, explore, spawn};

/// A report names the line that allocated at the generation that it shows.
///
/// Guards the Acquire fence in `Header::read` and the second look at the word there.
#[test]
fn a_holder_is_read_whole() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let lines = [line!() + 4, line!() + 5];
        let owner = {
            let tier = tier.clone();
            spawn(move || {
                drop(tier.try_allocate().unwrap());
                drop(tier.try_allocate().unwrap());
            })
        };
        for holder in tier.holders() {
            let line = holder.site.map(|site| site.line());
            // A new slot's first use is of generation 1, its second of 2.
            assert_eq!(line, Some(lines[holder.handle.generation() as usize - 1]), "the line of another holder");
        }
        owner.join().unwrap();
    });
}

/// So does a count by line: line, priority and number of slots are of one use. What a look for leaks believes is read alike.
///
/// Guards the Acquire fence in `Header::read` and the second look at the word there, on the way by `census`.
#[test]
fn a_count_by_line_is_of_whole_holders() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let uses = [(line!() + 4, Priority::Low), (line!() + 5, Priority::Critical)];
        let owner = {
            let tier = tier.clone();
            spawn(move || {
                drop(allocate_as(&tier, Priority::Low as u8).unwrap());
                drop(allocate_as(&tier, Priority::Critical as u8).unwrap());
            })
        };
        for site in tier.holders_by_site().sites {
            assert_eq!(site.count, 1, "there is one slot");
            assert!(
                uses.contains(&(site.site.line(), site.priority)),
                "the line of one holder, the priority of another"
            );
        }
        for holder in tier.holders() {
            let (line, priority) = uses[holder.handle.generation() as usize - 1];
            let shown = (holder.site.map(|site| site.line()), holder.priority);
            assert_eq!(shown, (Some(line), priority), "the line or the priority of another holder");
        }
        owner.join().unwrap();
    });
}

/// The error of a stale handle names the lines of its own use, or none.
///
/// Guards the Release fence in `Header::lease`.
#[test]
fn an_error_names_its_own_lines() {
    explore(3, || {
        let census = Census::default();
        let tier = census.tier(1);
        let allocated = line!() + 1;
        let handle = tier.try_allocate().unwrap().detach();
        tier.release(handle).unwrap();
        let next = {
            let tier = tier.clone();
            spawn(move || tier.try_allocate().unwrap())
        };
        match tier.release(handle).unwrap_err() {
            HandleError::Stale { allocated_at, .. } => {
                let line = allocated_at.map(|site| site.line());
                assert!(line.is_none_or(|line| line == allocated), "the line of the next holder");
            }
            other => panic!("{other}"),
        }
        drop(next.join().unwrap());
    });
}
