//! A pool's configuration for a machine, which tierpool itself accepts.

use std::fmt::Write;

use super::Machine;
use crate::units::bytes;

/// Bytes of a slot, for the three tiers of memory.
const SIZES: [u64; 3] = [2 << 10, 64 << 10, 1 << 20];
/// The most slots that are suggested for one.
const MOST: u64 = 65_536;

/// A configuration in TOML: an eighth of the memory that can be had, in equal parts of small, middling and large buffers; and the cores.
pub fn configuration(machine: &Machine) -> String {
    let left = machine.resources.availability().memory_bytes.unwrap_or(1 << 30);
    let part = left / 8 / SIZES.len() as u64;
    let slots = SIZES.map(|size| (part / size).clamp(1, MOST));
    let taken: u64 = SIZES.iter().zip(slots).map(|(size, slots)| size * slots).sum();
    // Writing to a String cannot fail.
    let mut text = String::new();
    let _ = writeln!(text, "# {} of the {} of memory that can be had", bytes(taken), bytes(left));
    let _ = writeln!(text, "reclaimer = \"background\"\nspill = \"next-larger\"");
    for ((name, size), slots) in ["small", "medium", "large"].iter().zip(SIZES).zip(slots) {
        let _ = writeln!(text, "\n[[memory]]\nname = \"{name}\"\nbytes = \"{}\"\nslots = {slots}", bytes(size));
        if slots >= 8 {
            let _ = writeln!(text, "min_slots = {}", slots / 4);
        }
    }
    let _ = writeln!(
        text,
        "\n[[cpu]]    # a slot for each of {}, as far as the quota goes\nname = \"cores\"",
        machine.resources.cpu.list(usize::MAX)
    );
    text
}
