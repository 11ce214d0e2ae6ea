//! A guest must not be able to fill the host's logs.

use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one event a second pass, and counts the others.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    last: Option<Instant>,
    suppressed: u64,
}

impl RateLimit {
    /// Whether this event may be logged; if so, how many were suppressed before it.
    pub(super) fn pass(&mut self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_passes() {
        let mut limit = RateLimit::default();
        let start = Instant::now();
        assert_eq!(limit.pass_at(start), Some(0));
        assert_eq!(limit.pass_at(start + Duration::from_millis(1)), None);
        assert_eq!(limit.pass_at(start + Duration::from_millis(999)), None);
        assert_eq!(limit.pass_at(start + Duration::from_millis(1000)), Some(2));
    }
}
