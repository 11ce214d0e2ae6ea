//! Puts right what an examination has found, as far as the rest of the metadata tells. It counts with the next
//! superblock, so that a crash on the way changes nothing.

use super::super::medium::Medium;
use super::super::store::LayeredStore;
use super::findings::Findings;
use super::usage::{Problem, Verdict};

impl<M: Medium> LayeredStore<M> {
    /// Corrects the space table in memory.
    pub(super) fn repair(&self, verdict: &Verdict, findings: &mut Findings) {
        let mut state = self.state();
        for (problem, told) in verdict.repairs() {
            match problem {
                // No record says that the cluster is free, and none has to: its next user writes one.
                Problem::LeakedCluster(cluster) => state.free(0, &[cluster]),
                Problem::LeakedPage(page) => state.space.correct_page(page, false),
                Problem::UnmarkedPage(page) => state.space.correct_page(page, true),
                Problem::Underrated { cluster, oldest, .. } => state.space.set_used(cluster, oldest),
                // Which of the two is right is not known.
                Problem::Overlaid { .. } => continue,
            }
            findings.repaired += u64::from(told);
        }
        for page in verdict.renewed() {
            state.space.renew(*page);
            findings.repaired += 1;
        }
    }
}
