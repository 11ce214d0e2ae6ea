//! Looking for work a little longer before sleeping, where that has paid of late.
//!
//! Being woken costs a queue's thread several microseconds, and the guest its kick. So a worker looks for a while at
//! what it waits for, if the last waits were short, and takes no kicks meanwhile. A wait that was longer than it may look
//! switches that off, until one without looking is short again: a queue that nobody uses costs no processor time.

use std::time::Duration;

/// How long to look, by how long the last waits were.
#[derive(Debug)]
pub(super) struct Polling {
    pub(super) most: Duration,
    pub(super) window: Duration,
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
    pub(super) fn waited(&mut self, time: Duration) {
        self.window = if time <= self.most {
            self.window.max(2 * time).min(self.most)
        } else {
            Duration::ZERO
        };
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
