//! XTS-AES-256: IEEE 1619-2018 and -2025, clause 5; NIST SP 800-38E.
//!
//! Block `j` of a data unit is encrypted as `E(K1, P ⊕ T) ⊕ T` with `T = E(K2, tweak) · xʲ` in GF(2¹²⁸).
//! The AES backends of the `aes` crate work on many blocks at a time (64 with VAES and AVX-512), more than a
//! 512-byte unit has. So the blocks of neighbouring units are gathered into batches, and so are the tweaks.

mod pass;

use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes256, Aes256Enc, Block};
use sealblk_proto::locked::Locked;
use zeroize::optimization_barrier;

use self::pass::{Pass, RUN_BLOCKS, times_x};
use crate::units::{SECTOR_BYTES, Sector};

/// Length of a key, in bytes: K1 and then K2 (IEEE 1619-2018, 5.1).
pub const KEY_BYTES: usize = 64;

/// Longest data unit: 2²⁰ AES blocks (SP 800-38E, section 4), in bytes.
pub const LARGEST_UNIT_BYTES: usize = BLOCK_BYTES << 20;

const BLOCK_BYTES: usize = 16;

/// Seeds that are made at a time: one batch of the widest AES backend.
const SEEDS: usize = 64;

/// Why XTS refused.
#[derive(Debug, thiserror::Error)]
pub enum XtsError {
    /// The halves of a key are equal, which FIPS 140-3 IG C.I forbids: it would break the proof of security.
    #[error("the two halves of the XTS key are equal")]
    EqualKeyHalves,
    /// Not a multiple of 512 bytes.
    #[error("{0} bytes are not whole sectors of 512 bytes")]
    NotWholeSectors(usize),
    /// Less than a block or more than [`LARGEST_UNIT_BYTES`].
    #[error("a data unit has 16 to {LARGEST_UNIT_BYTES} bytes, not {0}")]
    UnitLength(usize),
    /// There is no locked memory for the key.
    #[error("memory for an XTS key cannot be locked")]
    Memory(#[source] std::io::Error),
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Plaintext to ciphertext.
    Encrypt,
    /// Ciphertext to plaintext.
    Decrypt,
}

/// An expanded XTS key. It exists in locked memory only, and its round keys are wiped on drop.
pub struct XtsAes256 {
    data: Aes256,
    tweak: Aes256Enc,
}

impl XtsAes256 {
    /// Expands a key, K1 ‖ K2.
    ///
    /// # Errors
    /// [`XtsError::EqualKeyHalves`] and [`XtsError::Memory`].
    pub fn new(key: &[u8; KEY_BYTES]) -> Result<Locked<Self>, XtsError> {
        let (halves, _) = key.as_chunks::<{ KEY_BYTES / 2 }>();
        // All bytes are looked at: how long this takes tells nothing of the key.
        let differences = halves[0]
            .iter()
            .zip(&halves[1])
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        if differences == 0 {
            return Err(XtsError::EqualKeyHalves);
        }
        let expand = || XtsAes256 {
            data: Aes256::new((&halves[0]).into()),
            tweak: Aes256Enc::new((&halves[1]).into()),
        };
        Locked::new_with(expand).map_err(XtsError::Memory)
    }

    /// Encrypts or decrypts whole sectors, each a data unit whose tweak is its number.
    ///
    /// # Errors
    /// [`XtsError::NotWholeSectors`].
    pub fn process_sectors(
        &self,
        direction: Direction,
        first: Sector,
        data: InOutBuf<'_, '_, u8>,
    ) -> Result<(), XtsError> {
        const { assert!(RUN_BLOCKS * BLOCK_BYTES == SECTOR_BYTES) };
        if !data.len().is_multiple_of(SECTOR_BYTES) {
            return Err(XtsError::NotWholeSectors(data.len()));
        }
        let (blocks, _) = data.into_chunks::<U16>();
        let mut number = u128::from(first.0);
        self.process_runs(direction, blocks, |seeds| {
            for seed in seeds.iter_mut() {
                *seed = Array(number.to_le_bytes());
                number += 1;
            }
            self.tweak.encrypt_blocks(seeds);
        });
        Ok(())
    }

