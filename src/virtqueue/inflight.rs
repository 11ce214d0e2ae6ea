//! Which chains of a queue are in flight, noted in memory that outlives the process: a successor takes them up again.
//!
//! Specification: <https://qemu.readthedocs.io/en/latest/interop/vhost-user.html#inflight-i-o-tracking>, split
//! virtqueues. The record of one queue is {features u64, version u16, entries u16, last_batch_head u16, used_index u16},
//! then for each possible head {in_flight u8, 5 unused, next u16, counter u64}. The frontend keeps the memory, so
//! nothing in it is believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use vm_memory::{AtomicInteger, MmapRegion, VolatileMemory};

const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 16;

// Offsets in the header.
const FEATURES: usize = 0;
const VERSION: usize = 8;
const ENTRIES: usize = 10;
const LAST_BATCH_HEAD: usize = 12;
const USED_INDEX: usize = 14;
// Offsets in an entry.
const IN_FLIGHT: usize = 0;
const NEXT: usize = 6;
const COUNTER: usize = 8;

/// The present layout; 0 is a record that nobody has used yet.
const PRESENT_VERSION: u16 = 1;

/// The record contradicts itself or the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inconsistent;

/// The record of one queue.
#[derive(Debug)]
pub struct InflightRecord {
    memory: Arc<MmapRegion<()>>,
    /// Where it begins.
    start: usize,
    entries: u16,
    /// The next chain's place in the order.
    counter: u64,
}

impl InflightRecord {
    /// Records begin at multiples of this, so that queues share no cache line.
    pub const ALIGNMENT: usize = 64;

    /// Bytes of the record of a queue of `entries`.
    pub fn bytes(entries: u16) -> usize {
        (HEADER_BYTES + ENTRY_BYTES * usize::from(entries)).next_multiple_of(Self::ALIGNMENT)
    }

    /// Most entries of a queue whose record takes no more than `bytes`.
    pub fn room(bytes: usize) -> usize {
        bytes.saturating_sub(HEADER_BYTES) / ENTRY_BYTES
    }

    /// The record that begins at `start`, which is aligned, and has room for `entries` heads; none if it is not within `memory`.
    pub fn new(memory: Arc<MmapRegion<()>>, start: usize, entries: u16) -> Option<Self> {
        let whole = start + Self::bytes(entries) <= memory.len();
        whole.then_some(InflightRecord {
            memory,
            start,
            entries,
            counter: 0,
        })
    }

    /// Nothing is in flight, and the queue is about to be set up anew.
    pub fn forget(&self) {
        self.at::<AtomicU16>(VERSION).store(0, Ordering::Release);
    }

    /// Takes up what a predecessor has left, of a ring whose used index is `used`: the heads in flight in the order in
    /// which they were taken; none if nobody has used the record yet.
    ///
    /// # Errors
    /// [`Inconsistent`].
    pub(super) fn recover(&mut self, used: u16) -> Result<Option<Vec<u16>>, Inconsistent> {
        match self.at::<AtomicU16>(VERSION).load(Ordering::Acquire) {
            0 => {
                self.begin(used);
                return Ok(None);
            }
            PRESENT_VERSION => {}
            _ => return Err(Inconsistent),
        }
        // The process that began the record may have served a smaller queue than there is room for.
        let entries = self.at::<AtomicU16>(ENTRIES).load(Ordering::Relaxed);
        let features = self.at::<AtomicU64>(FEATURES).load(Ordering::Relaxed);
        if !(1..=self.entries).contains(&entries) || features != 0 {
            return Err(Inconsistent);
        }
        self.end_last_batch(used, entries)?;
        let mut in_flight = Vec::new();
        for head in 0..entries {
            match self.entry::<AtomicU8>(head, IN_FLIGHT).load(Ordering::Relaxed) {
                0 => {}
                1 => in_flight.push((
                    self.entry::<AtomicU64>(head, COUNTER).load(Ordering::Relaxed),
                    head,
                )),
                _ => return Err(Inconsistent),
            }
        }
        self.widen(entries);
        in_flight.sort_unstable();
        self.counter = in_flight.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        Ok(Some(in_flight.into_iter().map(|(_, head)| head).collect()))
    }

