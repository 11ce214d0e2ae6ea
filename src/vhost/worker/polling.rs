//! Looking for work a little longer before sleeping, where that has paid of late.
//!
//! Being woken costs a queue's thread several microseconds, and the guest its kick. So a worker looks for a while at
//! what it waits for, if the last waits were short, and takes no kicks meanwhile. A wait that was longer than it may look
//! switches that off, until one without looking is short again: a queue that nobody uses costs no processor time.

use std::time::{Duration, Instant};

use super::Worker;

/// How long to look, by how long the last waits were.
#[derive(Debug)]
pub(super) struct Polling {
    most: Duration,
    window: Duration,
}

impl Polling {
    /// Looks for at most so long; zero: never.
    pub(super) fn new(most: Duration) -> Self {
        Polling {
            most,
            window: Duration::ZERO,
        }
    }

    /// A wait has ended, after so long.
    fn waited(&mut self, time: Duration) {
        self.window = if time <= self.most {
            self.window.max(2 * time).min(self.most)
        } else {
            Duration::ZERO
        };
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_waits_make_it_look_and_a_long_one_makes_it_stop() {
        let micros = Duration::from_micros;
        let mut polling = Polling::new(micros(50));
        assert_eq!(polling.window, Duration::ZERO);
        polling.waited(micros(51));
        assert_eq!(polling.window, Duration::ZERO);
        polling.waited(micros(10));
        assert_eq!(polling.window, micros(20));
        polling.waited(micros(5));
        assert_eq!(polling.window, micros(20));
        polling.waited(micros(40));
        assert_eq!(polling.window, micros(50));
        polling.waited(micros(1000));
        assert_eq!(polling.window, Duration::ZERO);
        let mut never = Polling::new(Duration::ZERO);
        never.waited(Duration::ZERO);
        assert_eq!(never.window, Duration::ZERO);
    }
}
