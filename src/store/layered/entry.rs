//! Entries of the map: where the blocks of a cluster of the virtual disk lie.

/// Blocks of a virtual cluster that lie in one physical cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// The physical cluster.
    pub(crate) cluster: u32,
    /// In which file.
    pub(crate) slot: u8,
    /// Bit n: block n is valid here. 0: there is no such part, and all else is 0.
    pub(crate) mask: u16,
}

/// Where the blocks of a virtual cluster lie. What is in neither part reads as zeros.
///
/// No block is in both parts. Without a front there is no back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What was written last.
    pub(crate) front: Part,
    /// What is left of an older cluster.
    pub(crate) back: Part,
}

impl Part {
    /// Nothing.
    pub(crate) const NONE: Part = Part {
        cluster: 0,
        slot: 0,
        mask: 0,
    };

    /// Only the blocks in `mask`.
    pub(crate) fn only(self, mask: u16) -> Part {
        match self.mask & mask {
            0 => Part::NONE,
            mask => Part { mask, ..self },
        }
    }

    /// Whether there is something.
    pub(crate) fn is_some(self) -> bool {
        self.mask != 0
    }

    /// The cluster, if it is one of the store's own file.
    pub(crate) fn local(self) -> Option<u32> {
        (self.is_some() && self.slot == 0).then_some(self.cluster)
    }
}

impl Entry {
    /// Reads as zeros.
    pub(crate) const EMPTY: Entry = Entry {
        front: Part::NONE,
        back: Part::NONE,
    };

    /// From parts of which any may be missing.
    pub(crate) fn of(front: Part, back: Part) -> Entry {
        let back = back.only(!front.mask);
        if front.is_some() {
            Entry { front, back }
        } else {
            Entry {
                front: back,
                back: Part::NONE,
            }
        }
    }

    /// Valid blocks.
    pub(crate) fn mask(self) -> u16 {
        self.front.mask | self.back.mask
    }

    /// Without the blocks in `mask`.
    pub(crate) fn without(self, mask: u16) -> Entry {
        Entry::of(self.front.only(!mask), self.back.only(!mask))
    }

    /// After `mask` was written to a cluster of the store's own file, which is the front already or becomes it.
    pub(crate) fn with(self, cluster: u32, mask: u16) -> Entry {
        let rest = self.without(mask);
        let written = |mask| Part {
            cluster,
            slot: 0,
            mask,
        };
        match (rest.front.local(), rest.back.local()) {
            (Some(own), _) if own == cluster => Entry::of(written(rest.front.mask | mask), rest.back),
            (_, Some(own)) if own == cluster => Entry::of(written(rest.back.mask | mask), rest.front),
            _ => Entry::of(written(mask), rest.front),
        }
    }

    /// Both parts.
    pub(crate) fn parts(self) -> [Part; 2] {
        [self.front, self.back]
    }

    /// Whether a part lies in this cluster of the store's own file.
    pub(crate) fn uses(self, cluster: u32) -> bool {
        self.parts().iter().any(|part| part.local() == Some(cluster))
    }
}
