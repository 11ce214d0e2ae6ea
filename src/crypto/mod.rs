//! XTS-AES-256 and the keys it runs under.
//!
//! A disk's bytes are encrypted in data units of one sector (512 bytes). The tweak of a unit is the number of its
//! sector on the whole virtual disk, little-endian in the low 8 bytes and zero above, which is dm-crypt's
//! `plain64`: under the same XTS key, dm-crypt and QEMU read what is written here. Each [`SEGMENT_SECTORS`] of the
//! disk have a key pair of their own, because IEEE 1619-2025 limits how much may be encrypted under one.
//!
//! XTS keeps data confidential and nothing else: it does not notice changed or replayed ciphertext, and it shows
//! which 16-byte blocks at the same place are equal to earlier ones.
//!
//! In here is no I/O and nothing of virtio, sockets or stores.

mod derive;
mod pieces;
mod xts;

use std::io;

use sealblk_proto::keys::LineageKey;
use sealblk_proto::locked::{Locked, wipe_dead_stack, wipe_vector_registers};
use zeroize::optimization_barrier;

pub use self::pieces::{Destination, Source};
use self::pieces::{EndsEarly, Run, Stream};
pub use self::xts::{Direction, KEY_BYTES, Kernel, LARGEST_UNIT_BYTES, XtsAes256, XtsError};
pub use crate::limits::SEGMENT_SECTORS;
use crate::units::{Capacity, SECTOR_BYTES, Sector};

/// Why data was not encrypted or decrypted, or keys not made. The output then holds nothing of use.
#[derive(Debug, thiserror::Error)]
pub enum CryptoError {
    /// The pieces of memory are fewer bytes than the buffer.
    #[error("there is less than {0} bytes of memory")]
    TooLittleMemory(usize),
    /// The range ends beyond the last sector that there are keys for.
    #[error("{count} sectors from sector {first} are beyond the last one that has a key")]
    NoKey {
        /// Number of the first sector.
        first: u64,
        /// How many there are.
        count: u64,
    },
    /// The cipher refused.
    #[error(transparent)]
    Xts(#[from] XtsError),
    /// There is no locked memory for the keys.
    #[error("memory for the disk's keys cannot be locked")]
    Memory(#[from] io::Error),
}

/// The XTS keys of one disk, expanded, in locked memory.
///
/// An operation leaves copies of tweaks on the stack of the thread that calls it, and with the portable kernel of round
/// keys too. So the process must not be dumpable, and its stacks should be locked too.
pub struct DiskCipher {
    segments: Vec<Locked<XtsAes256>>,
}

impl DiskCipher {
    /// Derives the keys of every segment that a disk of this size touches.
    ///
    /// # Errors
    /// [`CryptoError::Memory`], and [`XtsError::EqualKeyHalves`] if a derived key is unusable (a chance of 2⁻²⁵⁶).
    pub fn derive(lineage: &LineageKey, capacity: Capacity) -> Result<Self, CryptoError> {
        Self::derive_for(Kernel::fastest(), lineage, capacity)
    }

    /// Derives the keys for a certain kernel.
    ///
    /// # Errors
    /// As [`DiskCipher::derive`], and [`XtsError::NoSuchKernel`].
    pub fn derive_for(kernel: Kernel, lineage: &LineageKey, capacity: Capacity) -> Result<Self, CryptoError> {
        let mut key = Locked::zeroed()?;
        let segments = (0..capacity.sectors().div_ceil(SEGMENT_SECTORS))
            .map(|segment| {
                derive::segment_key(lineage, segment, &mut key);
                Ok(XtsAes256::with_kernel(kernel, &key)?)
            })
            .collect::<Result<_, CryptoError>>();
        // HKDF's inner states lay there.
        wipe_dead_stack();
        Ok(DiskCipher { segments: segments? })
    }

    /// Encrypts whole sectors from `first`, from pieces of memory, which may be the guest's and split anywhere, into a private
    /// buffer, which says how many.
    ///
    /// # Errors
    /// [`CryptoError`].
    pub fn encrypt<'m>(
        &self,
        first: Sector,
        plain: impl IntoIterator<Item = Source<'m>>,
        cipher: &mut [u8],
    ) -> Result<(), CryptoError> {
        let bytes = cipher.len();
        let cipher = [Destination::from(cipher)];
        self.process_pieces(Direction::Encrypt, first, bytes, plain, cipher)
    }

    /// Decrypts whole sectors from `first`, from a private buffer, which says how many, into pieces of memory, which may be the
    /// guest's and split anywhere.
    ///
    /// # Errors
    /// [`CryptoError`].
    pub fn decrypt<'m>(
        &self,
        first: Sector,
        cipher: &[u8],
        plain: impl IntoIterator<Item = Destination<'m>>,
    ) -> Result<(), CryptoError> {
        let bytes = cipher.len();
        let cipher = [Source::from(cipher)];
        self.process_pieces(Direction::Decrypt, first, bytes, cipher, plain)
    }

