//! What is examined.

use super::super::format::superblock::Superblock;
use super::super::format::tables::Snapshot;

/// What is examined: a checkpoint, which a superblock describes.
pub(super) struct Subject {
    pub(super) superblock: Superblock,
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) clusters: u32,
}
