//! Entries of the map, as a record or a page has them.

use super::super::entry::{Entry, Part};
use super::page::{Page, body, body_mut};
use super::{FANOUT, get_u16, get_u32, put_u16, put_u32};

/// Entries of a page of the map.
pub(crate) type Leaf = [Entry; FANOUT];

const ENTRY_BYTES: usize = 16;

impl Entry {
    /// For a record or a page.
    pub(crate) fn put(self, bytes: &mut [u8]) {
        for (part, at) in [(self.front, 0), (self.back, 8)] {
            put_u32(bytes, at, part.cluster);
            put_u16(bytes, at + 4, part.mask);
            bytes[at + 6] = part.slot;
            bytes[at + 7] = 0;
        }
    }

    /// None if it breaks a rule: blocks in both parts, a back without a front, a part of nothing that is not all zeros.
    pub(crate) fn get(bytes: &[u8]) -> Option<Entry> {
        let part = |at: usize| Part {
            cluster: get_u32(bytes, at),
            mask: get_u16(bytes, at + 4),
            slot: bytes[at + 6],
        };
        let (front, back) = (part(0), part(8));
        let sound = |part: Part| part.is_some() || part == Part::NONE;
        let good = sound(front)
            && sound(back)
            && bytes[7] == 0
            && bytes[15] == 0
            && front.mask & back.mask == 0
            && (front.is_some() || !back.is_some());
        good.then_some(Entry { front, back })
    }
}

/// Writes the entries into a page's body.
pub(crate) fn put_leaf(page: &mut Page, leaf: &Leaf) {
    for (bytes, entry) in body_mut(page).chunks_exact_mut(ENTRY_BYTES).zip(leaf) {
        entry.put(bytes);
    }
}

/// The entries of a page's body; none if one breaks a rule.
pub(crate) fn get_leaf(page: &Page) -> Option<Box<Leaf>> {
    let mut leaf = Box::new([Entry::EMPTY; FANOUT]);
    for (bytes, entry) in body(page).chunks_exact(ENTRY_BYTES).zip(leaf.iter_mut()) {
        *entry = Entry::get(bytes)?;
    }
    Some(leaf)
}
