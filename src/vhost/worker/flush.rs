//! Flushes: one at a time over all queues, each for everything that has been answered before.

use std::io;

use super::flushes::Stage;
use super::state::Worker;
use super::transfer::file_of;
use crate::store::Slot;
use crate::virtqueue::Status;

/// Tag of a sync. Tags of transfers: their index.
const SYNC: u64 = u64::MAX;

impl Worker {
    /// Starts one flush for all requests that wait for one, when no other queue is flushing.
    pub(super) fn start_flush(&mut self) -> io::Result<()> {
        if self.flushes.waiting.is_empty() || !self.flushes.present.is_empty() {
            return Ok(());
        }
        let disk = self.setup.disk.clone();
        if !disk.try_begin_sync(&self.wake) {
            return Ok(());
        }
        std::mem::swap(&mut self.flushes.waiting, &mut self.flushes.present);
        if let Err(poisoned) = disk.store().poison().check() {
            // Without asking the kernel, which would say that all is well.
            self.flush_ended(Err(poisoned.into()));
            return Ok(());
        }
        self.flushes.stage = Stage::Data(disk.store().begin_flush());
        self.engine.sync(file_of(Slot::default()), SYNC)
    }

    /// The present flush's sync has ended.
    pub(super) fn sync_ended(&mut self, result: io::Result<usize>) -> io::Result<()> {
        let disk = self.setup.disk.clone();
        let store = disk.store();
        let result = match (std::mem::take(&mut self.flushes.stage), result) {
            (_, Err(error)) => Err(error),
            (Stage::Data(point), Ok(_)) if point.needs_mark() => match store.mark(point) {
                Ok(()) => {
                    self.flushes.stage = Stage::Mark(point);
                    return self.engine.sync(file_of(Slot::default()), SYNC);
                }
                Err(error) => Err(error),
            },
            (Stage::Data(point) | Stage::Mark(point), Ok(_)) => {
                store.flushed(point);
                Ok(())
            }
            (Stage::None, Ok(_)) => unreachable!("a sync belongs to a flush"),
        };
        self.flush_ended(result);
        Ok(())
    }

    fn flush_ended(&mut self, result: io::Result<()>) {
        let status = match self.setup.disk.end_sync(result) {
            Ok(()) => Status::Ok,
            Err(_) => Status::IoError,
        };
        let mut answered = std::mem::take(&mut self.flushes.present);
        for head in answered.drain(..) {
            self.answer(head, status, 0);
        }
        self.flushes.present = answered;
    }
}
