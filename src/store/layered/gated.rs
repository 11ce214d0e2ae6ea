//! A medium for tests: it can be made to stop in the middle of a read, a reservation of room or a sync, and to fail.

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::medium::{FileMedium, Medium};

/// The medium, in a file without a name. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Gated(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: FileMedium,
    gate: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    /// The next read stops.
    pub(super) stops_a_read: bool,
    /// The next reservation of room stops.
    pub(super) stops_a_reservation: bool,
    /// Every sync stops.
    pub(super) stops_syncs: bool,
    /// The next sync fails.
    pub(super) fails_a_sync: bool,
    /// Those that have stopped.
    stopped: usize,
    pub(super) writes: usize,
    syncs: usize,
    syncing: usize,
    /// Syncs at once, at most.
    pub(super) most_syncing: usize,
}

impl Gated {
    pub(super) fn new() -> Self {
        let file: File = tempfile::tempfile().unwrap();
        let file = FileMedium::new(file.try_clone().unwrap(), file).unwrap();
        Gated(Arc::new(Inner {
            file,
            gate: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.0.gate.lock().unwrap()
    }

    /// Writes and syncs until now.
    pub(super) fn counts(&self) -> (usize, usize) {
        let gate = self.gate();
        (gate.writes, gate.syncs)
    }

    /// Waits until so many have stopped.
    pub(super) fn wait_for_stopped(&self, count: usize) {
        let waited = self
            .0
            .changed
            .wait_while(self.gate(), |gate| gate.stopped < count);
        drop(waited.unwrap());
    }

    /// Gives so many some time to stop.
    pub(super) fn soon_stopped(&self, count: usize) {
        let while_less = |gate: &mut Gate| gate.stopped < count;
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.gate(), Duration::from_millis(200), while_less);
        drop(waited.unwrap());
    }

    /// Those that have stopped go on, and none stops any more.
    pub(super) fn open(&self) {
        let mut gate = self.gate();
        gate.stops_a_read = false;
        gate.stops_syncs = false;
        gate.stopped = 0;
        self.0.changed.notify_all();
    }

    fn stop<'g>(&'g self, mut gate: MutexGuard<'g, Gate>) -> MutexGuard<'g, Gate> {
        gate.stopped += 1;
        self.0.changed.notify_all();
        self.0.changed.wait_while(gate, |gate| gate.stopped > 0).unwrap()
    }
}

impl Medium for Gated {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut gate = self.gate();
        if std::mem::take(&mut gate.stops_a_read) {
            gate = self.stop(gate);
        }
        drop(gate);
        self.0.file.read(offset, bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.gate().writes += 1;
        self.0.file.write(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let mut gate = self.gate();
        gate.syncs += 1;
        gate.syncing += 1;
        gate.most_syncing = gate.most_syncing.max(gate.syncing);
        let fails = std::mem::take(&mut gate.fails_a_sync);
        if gate.stops_syncs {
            gate = self.stop(gate);
        }
        gate.syncing -= 1;
        match fails {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
    }

    fn size(&self) -> io::Result<u64> {
        self.0.file.size()
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        self.0.file.grow(size)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut gate = self.gate();
        if std::mem::take(&mut gate.stops_a_reservation) {
            gate = self.stop(gate);
        }
        drop(gate);
        self.0.file.reserve(offset, len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.file.punch(offset, len)
    }
}
