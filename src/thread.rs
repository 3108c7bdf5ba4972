//! Small numbers for threads, and their names while they live.
//!
//! A header has room for 20 bits of thread. A thread gets its number at its first use of any tier; a number is used again only
//! when a million threads have come since, and a table of the living remembers the names, so that a report can say `"rx-worker"` rather than 17.
//! The table has a fixed size and needs no lock: beyond [`NAMED`] living threads, a thread has a number and no name.

use crate::slot::header::MAX_THREADS;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// How many living threads have a name in reports.
const NAMED: usize = 1024;
/// Bytes of a name that are kept.
const NAME_BYTES: usize = 32;
const NAME_WORDS: usize = NAME_BYTES / 8;

struct Entry {
    /// The thread's number; 0 while the entry is free, `BUSY` while it is being written.
    number: AtomicU32,
    name: [AtomicU64; NAME_WORDS],
}

const BUSY: u32 = u32::MAX;

static NEXT: AtomicU32 = AtomicU32::new(1);
static NAMES: [Entry; NAMED] =
    [const { Entry { number: AtomicU32::new(0), name: [const { AtomicU64::new(0) }; NAME_WORDS] } }; NAMED];

/// A number for the calling thread, its name noted.
pub(crate) fn register() -> u32 {
    let number = loop {
        // Relaxed: only uniqueness matters. 0 means nobody, and is skipped when it wraps.
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % MAX_THREADS;
        if number != 0 {
            break number;
        }
    };
    let current = std::thread::current();
    if let Some(name) = current.name() {
        note(number, name);
    }
    number
}

fn note(number: u32, name: &str) {
    let mut end = name.len().min(NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = [0u8; NAME_BYTES];
    bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
    for entry in &NAMES {
        if entry.number.load(Ordering::Relaxed) == 0
            // Acquire: pairs with the Release of `forget`; the last owner is done with the entry.
            && entry.number.compare_exchange(0, BUSY, Ordering::Acquire, Ordering::Relaxed).is_ok()
        {
            // Release fence: pairs with the Acquire fence in `name`; who sees a new byte sees BUSY or later.
            fence(Ordering::Release);
            for (word, chunk) in entry.name.iter().zip(bytes.as_chunks::<8>().0) {
                word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
            }
            // Release: pairs with the Acquire in `name`; the bytes come before the number.
            entry.number.store(number, Ordering::Release);
            return;
        }
    }
}

/// The calling thread exits: its name goes.
pub(crate) fn forget(number: u32) {
    for entry in &NAMES {
        if entry.number.load(Ordering::Relaxed) == number {
            // Release: pairs with the Acquire in `note`.
            entry.number.store(0, Ordering::Release);
            return;
        }
    }
}

/// The name of a living thread, if it has one.
pub(crate) fn name(number: u32) -> Option<String> {
    let entry = NAMES.iter().find(|entry| {
        // Acquire: pairs with the Release at the end of `note`.
        number != 0 && entry.number.load(Ordering::Acquire) == number
    })?;
    let mut bytes = [0u8; NAME_BYTES];
    for (word, chunk) in entry.name.iter().zip(bytes.as_chunks_mut::<8>().0) {
        *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
    }
    // Acquire fence: pairs with the Release fence in `note`; the bytes are this thread's if the number still stands.
    fence(Ordering::Acquire);
    if entry.number.load(Ordering::Relaxed) != number {
        return None;
    }
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(NAME_BYTES);
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_living_thread_has_its_name_and_a_dead_one_does_not() {
        let number = std::thread::Builder::new()
            .name("a thread with a rather long näme".into())
            .spawn(|| {
                let number = register();
                assert_eq!(name(number).as_deref(), Some("a thread with a rather long näm"));
                forget(number);
                number
            })
            .unwrap()
            .join()
            .unwrap();
        assert_eq!(name(number), None);
        assert_eq!(name(0), None);
    }
}
