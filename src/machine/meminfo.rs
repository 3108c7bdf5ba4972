//! The machine's memory: `/proc/meminfo`, huge pages, and what the kernel does about them by itself.

use super::root::Root;

/// The file.
pub(crate) const MEMINFO: &str = "/proc/meminfo";
/// Where the kernel says which memory it makes huge pages of by itself.
pub(crate) const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Fields of `/proc/meminfo`, in bytes but for the counts of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Meminfo {
    pub(crate) total: Option<u64>,
    /// What can be had without swapping, by the kernel's own estimate.
    pub(crate) available: Option<u64>,
    pub(crate) swap_total: Option<u64>,
    pub(crate) swap_free: Option<u64>,
    /// Huge pages that were set apart, of the default size.
    pub(crate) huge_pages: Option<u64>,
    /// Those of them that nobody has or was promised.
    pub(crate) huge_pages_free: Option<u64>,
    pub(crate) huge_page_bytes: Option<u64>,
}

/// Fields that are missing or no numbers are `None`.
pub(crate) fn parse(text: &str) -> Meminfo {
    let mut all = Meminfo::default();
    let (mut free, mut promised) = (None, None);
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let mut words = value.split_whitespace();
        let Some(number) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
        let (bytes, pages) = match words.next() {
            Some("kB") => (number.checked_mul(1024), None),
            Some(_) => (None, None),
            None => (None, Some(number)),
        };
        match name {
            "MemTotal" => all.total = bytes,
            "MemAvailable" => all.available = bytes,
            "SwapTotal" => all.swap_total = bytes,
            "SwapFree" => all.swap_free = bytes,
            "HugePages_Total" => all.huge_pages = pages,
            "HugePages_Free" => free = pages,
            "HugePages_Rsvd" => promised = pages,
            "Hugepagesize" => all.huge_page_bytes = bytes,
            _ => {}
        }
    }
    all.huge_pages_free = free.map(|free| free.saturating_sub(promised.unwrap_or(0)));
    all
}

/// The word in brackets of a file such as `always [madvise] never`.
pub(crate) fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    let (word, _) = rest.split_once(']')?;
    Some(word).filter(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

/// Which memory the kernel makes huge pages of by itself: `always`, `madvise` or `never`.
pub(crate) fn transparent(root: &Root) -> Option<String> {
    chosen(&root.text(TRANSPARENT)?).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_names_in_their_units() {
        let text = "MemTotal:       24683656 kB\nMemFree:  1 kB\nMemAvailable:   24124144 kB\nHugePages_Total:       8\n\
                    HugePages_Free:       5\nHugePages_Rsvd:       2\nHugepagesize:       2048 kB\nSwapTotal:    x kB\n";
        let all = parse(text);
        assert_eq!((all.total, all.available), (Some(24_683_656 * 1024), Some(24_124_144 * 1024)));
        assert_eq!((all.huge_pages, all.huge_pages_free, all.huge_page_bytes), (Some(8), Some(3), Some(2 << 20)));
        assert_eq!((all.swap_total, all.swap_free), (None, None));
    }

    #[test]
    fn numbers_that_are_too_large_are_none() {
        assert_eq!(parse("MemTotal: 18446744073709551615 kB").total, None);
        assert_eq!(parse("MemTotal: 99999999999999999999 kB").total, None);
        assert_eq!(parse("MemTotal: 1").total, None, "of what?");
    }

    #[test]
    fn the_choice_stands_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        for text in ["always madvise", "[]", "[", "a [b", "[two words]"] {
            assert_eq!(chosen(text), None, "{text:?}");
        }
    }
}
