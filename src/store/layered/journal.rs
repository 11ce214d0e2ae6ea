//! The journal: a ring of records, written before what they describe is answered.

use std::io;

use super::format::record::{RECORD_BYTES, Record};
use super::format::{PAGE_BYTES, Uuid};
use super::medium::Medium;
use super::ring::Ring;

/// Records that are kept for what must not wait: marks of flushes, and changes by the operator.
const SPARE: u64 = 128;

/// Place and progress of the journal.
#[derive(Debug)]
pub(super) struct Journal {
    uuid: Uuid,
    incarnation: u32,
    ring: Ring,
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
#[derive(Clone, Debug)]
pub(super) struct Replay {
    pub(super) records: Vec<Record>,
    /// Pages without any of them that the medium does not give.
    pub(super) unreadable: Vec<u64>,
}

/// The journal lacks records that were made durable, or may lack some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalDamage {
    /// A later one says that it was durable.
    #[error(
        "the journal is damaged: record {record} (page {page}) is missing, and records up to {committed} were written"
    )]
    Missing {
        /// Its number.
        record: u64,
        /// Where it should be.
        page: u64,
        /// How far records must reach.
        committed: u64,
    },
    /// There may be one, and others behind it: nobody knows whether the medium has lost any.
    #[error("the journal is damaged: page {page}, where record {record} would be, cannot be read")]
    Unreadable {
        /// Its number.
        record: u64,
        /// Where it would be.
        page: u64,
    },
}

impl Journal {
    /// A journal that continues with record `next`, everything before being in the pages.
    pub(super) fn new(uuid: Uuid, incarnation: u32, ring: Ring, next: u64) -> Self {
        Journal {
            uuid,
            incarnation,
            ring,
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

    /// Records that are promised.
    pub(super) fn promised(&self) -> u64 {
        self.reserved
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
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let run = self.ring.run(self.next) as usize * RECORD_BYTES;
            let (together, behind) = rest.split_at(run.min(rest.len()));
            medium.write(self.ring.offset(self.next), together)?;
            self.next += (together.len() / RECORD_BYTES) as u64;
            rest = behind;
        }
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
    /// [`JournalDamage`].
    pub(super) fn replay(
        &self,
        medium: &impl Medium,
        committed: u64,
        same_boot: bool,
    ) -> Result<Replay, JournalDamage> {
        let (bytes, unreadable) = self.read(medium);
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
            // Without a crash of the host records are on the medium in the order in which they were written: one behind a gap
            // shows that the gap is damage.
            let behind =
                (end..self.start + 2 * self.capacity()).rfind(|sequence| decode(*sequence).is_some());
            committed = behind.map_or(committed, |sequence| committed.max(sequence + 1));
        }
        if end < committed {
            return Err(JournalDamage::Missing {
                record: end,
                page: self.page(end),
                committed,
            });
        }
        if end < self.start + self.capacity() && unreadable.contains(&self.page(end)) {
            return Err(JournalDamage::Unreadable {
                record: end,
                page: self.page(end),
            });
        }
        if !same_boot {
            records.truncate(committed.saturating_sub(self.start) as usize);
        }
        Ok(Replay { records, unreadable })
    }

    /// All places of records, and the pages that the medium does not give: these are zeros.
    fn read(&self, medium: &impl Medium) -> (Vec<u8>, Vec<u64>) {
        let mut bytes = vec![0; self.capacity() as usize * RECORD_BYTES];
        let mut unreadable = Vec::new();
        let mut sequence = 0;
        while sequence < self.capacity() {
            let run = self.ring.run(sequence);
            let at = sequence as usize * RECORD_BYTES;
            let together = &mut bytes[at..at + run as usize * RECORD_BYTES];
            let offset = self.ring.offset(sequence);
            if medium.read(offset, together).is_err() {
                for (page, bytes) in (offset / PAGE_BYTES as u64..).zip(together.chunks_mut(PAGE_BYTES)) {
                    if medium.read(page * PAGE_BYTES as u64, bytes).is_err() {
                        bytes.fill(0);
                        unreadable.push(page);
                    }
                }
            }
            sequence += run;
        }
        (bytes, unreadable)
    }

    fn capacity(&self) -> u64 {
        self.ring.capacity()
    }

    fn page(&self, sequence: u64) -> u64 {
        self.ring.offset(sequence) / PAGE_BYTES as u64
    }
}