    fn begin(&self, used: u16) {
        self.widen(0);
        self.at::<AtomicU64>(FEATURES).store(0, Ordering::Relaxed);
        self.at::<AtomicU16>(LAST_BATCH_HEAD).store(0, Ordering::Relaxed);
        self.at::<AtomicU16>(USED_INDEX).store(used, Ordering::Relaxed);
        self.at::<AtomicU16>(VERSION)
            .store(PRESENT_VERSION, Ordering::Release);
    }

    /// From `entries` heads on nothing is in flight, and from now on all there is room for can be noted.
    fn widen(&self, entries: u16) {
        for head in entries..self.entries {
            self.entry::<AtomicU8>(head, IN_FLIGHT)
                .store(0, Ordering::Relaxed);
        }
        self.at::<AtomicU16>(ENTRIES)
            .store(self.entries, Ordering::Release);
    }

    /// What was given back last may not have been noted as such. The list of the batch goes back from its last head.
    fn end_last_batch(&self, used: u16, entries: u16) -> Result<(), Inconsistent> {
        let noted = self.at::<AtomicU16>(USED_INDEX);
        let batch = used.wrapping_sub(noted.load(Ordering::Relaxed));
        if batch > entries {
            return Err(Inconsistent);
        }
        let mut head = self.at::<AtomicU16>(LAST_BATCH_HEAD).load(Ordering::Relaxed);
        for _ in 0..batch {
            if head >= entries {
                return Err(Inconsistent);
            }
            self.entry::<AtomicU8>(head, IN_FLIGHT)
                .store(0, Ordering::Relaxed);
            head = self.entry::<AtomicU16>(head, NEXT).load(Ordering::Relaxed);
        }
        noted.store(used, Ordering::Release);
        Ok(())
    }

    /// A chain has been taken. To be noted before the next one is looked at, since the number of those in flight says
    /// where the available ring goes on.
    pub(super) fn taken(&mut self, head: u16) {
        self.entry::<AtomicU64>(head, COUNTER)
            .store(self.counter, Ordering::Relaxed);
        self.counter = self.counter.wrapping_add(1);
        self.entry::<AtomicU8>(head, IN_FLIGHT)
            .store(1, Ordering::Release);
    }

    /// A chain is about to be given back: to be noted before the used index moves.
    pub(super) fn giving_back(&self, head: u16) {
        let last = self.at::<AtomicU16>(LAST_BATCH_HEAD);
        self.entry::<AtomicU16>(head, NEXT)
            .store(last.load(Ordering::Relaxed), Ordering::Relaxed);
        last.store(head, Ordering::Release);
    }

    /// A chain has been given back, and the ring's used index is `used` now.
    pub(super) fn given_back(&self, head: u16, used: u16) {
        self.entry::<AtomicU8>(head, IN_FLIGHT)
            .store(0, Ordering::Release);
        self.at::<AtomicU16>(USED_INDEX).store(used, Ordering::Release);
    }

    /// Room for this many heads.
    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    fn entry<T: AtomicInteger>(&self, head: u16, offset: usize) -> &T {
        self.at(HEADER_BYTES + ENTRY_BYTES * usize::from(head) + offset)
    }

