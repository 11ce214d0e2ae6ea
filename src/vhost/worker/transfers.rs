//! Parts of requests: data between the guest's buffers, private buffers and the store.

use std::io;

use super::in_flight::{Ended, SubRequest};
use super::state::Worker;
use super::transfer::{Progress, Purpose, Transfer, file_of};
use crate::crypto::{Destination, Source};
use crate::io::{Buffer, Completion};
use crate::limits::{MAX_ATTEMPTS, MAX_STEPS_WITHOUT_TRANSFER, MAX_TRANSFER_BYTES};
use crate::room::is_no_room;
use crate::store::{Planned, ReadPlan, Slot, WritePlan};
use crate::units::{SECTOR_BYTES, SectorRange};
use crate::virtqueue::{Cursor, RequestType};

const MAX_TRANSFER_SECTORS: u64 = (MAX_TRANSFER_BYTES / SECTOR_BYTES) as u64;

impl Worker {
    /// Starts parts of the oldest requests while there are buffers. Requests that must wait for the store step aside.
    /// Returns whether there is more that could be started at once.
    pub(super) fn start_parts(&mut self) -> io::Result<bool> {
        let mut steps = 0;
        while let Some(&head) = self.waiting.front() {
            match self.start_part(head)? {
                Progress::Transfer if self.engine.has_done_enough() => return Ok(true),
                Progress::Transfer => {}
                Progress::Step => {
                    steps += 1;
                    if steps == MAX_STEPS_WITHOUT_TRANSFER {
                        return Ok(true);
                    }
                }
                Progress::AllStarted => {
                    self.waiting.pop_front();
                    self.all_started(head);
                }
                Progress::Later => {
                    self.waiting.pop_front();
                    self.aside.push(head);
                }
                Progress::NoBuffer => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Requests that the store has told to wait are the next to be started, in their order.
    pub(super) fn retry_aside(&mut self) {
        while let Some(head) = self.aside.pop() {
            self.waiting.push_front(head);
        }
    }

    fn start_part(&mut self, head: u16) -> io::Result<Progress> {
        let in_flight = &mut self.requests[usize::from(head)];
        if !in_flight.may_start(&self.setup.disk, &self.wake) {
            return Ok(Progress::Later);
        }
        match in_flight.next_subrequest() {
            None => Ok(Progress::AllStarted),
            Some(SubRequest::Read(range)) => self.start_read(head, range.slice(0, MAX_TRANSFER_SECTORS)),
            Some(SubRequest::Write(range)) => self.start_write(head, range.slice(0, MAX_TRANSFER_SECTORS)),
            Some(SubRequest::Discard(range)) => Ok(self.discard(head, range)),
        }
    }

    fn start_read(&mut self, head: u16, range: SectorRange) -> io::Result<Progress> {
        let disk = self.setup.disk.clone();
        match disk.store().plan_read(range, &self.wake) {
            Err(error) => Ok(self.refused(head, "read", range, &error)),
            Ok(Planned::Later) => Ok(Progress::Later),
            Ok(Planned::Now(ReadPlan::Zeros { count })) => Ok(self.read_zeros(head, range.slice(0, count))),
            Ok(Planned::Now(ReadPlan::Transfer {
                slot,
                offset,
                count,
                pass,
            })) => {
                let Some((part, buffer)) = self.allocate_for(range.slice(0, count)) else {
                    disk.store().end(pass);
                    return Ok(Progress::NoBuffer);
                };
                let in_flight = &mut self.requests[usize::from(head)];
                let cursor = in_flight.cursor;
                let data = &in_flight.request.data;
                if data.skip(&mut in_flight.cursor, buffer.len()).is_err() {
                    disk.store().end(pass);
                    self.engine.free(buffer);
                    return Ok(self.failed(head));
                }
                self.start(head, part, slot, offset, Purpose::Read { cursor, pass }, buffer)
            }
        }
    }

    fn read_zeros(&mut self, head: u16, part: SectorRange) -> Progress {
        let in_flight = &mut self.requests[usize::from(head)];
        let memory = self.setup.memory.guest();
        let len = part.bytes().0 as usize;
        let written = in_flight
            .request
            .data
            .write_zeros(memory, &mut in_flight.cursor, len);
        match written {
            Ok(()) => self.stepped(head, part.count()),
            Err(_) => self.failed(head),
        }
    }

    fn start_write(&mut self, head: u16, range: SectorRange) -> io::Result<Progress> {
        let disk = self.setup.disk.clone();
        match disk.store().plan_write(range, &self.wake) {
            Err(error) => Ok(self.refused(head, "write", range, &error)),
            Ok(Planned::Later) => Ok(Progress::Later),
            Ok(Planned::Now(WritePlan::Change(change))) => self.start_change(head, range, change),
            Ok(Planned::Now(WritePlan::InPlace { offset, count, pass })) => {
                let Some((part, mut buffer)) = self.allocate_for(range.slice(0, count)) else {
                    disk.store().end(pass);
                    return Ok(Progress::NoBuffer);
                };
                let len = buffer.len();
                if !self.encipher_data(head, part, &mut buffer, 0..len) {
                    disk.store().end(pass);
                    self.engine.free(buffer);
                    return Ok(self.failed(head));
                }
                let purpose = Purpose::WriteInPlace { pass };
                self.start(head, part, Slot::default(), offset, purpose, buffer)
            }
        }
    }

    fn discard(&mut self, head: u16, range: SectorRange) -> Progress {
        let disk = self.setup.disk.clone();
        match disk.store().discard(range, &self.wake) {
            Err(error) => self.refused(head, "discard", range, &error),
            Ok(Planned::Later) => Progress::Later,
            Ok(Planned::Now(count)) => self.stepped(head, count.min(range.count())),
        }
    }

    /// A buffer for the beginning of `range`.
    fn allocate_for(&mut self, range: SectorRange) -> Option<(SectorRange, Buffer)> {
        let buffer = self.engine.allocate(range.bytes().0 as usize)?;
        let part = range.slice(0, (buffer.len() / SECTOR_BYTES) as u64);
        Some((part, buffer))
    }

    /// Puts the next data of a write, or the zeros of a write-zeroes, enciphered into a private buffer, and moves the cursor on.
    pub(super) fn encipher_data(
        &mut self,
        head: u16,
        part: SectorRange,
        buffer: &mut Buffer,
        at: std::ops::Range<usize>,
    ) -> bool {
        let in_flight = &mut self.requests[usize::from(head)];
        let bytes = &mut self.engine.bytes_mut(buffer)[at];
        let disk = &self.setup.disk;
        if !matches!(in_flight.request.operation, RequestType::Write(_)) {
            return disk.encipher_zeros(part.start(), bytes).is_ok();
        }
        let memory = &self.setup.memory;
        let data = &in_flight.request.data;
        let pieces = data.pieces(memory.guest(), &mut in_flight.cursor, bytes.len());
        let sealed = disk.encipher(part.start(), pieces.map(Source::from), bytes);
        // If memory was lost meanwhile, part of it is zeros that the guest never wrote.
        sealed.is_ok() && !memory.has_faulted()
    }

    fn start(
        &mut self,
        head: u16,
        range: SectorRange,
        slot: Slot,
        offset: u64,
        purpose: Purpose,
        buffer: Buffer,
    ) -> io::Result<Progress> {
        self.now_outstanding(head, range.count());
        let number = self.transfers.insert(Transfer {
            head,
            range,
            slot,
            offset,
            purpose,
            attempts: 0,
        });
        self.submit_transfer(number, buffer)?;
        Ok(Progress::Transfer)
    }

    /// The next `count` sectors of a request are under way, as one part.
    pub(super) fn now_outstanding(&mut self, head: u16, count: u64) {
        self.stepped(head, count);
        self.requests[usize::from(head)].outstanding += 1;
    }

    fn stepped(&mut self, head: u16, count: u64) -> Progress {
        let in_flight = &mut self.requests[usize::from(head)];
        in_flight.advance(count);
        if matches!(
            in_flight.request.operation,
            RequestType::Read(_) | RequestType::Write(_)
        ) {
            self.started_bytes(head, count * SECTOR_BYTES as u64);
        }
        Progress::Step
    }

    pub(super) fn failed(&mut self, head: u16) -> Progress {
        self.requests[usize::from(head)].fail(false);
        Progress::Step
    }

    fn refused(&mut self, head: u16, what: &str, range: SectorRange, error: &io::Error) -> Progress {
        let no_room = is_no_room(error);
        if !no_room || self.is_told_of_no_room() {
            self.log_store_error(what, range, error);
        }
        self.requests[usize::from(head)].fail(no_room);
        Progress::Step
    }

    /// Notes that the host has no room. Returns whether that is said of each request: those that are held say so themselves.
    fn is_told_of_no_room(&self) -> bool {
        self.setup.disk.room().ran_out();
        !self.setup.disk.room().holds()
    }

    pub(super) fn log_store_error(&self, what: &str, range: SectorRange, error: &dyn std::fmt::Display) {
        let queue = self.setup.index;
        self.setup.limits.store.log(|before| {
            log::error!("queue {queue}: {what} of {range}: {error} ({before} errors before)");
        });
    }

    /// Gives a transfer to the kernel, for the first time or again.
    pub(super) fn submit_transfer(&mut self, number: usize, buffer: Buffer) -> io::Result<()> {
        let transfer = self.transfers.get_mut(number);
        let file = file_of(transfer.slot);
        let tag = number as u64;
        if transfer.purpose.is_write() {
            let durable = !self.setup.driver.flush && !self.flush_before_answer;
            self.engine.write(file, transfer.offset, buffer, durable, tag)
        } else {
            self.engine.read(file, transfer.offset, buffer, tag)
        }
    }

    pub(super) fn completed(&mut self, completion: Completion) -> io::Result<()> {
        let Completion { tag, buffer, result } = completion;
        let Some(buffer) = buffer else {
            return self.sync_ended(result);
        };
        let interrupted = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
            )
        };
        let number = tag as usize;
        let transfer = self.transfers.get_mut(number);
        if result.as_ref().is_err_and(interrupted) && transfer.attempts < MAX_ATTEMPTS {
            transfer.attempts += 1;
            return self.submit_transfer(number, buffer);
        }
        let transfer = self.transfers.take(number);
        let ended = self.ended(&transfer, &buffer, result);
        self.transfer_ended(transfer, buffer, ended)
    }

    /// Whether all of the buffer was transferred; says so if not.
    fn ended(&self, transfer: &Transfer, buffer: &Buffer, result: io::Result<usize>) -> Ended {
        let is_write = transfer.purpose.is_write();
        let no_room = match &result {
            Ok(len) if *len == buffer.len() => return Ended::Done,
            // Of a write there was room for the beginning.
            Ok(_) => is_write,
            Err(error) => is_write && is_no_room(error),
        };
        let what = if is_write { "write" } else { "read" };
        if !no_room || self.is_told_of_no_room() {
            match result {
                Ok(len) => self.log_store_error(what, transfer.range, &format_args!("only {len} bytes")),
                Err(error) => self.log_store_error(what, transfer.range, &error),
            }
        }
        match no_room {
            true => Ended::NoRoom,
            false => Ended::Failed,
        }
    }

    fn transfer_ended(&mut self, transfer: Transfer, mut buffer: Buffer, ended: Ended) -> io::Result<()> {
        let disk = self.setup.disk.clone();
        match transfer.purpose {
            Purpose::Read { cursor, pass } => {
                disk.store().end(pass);
                let whole = ended == Ended::Done;
                let done =
                    whole && self.decipher_for_guest(transfer.head, transfer.range, cursor, &mut buffer);
                self.engine.free(buffer);
                self.part_ended(transfer.head, if done { ended } else { Ended::Failed });
            }
            Purpose::WriteInPlace { pass } => {
                disk.store().end(pass);
                self.engine.free(buffer);
                // On a layered store it need not have needed room.
                if ended == Ended::Done && !disk.store().is_layered() {
                    disk.room().found();
                }
                self.part_ended(transfer.head, ended);
            }
            Purpose::ReadSource { composition, source } => {
                return self.source_read(composition, source, buffer, ended == Ended::Done);
            }
            Purpose::WriteSpan { change } => {
                self.engine.free(buffer);
                self.span_written(transfer.head, change, ended);
            }
        }
        Ok(())
    }

    /// Deciphers what was read into the guest's buffers.
    fn decipher_for_guest(
        &mut self,
        head: u16,
        range: SectorRange,
        mut cursor: Cursor,
        buffer: &mut Buffer,
    ) -> bool {
        let bytes = self.engine.bytes_mut(buffer);
        let data = &self.requests[usize::from(head)].request.data;
        let pieces = data.pieces(self.setup.memory.guest(), &mut cursor, bytes.len());
        let opened = self
            .setup
            .disk
            .decipher(range.start(), bytes, pieces.map(Destination::from));
        opened.is_ok()
    }
}
