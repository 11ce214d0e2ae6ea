//! Requests from their chain to their answer; flushes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use virtio_queue::DescriptorChain;

use super::{SYNC, Worker};
use crate::disk::{Disk, SERIAL_BYTES};
use crate::units::SectorRange;
use crate::virtqueue::{Cursor, GuestMemory, Operation, Request, RingBroken, Status, Token};

/// A request in flight; one slot for each possible head.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) token: Option<Token>,
    pub(super) request: Request,
    /// Of a read or write.
    pub(super) range: Option<SectorRange>,
    /// Sectors for which a transfer was started, and where in the guest's buffers they end.
    pub(super) started: u64,
    pub(super) cursor: Cursor,
    pub(super) outstanding: u32,
    pub(super) failed: bool,
    /// It is in `waiting`.
    pub(super) queued: bool,
}

impl Worker {
    /// Parses a chain and starts what it asks for.
    pub(super) fn begin(&mut self, token: Token, chain: DescriptorChain<&GuestMemory>, memory: &GuestMemory) {
        let disk = self.setup.disk.clone();
        let head = token.head();
        let slot = &mut self.slots[usize::from(head)];
        slot.token = Some(token);
        let (capacity, read_only) = (disk.capacity(), disk.is_read_only());
        let parsed = slot
            .request
            .parse(&mut self.scratch, chain, memory, capacity, read_only);
        if let Err(error) = parsed {
            let queue = self.setup.index;
            let log = |before| log::warn!("queue {queue}: {error} ({before} such before)");
            self.setup.limits.chains.log(log);
            return self.complete(head, 0);
        }
        self.carry_out(head, &disk);
    }

    pub(super) fn carry_out(&mut self, head: u16, disk: &Disk) {
        let slot = &mut self.slots[usize::from(head)];
        slot.range = None;
        slot.failed = false;
        match slot.request.operation {
            Operation::Answer(status) => self.answer(head, status, 0),
            Operation::GetId => {
                let len = slot.request.data.len().min(SERIAL_BYTES as u64) as usize;
                let memory = self.setup.memory.guest();
                let written = slot
                    .request
                    .data
                    .write(memory, &mut Cursor::default(), &disk.serial()[..len]);
                match written {
                    Ok(()) => self.answer(head, Status::Ok, len as u32),
                    Err(_) => self.answer(head, Status::IoError, 0),
                }
            }
            _ if disk.is_poisoned() => self.answer(head, Status::IoError, 0),
            Operation::Flush => self.flushes.push(head),
            Operation::Read(range) | Operation::Write(range) => {
                slot.range = Some(range);
                slot.started = 0;
                slot.outstanding = 0;
                slot.cursor = Cursor::default();
                if range.count() == 0 {
                    self.finish_transfers(head);
                } else {
                    slot.queued = true;
                    self.waiting_bytes += range.bytes().0;
                    self.waiting.push_back(head);
                }
            }
        }
    }

    /// Starts one sync for all flushes that have come, when no other queue is syncing.
    pub(super) fn start_sync(&mut self) -> io::Result<()> {
        if self.flushes.is_empty() || !self.syncing.is_empty() {
            return Ok(());
        }
        let disk = self.setup.disk.clone();
        if !disk.try_begin_sync(&self.wake) {
            return Ok(());
        }
        std::mem::swap(&mut self.flushes, &mut self.syncing);
        if disk.is_poisoned() {
            // Without asking the kernel, which would say that all is well.
            self.sync_ended(Err(io::Error::other("the disk is poisoned")));
            return Ok(());
        }
        self.engine.sync(disk.store().file(), SYNC)
    }

    pub(super) fn sync_ended(&mut self, result: io::Result<usize>) {
        let result = result.map(|_| ());
        self.setup.disk.end_sync(&result);
        let status = if result.is_ok() {
            Status::Ok
        } else {
            Status::IoError
        };
        let mut answered = std::mem::take(&mut self.syncing);
        for head in answered.drain(..) {
            self.answer(head, status, 0);
        }
        self.syncing = answered;
    }

    /// Completes a request; `data` is the number of data bytes written to the guest.
    pub(super) fn answer(&mut self, head: u16, status: Status, data: u32) {
        let slot = &self.slots[usize::from(head)];
        self.count(slot, status);
        let used_len = slot.request.write_status(self.setup.memory.guest(), status, data);
        self.complete(head, used_len);
    }

    pub(super) fn count(&self, slot: &Slot, status: Status) {
        let counters = self.setup.disk.counters();
        let one = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match (status, slot.request.operation) {
            (Status::Ok, Operation::Read(range)) => {
                one(&counters.reads);
                counters.bytes_read.fetch_add(range.bytes().0, Ordering::Relaxed);
            }
            (Status::Ok, Operation::Write(range)) => {
                one(&counters.writes);
                counters
                    .bytes_written
                    .fetch_add(range.bytes().0, Ordering::Relaxed);
            }
            (Status::Ok, Operation::Flush) => {
                one(&counters.flushes);
            }
            (Status::Ok, _) => {}
            _ => {
                one(&counters.errors);
            }
        }
    }

    pub(super) fn complete(&mut self, head: u16, used_len: u32) {
        let token = self.slots[usize::from(head)]
            .token
            .take()
            .expect("a request is completed once");
        if self.broken {
            return;
        }
        match self.ring.complete(self.setup.memory.guest(), token, used_len) {
            Ok(()) => self.to_notify = true,
            Err(error) => self.break_ring(error),
        }
        if self.setup.memory.has_faulted() {
            self.break_ring(RingBroken::Addresses);
        }
    }
}
