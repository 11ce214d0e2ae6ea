//! Looking for work a little longer before sleeping, where that has paid of late.
//!
//! Being woken costs a queue's thread several microseconds, and the guest its kick. So a worker looks for a while at
//! what it waits for, if the last waits were short, and takes no kicks meanwhile. A wait that was longer than it may look
//! switches that off, until one without looking is short again: a queue that nobody uses costs no processor time.
//!
//! Looking is for processors that nobody else wants. A thread that looks uses up its share of a processor, and is made
//! to wait when it has work. So if the kernel takes the processor away from it, it does not look for a while, which is
//! longer each time.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use super::Worker;

/// A round of looking takes less than a microsecond. One that takes longer than this was interrupted.
const GAP: Duration = Duration::from_micros(20);
/// Not to look for so long after the processor was taken away; doubled each time, up to `LONGEST_PAUSE`.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long to look, by how long the last waits were, and whether anybody else wants the processor.
#[derive(Debug)]
pub(super) struct Polling {
    most: Duration,
    window: Duration,
    /// Times that the processor was taken away from this thread, as far as they are known.
    taken: u64,
    /// Not to look before.
    resume: Option<Instant>,
    pause: Duration,
}

impl Polling {
    /// Looks for at most so long; zero: never.
    pub(super) fn new(most: Duration) -> Self {
        Polling {
            most,
            window: Duration::ZERO,
            taken: 0,
            resume: None,
            pause: PAUSE,
        }
    }

    /// How long to look from `now` on.
    fn window(&self, now: Instant) -> Duration {
        match self.resume {
            Some(resume) if now < resume => Duration::ZERO,
            _ => self.window,
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

    /// While it looked the thread was interrupted, and up to `now` the processor was taken away from it so many times in
    /// all. Returns whether to stop.
    fn interrupted(&mut self, now: Instant, taken: u64) -> bool {
        if taken <= self.taken {
            // By the host of this machine, or by an interrupt.
            return false;
        }
        self.taken = taken;
        let undisturbed = self.resume.map(|resume| now.saturating_duration_since(resume));
        self.pause = match undisturbed {
            Some(time) if time < self.pause => (2 * self.pause).min(LONGEST_PAUSE),
            _ => PAUSE,
        };
        self.resume = Some(now + self.pause);
        true
    }
}

/// Times that the processor was taken away from this thread although it could have gone on.
fn times_taken() -> u64 {
    // Fails for bad arguments alone.
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| {
        u64::try_from(usage.involuntary_context_switches()).unwrap_or(0)
    })
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
        let window = self.polling.window(start);
        if window.is_zero() {
            return Ok(false);
        }
        let memory = self.setup.memory.clone();
        let can_come = can_come && !self.broken;
        if can_come && let Err(error) = self.ring.disable_notification(memory.guest()) {
            self.break_ring(error);
            return Ok(true);
        }
        self.engine.submit()?;
        let mut before = Instant::now();
        loop {
            let found = self.engine.has_event()? || can_come && self.ring.has_available(memory.guest());
            let now = Instant::now();
            let give_up = now - before > GAP && self.polling.interrupted(now, times_taken());
            if found {
                return Ok(true);
            }
            if give_up || now - start >= window {
                break;
            }
            std::hint::spin_loop();
            before = now;
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

    #[test]
    fn it_does_not_look_where_others_want_the_processor() {
        let most = Duration::from_micros(50);
        let mut polling = Polling::new(most);
        polling.waited(most);
        let mut now = Instant::now();
        assert_eq!(polling.window(now), most);
        assert!(!polling.interrupted(now, 0), "nobody took it");
        assert_eq!(polling.window(now), most);

        let mut taken = 0;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            taken += 3;
            assert!(polling.interrupted(now, taken));
            assert_eq!(polling.window(now), Duration::ZERO);
            let pause = polling.pause;
            assert_eq!(
                polling.window(now + pause - Duration::from_nanos(1)),
                Duration::ZERO
            );
            now += pause;
            assert_eq!(polling.window(now), most);
            assert!(!polling.interrupted(now, taken), "it was told before");
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);

        now += LONGEST_PAUSE;
        assert!(polling.interrupted(now, taken + 1));
        assert_eq!(
            polling.pause, PAUSE,
            "it was left alone for as long as it had paused"
        );
    }
}
