//! A load whose every completion is checked, and which goes on where it was when its backend has died.
//!
//! Each slot of a queue has one request in flight, with blocks of the disk that are its own: so it is known at any moment
//! what they must hold, however requests overtake one another.

use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};

use crate::driver::{
    DATA, Driver, EVENT_IDX, FLUSH, INDIRECT, NO_STATUS, OK, PATIENCE, PROTOCOL_FEATURES, T_FLUSH, T_IN,
    T_OUT, VERSION_1, pattern, readable, writable,
};

const INDIRECT_DESC: u64 = 1 << 28;
const FEATURES: u64 = VERSION_1 | PROTOCOL_FEATURES | FLUSH | EVENT_IDX | INDIRECT_DESC;
pub(crate) const QUEUES: u16 = 2;
pub(crate) const DEPTH: u16 = 32;
/// What a frontend says of its queues, and mostly their size.
const QUEUE_SIZE: u16 = 128;
/// Blocks of each slot.
const BLOCKS: u64 = 4;
const BLOCK_BYTES: u64 = 64 << 10;
/// Of the disk that it needs.
pub(crate) const DISK_BYTES: u64 = QUEUES as u64 * DEPTH as u64 * BLOCKS * BLOCK_BYTES;
/// Guest memory of each slot: header and status, an indirect table, then data.
const SLOT_BYTES: u64 = 0x2000 + BLOCK_BYTES;

/// Random numbers that a seed repeats (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[derive(Clone, Copy, Debug)]
enum Request {
    Read { block: u64, len: u64 },
    Write { block: u64, len: u64, seed: u64 },
    Flush,
}

#[derive(Debug, Default)]
struct Slot {
    request: Option<Request>,
    /// What was last written to each block, and how much of it: seed and length.
    written: [Vec<(u64, u64)>; BLOCKS as usize],
}

/// The load.
pub(crate) struct Load {
    pub(crate) driver: Driver,
    pub(crate) random: Random,
    slots: Vec<Vec<Slot>>,
    pub(crate) completed: u64,
    /// Where its part of the disk begins.
    first_sector: u64,
    /// From one slot's head to the next one's.
    spacing: u16,
}

impl Load {
    /// On a frontend that is only connected.
    pub(crate) fn new(driver: Driver, seed: u64) -> Self {
        Self::beginning_at(driver, seed, 0)
    }

    /// On the part of the disk that begins there.
    pub(crate) fn beginning_at(driver: Driver, seed: u64, first_sector: u64) -> Self {
        Self::with_queues_of(QUEUE_SIZE, driver, seed, first_sector)
    }

    /// With queues of this size, whatever is said of them where memory for chains in flight is asked for.
    pub(crate) fn with_queues_of(size: u16, mut driver: Driver, seed: u64, first_sector: u64) -> Self {
        driver.negotiate(FEATURES);
        driver.track_inflight(QUEUES, QUEUE_SIZE);
        driver.send_memory_table();
        for queue in 0..QUEUES {
            driver.start_queue(queue, size, 0);
        }
        let slots = || (0..DEPTH).map(|_| Slot::default()).collect();
        let mut load = Load {
            driver,
            random: Random(seed),
            slots: (0..QUEUES).map(|_| slots()).collect(),
            completed: 0,
            first_sector,
            spacing: size / DEPTH,
        };
        // What an enciphered raw disk holds before it is written is noise.
        load.everywhere(|block| Request::Write {
            block,
            len: BLOCK_BYTES,
            seed: block,
        });
        load
    }

    /// Makes a request for each block of each slot.
    fn everywhere(&mut self, request: impl Fn(u64) -> Request) {
        for block in 0..BLOCKS {
            for queue in 0..usize::from(QUEUES) {
                for slot in 0..DEPTH {
                    self.offer(queue, slot, request(block));
                }
                self.driver.kick(queue);
            }
            self.drain();
        }
    }

    /// Makes a request in every slot that has none.
    pub(crate) fn fill(&mut self) {
        for queue in 0..usize::from(QUEUES) {
            let before = self.driver.available_index(queue);
            for slot in 0..DEPTH {
                if self.slots[queue][usize::from(slot)].request.is_none() {
                    self.start(queue, slot);
                }
            }
            self.driver.kick_if_wanted(queue, before);
        }
    }

    /// Takes what has been completed, waiting for an interrupt where nothing has.
    pub(crate) fn reap(&mut self) {
        let before = self.completed;
        self.reap_ready();
        let armed = (0..usize::from(QUEUES)).fold(false, |ready, queue| self.driver.arm(queue) | ready);
        if self.completed == before && !armed && self.in_flight() > 0 {
            self.wait_for_interrupt();
        }
    }