    /// Encrypts or decrypts one data unit of any length under any tweak, with ciphertext stealing
    /// (IEEE 1619-2018, 5.3.2 and 5.4.2) if it does not end with a whole block.
    ///
    /// # Errors
    /// [`XtsError::UnitLength`].
    pub fn process_unit(
        &self,
        direction: Direction,
        tweak: &[u8; BLOCK_BYTES],
        data: InOutBuf<'_, '_, u8>,
    ) -> Result<(), XtsError> {
        if !(BLOCK_BYTES..=LARGEST_UNIT_BYTES).contains(&data.len()) {
            return Err(XtsError::UnitLength(data.len()));
        }
        let mut seed = Array(*tweak);
        self.tweak.encrypt_block(&mut seed);
        let stolen_from = match data.len() % BLOCK_BYTES {
            0 => data.len(),
            partial => data.len() - partial - BLOCK_BYTES,
        };
        let (plainly, tail) = data.split_at(stolen_from);
        let (blocks, _) = plainly.into_chunks::<U16>();
        let mut next = u128::from_le_bytes(seed.0);
        self.process_runs(direction, blocks, |seeds| {
            for seed in seeds {
                *seed = Array(next.to_le_bytes());
                next = times_x_to_the(RUN_BLOCKS, next);
            }
        });
        if !tail.is_empty() {
            let tweak = times_x_to_the(stolen_from / BLOCK_BYTES, u128::from_le_bytes(seed.0));
            self.process_tail(direction, tweak, tail);
        }
        Ok(())
    }

    /// Ciphertext stealing on the last whole block and the partial one after it.
    ///
    /// Both directions do the same, but for the order of the tweaks: the first result lends its end to the partial
    /// block, which is processed instead, and gives its beginning away in exchange.
    fn process_tail(&self, direction: Direction, tweak: u128, mut tail: InOutBuf<'_, '_, u8>) {
        let (earlier, later) = (tweak, times_x(tweak));
        let (first, second) = match direction {
            Direction::Encrypt => (earlier, later),
            Direction::Decrypt => (later, earlier),
        };
        let (whole, partial) = tail.get_in().split_at(BLOCK_BYTES);
        let mut lender = Block::default();
        lender.copy_from_slice(whole);
        self.process_block(direction, first, &mut lender);
        let mut borrower = lender;
        borrower[..partial.len()].copy_from_slice(partial);
        self.process_block(direction, second, &mut borrower);
        let (whole, partial) = tail.get_out().split_at_mut(BLOCK_BYTES);
        partial.copy_from_slice(&lender[..partial.len()]);
        whole.copy_from_slice(&borrower);
    }

    fn process_block(&self, direction: Direction, tweak: u128, block: &mut Block) {
        let seeds = [Array(tweak.to_le_bytes())];
        self.pass(direction, &seeds, InOutBuf::from_mut(block));
    }

    /// Processes blocks, each run of [`RUN_BLOCKS`] under tweaks that start with the next seed of `fill`.
    fn process_runs(
        &self,
        direction: Direction,
        mut blocks: InOutBuf<'_, '_, Block>,
        mut fill: impl FnMut(&mut [Block]),
    ) {
        let mut seeds = [Block::default(); SEEDS];
        while !blocks.is_empty() {
            let seeds = &mut seeds[..blocks.len().div_ceil(RUN_BLOCKS).min(SEEDS)];
            let (part, rest) = {
                let count = blocks.len().min(SEEDS * RUN_BLOCKS);
                blocks.split_at(count)
            };
            fill(seeds);
            self.pass(direction, seeds, part);
            blocks = rest;
        }
        seeds.fill(Block::default());
        optimization_barrier(&seeds);
    }

    /// Where the work is done: the `aes` crate chooses its backend at run time and calls the pass with it.
    fn pass(&self, direction: Direction, seeds: &[Block], blocks: InOutBuf<'_, '_, Block>) {
        // With a seed too few, plaintext would stay what it is.
        assert_eq!(seeds.len(), blocks.len().div_ceil(RUN_BLOCKS));
        let pass = Pass { seeds, blocks };
        match direction {
            Direction::Encrypt => self.data.encrypt_with_backend(pass),
            Direction::Decrypt => self.data.decrypt_with_backend(pass),
        }
    }
}

fn times_x_to_the(power: usize, tweak: u128) -> u128 {
    (0..power).fold(tweak, |tweak, _| times_x(tweak))
}

#[cfg(test)]
mod tests;
