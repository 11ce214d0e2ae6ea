//! A virtqueue: chains come out, each with a token, and the token is what gives the chain back.

use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestAddress;

use super::chain::Chain;
use super::inflight::{Inconsistent, InflightRecord};
use super::memory::GuestMemory;
use crate::limits::MAX_QUEUE_SIZE;

/// The driver has broken the ring. Nothing more can be taken from it or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingBroken {
    /// Not a power of two, or larger than 1024.
    #[error("the queue's size is invalid")]
    Size,
    /// Misaligned, or not in guest memory.
    #[error("the queue's rings are not in guest memory or misaligned")]
    Addresses,
    /// More chains than the queue has entries, or unreadable.
    #[error("the available ring is inconsistent")]
    Available,
    /// A chain that has not been completed was made available again.
    #[error("a descriptor chain was made available twice")]
    HeadInFlight,
    /// A chain begins beyond the descriptor table.
    #[error("a descriptor chain begins beyond the table")]
    Head,
    /// The used ring cannot be written.
    #[error("the used ring cannot be written")]
    Used,
    /// What is noted of chains in flight contradicts itself or the rings.
    #[error("the record of the chains in flight is inconsistent")]
    Inflight,
}

impl From<Inconsistent> for RingBroken {
    fn from(_: Inconsistent) -> Self {
        RingBroken::Inflight
    }
}

/// Where a queue is and where it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingSetup {
    /// Entries.
    pub size: u16,
    /// Descriptor table, guest physical.
    pub descriptors: GuestAddress,
    /// Available ring, guest physical.
    pub available: GuestAddress,
    /// Used ring, guest physical.
    pub used: GuestAddress,
    /// Next entry of the available ring to take.
    pub next_available: u16,
    /// VIRTIO_F_EVENT_IDX is negotiated.
    pub event_idx: bool,
}

/// The duty to complete one chain. It can only be discharged by [`Ring::complete`], or left to a successor.
#[derive(Debug)]
#[must_use = "every chain is completed exactly once"]
pub struct Token {
    head: u16,
}

impl Token {
    /// Index of the chain's head, below the queue's size; unique among the chains in flight.
    pub fn head(&self) -> u16 {
        self.head
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // Completing forgets the token. Only a broken ring, whose chains nobody can complete, drops one.
        log::debug!("chain {} is left uncompleted in a broken ring", self.head);
    }
}

/// One virtqueue in operation.
#[derive(Debug)]
pub struct Ring {
    queue: Queue,
    in_flight: Vec<bool>,
    in_flight_count: usize,
    record: Option<InflightRecord>,
    /// Heads that a predecessor had in flight and that have not been taken again, the next one last.
    left: Vec<u16>,
}

impl Ring {
    /// Begins (or goes on) where `setup` says; the used ring's own index says where completions go on.
    ///
    /// With a `record` that a predecessor has kept, what it had in flight comes first, and the available ring goes on after
    /// that, whatever `setup` says: a frontend whose backend has died does not know. A record that has not room for all heads
    /// is left alone, and nothing is noted.
    ///
    /// # Errors
    /// [`RingBroken::Size`], [`RingBroken::Addresses`], [`RingBroken::Inflight`].
    pub fn new(
        setup: &RingSetup,
        memory: &GuestMemory,
        mut record: Option<InflightRecord>,
    ) -> Result<Self, RingBroken> {
        let mut queue = Queue::new(MAX_QUEUE_SIZE).map_err(|_| RingBroken::Size)?;
        queue.try_set_size(setup.size).map_err(|_| RingBroken::Size)?;
        queue
            .try_set_desc_table_address(setup.descriptors)
            .map_err(|_| RingBroken::Addresses)?;
        queue
            .try_set_avail_ring_address(setup.available)
            .map_err(|_| RingBroken::Addresses)?;
        queue
            .try_set_used_ring_address(setup.used)
            .map_err(|_| RingBroken::Addresses)?;
        queue.set_event_idx(setup.event_idx);
        queue.set_ready(true);
        if !queue.is_valid(memory) {
            return Err(RingBroken::Addresses);
        }
        let used = queue
            .used_idx(memory, Ordering::Acquire)
            .map_err(|_| RingBroken::Addresses)?;
        queue.set_next_used(used.0);
        queue.set_next_avail(setup.next_available);
        let mut left = Vec::new();
        if let Some(short) = record.take_if(|record| record.entries() < setup.size) {
            // Whatever it says is of another ring.
            short.forget();
        }
        if let Some(record) = &mut record
            && let Some(heads) = record.recover(used.0)?
        {
            queue.set_next_avail(used.0.wrapping_add(heads.len() as u16));
            left = heads;
        }
        let mut in_flight = vec![false; usize::from(setup.size)];
        for head in &left {
            *in_flight
                .get_mut(usize::from(*head))
                .ok_or(RingBroken::Inflight)? = true;
        }
        left.reverse();
        Ok(Ring {
            queue,
            in_flight,
            in_flight_count: left.len(),
            record,
            left,
        })
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Whether it is noted which chains are in flight.
    pub fn is_recorded(&self) -> bool {
        self.record.is_some()
    }

    /// Whether the driver has made a chain available, or has broken the ring; for a look without consequences.
    pub fn has_available(&self, memory: &GuestMemory) -> bool {
        let available = self.queue.avail_idx(memory, Ordering::Relaxed);
        available.map_or(true, |available| available.0 != self.queue.next_avail())
    }

    /// Next entry of the available ring that will be taken.
    pub fn next_available(&self) -> u16 {
        self.queue.next_avail()
    }

    /// Chains taken and not completed.
    pub fn in_flight(&self) -> usize {
        self.in_flight_count
    }

    /// Whether a predecessor had chains in flight that have not been taken again.
    pub fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// The next chain that a predecessor had in flight.
    pub fn take_left<'m>(&mut self, memory: &'m GuestMemory) -> Option<(Token, Chain<'m>)> {
        let head = self.left.pop()?;
        Some((Token { head }, self.chain(memory, head)))
    }

