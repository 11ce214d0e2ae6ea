//! Requests from their chain to their answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmm_sys_util::eventfd::EventFd;

use super::Worker;
use crate::disk::{Disk, SERIAL_BYTES};
use crate::limits::DISCARD_BYTES_PER_WAITING_BYTE;
use crate::store::BLOCK_SECTORS;
use crate::turns::Turn;
use crate::units::SectorRange;
use crate::virtqueue::{Chain, Cursor, Device, GuestMemory, Operation, Request, RingBroken, Status, Token};

/// A request in flight; there is one for each possible head.
#[derive(Default)]
pub(super) struct InFlight {
    pub(super) token: Option<Token>,
    pub(super) request: Request,
    /// What is being started: all of a read or write, a segment of a discard or write-zeroes.
    range: Option<SectorRange>,
    /// Which segment.
    segment: usize,
    /// Sectors of `range` that were started, and where in the guest's buffers they end.
    started: u64,
    pub(super) cursor: Cursor,
    pub(super) outstanding: u32,
    pub(super) failed: bool,
    /// It has failed for want of room on the host, and for nothing else.
    no_room: bool,
    /// It has been held for that.
    pub(super) was_held: bool,
    /// Not everything of it is started.
    pub(super) queued: bool,
    /// Its turn among those that overlap, if it has to wait for that or holds others up.
    pub(super) turn: Option<Turn>,
    /// Its turn has come.
    may_start: bool,
    /// Its part of the worker's `waiting_bytes`.
    waiting_bytes: u64,
}

/// How a part has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Done,
    /// The host has no room for it.
    NoRoom,
    Failed,
}

/// The next part of a request, as long as it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// To be read into the guest's buffers.
    Read(SectorRange),
    /// To be written.
    Write(SectorRange),
    /// Whole blocks, to read as zeros from now on.
    Discard(SectorRange),
}

impl InFlight {
    /// What is to be started next. None: nothing more, or it has failed.
    pub(super) fn next_part(&mut self) -> Option<Part> {
        while !self.failed {
            let range = self.range?;
            let rest = range.part(self.started, u64::MAX);
            if rest.count() == 0 {
                self.segment += 1;
                self.started = 0;
                self.range = self.request.segments.get(self.segment).copied();
                continue;
            }
            let (first, whole) = whole_blocks_or_edge(rest);
            match self.request.operation {
                Operation::Read(_) => return Some(Part::Read(rest)),
                Operation::Write(_) => return Some(Part::Write(rest)),
                Operation::Discard | Operation::WriteZeroes if whole => return Some(Part::Discard(first)),
                Operation::WriteZeroes => return Some(Part::Write(first)),
                // What is discarded is rounded inward.
                Operation::Discard => self.started += first.count(),
                Operation::Flush | Operation::GetId | Operation::Answer(_) => return None,
            }
        }
        None
    }

    /// A part has failed.
    pub(super) fn fail(&mut self, no_room: bool) {
        self.no_room = no_room && (self.no_room || !self.failed);
        self.failed = true;
    }

    /// The first `count` sectors of the next part are under way, or done.
    pub(super) fn advance(&mut self, count: u64) {
        self.started += count;
    }

    fn begin(&mut self, range: Option<SectorRange>, waiting_bytes: u64) {
        self.range = range;
        self.segment = 0;
        self.started = 0;
        self.outstanding = 0;
        self.cursor = Cursor::default();
        self.queued = true;
        self.may_start = self.turn.is_none();
        self.waiting_bytes = waiting_bytes;
    }

    /// Whether nothing that came before is in the way; if something is, `wake` is written to when that has changed.
    pub(super) fn may_start(&mut self, disk: &Disk, wake: &Arc<EventFd>) -> bool {
        if !self.may_start {
            let (Some(turns), Some(turn)) = (disk.turns(), &self.turn) else {
                return true;
            };
            self.may_start = turns.has_come(turn, wake);
        }
        self.may_start
    }
}

/// What of a segment is not whole blocks.
fn edges(segment: SectorRange) -> impl Iterator<Item = SectorRange> {
    let (first, whole) = whole_blocks_or_edge(segment);
    let head = if whole { 0 } else { first.count() };
    let rest = segment.part(head, u64::MAX);
    let tail = rest.count() % BLOCK_SECTORS;
    [segment.part(0, head), rest.part(rest.count() - tail, tail)].into_iter()
}

