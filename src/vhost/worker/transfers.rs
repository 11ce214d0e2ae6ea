//! Reads and writes: data between the guest's buffers, private buffers and the store, in parts.

use std::io;

use super::Worker;
use crate::io::{Buffer, Completion};
use crate::limits::{MAX_ATTEMPTS, MAX_TRANSFER_BYTES};
use crate::units::{SECTOR_BYTES, SectorRange};
use crate::virtqueue::{Cursor, Operation, Status};

/// A part of a request on its way to or from the store.
pub(super) struct Transfer {
    head: u16,
    range: SectorRange,
    /// Where in the guest's buffers a read goes.
    cursor: Cursor,
    is_write: bool,
    attempts: u32,
}

impl Worker {
    /// Starts transfers of the oldest requests while there are buffers.
    pub(super) fn start_transfers(&mut self) -> io::Result<()> {
        while let Some(&head) = self.waiting.front() {
            let slot = &self.slots[usize::from(head)];
            let range = slot.range.expect("a waiting request is a read or write");
            let slot_started = slot.started;
            if slot_started == range.count() || slot.failed {
                self.waiting.pop_front();
                self.slots[usize::from(head)].queued = false;
                self.waiting_bytes -= range.part(slot_started, u64::MAX).bytes().0;
                if self.slots[usize::from(head)].outstanding == 0 {
                    self.finish_transfers(head);
                }
                continue;
            }
            let rest = range.part(slot_started, (MAX_TRANSFER_BYTES / SECTOR_BYTES) as u64);
            let Some(buffer) = self.engine.allocate(rest.bytes().0 as usize) else {
                return Ok(());
            };
            let part = rest.part(0, (buffer.len() / SECTOR_BYTES) as u64);
            self.start_transfer(head, part, buffer)?;
        }
        Ok(())
    }

    pub(super) fn start_transfer(
        &mut self,
        head: u16,
        part: SectorRange,
        mut buffer: Buffer,
    ) -> io::Result<()> {
        let disk = self.setup.disk.clone();
        let memory = &self.setup.memory;
        let slot = &mut self.slots[usize::from(head)];
        let is_write = matches!(slot.request.operation, Operation::Write(_));
        let begins_at = slot.cursor;
        let bytes = self.engine.bytes_mut(&mut buffer);
        let prepared = if is_write {
            let copied = slot.request.data.read(memory.guest(), &mut slot.cursor, bytes);
            // If memory was lost during the copy, part of it is zeros that the guest never wrote.
            copied.is_ok() && !memory.has_faulted() && disk.seal(part, bytes).is_ok()
        } else {
            slot.request.data.skip(&mut slot.cursor, bytes.len()).is_ok()
        };
        if !prepared {
            slot.failed = true;
            self.engine.free(buffer);
            return Ok(());
        }
        slot.started += part.count();
        self.waiting_bytes -= part.bytes().0;
        slot.outstanding += 1;
        let transfer = Transfer {
            head,
            range: part,
            cursor: begins_at,
            is_write,
            attempts: 0,
        };
        let tag = self.keep(transfer);
        self.submit_transfer(tag, buffer)
    }

    pub(super) fn submit_transfer(&mut self, tag: usize, buffer: Buffer) -> io::Result<()> {
        let transfer = self.transfers[tag].as_ref().expect("kept until it has ended");
        let store = self.setup.disk.store();
        let offset = store.offset(transfer.range);
        if transfer.is_write {
            self.engine
                .write(store.file(), offset, buffer, self.setup.write_through, tag as u64)
        } else {
            self.engine.read(store.file(), offset, buffer, tag as u64)
        }
    }

    pub(super) fn keep(&mut self, transfer: Transfer) -> usize {
        match self.vacant_transfers.pop() {
            Some(index) => {
                self.transfers[index] = Some(transfer);
                index
            }
            None => {
                self.transfers.push(Some(transfer));
                self.transfers.len() - 1
            }
        }
    }

    pub(super) fn completed(&mut self, completion: Completion) -> io::Result<()> {
        let Completion { tag, buffer, result } = completion;
        let Some(buffer) = buffer else {
            self.sync_ended(result);
            return Ok(());
        };
        let slot = &mut self.transfers[tag as usize];
        let mut transfer = slot.take().expect("kept until it has ended");
        let interrupted = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
            )
        };
        if result.as_ref().is_err_and(interrupted) && transfer.attempts < MAX_ATTEMPTS {
            transfer.attempts += 1;
            *slot = Some(transfer);
            return self.submit_transfer(tag as usize, buffer);
        }
        self.vacant_transfers.push(tag as usize);
        self.transfer_ended(&transfer, buffer, result);
        Ok(())
    }

    pub(super) fn transfer_ended(
        &mut self,
        transfer: &Transfer,
        mut buffer: Buffer,
        result: io::Result<usize>,
    ) {
        let whole = buffer.len();
        let bytes = self.engine.bytes_mut(&mut buffer);
        let slot = &mut self.slots[usize::from(transfer.head)];
        let done = match result {
            Ok(len) if len == whole && transfer.is_write => true,
            Ok(len) if len == whole => {
                let mut cursor = transfer.cursor;
                self.setup.disk.open(transfer.range, bytes).is_ok()
                    && slot
                        .request
                        .data
                        .write(self.setup.memory.guest(), &mut cursor, bytes)
                        .is_ok()
            }
            outcome => {
                let what = if transfer.is_write { "write" } else { "read" };
                let (queue, range) = (self.setup.index, transfer.range);
                let error = outcome.map_or_else(|error| error.to_string(), |len| format!("only {len} bytes"));
                self.setup.limits.store.log(|before| {
                    log::error!("queue {queue}: {what} of {range}: {error} ({before} errors before)");
                });
                false
            }
        };
        self.engine.free(buffer);
        slot.failed |= !done;
        slot.outstanding -= 1;
        // One that is still queued is finished when its turn comes.
        if slot.outstanding == 0 && !slot.queued {
            self.finish_transfers(transfer.head);
        }
    }

    pub(super) fn finish_transfers(&mut self, head: u16) {
        let slot = &self.slots[usize::from(head)];
        let is_read = matches!(slot.request.operation, Operation::Read(_));
        match (slot.failed, slot.range) {
            // Read data fits a u32, as the used length does: a chain's buffers are at most 2³² bytes.
            (false, Some(range)) if is_read => self.answer(head, Status::Ok, range.bytes().0 as u32),
            (false, _) => self.answer(head, Status::Ok, 0),
            (true, _) => self.answer(head, Status::IoError, 0),
        }
    }
}
