//! Writes that change the store's map: their span is composed and written, and then they are committed, all that have been
//! written in one round of the worker at once.

use std::io;

use super::in_flight::Ended;
use super::state::Worker;
use super::transfer::{Composition, Progress, Purpose, Transfer};
use crate::io::Buffer;
use crate::store::{BLOCK_BYTES, BlocksToCopy, Change, Slot, compose};
use crate::units::{SECTOR_BYTES, Sector, SectorRange};

impl Worker {
    /// Starts a write of the beginning of `range` that the store has planned as a change.
    pub(super) fn start_change(
        &mut self,
        head: u16,
        range: SectorRange,
        change: Change,
    ) -> io::Result<Progress> {
        let disk = self.setup.disk.clone();
        // All at once, so that no change holds buffers while it waits for others.
        let Some((mut span, sources)) = self.allocate_for_change(&change) else {
            disk.store().abandon(change);
            return Ok(Progress::NoBuffer);
        };
        let data = range.slice(0, change.data);
        let first = (range.start().0 - change.start) as usize * SECTOR_BYTES;
        if !self.encipher_data(head, data, &mut span, first..first + data.bytes().0 as usize) {
            disk.store().abandon(change);
            self.free_all(span, sources);
            return Ok(self.failed(head));
        }
        self.now_outstanding(head, data.count());
        let places = change.sources;
        let composition = self.compositions.insert(Composition {
            head,
            data,
            change,
            span,
            sources: [None, None],
            reading: sources.iter().flatten().count() as u32,
            failed: false,
        });
        let nothing_to_read = sources.iter().all(Option::is_none);
        for (source, (place, buffer)) in places.into_iter().zip(sources).enumerate() {
            if let (Some(BlocksToCopy { slot, offset, .. }), Some(buffer)) = (place, buffer) {
                let purpose = Purpose::ReadSource { composition, source };
                self.submit_for_change(head, data, slot, offset, purpose, buffer)?;
            }
        }
        if nothing_to_read {
            self.write_span(composition)?;
        }
        Ok(Progress::Transfer)
    }

    fn allocate_for_change(&mut self, change: &Change) -> Option<(Buffer, [Option<Buffer>; 2])> {
        let span = self.engine.allocate_whole(change.count as usize * SECTOR_BYTES)?;
        let mut buffers = [None, None];
        for (buffer, source) in buffers.iter_mut().zip(&change.sources) {
            let Some(source) = source else { continue };
            *buffer = self.engine.allocate_whole(source.blocks as usize * BLOCK_BYTES);
            if buffer.is_none() {
                self.free_all(span, buffers);
                return None;
            }
        }
        Some((span, buffers))
    }

    fn free_all(&mut self, span: Buffer, sources: [Option<Buffer>; 2]) {
        for buffer in sources.into_iter().flatten().chain([span]) {
            self.engine.free(buffer);
        }
    }

    fn submit_for_change(
        &mut self,
        head: u16,
        range: SectorRange,
        slot: Slot,
        offset: u64,
        purpose: Purpose,
        buffer: Buffer,
    ) -> io::Result<()> {
        let number = self.transfers.insert(Transfer {
            head,
            range,
            slot,
            offset,
            purpose,
            attempts: 0,
        });
        self.submit_transfer(number, buffer)
    }

    /// A source has been read, or could not be.
    pub(super) fn source_read(
        &mut self,
        number: usize,
        source: usize,
        buffer: Buffer,
        whole: bool,
    ) -> io::Result<()> {
        let composition = self.compositions.get_mut(number);
        composition.sources[source] = Some(buffer);
        composition.failed |= !whole;
        composition.reading -= 1;
        if composition.reading == 0 {
            self.write_span(number)
        } else {
            Ok(())
        }
    }

    /// All sources have been read: composes the span and writes it.
    fn write_span(&mut self, number: usize) -> io::Result<()> {
        let mut composition = self.compositions.take(number);
        let composed = !composition.failed && self.compose_span(&mut composition);
        let Composition {
            head,
            data,
            change,
            span,
            sources,
            ..
        } = composition;
        for buffer in sources.into_iter().flatten() {
            self.engine.free(buffer);
        }
        if !composed {
            self.engine.free(span);
            self.setup.disk.store().abandon(change);
            self.part_ended(head, Ended::Failed);
            return Ok(());
        }
        let offset = change.offset;
        let purpose = Purpose::WriteSpan { change };
        self.submit_for_change(head, data, Slot::default(), offset, purpose, span)
    }

    fn compose_span(&mut self, composition: &mut Composition) -> bool {
        let Composition {
            data,
            change,
            span,
            sources,
            ..
        } = composition;
        let [first, second] = sources;
        let (span, [first, second]) = self.engine.bytes_from(span, [first.as_ref(), second.as_ref()]);
        let start = data.start().0 - change.start;
        let composed = compose(
            span,
            start..start + data.count(),
            [change.sources[0].zip(first), change.sources[1].zip(second)],
            |sector, bytes| {
                self.setup
                    .disk
                    .encipher_zeros(Sector(change.start + sector), bytes)
            },
        );
        composed.is_ok()
    }

    /// The span has been written, or could not be. If so, the change is committed with the others of this round.
    pub(super) fn span_written(&mut self, head: u16, change: Change, ended: Ended) {
        if ended == Ended::Done {
            self.batch.changes.push(change);
            self.batch.heads.push(head);
        } else {
            self.setup.disk.store().abandon(change);
            self.part_ended(head, ended);
        }
    }

    /// Makes what was written part of the disk; only now may it be answered.
    pub(super) fn commit(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let store = self.setup.disk.store();
        let outcome = store.commit(&mut self.batch.changes);
        // After a success there are none left.
        for change in self.batch.changes.drain(..) {
            store.abandon(change);
        }
        if let Err(error) = &outcome {
            let queue = self.setup.index;
            let count = self.batch.heads.len();
            self.setup.limits.store.log(|before| {
                log::error!("queue {queue}: commit of {count} changes: {error} ({before} errors before)");
            });
        }
        // What a store says of room for its records is said of all that it has: it has failed.
        let ended = match outcome {
            Ok(()) => Ended::Done,
            Err(_) => Ended::Failed,
        };
        if ended == Ended::Done {
            self.setup.disk.room().found();
        }
        let mut heads = std::mem::take(&mut self.batch.heads);
        for head in heads.drain(..) {
            self.part_ended(head, ended);
        }
        self.batch.heads = heads;
    }
}