/// The beginning of `rest` that is whole blocks (then true), or else within a block of which it is a part.
fn whole_blocks_or_edge(rest: SectorRange) -> (SectorRange, bool) {
    let before = rest.start().0 % BLOCK_SECTORS;
    if before == 0 && rest.count() >= BLOCK_SECTORS {
        (rest.part(0, rest.count() - rest.count() % BLOCK_SECTORS), true)
    } else {
        (rest.part(0, BLOCK_SECTORS - before), false)
    }
}

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
            Operation::Answer(status) => self.answer(head, status, 0),
            Operation::GetId => {
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
            Operation::Flush => self.flushes.add(head),
            Operation::Read(range) | Operation::Write(range) => {
                let writes = matches!(in_flight.request.operation, Operation::Write(_));
                in_flight.turn = disk.turns().and_then(|turns| turns.queue([range], writes));
                in_flight.begin(Some(range), range.bytes().0);
                self.queue(head);
            }
            // If memory was lost while the segments were read, the guest never wrote what was read.
            Operation::Discard | Operation::WriteZeroes if self.setup.memory.has_faulted() => {
                self.answer(head, Status::IoError, 0);
            }
            Operation::Discard | Operation::WriteZeroes => {
                let segments = &in_flight.request.segments;
                // Whole blocks are discarded at once, by the store.
                if in_flight.request.operation == Operation::WriteZeroes
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
            Operation::Read(range) => self.answer(head, Status::Ok, range.bytes().0 as u32),
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

    fn count(&self, operation: Operation, status: Status) {
        let counters = self.setup.disk.counters();
        let one = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match (status, operation) {
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

    fn complete(&mut self, head: u16, used_len: u32) {
        let token = self.requests[usize::from(head)]
            .token
            .take()
            .expect("a request is completed once");
        let turn = self.requests[usize::from(head)].turn.take();
        self.give_back(token, used_len);
        // Only now: who comes next must not be overwritten by this if it were done again after the end of the process.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::Capacity;

    fn parts(operation: Operation, segments: &[SectorRange], steps: &[u64]) -> Vec<Part> {
        let mut in_flight = InFlight::default();
        in_flight.request.operation = operation;
        in_flight.request.segments = segments.to_vec();
        in_flight.begin(segments.first().copied(), 0);
        let mut steps = steps.iter().cycle();
        let mut parts = Vec::new();
        while let Some(part) = in_flight.next_part() {
            let (Part::Read(range) | Part::Write(range) | Part::Discard(range)) = part;
            // What is done at once need not be all; of whole blocks it is whole blocks.
            let done = match part {
                Part::Discard(_) => range.part(0, steps.next().unwrap() * BLOCK_SECTORS),
                _ => range.part(0, *steps.next().unwrap()),
            };
            in_flight.advance(done.count());
            parts.push(match part {
                Part::Read(_) => Part::Read(done),
                Part::Write(_) => Part::Write(done),
                Part::Discard(_) => Part::Discard(done),
            });
        }
        parts
    }

    proptest! {
        #[test]
        fn segments_become_whole_blocks_and_edges(
            segments in proptest::collection::vec((0u64..1000, 1u64..200), 0..5),
            steps in proptest::collection::vec(1u64..30, 1..8),
        ) {
            let segments: Vec<SectorRange> = segments
                .into_iter()
                .map(|(start, count)| Capacity::LARGEST.range(start, count).unwrap())
                .collect();
            let sectors = |range: SectorRange| range.start().0..range.start().0 + range.count();
            let (mut zeroed, mut written) = (Vec::new(), Vec::new());
            for part in parts(Operation::WriteZeroes, &segments, &steps) {
                match part {
                    Part::Discard(range) => {
                        prop_assert!(range.start().0.is_multiple_of(8) && range.count().is_multiple_of(8));
                        zeroed.extend(sectors(range));
                    }
                    Part::Write(range) => {
                        prop_assert!(range.count() < 8);
                        zeroed.extend(sectors(range));
                        written.extend(sectors(range));
                    }
                    Part::Read(_) => prop_assert!(false),
                }
            }
            let all: Vec<u64> = segments.iter().flat_map(|segment| sectors(*segment)).collect();
            prop_assert_eq!(zeroed, all);
            let edges = segments.iter().copied().flat_map(edges).flat_map(sectors);
            prop_assert_eq!(written, edges.collect::<Vec<u64>>());

            let mut discarded = Vec::new();
            for part in parts(Operation::Discard, &segments, &steps) {
                match part {
                    Part::Discard(range) => discarded.extend(sectors(range)),
                    _ => prop_assert!(false),
                }
            }
            let inward = segments.iter().flat_map(|segment| {
                let range = sectors(*segment);
                let start = range.start.next_multiple_of(8);
                start..(range.end - range.end % 8).max(start)
            });
            prop_assert_eq!(discarded, inward.collect::<Vec<u64>>());
        }
    }
}
