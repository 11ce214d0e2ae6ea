//! Flushes: one at a time over all queues, each for everything that has been answered before.

use std::io;

use super::transfers::file_of;
use super::{SYNC, Worker};
use crate::store::{FlushPoint, Slot};
use crate::virtqueue::Status;

/// Requests that wait for durability, and how far the flush for them has come.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    /// Heads of requests that no flush has been started for.
    waiting: Vec<u16>,
    /// Heads of those that the present flush answers.
    present: Vec<u16>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    None,
    /// Data and records are being synced.
    Data(FlushPoint),
    /// The mark is being synced.
    Mark(FlushPoint),
}

impl Flushes {
    /// Has the request answered when everything that has been completed is durable.
    pub(super) fn add(&mut self, head: u16) {
        self.waiting.push(head);
    }

    /// Whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.present.is_empty()
    }
}

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
