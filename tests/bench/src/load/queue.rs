//! One split virtqueue that is kept full (virtio 1.2, sections 2.7 and 5.2.6).
//!
//! Each request in flight has a fixed chain of three descriptors: header, data, status. Only the header's sector changes
//! between requests, so that the generator costs little beside what it measures.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileMemory, VolatileSlice};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::{Histogram, LoadError, Outcome, Shape, Until, elapsed_since};

/// As QEMU's vhost-user-blk has it.
const QUEUE_SIZE: u16 = 128;
/// For shapes that need it.
const LARGE_QUEUE_SIZE: u16 = 256;
/// Of a request: header, data, status.
const CHAIN: u16 = 3;
/// Requests that a queue can hold.
pub(crate) const DEPTH_MOST: u16 = LARGE_QUEUE_SIZE / CHAIN;

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const SECTOR: u64 = 512;
/// Longest wait for any answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where things are in a queue's part of the memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    block: usize,
    depth: usize,
    /// Descriptors.
    pub(super) size: u16,
}

impl Layout {
    pub(super) const DESCRIPTORS: u64 = 0;
    pub(super) const AVAILABLE: u64 = 0x1000;
    pub(super) const USED: u64 = 0x2000;
    const HEADERS: usize = 0x3000;
    const STATUSES: usize = 0x4000;
    const DATA: usize = 0x5000;

    pub(super) fn new(shape: &Shape) -> Self {
        Layout {
            block: (shape.block as usize).next_multiple_of(4096),
            depth: usize::from(shape.depth),
            size: if CHAIN * shape.depth <= QUEUE_SIZE {
                QUEUE_SIZE
            } else {
                LARGE_QUEUE_SIZE
            },
        }
    }

    pub(super) fn bytes(self) -> usize {
        Self::DATA + self.block * self.depth
    }
}

pub(super) struct Queue {
    memory: GuestMemoryMmap,
    base: u64,
    layout: Layout,
    shape: Shape,
    places: Places,
    kick: EventFd,
    /// Keeps the descriptor that `interrupts` tells of.
    _call: EventFd,
    /// Edge-triggered, so that the counter need not be read.
    interrupts: Epoll,
    /// Available entries offered, used entries seen.
    offered: u16,
    seen: u16,
}

/// Where the next request goes.
struct Places {
    blocks: u64,
    next: u64,
    random: bool,
    state: u64,
}

/// A request that the device has.
#[derive(Clone, Copy)]
struct Sent {
    at: u64,
    sector: u64,
}

impl Places {
    fn next(&mut self) -> u64 {
        if !self.random {
            let block = self.next % self.blocks;
            self.next += 1;
            return block;
        }
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((u128::from(z) * u128::from(self.blocks)) >> 64) as u64
    }
}

impl Queue {
    pub(super) fn new(
        memory: GuestMemoryMmap,
        base: u64,
        layout: Layout,
        shape: &Shape,
        index: usize,
        kick: EventFd,
        call: EventFd,
    ) -> Result<Self, LoadError> {
        let blocks = (shape.span / u64::from(shape.stride)).max(1);
        let share = blocks / u64::from(shape.queues);
        let interrupts = Epoll::new()?;
        let edges = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        interrupts.ctl(ControlOperation::Add, call.as_raw_fd(), edges)?;
        let queue = Queue {
            memory,
            base,
            layout,
            shape: *shape,
            places: Places {
                blocks,
                // Sequential queues begin apart from each other.
                next: share * index as u64,
                random: shape.random,
                state: (index as u64 + 1) << 32,
            },
            kick,
            _call: call,
            interrupts,
            offered: 0,
            seen: 0,
        };
        queue.write_chains()?;
        Ok(queue)
    }

    pub(super) fn kick(&self) -> &EventFd {
        &self.kick
    }

