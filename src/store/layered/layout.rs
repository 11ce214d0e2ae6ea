//! How many parts a store of some size has.

use super::format::superblock::Superblock;
use super::format::{CLUSTER_SECTORS, FANOUT, JOURNAL_CLUSTER, TWIN_CLUSTER};

/// Leaves of a disk of this size.
pub(super) fn leaves_of(sectors: u64) -> u64 {
    sectors.div_ceil(CLUSTER_SECTORS * FANOUT as u64)
}

/// Clusters that are no part of the space table: superblocks, journal, and the bases' page.
pub(super) fn fixed_clusters(superblock: &Superblock) -> u32 {
    journal_end(superblock.journal_clusters) + u32::from(superblock.bases.is_some())
}

/// The first cluster behind the journal and both copies of the superblock.
pub(super) fn journal_end(journal_clusters: u32) -> u32 {
    JOURNAL_CLUSTER + journal_clusters.max(TWIN_CLUSTER)
}
