//! Lets a few of many events be logged.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one event a second pass, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct RateLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl RateLimit {
    /// Calls `log` if this event may be logged, with the number of those suppressed before it.
    pub(crate) fn log(&self, log: impl FnOnce(u64)) {
        if let Some(suppressed) = self.pass_at(Instant::now()) {
            log(suppressed);
        }
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        // No code panics while it holds the lock.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_passes() {
        let limit = RateLimit::default();
        let start = Instant::now();
        assert_eq!(limit.pass_at(start), Some(0));
        assert_eq!(limit.pass_at(start + Duration::from_millis(1)), None);
        assert_eq!(limit.pass_at(start + Duration::from_millis(999)), None);
        assert_eq!(limit.pass_at(start + Duration::from_millis(1000)), Some(2));
    }
}