    /// Encrypts whole sectors from `first` where they are, in memory that nobody else sees.
    ///
    /// # Errors
    /// [`CryptoError`].
    pub fn encrypt_in_place(&self, first: Sector, data: &mut [u8]) -> Result<(), CryptoError> {
        self.in_place(Direction::Encrypt, first, data)
    }

    /// Decrypts whole sectors from `first` where they are, in memory that nobody else sees.
    ///
    /// # Errors
    /// [`CryptoError`].
    pub fn decrypt_in_place(&self, first: Sector, data: &mut [u8]) -> Result<(), CryptoError> {
        self.in_place(Direction::Decrypt, first, data)
    }

    fn in_place(&self, direction: Direction, first: Sector, data: &mut [u8]) -> Result<(), CryptoError> {
        self.keyed_sectors(first, data.len())?;
        self.process(direction, first, Run::of(data.into()));
        wipe_vector_registers();
        Ok(())
    }

    fn process_pieces<'s, 'd>(
        &self,
        direction: Direction,
        first: Sector,
        bytes: usize,
        source: impl IntoIterator<Item = Source<'s>>,
        destination: impl IntoIterator<Item = Destination<'d>>,
    ) -> Result<(), CryptoError> {
        let count = self.keyed_sectors(first, bytes)?;
        let (mut source, mut destination) = (Stream::new(source), Stream::new(destination));
        let mut process_all = || {
            let mut done = 0;
            while done < count {
                let sector = Sector(first.0 + done as u64);
                if let Some(run) = Run::next_of(&mut source, &mut destination, count - done)? {
                    done += run.sectors();
                    self.process(direction, sector, run);
                } else {
                    self.process_split(direction, sector, &mut source, &mut destination)?;
                    done += 1;
                }
            }
            Ok(())
        };
        let processed = process_all();
        wipe_vector_registers();
        processed.map_err(|EndsEarly| CryptoError::TooLittleMemory(bytes))
    }

    /// One sector that is in several pieces on either side, by way of private memory.
    fn process_split<'s, 'd>(
        &self,
        direction: Direction,
        sector: Sector,
        source: &mut Stream<impl Iterator<Item = Source<'s>>>,
        destination: &mut Stream<impl Iterator<Item = Destination<'d>>>,
    ) -> Result<(), EndsEarly> {
        let mut private = [0; SECTOR_BYTES];
        let processed = source.read(&mut private).and_then(|()| {
            self.process(direction, sector, Run::of(private.as_mut_slice().into()));
            destination.write(&private)
        });
        private.fill(0);
        optimization_barrier(&private);
        processed
    }

    /// How many sectors these bytes are, if they are whole ones and there are keys for all.
    fn keyed_sectors(&self, first: Sector, bytes: usize) -> Result<usize, CryptoError> {
        if !bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(XtsError::NotWholeSectors(bytes).into());
        }
        let count = bytes / SECTOR_BYTES;
        let keyed = self.segments.len() as u64 * SEGMENT_SECTORS;
        let end = first.0.checked_add(count as u64);
        if end.is_none_or(|end| end > keyed) {
            return Err(CryptoError::NoKey {
                first: first.0,
                count: count as u64,
            });
        }
        Ok(count)
    }

    /// Each sector under the key of its segment; there must be keys for all.
    fn process(&self, direction: Direction, first: Sector, mut run: Run<'_>) {
        let Sector(mut sector) = first;
        while run.sectors() > 0 {
            let left_in_segment = SEGMENT_SECTORS - sector % SEGMENT_SECTORS;
            let part = run.take(usize::try_from(left_in_segment).unwrap_or(usize::MAX));
            let keys = &self.segments[(sector / SEGMENT_SECTORS) as usize];
            let count = part.sectors() as u64;
            keys.process(direction, Sector(sector), part);
            sector += count;
        }
    }
}

/// Fills a private buffer from pieces of memory, which may be the guest's: the way to a disk without a cipher.
///
/// # Errors
/// [`CryptoError::TooLittleMemory`].
pub fn gather<'m>(
    pieces: impl IntoIterator<Item = Source<'m>>,
    buffer: &mut [u8],
) -> Result<(), CryptoError> {
    let gathered = Stream::new(pieces).read(buffer);
    gathered.map_err(|EndsEarly| CryptoError::TooLittleMemory(buffer.len()))
}

/// Writes a private buffer to pieces of memory, which may be the guest's: the way from a disk without a cipher.
///
/// # Errors
/// [`CryptoError::TooLittleMemory`].
pub fn scatter<'m>(
    buffer: &[u8],
    pieces: impl IntoIterator<Item = Destination<'m>>,
) -> Result<(), CryptoError> {
    let scattered = Stream::new(pieces).write(buffer);
    scattered.map_err(|EndsEarly| CryptoError::TooLittleMemory(buffer.len()))
}

#[cfg(test)]
mod tests;
