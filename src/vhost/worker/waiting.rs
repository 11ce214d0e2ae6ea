//! How a worker waits.

use std::time::Instant;

use super::state::Worker;

impl Worker {
    /// Submits what is queued, and waits until something has happened or, if chains `can_come`, the driver has made one
    /// available.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn wait(&mut self, can_come: bool) -> std::io::Result<()> {
        if self.polling.most.is_zero() {
            return self.engine.submit_and_wait();
        }
        let start = Instant::now();
        if !self.look(start, can_come)? {
            self.engine.submit_and_wait()?;
        }
        self.polling.waited(start.elapsed());
        Ok(())
    }

    /// Looks for as long as seems right. Returns whether there is something.
    fn look(&mut self, start: Instant, can_come: bool) -> std::io::Result<bool> {
        if self.polling.window.is_zero() {
            return Ok(false);
        }
        let memory = self.setup.memory.clone();
        let can_come = can_come && !self.broken;
        if can_come && let Err(error) = self.ring.disable_notification(memory.guest()) {
            self.break_ring(error);
            return Ok(true);
        }
        self.engine.submit()?;
        while start.elapsed() < self.polling.window {
            if self.engine.has_event()? || can_come && self.ring.has_available(memory.guest()) {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        match self.ring.enable_notification(memory.guest()) {
            Ok(available) => Ok(can_come && available),
            Err(_) if !can_come => Ok(false),
            Err(error) => {
                self.break_ring(error);
                Ok(true)
            }
        }
    }
}
