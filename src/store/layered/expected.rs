//! Which store it is, and in which state: compared before anything is done with it.

use sha2::{Digest, Sha256};

use super::error::LayeredError;
use super::format::ObjectId;
use super::format::superblock::Superblock;
use super::medium::Medium;
use super::store::LayeredStore;

/// One state of a store, told from all others by its superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreState {
    /// Of the superblock; it only grows.
    pub sequence: u64,
    /// SHA-256 of the superblock as if its sequence were 0: alike in both copies.
    pub digest: [u8; 32],
}

/// What is known of a store before it is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// The disk that it was made for.
    pub disk: Option<ObjectId>,
    /// The lineage that it was made for.
    pub lineage: Option<ObjectId>,
    /// What was last said of it: an older one is refused.
    pub last: Option<StoreState>,
    /// `last` was said when the store was [closed](crate::store::LayeredFile::close): nothing has been written since.
    pub closed: bool,
}

impl StoreState {
    pub(super) fn of(superblock: &Superblock) -> Self {
        let content = Superblock {
            sequence: 0,
            ..superblock.clone()
        };
        StoreState {
            sequence: superblock.sequence,
            digest: Sha256::digest(&content.encode()[..]).into(),
        }
    }
}

impl Expected {
    /// Compares the superblock that a store is found with.
    ///
    /// # Errors
    /// [`LayeredError::Foreign`], [`LayeredError::RolledBack`].
    pub(super) fn check(&self, found: &Superblock) -> Result<(), LayeredError> {
        let differ = |expected: Option<ObjectId>, found: ObjectId| {
            found.is_some() && expected.is_some_and(|expected| expected.is_some() && expected != found)
        };
        if differ(self.disk, found.disk) || differ(self.lineage, found.lineage) {
            return Err(LayeredError::Foreign {
                disk: found.disk,
                lineage: found.lineage,
            });
        }
        match &self.last {
            Some(last) if !self.follows(last, &StoreState::of(found)) => Err(LayeredError::RolledBack {
                found: found.sequence,
                last: last.sequence,
            }),
            _ => Ok(()),
        }
    }

    /// Whether a store that was in the state `last` can be in the state `found` now.
    fn follows(&self, last: &StoreState, found: &StoreState) -> bool {
        let same = found.digest == last.digest;
        // The copy that was written last may be damaged, or not have reached the medium; the other says the same.
        let is_it = same && (found.sequence == last.sequence || found.sequence + 1 == last.sequence);
        // Where its end was not seen, more may have been written; and of what was written last before a power cut, nothing.
        is_it || !self.closed && found.sequence >= last.sequence
    }
}

impl<M: Medium> LayeredStore<M> {
    /// What lies on the medium, as the last superblock that was written says.
    pub fn store_state(&self) -> StoreState {
        StoreState::of(&self.state().superblock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(sequence: u64, sectors: u64) -> Superblock {
        Superblock {
            sequence,
            sectors,
            disk: ObjectId([b'd'; 16]),
            lineage: ObjectId([b'l'; 16]),
            ..Superblock::default()
        }
    }

    #[test]
    fn a_store_never_falls_behind_what_was_said_of_it() {
        let last = StoreState::of(&superblock(8, 1));
        let check = |closed, sequence, sectors| {
            let expected = Expected {
                last: Some(last),
                closed,
                ..Expected::default()
            };
            match expected.check(&superblock(sequence, sectors)) {
                Ok(()) => true,
                Err(LayeredError::RolledBack { found, last: 8 }) if found == sequence => false,
                other => panic!("{other:?}"),
            }
        };
        for closed in [false, true] {
            assert!(check(closed, 8, 1), "as it was left");
            assert!(check(closed, 7, 1), "without its last copy");
            assert!(
                !check(closed, 6, 1) && !check(closed, 7, 2) && !check(closed, 0, 1),
                "older"
            );
            assert_eq!(check(closed, 8, 2), !closed, "another one");
            assert_eq!(check(closed, 9, 1), !closed && check(closed, 10, 2), "newer");
        }
    }

    #[test]
    fn another_disk_s_store_is_refused_and_one_that_says_nothing_is_not() {
        let id = |byte| Some(ObjectId([byte; 16]));
        let check = |disk, lineage, found: &Superblock| {
            let expected = Expected {
                disk,
                lineage,
                ..Expected::default()
            };
            expected.check(found).is_ok()
        };
        let found = superblock(2, 1);
        assert!(check(id(b'd'), id(b'l'), &found) && check(None, None, &found));
        assert!(check(id(b'd'), Some(ObjectId::NONE), &found));
        assert!(!check(id(b'e'), id(b'l'), &found) && !check(id(b'd'), id(b'm'), &found));
        assert!(check(id(b'e'), id(b'm'), &Superblock::default()));
    }
}
