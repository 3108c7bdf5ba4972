//! Pressure stall information: which part of the time tasks stood still for want of something (Weiner 2018; Linux 4.20).
//!
//! That of the process's own control group where it has one, since the machine's says little of a container; else the machine's.

use super::root::Root;

/// What tasks may stand still for.
pub(crate) const KINDS: [&str; 3] = ["cpu", "memory", "io"];

/// For which part of the time, in percent, at least one task stood still, or all of them did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stall {
    /// At least one, over the last 10 seconds.
    pub some_10s: f32,
    /// At least one, over the last minute.
    pub some_60s: f32,
    /// All that were not idle, over the last 10 seconds. 0 for the CPU of a whole machine, where it has no meaning.
    pub full_10s: f32,
    /// All that were not idle, over the last minute.
    pub full_60s: f32,
}

/// A file such as `/proc/pressure/memory`; `None` if it is none. Lines and fields of later kernels are passed over.
pub(crate) fn parse(text: &str) -> Option<Stall> {
    let average = |line: &str, field: &str| -> Option<f32> {
        let value = line.split_whitespace().find_map(|word| word.strip_prefix(field)?.strip_prefix('='))?;
        value.parse().ok().filter(|part| (0.0..=100.0).contains(part))
    };
    let line = |which: &str| text.lines().find(|line| line.split_whitespace().next() == Some(which));
    let some = line("some")?;
    let full = |field| line("full").map_or(Some(0.0), |full| average(full, field));
    Some(Stall {
        some_10s: average(some, "avg10")?,
        some_60s: average(some, "avg60")?,
        full_10s: full("avg10")?,
        full_60s: full("avg60")?,
    })
}

/// The stalls of one of the [`KINDS`], and the file they are from; `group` is the directory of a control group of version 2.
pub(crate) fn read(root: &Root, group: Option<&str>, kind: &str) -> Option<(Stall, String)> {
    let of_group = group.map(|group| format!("{}/{kind}.pressure", group.trim_end_matches('/')));
    let of_machine = format!("/proc/pressure/{kind}");
    of_group.into_iter().chain([of_machine]).find_map(|file| Some((parse(&root.text(&file)?)?, file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text = "some avg10=9.12 avg60=3.67 avg300=3.56 total=9903883836\n\
                    full avg10=0.11 avg60=0.29 avg300=0.41 total=92382547\n";
        let stall = Stall { some_10s: 9.12, some_60s: 3.67, full_10s: 0.11, full_60s: 0.29 };
        assert_eq!(parse(text), Some(stall));
    }

    #[test]
    fn old_kernels_have_no_full_line_for_the_cpu() {
        let stall = parse("some avg10=1.00 avg60=2.00 avg300=3.00 total=4\n").unwrap();
        assert_eq!((stall.some_60s, stall.full_10s), (2.0, 0.0));
    }

    #[test]
    fn what_is_no_such_file_gives_nothing() {
        for text in ["", "some", "some avg10= avg60=1", "some avg10=nan avg60=1.00", "some avg10=101 avg60=0", "x\0y"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
