//! Where the records of the journal lie in the file.

use super::format::record::RECORD_BYTES;
use super::format::{CLUSTER_BYTES, FIRST_VERSION, JOURNAL_CLUSTER, TWIN_CLUSTER};

/// Records of a cluster.
const CLUSTER_RECORDS: u64 = CLUSTER_BYTES / RECORD_BYTES as u64;

/// The clusters of a journal, whose records go round in them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    /// Without the gap.
    clusters: u32,
    /// The cluster of the superblock's second copy is left out.
    has_gap: bool,
}

impl Ring {
    /// The ring in `clusters` clusters of a store of this version.
    pub(super) fn new(version: u32, clusters: u32) -> Self {
        let has_gap = version != FIRST_VERSION && clusters >= TWIN_CLUSTER;
        Ring {
            clusters: clusters - u32::from(has_gap),
            has_gap,
        }
    }

    /// Records that it has place for.
    pub(super) fn capacity(self) -> u64 {
        u64::from(self.clusters) * CLUSTER_RECORDS
    }

    /// Where a record lies.
    pub(super) fn offset(self, sequence: u64) -> u64 {
        let index = sequence % self.capacity();
        let cluster = u64::from(JOURNAL_CLUSTER) + index / CLUSTER_RECORDS;
        let behind_gap = self.has_gap && cluster >= u64::from(TWIN_CLUSTER);
        (cluster + u64::from(behind_gap)) * CLUSTER_BYTES + index % CLUSTER_RECORDS * RECORD_BYTES as u64
    }

    /// Records from this one on, itself included, that lie one behind another.
    pub(super) fn run(self, sequence: u64) -> u64 {
        CLUSTER_RECORDS - sequence % CLUSTER_RECORDS
    }
}
