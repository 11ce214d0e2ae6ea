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
mod xts;

use std::io;

use aes::cipher::inout::InOutBuf;
use sealblk_proto::keys::LineageKey;
use sealblk_proto::locked::{Locked, wipe_dead_stack, wipe_vector_registers};

pub use self::xts::{Direction, KEY_BYTES, LARGEST_UNIT_BYTES, XtsAes256, XtsError};
use crate::units::{Capacity, SECTOR_BYTES, Sector};

/// Sectors under one key pair: 1 TiB, 2³⁶ AES blocks, the lowest key-scope limit that IEEE 1619-2025 names.
pub const SEGMENT_SECTORS: u64 = (1 << 40) / SECTOR_BYTES as u64;

/// Why data was not encrypted or decrypted, or keys not made. The output then holds nothing of use.
#[derive(Debug, thiserror::Error)]
pub enum CryptoError {
    /// Two buffers of one operation differ in length.
    #[error("the input has {input} bytes and the output {output}")]
    UnequalLengths {
        /// Length of the input, in bytes.
        input: usize,
        /// Length of the output, in bytes.
        output: usize,
    },
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
/// An operation leaves copies of round keys on the stack of the thread that calls it: the AES backends spread them
/// over wide registers. So the process must not be dumpable, and its stacks should be locked too.
pub struct DiskCipher {
    segments: Vec<Locked<XtsAes256>>,
}

impl DiskCipher {
    /// Derives the keys of every segment that a disk of this size touches.
    ///
    /// # Errors
    /// [`CryptoError::Memory`], and [`XtsError::EqualKeyHalves`] if a derived key is unusable (a chance of 2⁻²⁵⁶).
    pub fn derive(lineage: &LineageKey, capacity: Capacity) -> Result<Self, CryptoError> {
        let mut key = Locked::zeroed()?;
        let segments = (0..capacity.sectors().div_ceil(SEGMENT_SECTORS))
            .map(|segment| {
                derive::segment_key(lineage, segment, &mut key);
                Ok(XtsAes256::new(&key)?)
            })
            .collect::<Result<_, CryptoError>>();
        // HKDF's inner states lay there.
        wipe_dead_stack();
        Ok(DiskCipher { segments: segments? })
    }

    /// Encrypts whole sectors from `first` into another buffer.
    ///
    /// While this runs, `cipher` holds values from within the computation: it must be memory that nobody else sees.
    ///
    /// # Errors
    /// [`CryptoError`].
    pub fn encrypt(&self, first: Sector, plain: &[u8], cipher: &mut [u8]) -> Result<(), CryptoError> {
        self.process(Direction::Encrypt, first, pair(plain, cipher)?)
    }

    /// Decrypts whole sectors from `first` into another buffer.
    ///
    /// While this runs, `plain` holds values from within the computation: it must be memory that nobody else sees.
    ///
    /// # Errors
    /// [`CryptoError`].
    pub fn decrypt(&self, first: Sector, cipher: &[u8], plain: &mut [u8]) -> Result<(), CryptoError> {
        self.process(Direction::Decrypt, first, pair(cipher, plain)?)
    }

    /// Encrypts whole sectors from `first` where they are, in memory that nobody else sees.
    ///
    /// # Errors
    /// [`CryptoError`].
    pub fn encrypt_in_place(&self, first: Sector, data: &mut [u8]) -> Result<(), CryptoError> {
        self.process(Direction::Encrypt, first, data.into())
    }

    /// Decrypts whole sectors from `first` where they are, in memory that nobody else sees.
    ///
    /// # Errors
    /// [`CryptoError`].
    pub fn decrypt_in_place(&self, first: Sector, data: &mut [u8]) -> Result<(), CryptoError> {
        self.process(Direction::Decrypt, first, data.into())
    }

    fn process(
        &self,
        direction: Direction,
        first: Sector,
        mut data: InOutBuf<'_, '_, u8>,
    ) -> Result<(), CryptoError> {
        if !data.len().is_multiple_of(SECTOR_BYTES) {
            return Err(XtsError::NotWholeSectors(data.len()).into());
        }
        let Sector(mut sector) = first;
        let count = (data.len() / SECTOR_BYTES) as u64;
        let keyed = self.segments.len() as u64 * SEGMENT_SECTORS;
        if sector.checked_add(count).is_none_or(|end| end > keyed) {
            return Err(CryptoError::NoKey { first: sector, count });
        }
        while !data.is_empty() {
            let left_in_segment = SEGMENT_SECTORS - sector % SEGMENT_SECTORS;
            let count = left_in_segment.min((data.len() / SECTOR_BYTES) as u64);
            let (part, rest) = data.split_at(count as usize * SECTOR_BYTES);
            let keys = &self.segments[(sector / SEGMENT_SECTORS) as usize];
            keys.process_sectors(direction, Sector(sector), part)?;
            sector += count;
            data = rest;
        }
        wipe_vector_registers();
        Ok(())
    }
}

fn pair<'i, 'o>(input: &'i [u8], output: &'o mut [u8]) -> Result<InOutBuf<'i, 'o, u8>, CryptoError> {
    let lengths = CryptoError::UnequalLengths {
        input: input.len(),
        output: output.len(),
    };
    InOutBuf::new(input, output).map_err(|_| lengths)
}

#[cfg(test)]
mod tests;