    /// Takes what has been completed.
    pub(crate) fn reap_ready(&mut self) {
        for queue in 0..usize::from(QUEUES) {
            while let Some(head) = self.driver.try_completion(queue) {
                self.end(queue, head);
            }
        }
    }

    /// Waits until nothing is in flight.
    pub(crate) fn drain(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.in_flight() > 0 {
            assert!(
                Instant::now() < deadline,
                "{} requests are lost",
                self.in_flight()
            );
            self.reap();
        }
    }

    /// Reads everything back.
    pub(crate) fn check_all(&mut self) {
        self.drain();
        self.everywhere(|block| Request::Read {
            block,
            len: BLOCK_BYTES,
        });
    }

    fn in_flight(&self) -> usize {
        let slots = self.slots.iter().flatten();
        slots.filter(|slot| slot.request.is_some()).count()
    }

    fn wait_for_interrupt(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.driver.queues.iter().all(|queue| queue.call.read().is_err()) {
            assert!(
                Instant::now() < deadline,
                "no interrupt, {} requests in flight",
                self.in_flight()
            );
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    fn start(&mut self, queue: usize, slot: u16) {
        let block = self.random.below(BLOCKS);
        let len = 4096 * (1 + self.random.below(BLOCK_BYTES / 4096));
        let request = match self.random.below(20) {
            0 => Request::Flush,
            1..=7 => Request::Read { block, len },
            _ => Request::Write {
                block,
                len,
                seed: self.random.below(u64::MAX),
            },
        };
        self.offer(queue, slot, request);
    }

    fn offer(&mut self, queue: usize, slot: u16, request: Request) {
        let driver = &mut self.driver;
        let memory = memory_of(queue, slot);
        let data = memory + 0x2000;
        let (kind, block, buffer) = match request {
            Request::Flush => (T_FLUSH, 0, None),
            Request::Read { block, len } => {
                driver.put(data, &vec![0xcd; len as usize]);
                (T_IN, block, Some(writable(data, len as u32)))
            }
            Request::Write { block, len, seed } => {
                driver.put(data, &pattern(seed, len as usize));
                (T_OUT, block, Some(readable(data, len as u32)))
            }
        };
        let sector = if kind == T_FLUSH {
            0
        } else {
            self.first_sector + sector_of(queue, slot, block)
        };
        driver.header(memory, kind, sector);
        driver.put(memory + 16, &[NO_STATUS]);
        let mut descriptors = vec![readable(memory, 16)];
        descriptors.extend(buffer);
        descriptors.push(writable(memory + 16, 1));
        let head = self.spacing * slot;
        if slot % 3 == 1 {
            driver.write_chain(memory + 0x1000, 0, &descriptors);
            let mut table = readable(memory + 0x1000, 16 * descriptors.len() as u32);
            table.flags = INDIRECT;
            driver.chain_at(queue, head, &[table]);
        } else {
            driver.chain_at(queue, head, &descriptors);
        }
        self.slots[queue][usize::from(slot)].request = Some(request);
        driver.offer(queue, head);
    }

    /// Checks a completion: nobody else's, not a second one, good, and what was read is what was written.
    fn end(&mut self, queue: usize, head: u16) {
        assert_eq!(head % self.spacing, 0, "a head that was never offered");
        let slot = head / self.spacing;
        let state = &mut self.slots[queue][usize::from(slot)];
        let request = state.request.take();
        let request = request.unwrap_or_else(|| panic!("queue {queue}, head {head} is completed twice"));
        let memory = memory_of(queue, slot);
        let status: u8 = self.driver.memory.read_obj(GuestAddress(memory + 16)).unwrap();
        assert_eq!(status, OK, "queue {queue}, head {head}: {request:?}");
        match request {
            Request::Flush => {}
            Request::Write { block, len, seed } => {
                let written = &mut state.written[block as usize];
                written.retain(|(_, covered)| *covered > len);
                written.push((seed, len));
            }
            Request::Read { block, len } => {
                let mut expected = vec![0; len as usize];
                for (seed, covered) in &state.written[block as usize] {
                    let bytes = pattern(*seed, *covered as usize);
                    let common = expected.len().min(bytes.len());
                    expected[..common].copy_from_slice(&bytes[..common]);
                }
                let read = self.driver.get(memory + 0x2000, len as usize);
                let same = read == expected;
                assert!(
                    same,
                    "queue {queue}, slot {slot}, block {block}: not what was written"
                );
            }
        }
        self.completed += 1;
    }
}

fn memory_of(queue: usize, slot: u16) -> u64 {
    DATA + (queue as u64 * u64::from(DEPTH) + u64::from(slot)) * SLOT_BYTES
}

fn sector_of(queue: usize, slot: u16, block: u64) -> u64 {
    ((queue as u64 * u64::from(DEPTH) + u64::from(slot)) * BLOCKS + block) * BLOCK_BYTES / 512
}
