//! Why a store cannot be opened, or cannot go on.

use std::io;

use super::format::ObjectId;
use super::format::page::PageDamage;
use super::format::superblock::SuperblockError;
use super::journal::JournalDamage;
use crate::store::poison::Poisoned;

/// The store cannot be opened, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LayeredError {
    /// The kernel's.
    #[error("the store's medium fails")]
    Io(#[from] io::Error),
    /// A page is damaged, or cannot be read.
    #[error(transparent)]
    Damage(#[from] PageDamage),
    /// Neither copy of the superblock can be used.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// Records are missing.
    #[error(transparent)]
    Journal(#[from] JournalDamage),
    /// There is something in the way of a new store.
    #[error("there is a store already")]
    Exists,
    /// A base is not the file that the store was made from.
    #[error("base {0} is not the file that this disk was cloned from")]
    WrongBase(u8),
    /// Not as many bases as the store has.
    #[error("the store has {needed} bases, and {given} were given")]
    Bases {
        /// Given.
        given: usize,
        /// Needed.
        needed: usize,
    },
    /// The store was made for another disk.
    #[error("the store is that of disk-{disk:?}, of lineage lin-{lineage:?}: put this disk's own store back")]
    Foreign {
        /// The disk.
        disk: ObjectId,
        /// The lineage.
        lineage: ObjectId,
    },
    /// An older state of the store, or a changed one.
    #[error(
        "the store has superblock {found}, and {last} was the last that is known: an older copy of it is in its place, or it \
         was changed since; put the newest back"
    )]
    RolledBack {
        /// The sequence that it has.
        found: u64,
        /// The sequence that was last said.
        last: u64,
    },
    /// The snapshot to clone is not there, or not pinned.
    #[error("the base has no pinned snapshot {0:?}")]
    NotPinned(ObjectId),
    /// The host has no room for metadata.
    #[error("there is no room for the store's metadata")]
    NoSpace,
    /// The store has failed before.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// The store's state in memory contradicts itself.
    #[error("the store's state makes no sense")]
    Failed,
    /// The caller does not want the examination any more.
    #[error("the examination was given up")]
    Unwanted,
}
