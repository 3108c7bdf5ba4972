//! This process's resident memory, from `/proc/self/statm`.

use std::fs;

/// Bytes resident now, or `None` where the system has no `/proc`.
pub fn bytes() -> Option<usize> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size())
}

fn page_size() -> usize {
    // The kernel gives it in the auxiliary vector; 4 KiB on every x86-64.
    const AT_PAGESZ: usize = 6;
    let vector = fs::read("/proc/self/auxv").unwrap_or_default();
    let word = |bytes: &[u8]| usize::from_ne_bytes(bytes.try_into().expect("a word"));
    vector
        .chunks_exact(2 * size_of::<usize>())
        .map(|pair| pair.split_at(size_of::<usize>()))
        .find(|(key, _)| word(key) == AT_PAGESZ)
        .map_or(4096, |(_, value)| word(value))
}
