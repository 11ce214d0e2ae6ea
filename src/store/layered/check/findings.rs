//! What an examination has to say.

use super::usage::{Problem, Verdict};

/// Sentences that are kept.
const SENTENCES: usize = 100;

/// What an examination has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Pages that were read.
    pub pages: u64,
    /// Clusters or pages in use that nothing references.
    pub leaked: u64,
    /// Clusters or pages that two places reference, or that are referenced and count as free or as younger than they are.
    pub double_used: u64,
    /// Damaged pages.
    pub bad_pages: u64,
    /// The first of them, a sentence each.
    pub findings: Vec<String>,
    /// Problems that were repaired.
    pub repaired: u64,
}

impl Findings {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.leaked + self.double_used + self.bad_pages == 0 && self.findings.is_empty()
    }

    /// A damaged page.
    pub(super) fn bad_page(&mut self, sentence: String) {
        self.bad_pages += 1;
        self.note(sentence);
    }

    /// A damaged page that the store has written anew already.
    pub(super) fn mended(&mut self, sentence: String) {
        self.bad_page(sentence);
        self.repaired += 1;
    }

    /// Something that is used twice and cannot be untangled.
    pub(super) fn tangled(&mut self, sentence: String) {
        self.double_used += 1;
        self.note(sentence);
    }

    pub(super) fn note(&mut self, sentence: String) {
        if self.findings.len() < SENTENCES {
            self.findings.push(sentence);
        }
    }

    pub(super) fn add_verdict(&mut self, verdict: &Verdict) {
        for problem in verdict.problems() {
            match problem {
                Problem::LeakedCluster(_) | Problem::LeakedPage(_) => self.leaked += 1,
                Problem::Underrated { .. } | Problem::UnmarkedPage(_) | Problem::Overlaid { .. } => {
                    self.double_used += 1;
                }
            }
            if self.findings.len() < SENTENCES {
                self.findings.push(problem.to_string());
            }
        }
    }
}