    fn slice(&self) -> Result<VolatileSlice<'_>, LoadError> {
        self.memory
            .get_slice(GuestAddress(self.base), self.layout.bytes())
            .map_err(|error| LoadError::Memory(error.to_string()))
    }

    fn write_chains(&self) -> Result<(), LoadError> {
        let slice = self.slice()?;
        for slot in 0..self.layout.depth {
            let header = self.base as usize + Layout::HEADERS + 16 * slot;
            let data = self.base as usize + Layout::DATA + self.layout.block * slot;
            let status = self.base as usize + Layout::STATUSES + slot;
            let direction = if self.shape.write { 0 } else { DESC_WRITE };
            let chain = [
                (header, 16, DESC_NEXT),
                (data, self.shape.block, DESC_NEXT | direction),
                (status, 1, DESC_WRITE),
            ];
            for (step, (address, length, flags)) in chain.into_iter().enumerate() {
                let index = usize::from(CHAIN) * slot + step;
                let at = 16 * index;
                store64(&slice, at, address as u64);
                store32(&slice, at + 8, length);
                store16(&slice, at + 12, flags);
                store16(&slice, at + 14, index as u16 + 1);
            }
            let kind = if self.shape.write { TYPE_OUT } else { TYPE_IN };
            store32(&slice, Layout::HEADERS + 16 * slot, kind);
            let mut word = slot as u64 + 1;
            for at in (0..self.layout.block).step_by(8) {
                word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                store64(&slice, Layout::DATA + self.layout.block * slot + at, word);
            }
        }
        Ok(())
    }

    /// Keeps `depth` requests in flight, and waits for all of them at the end.
    pub(super) fn send(&mut self, until: Until) -> Result<Outcome, LoadError> {
        let memory = self.memory.clone();
        let slice = memory
            .get_slice(GuestAddress(self.base), self.layout.bytes())
            .map_err(|error| LoadError::Memory(error.to_string()))?;
        let start = Instant::now();
        let mut left = match until {
            Until::Requests(count) => count,
            Until::Elapsed(_) => u64::MAX,
        };
        let end = match until {
            Until::Elapsed(time) => time.as_nanos() as u64,
            Until::Requests(_) => u64::MAX,
        };
        let mut sent = vec![Sent { at: 0, sector: 0 }; self.layout.depth];
        let mut in_flight = 0u64;
        let mut outcome = Outcome::default();
        let mut latencies = Histogram::default();
        let before = self.offered;
        for slot in 0..self.layout.depth.min(left as usize) {
            self.offer(&slice, slot, &mut sent, elapsed_since(start));
            in_flight += 1;
            left -= 1;
        }
        self.publish(&slice, before)?;
        while in_flight > 0 {
            let used = load16(&slice, Layout::USED as usize + 2);
            if used == self.seen {
                self.wait(&slice)?;
                continue;
            }
            let now = elapsed_since(start);
            let before = self.offered;
            while self.seen != used {
                let at = Layout::USED as usize + 4 + 8 * usize::from(self.seen % self.layout.size);
                let slot = load32(&slice, at) as usize / usize::from(CHAIN);
                self.seen = self.seen.wrapping_add(1);
                let request = sent[slot];
                let status = load8(&slice, Layout::STATUSES + slot);
                if status != 0 {
                    let sector = request.sector;
                    return Err(LoadError::Status { sector, status });
                }
                latencies.add(now - request.at);
                outcome.requests += 1;
                in_flight -= 1;
                if now < end && left > 0 {
                    self.offer(&slice, slot, &mut sent, now);
                    in_flight += 1;
                    left -= 1;
                }
            }
            self.publish(&slice, before)?;
        }
        outcome.elapsed = start.elapsed();
        outcome.bytes = outcome.requests * u64::from(self.shape.block);
        outcome.latencies = latencies;
        Ok(outcome)
    }

    fn offer(&mut self, slice: &VolatileSlice<'_>, slot: usize, sent: &mut [Sent], now: u64) {
        let sector = self.places.next() * u64::from(self.shape.stride) / SECTOR;
        sent[slot] = Sent { at: now, sector };
        store64(slice, Layout::HEADERS + 16 * slot + 8, sector);
        let at = Layout::AVAILABLE as usize + 4 + 2 * usize::from(self.offered % self.layout.size);
        store16(slice, at, CHAIN * slot as u16);
        self.offered = self.offered.wrapping_add(1);
    }

    /// Shows the device what was offered since `before`, and kicks it if it wants to be (virtio 1.2, section 2.7.10).
    fn publish(&mut self, slice: &VolatileSlice<'_>, before: u16) -> Result<(), LoadError> {
        if self.offered == before {
            return Ok(());
        }
        atomic16(slice, Layout::AVAILABLE as usize + 2, |index| {
            index.store(self.offered, Ordering::Release);
        });
        fence(Ordering::SeqCst);
        let event = load16(
            slice,
            Layout::USED as usize + 4 + 8 * usize::from(self.layout.size),
        );
        let wanted = self.offered.wrapping_sub(event).wrapping_sub(1) < self.offered.wrapping_sub(before);
        if wanted {
            self.kick.write(1)?;
        }
        Ok(())
    }

    /// Asks for an interrupt at the next used entry, and waits for it unless there is one already.
    fn wait(&mut self, slice: &VolatileSlice<'_>) -> Result<(), LoadError> {
        let event = Layout::AVAILABLE as usize + 4 + 2 * usize::from(self.layout.size);
        atomic16(slice, event, |event| event.store(self.seen, Ordering::Release));
        fence(Ordering::SeqCst);
        if load16(slice, Layout::USED as usize + 2) != self.seen {
            return Ok(());
        }
        let mut events = [EpollEvent::default()];
        match self.interrupts.wait(PATIENCE.as_millis() as i32, &mut events) {
            Ok(0) => Err(LoadError::Hangs(PATIENCE)),
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => Err(error.into()),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

fn atomic16<R>(slice: &VolatileSlice<'_>, at: usize, work: impl FnOnce(&AtomicU16) -> R) -> R {
    work(
        slice
            .get_atomic_ref::<AtomicU16>(at)
            .expect("within the queue's memory"),
    )
}

fn load8(slice: &VolatileSlice<'_>, at: usize) -> u8 {
    slice.get_ref::<u8>(at).expect("within the queue's memory").load()
}

fn load16(slice: &VolatileSlice<'_>, at: usize) -> u16 {
    atomic16(slice, at, |value| value.load(Ordering::Acquire))
}

fn load32(slice: &VolatileSlice<'_>, at: usize) -> u32 {
    let value = slice.get_atomic_ref::<AtomicU32>(at);
    value.expect("within the queue's memory").load(Ordering::Relaxed)
}

fn store16(slice: &VolatileSlice<'_>, at: usize, value: u16) {
    atomic16(slice, at, |place| place.store(value, Ordering::Relaxed));
}

fn store32(slice: &VolatileSlice<'_>, at: usize, value: u32) {
    let place = slice.get_atomic_ref::<AtomicU32>(at);
    place
        .expect("within the queue's memory")
        .store(value, Ordering::Relaxed);
}

fn store64(slice: &VolatileSlice<'_>, at: usize, value: u64) {
    let place = slice.get_atomic_ref::<AtomicU64>(at);
    place
        .expect("within the queue's memory")
        .store(value, Ordering::Relaxed);
}
