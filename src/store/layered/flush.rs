//! Flushes: what has been completed survives a power cut afterwards.
//!
//! Data and records are synced first. Only then a mark is written that says so, and synced too: recovery after a power
//! cut goes as far as the last mark, since the medium may have taken a record before its data.

use std::io;
use std::sync::PoisonError;

use super::format::record::Record;
use super::medium::Medium;
use super::store::LayeredStore;
use crate::store::plan::FlushPoint;

impl<M: Medium> LayeredStore<M> {
    /// See [`crate::store::Store::begin_flush`].
    pub fn begin_flush(&self) -> FlushPoint {
        let state = self.state();
        FlushPoint(state.journal.needs_mark().then(|| state.journal.next()))
    }

    /// See [`crate::store::Store::mark`].
    ///
    /// # Errors
    /// The medium's.
    pub fn mark(&self, point: FlushPoint) -> io::Result<()> {
        self.ensure_sound()?;
        let Some(upto) = point.0 else { return Ok(()) };
        let mut state = self.state();
        if state.journal.committed() >= upto {
            return Ok(());
        }
        if state.journal.room() == 0 {
            drop(state);
            // A checkpoint makes everything durable that it finds.
            return self.checkpoint_now().map_err(Self::request_error);
        }
        let marked = self.append(&mut state, &[Record::Commit { upto }]);
        drop(state);
        marked.inspect_err(|error| self.fail(error))
    }

    /// See [`crate::store::Store::flushed`].
    pub fn flushed(&self, point: FlushPoint) {
        let Some(upto) = point.0 else { return };
        let mut state = self.state();
        state.journal.set_committed(upto);
        if !state.freed.is_empty() {
            self.work.notify_all();
        }
    }

    /// Makes everything that has been completed durable.
    ///
    /// # Errors
    /// The medium's; then the store has failed.
    pub fn sync(&self) -> io::Result<()> {
        self.ensure_sound()?;
        let point = self.begin_flush();
        let outcome = self.sync_medium().and_then(|()| {
            if !point.needs_mark() {
                return Ok(());
            }
            self.mark(point)?;
            self.sync_medium()
        });
        outcome.inspect_err(|error| self.fail(error))?;
        self.flushed(point);
        Ok(())
    }

    /// Makes what has been written durable. Syncs take turns, since the kernel tells a failure to one of several concurrent
    /// ones only: the caller of another would vouch for what is lost.
    ///
    /// # Errors
    /// The medium's, and then the store has failed; or that it has, meanwhile too, by a guest's flush.
    pub(super) fn sync_medium(&self) -> io::Result<()> {
        let _turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.poison.check()?;
        self.medium
            .sync()
            .inspect_err(|error| self.poison.set("its metadata cannot be synced", error))?;
        Ok(self.poison.check()?)
    }
}
