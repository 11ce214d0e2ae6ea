//! What a worker does, round by round.

use std::io;
use std::sync::atomic::Ordering;

use super::state::Worker;
use crate::io::{Engine, Event, lock};
use crate::limits::MAX_WAITING_BYTES;
use crate::virtqueue::RingBroken;

const WATCH_KICK: u64 = 0;
const WATCH_WAKE: u64 = 1;

impl Worker {
    /// Serves the queue until it is stopped. Afterwards nothing here touches guest memory. Returns the next entry of the
    /// available ring.
    pub(super) fn run(mut self) -> (Engine, u16) {
        if let Err(error) = self.serve() {
            // Without its io_uring the worker cannot even drain. The supervisor starts a new process.
            log::error!("queue {}: the worker cannot go on: {error}", self.setup.index);
            crate::logging::abort();
        }
        let next_available = self.ring.next_available();
        (self.engine, next_available)
    }

    fn serve(&mut self) -> io::Result<()> {
        self.engine.watch(&self.setup.kick, WATCH_KICK)?;
        self.engine.watch(&*self.wake, WATCH_WAKE)?;
        // The predecessor may have completed chains and not come to the interrupt. Whether the driver waits for it
        // cannot be told from the ring.
        lock(&self.interrupter).signal()?;
        loop {
            self.commit();
            // Before more is begun: the driver can offer more meanwhile.
            self.notify()?;
            let stopping = self.stop.load(Ordering::SeqCst);
            let resting = self.membership.must_rest();
            let more_chains = !resting && self.take_chains(stopping);
            if !resting && std::mem::take(&mut self.kicked) {
                let found = self.ring.next_available() != self.first_available;
                self.setup.health.note_kick(found);
            }
            let more_parts = self.start_parts()?;
            self.start_flush()?;
            self.notify()?;
            if self.is_idle() {
                // Chains that a predecessor had in flight are completed before the queue ends, unless it is to rest: then they
                // stay in the record, for the next process.
                if stopping && (resting || self.broken || !self.ring.has_left()) {
                    self.leave_held()?;
                    return self.engine.end_watches();
                }
                if resting {
                    self.membership.rest();
                }
            }
            if more_chains || more_parts {
                self.engine.submit()?;
            } else {
                // No chain is taken while taken ones wait to be started.
                let can_come = !stopping && !resting && self.waiting.is_empty();
                self.wait(can_come)?;
            }
            while let Some(event) = self.engine.next_event()? {
                match event {
                    Event::Completed(completion) => self.completed(completion)?,
                    Event::Readable(WATCH_WAKE) => {
                        let _ = self.wake.read();
                        self.retry_aside();
                        self.retry_held();
                    }
                    // Chains are taken in each round.
                    Event::Readable(_) => self.kicked = true,
                }
                if self.engine.has_told_enough() {
                    break;
                }
            }
        }
    }

    /// Nothing in flight, as far as it can still end; what is held is in nobody's way.
    fn is_idle(&self) -> bool {
        self.engine.pending() == 0
            && self.waiting.is_empty()
            && self.aside.is_empty()
            && self.compositions.is_empty()
            && self.batch.is_empty()
            && self.flushes.is_empty()
    }

    /// Takes at most a queue full of chains; when `stopping` only those that a predecessor had in flight. Returns whether
    /// there may be more.
    fn take_chains(&mut self, stopping: bool) -> bool {
        let taken = if stopping {
            Ok(self.take_left())
        } else {
            self.try_take_chains()
        };
        match taken {
            Ok(more) => more,
            Err(error) => {
                self.break_ring(error);
                false
            }
        }
    }

    fn take_left(&mut self) -> bool {
        let memory = self.setup.memory.clone();
        while !self.broken && self.waiting_bytes <= MAX_WAITING_BYTES {
            let Some((token, chain)) = self.ring.take_left(memory.guest()) else {
                break;
            };
            self.begin(token, chain, memory.guest());
        }
        false
    }

    fn try_take_chains(&mut self) -> Result<bool, RingBroken> {
        if self.broken {
            return Ok(false);
        }
        let memory = self.setup.memory.clone();
        self.ring.disable_notification(memory.guest())?;
        for _ in 0..self.ring.size() {
            // The rest is taken when some of this has ended.
            if self.waiting_bytes > MAX_WAITING_BYTES {
                return Ok(false);
            }
            let Some((token, chain)) = self.ring.take(memory.guest())? else {
                return self.ring.enable_notification(memory.guest());
            };
            self.begin(token, chain, memory.guest());
            if self.broken {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
