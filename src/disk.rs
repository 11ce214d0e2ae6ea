//! The virtual disk: ranges of sectors, enciphered on their way to the store and back (rules A02 and D08).

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use crate::crypto::{self, CryptoError, Destination, DiskCipher, Source};
use crate::room::Room;
use crate::store::Store;
use crate::turns::Turns;
use crate::units::{Capacity, GrowingCapacity, Sector};

/// Length of the id that GET_ID answers, in bytes (virtio 1.2, section 5.2.6).
pub const SERIAL_BYTES: usize = 20;

/// One disk, as all its queues share it.
pub struct Disk {
    capacity: GrowingCapacity,
    read_only: bool,
    serial: [u8; SERIAL_BYTES],
    /// None: the disk is plain.
    cipher: Option<DiskCipher>,
    store: Store,
    sync_turn: Mutex<SyncTurn>,
    /// Of requests that overlap, where several machines may make them.
    turns: Option<Turns>,
    room: Arc<Room>,
    counters: Counters,
}

/// Syncs of different queues take turns. The kernel tells a failure to one of several concurrent ones only, and the
/// others would then vouch for data that is lost.
#[derive(Debug, Default)]
struct SyncTurn {
    taken: bool,
    /// Each once, whoever waits longest first: the next turn is his. So whoever waits does so for at most one turn of each of
    /// the others.
    waiting: VecDeque<Arc<EventFd>>,
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
    /// A disk of `capacity` on `store`, enciphered if there is a `cipher`; on a store that can grow it must have keys for
    /// [`Capacity::LARGEST`]. `serial` is cut or padded with zeros to 20 bytes.
    pub fn new(
        capacity: Capacity,
        read_only: bool,
        serial: &str,
        cipher: Option<DiskCipher>,
        store: Store,
    ) -> Self {
        let mut padded = [0; SERIAL_BYTES];
        let len = serial.len().min(SERIAL_BYTES);
        padded[..len].copy_from_slice(&serial.as_bytes()[..len]);
        Disk {
            capacity: GrowingCapacity::new(capacity),
            read_only,
            serial: padded,
            cipher,
            store,
            sync_turn: Mutex::default(),
            turns: None,
            room: Arc::default(),
            counters: Counters::default(),
        }
    }

    /// For several machines: requests that overlap take [turns](crate::turns).
    pub fn shared(self) -> Self {
        Disk {
            turns: Some(Turns::default()),
            ..self
        }
    }

    /// In which requests that overlap take their turns; none where one machine alone has the disk.
    pub fn turns(&self) -> Option<&Turns> {
        self.turns.as_ref()
    }

    /// What is known of the room for it on the host.
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Its size.
    pub fn capacity(&self) -> Capacity {
        self.capacity.get()
    }

    /// Grows it, while it is served, to what its store has grown to. Requests that are parsed from now on may reach there;
    /// the guest hears of it by [`crate::vhost::Server::notify_config_change`].
    pub fn grow(&self, capacity: Capacity) {
        self.capacity.grow(capacity);
    }

    /// Whether writes of all sessions are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What GET_ID answers.
    pub fn serial(&self) -> &[u8; SERIAL_BYTES] {
        &self.serial
    }

    /// Whether its data is enciphered.
    pub fn is_enciphered(&self) -> bool {
        self.cipher.is_some()
    }

