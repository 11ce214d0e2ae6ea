//! The requests that wait for a flush.

use crate::store::FlushPoint;

/// Requests that wait for durability, and how far the flush for them has come.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    /// Heads of requests that no flush has been started for.
    pub(super) waiting: Vec<u16>,
    /// Heads of those that the present flush answers.
    pub(super) present: Vec<u16>,
    pub(super) stage: Stage,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Stage {
    #[default]
    None,
    /// Data and records are being synced.
    Data(FlushPoint),
    /// The mark is being synced.
    Mark(FlushPoint),
}

impl Flushes {
    /// Has the request answered when everything that has been completed is durable.
    pub(super) fn add(&mut self, head: u16) {
        self.waiting.push(head);
    }

    /// Whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.present.is_empty()
    }
}
