//! The words of the map and of its side table; drawn in [`super`].

use super::super::entry::Part;

/// Marks the word of a split entry.
pub(super) const SPLIT: u64 = 1 << 56;

pub(super) fn split_index(word: u64) -> Option<u32> {
    (word & SPLIT != 0).then_some(word as u32)
}

pub(super) fn pack(part: Part) -> u64 {
    u64::from(part.cluster) | u64::from(part.mask) << 32 | u64::from(part.slot) << 48
}

pub(super) fn unpack(word: u64) -> Part {
    Part {
        cluster: word as u32,
        mask: (word >> 32) as u16,
        slot: (word >> 48) as u8,
    }
}