    /// Where its ciphertext lies.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Totals since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Enciphers what is about to be written to the sectors from `first` on, from pieces of memory, which may be the guest's,
    /// into a private buffer.
    ///
    /// # Errors
    /// [`CryptoError`], if the pieces are shorter than the buffer or there are no keys.
    pub fn encipher<'m>(
        &self,
        first: Sector,
        pieces: impl IntoIterator<Item = Source<'m>>,
        buffer: &mut [u8],
    ) -> Result<(), CryptoError> {
        match &self.cipher {
            Some(cipher) => cipher.encrypt(first, pieces, buffer),
            None => crypto::gather(pieces, buffer),
        }
    }

    /// Fills a private buffer with what zeros look like in the store, from sector `first` on. The sectors may lie beyond the
    /// disk's end: the last block is written whole.
    ///
    /// # Errors
    /// [`CryptoError`], if the buffer is not whole sectors or there are no keys for them.
    pub fn encipher_zeros(&self, first: Sector, buffer: &mut [u8]) -> Result<(), CryptoError> {
        buffer.fill(0);
        match &self.cipher {
            Some(cipher) => cipher.encrypt_in_place(first, buffer),
            None => Ok(()),
        }
    }

    /// Deciphers what was read of the sectors from `first` on, from a private buffer into pieces of memory, which may be the
    /// guest's.
    ///
    /// # Errors
    /// [`CryptoError`], if the pieces are shorter than the buffer or there are no keys.
    pub fn decipher<'m>(
        &self,
        first: Sector,
        buffer: &[u8],
        pieces: impl IntoIterator<Item = Destination<'m>>,
    ) -> Result<(), CryptoError> {
        match &self.cipher {
            Some(cipher) => cipher.decrypt(first, buffer, pieces),
            None => crypto::scatter(buffer, pieces),
        }
    }

    /// Whether its [store has failed](crate::store::Poison), by a sync or otherwise. Every later request fails until the disk
    /// is attached anew.
    pub fn is_poisoned(&self) -> bool {
        self.store.poison().is_set()
    }

    /// To be called when a sync has failed.
    pub fn poison(&self, error: &io::Error) {
        self.store.poison().set("a flush to it has failed", error);
    }

    /// Takes the turn to sync, or has `wake` written to when it is the next: then it must be taken, for nobody else can.
    pub fn try_begin_sync(&self, wake: &Arc<EventFd>) -> bool {
        let mut turn = self.sync_turn.lock().unwrap_or_else(PoisonError::into_inner);
        let place = turn.waiting.iter().position(|waiting| Arc::ptr_eq(waiting, wake));
        let is_next = place.map_or(turn.waiting.is_empty(), |place| place == 0);
        if turn.taken || !is_next {
            if place.is_none() {
                turn.waiting.push_back(wake.clone());
            }
            return false;
        }
        turn.waiting.pop_front();
        turn.taken = true;
        true
    }

    /// Ends the turn, which goes to the queue that waits longest. A failure poisons the disk before another has a turn.
    ///
    /// # Errors
    /// The sync's; or that the store has failed meanwhile, by another sync or by its own threads: the kernel may have told
    /// the loss to those alone.
    pub fn end_sync(&self, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &result {
            self.poison(error);
        }
        let result = result.and_then(|()| Ok(self.store.poison().check()?));
        let mut turn = self.sync_turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.taken = false;
        if let Some(wake) = turn.waiting.front() {
            // Fails only when the counter is full, and then it is being woken already.
            let _ = wake.write(1);
        }
        result
    }

    /// Makes every completed write durable, outside of any queue, when no queue is syncing.
    ///
    /// # Errors
    /// The kernel's, after which the disk is poisoned; or that it was poisoned before.
    pub fn sync(&self) -> io::Result<()> {
        let wake = Arc::new(EventFd::new(EFD_CLOEXEC)?);
        while !self.try_begin_sync(&wake) {
            wake.read()?;
        }
        let sound = self.store.poison().check();
        self.end_sync(sound.map_err(io::Error::from).and_then(|()| self.store.sync()))
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;
    use crate::crypto::SEGMENT_SECTORS;
    use crate::store::RawStore;
    use crate::units::ByteLen;
    use sealblk_proto::keys::LineageKey;

    fn disk(cipher: Option<DiskCipher>) -> Disk {
        let capacity = Capacity::new(ByteLen(4096 + 512)).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(capacity.bytes().0).unwrap();
        let store = RawStore::open(file, capacity).unwrap();
        Disk::new(capacity, false, "serial", cipher, Store::Raw(store))
    }

    #[test]
    fn a_sync_waits_for_its_turn() {
        let disk = disk(None);
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        assert!(disk.try_begin_sync(&wake));
        std::thread::scope(|scope| {
            let sync = scope.spawn(|| disk.sync());
            while disk.sync_turn.lock().unwrap().waiting.is_empty() {
                std::thread::yield_now();
            }
            assert!(!sync.is_finished());
            disk.end_sync(Ok(())).unwrap();
            sync.join().unwrap().unwrap();
        });
        assert!(disk.try_begin_sync(&wake), "the turn was given back");
        assert!(disk.end_sync(Err(io::Error::other("no"))).is_err());
        assert!(disk.sync().is_err() && disk.is_poisoned());
    }

    #[test]
    fn the_turn_to_sync_is_that_of_who_waits_longest() {
        let disk = disk(None);
        let queues: [Arc<EventFd>; 3] =
            std::array::from_fn(|_| Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()));
        assert!(disk.try_begin_sync(&queues[0]));
        assert!(!disk.try_begin_sync(&queues[1]));
        for round in 1..8 {
            let [present, next, after] = [2, 0, 1].map(|step| &queues[(round + step) % 3]);
            // Asking more than once makes nobody's wait shorter.
            assert!(!disk.try_begin_sync(after) && !disk.try_begin_sync(after));
            assert!(next.read().is_err() && after.read().is_err());
            disk.end_sync(Ok(())).unwrap();
            assert!(
                next.read().is_ok() && after.read().is_err(),
                "only who is next is woken"
            );
            assert!(!disk.try_begin_sync(present), "who has just had it is the last");
            assert!(!disk.try_begin_sync(after) && disk.try_begin_sync(next));
        }
    }

    #[test]
    fn a_flush_on_a_store_that_has_failed_meanwhile_vouches_for_nothing() {
        let disk = disk(None);
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        assert!(disk.try_begin_sync(&wake));
        disk.store()
            .poison()
            .set("a thread of the store failed", &io::Error::other("no"));
        assert!(disk.end_sync(Ok(())).is_err());
        assert!(disk.sync().is_err() && disk.is_poisoned());
    }

    #[test]
    fn zeros_are_enciphered_also_beyond_the_end() {
        let key = LineageKey::new_with(|bytes| bytes.fill(9)).unwrap();
        let largest = DiskCipher::derive(&key, Capacity::LARGEST).unwrap();
        let enciphered = disk(Some(largest));
        let end = Capacity::LARGEST.sectors();
        for first in [0, 8, SEGMENT_SECTORS - 3, end - 7] {
            let mut sealed = [5; 7 * 512];
            enciphered.encipher_zeros(Sector(first), &mut sealed).unwrap();
            assert!(sealed.chunks(16).all(|block| block != [0; 16]), "{first}");
            let cipher = enciphered.cipher.as_ref().unwrap();
            cipher.decrypt_in_place(Sector(first), &mut sealed).unwrap();
            assert_eq!(sealed, [0; 7 * 512], "{first}");
        }
        assert!(
            enciphered
                .encipher_zeros(Sector(end - 6), &mut [0; 7 * 512])
                .is_err()
        );
        let mut plain = [5; 512];
        disk(None).encipher_zeros(Sector(100), &mut plain).unwrap();
        assert_eq!(plain, [0; 512]);
    }
}