    /// The next chain, if the driver has made one available.
    ///
    /// # Errors
    /// [`RingBroken`].
    pub fn take<'m>(&mut self, memory: &'m GuestMemory) -> Result<Option<(Token, Chain<'m>)>, RingBroken> {
        if let Some(taken) = self.take_left(memory) {
            return Ok(Some(taken));
        }
        let available = self
            .queue
            .avail_idx(memory, Ordering::Acquire)
            .map_err(|_| RingBroken::Available)?;
        if available.0 == self.queue.next_avail() {
            return Ok(None);
        }
        let next = self.queue.iter(memory).map_err(|_| RingBroken::Available)?.next();
        let head = next.ok_or(RingBroken::Available)?.head_index();
        match self.in_flight.get_mut(usize::from(head)) {
            None => Err(RingBroken::Head),
            Some(true) => Err(RingBroken::HeadInFlight),
            Some(busy) => {
                *busy = true;
                self.in_flight_count += 1;
                if let Some(record) = &mut self.record {
                    record.taken(head);
                }
                Ok(Some((Token { head }, self.chain(memory, head))))
            }
        }
    }

    fn chain<'m>(&self, memory: &'m GuestMemory, head: u16) -> Chain<'m> {
        let table = GuestAddress(self.queue.desc_table());
        Chain::new(memory, table, self.queue.size(), head)
    }

    /// Gives a chain back, of which `used_len` bytes have been written.
    ///
    /// # Errors
    /// [`RingBroken::Used`].
    pub fn complete(&mut self, memory: &GuestMemory, token: Token, used_len: u32) -> Result<(), RingBroken> {
        let head = token.head;
        std::mem::forget(token);
        self.in_flight[usize::from(head)] = false;
        self.in_flight_count -= 1;
        if let Some(record) = &self.record {
            record.giving_back(head);
        }
        self.queue
            .add_used(memory, head, used_len)
            .map_err(|_| RingBroken::Used)?;
        if let Some(record) = &self.record {
            record.given_back(head, self.queue.next_used());
        }
        Ok(())
    }

    /// Leaves a chain in flight, where that [is recorded](Ring::is_recorded): a successor takes it again.
    pub fn leave(&mut self, token: Token) {
        debug_assert!(self.is_recorded());
        std::mem::forget(token);
    }

    /// Asks the driver not to notify while the ring is being emptied anyway.
    ///
    /// # Errors
    /// [`RingBroken::Used`].
    pub fn disable_notification(&mut self, memory: &GuestMemory) -> Result<(), RingBroken> {
        self.queue
            .disable_notification(memory)
            .map_err(|_| RingBroken::Used)
    }

    /// Asks the driver to notify. Returns whether chains have become available meanwhile.
    ///
    /// # Errors
    /// [`RingBroken::Used`].
    pub fn enable_notification(&mut self, memory: &GuestMemory) -> Result<bool, RingBroken> {
        self.queue
            .enable_notification(memory)
            .map_err(|_| RingBroken::Used)
    }

    /// Whether the driver wants to hear of the completions since the last time it was asked.
    ///
    /// # Errors
    /// [`RingBroken::Available`].
    pub fn needs_notification(&mut self, memory: &GuestMemory) -> Result<bool, RingBroken> {
        self.queue
            .needs_notification(memory)
            .map_err(|_| RingBroken::Available)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use vm_memory::{Bytes, MmapRegion, VolatileMemory};

    use super::*;

    const AVAILABLE_INDEX: GuestAddress = GuestAddress(0x1002);

    fn ring(event_idx: bool) -> (Ring, GuestMemory) {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        let setup = RingSetup {
            size: 4,
            descriptors: GuestAddress(0),
            available: GuestAddress(0x1000),
            used: GuestAddress(0x2000),
            next_available: 0,
            event_idx,
        };
        (Ring::new(&setup, &memory, None).unwrap(), memory)
    }

    #[test]
    fn a_chain_that_comes_while_notifications_are_switched_on_is_not_missed() {
        for event_idx in [false, true] {
            let (mut ring, memory) = ring(event_idx);
            ring.disable_notification(&memory).unwrap();
            assert!(ring.take(&memory).unwrap().is_none());
            memory.write_obj(1u16, AVAILABLE_INDEX).unwrap();
            assert!(ring.enable_notification(&memory).unwrap());
            let (token, _) = ring.take(&memory).unwrap().unwrap();
            ring.complete(&memory, token, 7).unwrap();
            assert!(!ring.enable_notification(&memory).unwrap());
            assert_eq!(memory.read_obj::<u32>(GuestAddress(0x2008)).unwrap(), 7);
        }
    }

    #[test]
    fn what_the_driver_breaks_is_an_error() {
        let (mut first, memory) = ring(false);
        memory.write_obj(5u16, AVAILABLE_INDEX).unwrap();
        assert_eq!(first.take(&memory).unwrap_err(), RingBroken::Available);
        memory.write_obj(1u16, AVAILABLE_INDEX).unwrap();
        memory.write_obj(4u16, GuestAddress(0x1004)).unwrap();
        assert_eq!(first.take(&memory).unwrap_err(), RingBroken::Head);
        let (mut second, memory) = ring(false);
        memory.write_obj(2u16, AVAILABLE_INDEX).unwrap();
        let taken = second.take(&memory).unwrap();
        assert_eq!(second.take(&memory).unwrap_err(), RingBroken::HeadInFlight);
        assert_eq!(second.in_flight(), 1);
        drop(taken);
    }

    const ENTRIES: u16 = 8;

    /// The record as it is in memory, so that it can be put back to what it was at a crash.
    struct Records(Arc<MmapRegion<()>>);

    impl Records {
        fn new() -> Self {
            Records(Arc::new(MmapRegion::new(InflightRecord::bytes(ENTRIES)).unwrap()))
        }

        fn copy(&self) -> Self {
            let copy = Records::new();
            let whole = |records: &Records| records.0.len();
            assert_eq!(whole(self), whole(&copy));
            self.0
                .as_volatile_slice()
                .copy_to_volatile_slice(copy.0.as_volatile_slice());
            copy
        }

        fn record(&self) -> Option<InflightRecord> {
            InflightRecord::new(self.0.clone(), 0, ENTRIES)
        }

        fn put<T: vm_memory::ByteValued>(&self, at: usize, value: T) {
            self.0.as_volatile_slice().write_obj(value, at).unwrap();
        }
    }

    /// The heads that a successor takes up, in their order, and where it goes on.
    fn taken_up(setup: &RingSetup, memory: &GuestMemory, records: &Records) -> (Vec<u16>, u16) {
        let mut ring = Ring::new(setup, memory, records.record()).unwrap();
        let next = ring.next_available();
        let mut heads = Vec::new();
        while let Some((token, _)) = ring.take_left(memory) {
            heads.push(token.head());
        }
        (heads, next)
    }

    proptest! {
        /// Whatever is taken and given back in whatever order: after a crash at any step a successor takes up just what the
        /// driver has not got back, and misses nothing that is available.
        #[test]
        fn a_crash_at_any_step_loses_and_doubles_nothing(
            event_idx in any::<bool>(),
            start in any::<u16>(),
            steps in proptest::collection::vec((any::<bool>(), 0usize..8), 1..60),
        ) {
            let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
            let setup = RingSetup {
                size: ENTRIES,
                descriptors: GuestAddress(0),
                available: GuestAddress(0x1000),
                used: GuestAddress(0x2000),
                next_available: start,
                event_idx,
            };
            memory.write_obj(start, GuestAddress(0x1002)).unwrap();
            memory.write_obj(start, GuestAddress(0x2002)).unwrap();
            let records = Records::new();
            let mut ring = Ring::new(&setup, &memory, records.record()).unwrap();
            // A frontend that does not know where the ring was.
            let setup = RingSetup { next_available: 4711, ..setup };
            let mut free: Vec<u16> = (0..ENTRIES).collect();
            let mut tokens: Vec<Token> = Vec::new();
            let mut available = start;
            for (take, choice) in steps {
                if take && !free.is_empty() {
                    let head = free.remove(choice % free.len());
                    let slot = 0x1004 + 2 * u64::from(available % ENTRIES);
                    memory.write_obj(head, GuestAddress(slot)).unwrap();
                    let before = available;
                    available = available.wrapping_add(1);
                    memory.write_obj(available, GuestAddress(0x1002)).unwrap();
                    let heads: Vec<u16> = tokens.iter().map(Token::head).collect();
                    prop_assert_eq!(taken_up(&setup, &memory, &records.copy()), (heads, before));
                    tokens.push(ring.take(&memory).unwrap().unwrap().0);
                } else if !tokens.is_empty() {
                    let token = tokens.remove(choice % tokens.len());
                    let head = token.head();
                    ring.complete(&memory, token, 1).unwrap();
                    free.push(head);
                    // The used index has moved, and that was not noted yet; or half of it.
                    let crashed = records.copy();
                    let used: u16 = memory.read_obj(GuestAddress(0x2002)).unwrap();
                    crashed.put(14, used.wrapping_sub(1));
                    let heads: Vec<u16> = tokens.iter().map(Token::head).collect();
                    prop_assert_eq!(taken_up(&setup, &memory, &crashed), (heads.clone(), available));
                    let crashed = records.copy();
                    crashed.put(14, used.wrapping_sub(1));
                    crashed.put(16 + 16 * usize::from(head), 1u8);
                    prop_assert_eq!(taken_up(&setup, &memory, &crashed), (heads, available));
                }
                let heads: Vec<u16> = tokens.iter().map(Token::head).collect();
                prop_assert_eq!(taken_up(&setup, &memory, &records.copy()), (heads, available));
            }
        }
    }

    #[test]
    fn a_record_without_room_for_all_heads_is_left_alone() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        let mut setup = RingSetup {
            size: ENTRIES,
            descriptors: GuestAddress(0),
            available: GuestAddress(0x1000),
            used: GuestAddress(0x2000),
            next_available: 0,
            event_idx: false,
        };
        let records = Records::new();
        assert!(
            Ring::new(&setup, &memory, records.record())
                .unwrap()
                .is_recorded()
        );
        records.record().unwrap().taken(3);
        setup.size = 2 * ENTRIES;
        let larger = Ring::new(&setup, &memory, records.record()).unwrap();
        assert!(!larger.is_recorded() && !larger.has_left());
        // What it said was of another ring.
        setup.size = ENTRIES;
        assert!(!Ring::new(&setup, &memory, records.record()).unwrap().has_left());
    }

    #[test]
    fn unusable_setups_are_refused() {
        let (_, memory) = ring(false);
        let good = RingSetup {
            size: 4,
            descriptors: GuestAddress(0),
            available: GuestAddress(0x1000),
            used: GuestAddress(0x2000),
            next_available: 0,
            event_idx: false,
        };
        let refused = |setup: RingSetup| Ring::new(&setup, &memory, None).unwrap_err();
        assert_eq!(refused(RingSetup { size: 0, ..good }), RingBroken::Size);
        assert_eq!(refused(RingSetup { size: 3, ..good }), RingBroken::Size);
        assert_eq!(refused(RingSetup { size: 2048, ..good }), RingBroken::Size);
        let outside = GuestAddress(0x10000);
        assert_eq!(
            refused(RingSetup {
                descriptors: outside,
                ..good
            }),
            RingBroken::Addresses
        );
        assert_eq!(
            refused(RingSetup {
                available: GuestAddress(0xfffe),
                ..good
            }),
            RingBroken::Addresses
        );
        assert_eq!(
            refused(RingSetup {
                used: GuestAddress(0x2002),
                ..good
            }),
            RingBroken::Addresses
        );
    }
}
