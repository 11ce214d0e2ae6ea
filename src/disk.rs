//! The virtual disk: ranges of sectors, enciphered on their way to the store and back.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::crypto::{CryptoError, DiskCipher};
use crate::store::RawStore;
use crate::units::{Capacity, SectorRange};

/// Length of the id that GET_ID answers, in bytes (virtio 1.2, section 5.2.6).
pub const SERIAL_BYTES: usize = 20;

/// One disk, as all its queues share it.
pub struct Disk {
    capacity: Capacity,
    read_only: bool,
    serial: [u8; SERIAL_BYTES],
    /// None: the disk is plain.
    cipher: Option<DiskCipher>,
    store: RawStore,
    poisoned: AtomicBool,
    sync_turn: Mutex<SyncTurn>,
    counters: Counters,
}

/// Syncs of different queues take turns. The kernel tells a failure to one of several concurrent ones only, and the
/// others would then vouch for data that is lost.
#[derive(Debug, Default)]
struct SyncTurn {
    taken: bool,
    waiting: Vec<Arc<EventFd>>,
}

/// Totals since the start, kept by the queue workers.
#[derive(Debug, Default)]
pub struct Counters {
    /// Completed reads.
    pub reads: AtomicU64,
    /// Completed writes.
    pub writes: AtomicU64,
    /// Completed flushes.
    pub flushes: AtomicU64,
    /// Bytes that reads have returned.
    pub bytes_read: AtomicU64,
    /// Bytes that writes have stored.
    pub bytes_written: AtomicU64,
    /// Requests answered with an error.
    pub errors: AtomicU64,
}

impl Disk {
    /// A disk of `capacity` on `store`, enciphered if there is a `cipher`. `serial` is cut or padded with zeros
    /// to 20 bytes.
    pub fn new(
        capacity: Capacity,
        read_only: bool,
        serial: &str,
        cipher: Option<DiskCipher>,
        store: RawStore,
    ) -> Self {
        let mut padded = [0; SERIAL_BYTES];
        let len = serial.len().min(SERIAL_BYTES);
        padded[..len].copy_from_slice(&serial.as_bytes()[..len]);
        Disk {
            capacity,
            read_only,
            serial: padded,
            cipher,
            store,
            poisoned: AtomicBool::new(false),
            sync_turn: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// Its size.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What GET_ID answers.
    pub fn serial(&self) -> &[u8; SERIAL_BYTES] {
        &self.serial
    }

    /// Where its ciphertext lies.
    pub fn store(&self) -> &RawStore {
        &self.store
    }

    /// Totals since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Enciphers, in a private buffer, what is about to be written to `range`.
    ///
    /// # Errors
    /// [`CryptoError`], if the buffer is not the range's length.
    pub fn seal(&self, range: SectorRange, buffer: &mut [u8]) -> Result<(), CryptoError> {
        match &self.cipher {
            Some(cipher) => cipher.encrypt_in_place(range.start(), buffer),
            None => Ok(()),
        }
    }

    /// Deciphers, in a private buffer, what was read from `range`.
    ///
    /// # Errors
    /// [`CryptoError`], if the buffer is not the range's length.
    pub fn open(&self, range: SectorRange, buffer: &mut [u8]) -> Result<(), CryptoError> {
        match &self.cipher {
            Some(cipher) => cipher.decrypt_in_place(range.start(), buffer),
            None => Ok(()),
        }
    }

    /// Whether a sync has failed. Which data is lost is then unknown, and the kernel reports it once only; so every
    /// later request fails until the disk is attached anew.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// To be called when a sync has failed.
    pub fn poison(&self, error: &io::Error) {
        if !self.poisoned.swap(true, Ordering::AcqRel) {
            log::error!("sync failed, all further I/O fails until the disk is attached anew: {error}");
        }
    }

    /// Takes the turn to sync, or has `wake` written to when the next turn is free.
    pub fn try_begin_sync(&self, wake: &Arc<EventFd>) -> bool {
        let mut turn = self.sync_turn.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.taken {
            if !turn.waiting.iter().any(|waiting| Arc::ptr_eq(waiting, wake)) {
                turn.waiting.push(wake.clone());
            }
            return false;
        }
        turn.taken = true;
        true
    }

    /// Ends the turn; a failure poisons the disk before anyone else has a turn.
    pub fn end_sync(&self, result: &io::Result<()>) {
        if let Err(error) = result {
            self.poison(error);
        }
        let mut turn = self.sync_turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.taken = false;
        for wake in turn.waiting.drain(..) {
            // Fails only when the counter is full, and then it is being woken already.
            let _ = wake.write(1);
        }
    }

    /// Makes every completed write durable, outside of any queue.
    ///
    /// # Errors
    /// The kernel's, after which the disk is poisoned; or that it was poisoned before.
    pub fn sync(&self) -> io::Result<()> {
        if self.is_poisoned() {
            return Err(io::Error::other("the disk is poisoned by an earlier failed sync"));
        }
        self.store.sync().inspect_err(|error| self.poison(error))
    }
}
