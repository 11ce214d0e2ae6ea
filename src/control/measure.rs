//! A figure that has to be asked of the medium, which may not answer: counters are given all the same.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::aside::Aside;

/// How long the medium may take. Most answer from the kernel's memory.
const PATIENCE: Duration = Duration::from_millis(200);

/// A figure, as it was last measured. At most one thread waits for the medium.
#[derive(Debug, Default)]
pub(super) struct Measure {
    last: Arc<AtomicU64>,
    aside: Aside,
}

impl Measure {
    /// Measures it anew, or gives the last one if that takes long or fails; 0 if there is none.
    pub(super) fn take(&self, measure: impl FnOnce() -> io::Result<u64> + Send + 'static) -> u64 {
        let last = self.last.clone();
        // Whether it is there or not, the last one is given.
        let _ = self.aside.within(PATIENCE, "measure", move || {
            if let Ok(figure) = measure() {
                last.store(figure, Ordering::Release);
            }
        });
        self.last.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_medium_that_does_not_answer_is_not_waited_for_and_asked_once() {
        let measure = Measure::default();
        assert_eq!(measure.take(|| Ok(7)), 7);
        assert_eq!(measure.take(|| Err(io::ErrorKind::Other.into())), 7);
        let (answer, hangs) = mpsc::channel();
        assert_eq!(measure.take(move || Ok(hangs.recv().unwrap())), 7);
        assert_eq!(measure.take(|| panic!("a second one")), 7);
        answer.send(9).unwrap();
        while measure.last.load(Ordering::Acquire) != 9 {
            std::thread::yield_now();
        }
    }
}
