//! What an operator can set of how guests are served.

use std::io;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::memory_file::MemoryOn;

/// How queue workers wait, where they run, and on which guest memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Longest time to look for work before sleeping; zero: none.
    pub poll: Duration,
    /// Processors, which the queues take in turn; none: wherever the kernel puts them.
    pub processors: Vec<usize>,
    /// Where guest memory may lie.
    pub memory: MemoryOn,
}

/// A processor that this process may not run on, or that there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("processor {0} is not one that this process may use")]
pub struct NoSuchProcessor(usize);

impl Tuning {
    /// # Errors
    /// [`NoSuchProcessor`]; or the kernel's.
    pub fn check(&self) -> io::Result<()> {
        let allowed = sched_getaffinity(None)?;
        let bad = self
            .processors
            .iter()
            .find(|processor| **processor >= CpuSet::MAX_CPU || !allowed.is_set(**processor));
        match bad {
            Some(processor) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                NoSuchProcessor(*processor),
            )),
            None => Ok(()),
        }
    }

    /// Puts the calling thread, that of the disk's queue `index`, where it belongs.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn pin(&self, index: usize) -> io::Result<()> {
        if self.processors.is_empty() {
            return Ok(());
        }
        let mut set = CpuSet::new();
        set.set(self.processors[index % self.processors.len()]);
        Ok(sched_setaffinity(None, &set)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_run_where_they_are_put() {
        let allowed = sched_getaffinity(None).unwrap();
        let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
        let tuning = Tuning {
            processors: processors.clone(),
            ..Tuning::default()
        };
        tuning.check().unwrap();
        for index in [0, 1, processors.len()] {
            let tuning = tuning.clone();
            let expected = processors[index % processors.len()];
            let set = std::thread::spawn(move || {
                tuning.pin(index).unwrap();
                sched_getaffinity(None).unwrap()
            });
            let set = set.join().unwrap();
            assert!(set.is_set(expected) && set.count() == 1);
        }
    }

    #[test]
    fn others_are_refused() {
        for processor in [CpuSet::MAX_CPU - 1, usize::MAX] {
            let tuning = Tuning {
                processors: vec![processor],
                ..Tuning::default()
            };
            assert!(tuning.check().is_err());
        }
        Tuning::default().pin(3).unwrap();
    }
}