    fn at<T: AtomicInteger>(&self, offset: usize) -> &T {
        self.memory
            .get_atomic_ref(self.start + offset)
            .expect("within the memory and aligned")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(entries: u16) -> InflightRecord {
        let memory = Arc::new(MmapRegion::new(2 * InflightRecord::bytes(entries)).unwrap());
        InflightRecord::new(memory, InflightRecord::bytes(entries), entries).unwrap()
    }

    fn again(record: &InflightRecord) -> InflightRecord {
        InflightRecord::new(record.memory.clone(), record.start, record.entries).unwrap()
    }

    #[test]
    fn heads_come_back_in_the_order_in_which_they_were_taken() {
        let mut record = record(8);
        assert_eq!(record.recover(77), Ok(None));
        for head in [5, 2, 7, 0] {
            record.taken(head);
        }
        record.giving_back(2);
        record.given_back(2, 78);
        let mut next = again(&record);
        assert_eq!(next.recover(78), Ok(Some(vec![5, 7, 0])));
        next.taken(2);
        assert_eq!(again(&next).recover(78), Ok(Some(vec![5, 7, 0, 2])));
        next.forget();
        assert_eq!(again(&next).recover(3), Ok(None));
        assert_eq!(again(&next).recover(3), Ok(Some(vec![])));
    }

    /// The used index had moved, and the process died before it noted that: such chains must not be done again.
    #[test]
    fn the_last_batch_is_not_in_flight_any_more() {
        let mut record = record(8);
        assert_eq!(record.recover(u16::MAX), Ok(None));
        for head in [1, 3, 6] {
            record.taken(head);
        }
        // Noted, but the used index did not move.
        record.giving_back(3);
        assert_eq!(again(&record).recover(u16::MAX), Ok(Some(vec![1, 3, 6])));
        // A batch of two, as another backend may make it.
        record.giving_back(6);
        assert_eq!(again(&record).recover(1), Ok(Some(vec![1])));
        assert_eq!(again(&record).recover(1), Ok(Some(vec![1])), "and that is noted");
    }

    #[test]
    fn what_was_begun_for_a_smaller_queue_is_taken_up_and_goes_on_with_all_the_room() {
        let mut record = record(8);
        assert_eq!(record.recover(0), Ok(None));
        record.taken(1);
        record.at::<AtomicU16>(ENTRIES).store(4, Ordering::Relaxed);
        // Nobody has written here, as far as the smaller one knows.
        record
            .entry::<AtomicU8>(6, IN_FLIGHT)
            .store(0x55, Ordering::Relaxed);
        let mut next = again(&record);
        assert_eq!(next.recover(0), Ok(Some(vec![1])));
        next.taken(7);
        assert_eq!(again(&next).recover(0), Ok(Some(vec![1, 7])));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let spoil: [fn(&InflightRecord); 8] = [
            |record| record.at::<AtomicU16>(VERSION).store(2, Ordering::Relaxed),
            |record| record.at::<AtomicU16>(ENTRIES).store(9, Ordering::Relaxed),
            |record| record.at::<AtomicU16>(ENTRIES).store(0, Ordering::Relaxed),
            |record| record.at::<AtomicU64>(FEATURES).store(1, Ordering::Relaxed),
            |record| record.at::<AtomicU16>(USED_INDEX).store(91, Ordering::Relaxed),
            |record| record.at::<AtomicU16>(USED_INDEX).store(101, Ordering::Relaxed),
            |record| record.entry::<AtomicU8>(4, IN_FLIGHT).store(2, Ordering::Relaxed),
            |record| {
                record.at::<AtomicU16>(USED_INDEX).store(98, Ordering::Relaxed);
                record
                    .at::<AtomicU16>(LAST_BATCH_HEAD)
                    .store(3, Ordering::Relaxed);
                record.entry::<AtomicU16>(3, NEXT).store(8, Ordering::Relaxed);
            },
        ];
        for (number, spoil) in spoil.iter().enumerate() {
            let mut record = record(8);
            assert_eq!(record.recover(100), Ok(None));
            spoil(&record);
            assert_eq!(again(&record).recover(100), Err(Inconsistent), "{number}");
        }
        let memory = Arc::new(MmapRegion::new(InflightRecord::bytes(8)).unwrap());
        assert!(InflightRecord::new(memory, InflightRecord::bytes(8), 8).is_none());
    }
}
