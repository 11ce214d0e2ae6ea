//! Requests from their chain to their answer.

use std::sync::atomic::{AtomicU64, Ordering};

use super::in_flight::{Ended, edges};
use super::state::Worker;
use crate::disk::{Disk, SERIAL_BYTES};
use crate::limits::DISCARD_BYTES_PER_WAITING_BYTE;
use crate::virtqueue::{Chain, Cursor, Device, GuestMemory, RequestType, RingBroken, Status, Token};

impl Worker {
    /// Parses a chain and starts what it asks for.
    pub(super) fn begin(&mut self, token: Token, chain: Chain<'_>, memory: &GuestMemory) {
        let disk = self.setup.disk.clone();
        let head = token.head();
        let in_flight = &mut self.requests[usize::from(head)];
        in_flight.token = Some(token);
        in_flight.was_held = false;
        let device = Device {
            capacity: disk.capacity(),
            read_only: self.setup.read_only,
            discard: self.setup.driver.discard,
            write_zeroes: self.setup.driver.write_zeroes,
            segments: self.setup.driver.segments,
        };
        let parsed = in_flight.request.parse(&mut self.scratch, chain, memory, &device);
        if let Err(error) = parsed {
            let queue = self.setup.index;
            let log = |before| log::warn!("queue {queue}: {error} ({before} such before)");
            self.setup.limits.chains.log(log);
            return self.complete(head, 0);
        }
        self.carry_out(head, &disk);
    }

    pub(super) fn carry_out(&mut self, head: u16, disk: &Disk) {
        let in_flight = &mut self.requests[usize::from(head)];
        (in_flight.failed, in_flight.no_room) = (false, false);
        match in_flight.request.operation {
            RequestType::Answer(status) => self.answer(head, status, 0),
            RequestType::GetId => {
                let len = in_flight.request.data.len().min(SERIAL_BYTES as u64) as usize;
                let memory = self.setup.memory.guest();
                let written =
                    in_flight
                        .request
                        .data
                        .write(memory, &mut Cursor::default(), &disk.serial()[..len]);
                match written {
                    Ok(()) => self.answer(head, Status::Ok, len as u32),
                    Err(_) => self.answer(head, Status::IoError, 0),
                }
            }
            _ if disk.is_poisoned() => self.answer(head, Status::IoError, 0),
            RequestType::Flush => self.flushes.add(head),
            RequestType::Read(range) | RequestType::Write(range) => {
                let writes = matches!(in_flight.request.operation, RequestType::Write(_));
                in_flight.turn = disk.turns().and_then(|turns| turns.queue([range], writes));
                in_flight.begin(Some(range), range.bytes().0);
                self.queue(head);
            }
            // If memory was lost while the segments were read, the guest never wrote what was read.
            RequestType::Discard | RequestType::WriteZeroes if self.setup.memory.has_faulted() => {
                self.answer(head, Status::IoError, 0);
            }
            RequestType::Discard | RequestType::WriteZeroes => {
                let segments = &in_flight.request.segments;
                // Whole blocks are discarded at once, by the store.
                if in_flight.request.operation == RequestType::WriteZeroes
                    && let Some(turns) = disk.turns()
                {
                    in_flight.turn = turns.queue(segments.iter().copied().flat_map(edges), true);
                }
                let first = segments.first().copied();
                let bytes: u64 = segments.iter().map(|segment| segment.bytes().0).sum();
                in_flight.begin(first, bytes / DISCARD_BYTES_PER_WAITING_BYTE);
                self.queue(head);
            }
        }
    }

    fn queue(&mut self, head: u16) {
        self.waiting_bytes += self.requests[usize::from(head)].waiting_bytes;
        self.waiting.push_back(head);
    }

    /// Of a request in `waiting`, `bytes` wait no longer.
    pub(super) fn started_bytes(&mut self, head: u16, bytes: u64) {
        let waiting = &mut self.requests[usize::from(head)].waiting_bytes;
        let bytes = bytes.min(*waiting);
        *waiting -= bytes;
        self.waiting_bytes -= bytes;
    }

    /// Everything of a request is started, or it has failed: it has left `waiting`.
    pub(super) fn all_started(&mut self, head: u16) {
        self.started_bytes(head, u64::MAX);
        let in_flight = &mut self.requests[usize::from(head)];
        in_flight.queued = false;
        if in_flight.outstanding == 0 {
            self.finish(head);
        }
    }

    /// A part that was outstanding has ended.
    pub(super) fn part_ended(&mut self, head: u16, ended: Ended) {
        let in_flight = &mut self.requests[usize::from(head)];
        if ended != Ended::Done {
            in_flight.fail(ended == Ended::NoRoom);
        }
        in_flight.outstanding -= 1;
        // One that is still queued is finished when its turn comes.
        if in_flight.outstanding == 0 && !in_flight.queued {
            self.finish(head);
        }
    }

    /// Answers a request all of whose parts have ended.
    fn finish(&mut self, head: u16) {
        let in_flight = &self.requests[usize::from(head)];
        match in_flight.request.operation {
            _ if in_flight.failed && in_flight.no_room && self.may_hold() => self.hold(head),
            _ if in_flight.failed => self.answer(head, Status::IoError, 0),
            // Read data fits a u32, as the used length does: a chain's buffers are at most 2³² bytes.
            RequestType::Read(range) => self.answer(head, Status::Ok, range.bytes().0 as u32),
            _ if self.flush_before_answer => self.flushes.add(head),
            _ => self.answer(head, Status::Ok, 0),
        }
    }

    /// Completes a request; `data` is the number of data bytes written to the guest.
    pub(super) fn answer(&mut self, head: u16, status: Status, data: u32) {
        let request = &self.requests[usize::from(head)].request;
        self.count(request.operation, status);
        let used_len = request.write_status(self.setup.memory.guest(), status, data);
        self.complete(head, used_len);
    }

    fn count(&self, operation: RequestType, status: Status) {
        let counters = self.setup.disk.counters();
        let one = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match (status, operation) {
            (Status::Ok, RequestType::Read(range)) => {
                one(&counters.reads);
                counters.bytes_read.fetch_add(range.bytes().0, Ordering::Relaxed);
            }
            (Status::Ok, RequestType::Write(range)) => {
                one(&counters.writes);
                counters
                    .bytes_written
                    .fetch_add(range.bytes().0, Ordering::Relaxed);
            }
            (Status::Ok, RequestType::Flush) => {
                one(&counters.flushes);
            }
            (Status::Ok, _) => {}
            _ => {
                one(&counters.errors);
            }
        }
    }

    fn complete(&mut self, head: u16, used_len: u32) {
        let token = self.requests[usize::from(head)]
            .token
            .take()
            .expect("a request is completed once");
        let turn = self.requests[usize::from(head)].turn.take();
        self.give_back(token, used_len);
        // Not earlier: until the chain is given back, a successor of this process would do the request again, and so
        // overwrite what a later, overlapping one has written.
        if let (Some(turns), Some(turn)) = (self.setup.disk.turns(), turn) {
            turns.end(turn);
        }
    }

    fn give_back(&mut self, token: Token, used_len: u32) {
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
        if self
            .setup
            .inflight
            .as_ref()
            .is_some_and(|table| table.has_faulted())
        {
            self.break_ring(RingBroken::Inflight);
        }
    }
}
