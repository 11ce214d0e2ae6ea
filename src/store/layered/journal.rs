//! The journal: a ring of records, written before what they describe is answered.

use std::io;

use super::format::record::{RECORD_BYTES, Record};
use super::format::{CLUSTER_BYTES, JOURNAL_CLUSTER, Uuid};
use super::medium::Medium;

/// Records that are kept for what must not wait: marks of flushes, and changes by the operator.
const SPARE: u64 = 128;

/// Place and progress of the journal.
#[derive(Debug)]
pub(super) struct Journal {
    uuid: Uuid,
    incarnation: u32,
    clusters: u32,
    /// First record that is not in the pages.
    start: u64,
    next: u64,
    /// Records that are promised to changes which have not ended.
    reserved: u64,
    /// Records below are on the medium, with their data.
    committed: u64,
    /// Behind the last record that is not a mark.
    changed: u64,
}

/// What was found when a store was opened.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) records: Vec<Record>,
}

/// The journal lacks records that were made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the journal is damaged: record {missing} (page {page}) is missing, and records up to {committed} were written"
)]
pub struct JournalDamage {
    missing: u64,
    page: u64,
    committed: u64,
}

impl Journal {
    /// A journal of `clusters` that continues with record `next`, everything before being in the pages.
    pub(super) fn new(uuid: Uuid, incarnation: u32, clusters: u32, next: u64) -> Self {
        Journal {
            uuid,
            incarnation,
            clusters,
            start: next,
            next,
            reserved: 0,
            committed: next,
            changed: next,
        }
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    pub(super) fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// Whether there are records that a power cut would undo.
    pub(super) fn needs_mark(&self) -> bool {
        self.changed > self.committed
    }

    /// Whether a checkpoint should be made soon.
    pub(super) fn is_half_full(&self) -> bool {
        self.next - self.start + self.reserved > self.capacity() / 2
    }

    /// Promises `count` records, if there is room.
    pub(super) fn reserve(&mut self, count: u64) -> bool {
        // Each may be followed by a mark.
        let room = self.next - self.start + 2 * (self.reserved + count) + SPARE <= self.capacity();
        if room {
            self.reserved += count;
        }
        room
    }

    /// Takes a promise back.
    pub(super) fn unreserve(&mut self, count: u64) {
        self.reserved -= count;
    }

    /// Records that may be written without a promise.
    pub(super) fn room(&self) -> u64 {
        self.capacity() - (self.next - self.start) - self.reserved
    }

    /// Writes records. Without room for them nothing is written.
    ///
    /// # Errors
    /// The medium's; then the journal must not be used any more. `ENOSPC` without room.
    pub(super) fn append(&mut self, medium: &impl Medium, records: &[Record]) -> io::Result<()> {
        if self.next - self.start + records.len() as u64 > self.capacity() {
            return Err(super::medium::no_space());
        }
        let mut bytes = Vec::with_capacity(records.len() * RECORD_BYTES);
        for (sequence, record) in (self.next..).zip(records) {
            bytes.extend_from_slice(&record.encode(self.uuid, self.incarnation, sequence));
        }
        let until_wrap =
            ((self.capacity() - self.next % self.capacity()) as usize * RECORD_BYTES).min(bytes.len());
        let (before, after) = bytes.split_at(until_wrap);
        medium.write(self.offset(self.next), before)?;
        if !after.is_empty() {
            medium.write(self.offset(0), after)?;
        }
        self.next += records.len() as u64;
        if records
            .iter()
            .any(|record| !matches!(record, Record::Commit { .. }))
        {
            self.changed = self.next;
        }
        Ok(())
    }

    /// Records below `upto` are on the medium, with their data.
    pub(super) fn set_committed(&mut self, upto: u64) {
        self.committed = self.committed.max(upto);
    }

    /// Records below `start` are in the pages.
    pub(super) fn set_start(&mut self, start: u64) {
        self.start = start;
    }

    /// Reads the records from `start` on. Under the `same_boot` all of them count; after a power cut those that a flush
    /// has waited for, since later ones may be there without their data.
    ///
    /// # Errors
    /// The medium's, or [`JournalDamage`].
    pub(super) fn replay(
        &self,
        medium: &impl Medium,
        committed: u64,
        same_boot: bool,
    ) -> Result<Replay, ReplayError> {
        let mut bytes = vec![0; self.capacity() as usize * RECORD_BYTES];
        medium.read(self.offset(0), &mut bytes)?;
        let decode = |sequence: u64| {
            let at = (sequence % self.capacity()) as usize * RECORD_BYTES;
            Record::decode(
                &bytes[at..at + RECORD_BYTES],
                self.uuid,
                self.incarnation,
                sequence,
            )
        };
        let mut records = Vec::new();
        for sequence in self.start..self.start + self.capacity() {
            match decode(sequence) {
                Some(record) => records.push(record),
                None => break,
            }
        }
        let end = self.start + records.len() as u64;
        // Marks behind a gap too: they show that the gap is damage.
        let marks = (self.start..self.start + 2 * self.capacity())
            .filter_map(decode)
            .filter_map(|record| match record {
                Record::Commit { upto } => Some(upto),
                _ => None,
            });
        let mut committed = marks.fold(committed, u64::max);
        if same_boot {
            // They were written one after another, and nothing was lost: whatever is behind a gap shows damage.
            let behind =
                (end..self.start + 2 * self.capacity()).rfind(|sequence| decode(*sequence).is_some());
            committed = behind.map_or(committed, |sequence| committed.max(sequence + 1));
        }
        if end < committed {
            return Err(ReplayError::Damage(JournalDamage {
                missing: end,
                page: self.offset(end) / super::format::PAGE_BYTES as u64,
                committed,
            }));
        }
        if !same_boot {
            records.truncate(committed.saturating_sub(self.start) as usize);
        }
        Ok(Replay { records })
    }

    fn capacity(&self) -> u64 {
        u64::from(self.clusters) * CLUSTER_BYTES / RECORD_BYTES as u64
    }

    fn offset(&self, sequence: u64) -> u64 {
        u64::from(JOURNAL_CLUSTER) * CLUSTER_BYTES + sequence % self.capacity() * RECORD_BYTES as u64
    }
}

/// The journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    #[error("the journal cannot be read")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Damage(JournalDamage),
}
