//! Requests that have found no room on the host and are held until there is, where the disk's policy is that.
//!
//! A held request has nothing under way: what of it was begun has ended. So it is in nobody's way, at the barrier either, and
//! it is done from its beginning when it is tried again. When the queue ends it stays in flight, for a successor, where what is
//! in flight is noted; otherwise it is answered with an error.

use std::io;

use super::state::Worker;
use crate::virtqueue::Status;

impl Worker {
    /// Whether a request that has found no room is to be held.
    pub(super) fn may_hold(&self) -> bool {
        // A queue that ends waits for nothing.
        let ends = self.stop.load(std::sync::atomic::Ordering::SeqCst) && !self.ring.is_recorded();
        self.setup.disk.room().holds() && !self.broken && !ends
    }

    /// Holds a request until the next round.
    pub(super) fn hold(&mut self, head: u16) {
        let disk = self.setup.disk.clone();
        let in_flight = &mut self.requests[usize::from(head)];
        // Overlapping requests need not wait for a held one: it is done after them.
        if let (Some(turns), Some(turn)) = (disk.turns(), in_flight.turn.take()) {
            turns.end(turn);
        }
        let again = std::mem::replace(&mut in_flight.was_held, true);
        if !disk.room().hold(&self.wake) {
            return self.answer(head, Status::IoError, 0);
        }
        self.held.round = disk.room().round();
        self.held.heads.push(head);
        if !again {
            let queue = self.setup.index;
            self.setup.limits.store.log(|before| {
                log::warn!(
                    "queue {queue}: the host has no room (ENOSPC); a request is held until there is ({before} before)"
                );
            });
        }
    }

    /// Tries those that are held once more, if it is time.
    pub(super) fn retry_held(&mut self) {
        let disk = self.setup.disk.clone();
        let is_time = disk.room().round() != self.held.round;
        if self.held.heads.is_empty() || !is_time || self.membership.must_rest() {
            return;
        }
        disk.room().release(self.held.heads.len());
        for head in std::mem::take(&mut self.held.heads) {
            self.carry_out(head, &disk);
        }
    }

    /// At the queue's end.
    ///
    /// # Errors
    /// As [`Worker::notify`].
    pub(super) fn leave_held(&mut self) -> io::Result<()> {
        self.setup.disk.room().release(self.held.heads.len());
        for head in std::mem::take(&mut self.held.heads) {
            let token = match self.ring.is_recorded() && !self.broken {
                true => self.requests[usize::from(head)].token.take(),
                false => None,
            };
            match token {
                Some(token) => self.ring.leave(token),
                None => self.answer(head, Status::IoError, 0),
            }
        }
        self.notify()
    }
}
