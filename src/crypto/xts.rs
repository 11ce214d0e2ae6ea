//! XTS-AES-256: IEEE 1619-2018 and -2025, clause 5; NIST SP 800-38E.
//!
//! Block `j` of a data unit is encrypted as `E(K1, P ⊕ T) ⊕ T` with `T = E(K2, tweak) · xʲ` in GF(2¹²⁸). The kernels do
//! that for runs of 32 blocks, a sector, each from its seed: the `T` of its first block. A longer data unit is several
//! runs, and what is left of it goes block by block.

mod kernel;
mod keys;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use aes::Block;
use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::inout::InOutBuf;
use sealblk_proto::locked::Locked;
use zeroize::optimization_barrier;

use self::kernel::Expanded;
pub use self::kernel::Kernel;
use self::keys::{BLOCK_BYTES, KernelKeys, RUN_BLOCKS, times_x};
pub use self::keys::{Direction, KEY_BYTES};
use super::pieces::Run;
use crate::units::{SECTOR_BYTES, Sector};

/// Longest data unit: 2²⁰ AES blocks (SP 800-38E, section 4), in bytes.
pub const LARGEST_UNIT_BYTES: usize = BLOCK_BYTES << 20;

/// Seeds that are made at a time: as many blocks as the widest kernel has in flight.
const SEEDS: usize = 32;

/// Why XTS refused.
#[derive(Debug, thiserror::Error)]
pub enum XtsError {
    /// The halves of a key are equal, which FIPS 140-3 IG C.I forbids: it would break the proof of security.
    #[error("the two halves of the XTS key are equal")]
    EqualKeyHalves,
    /// The processor does not have the instructions.
    #[error("this processor has no {0} kernel")]
    NoSuchKernel(Kernel),
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

/// An expanded XTS key. It exists in locked memory only, and its round keys are wiped on drop.
pub struct XtsAes256(Expanded);

impl XtsAes256 {
    /// Expands a key, K1 ‖ K2, for the fastest kernel of this processor.
    ///
    /// # Errors
    /// [`XtsError::EqualKeyHalves`] and [`XtsError::Memory`].
    pub fn new(key: &[u8; KEY_BYTES]) -> Result<Locked<Self>, XtsError> {
        Self::with_kernel(Kernel::fastest(), key)
    }

    /// Expands a key for a certain kernel.
    ///
    /// # Errors
    /// As [`XtsAes256::new`], and [`XtsError::NoSuchKernel`].
    pub fn with_kernel(kernel: Kernel, key: &[u8; KEY_BYTES]) -> Result<Locked<Self>, XtsError> {
        if !kernel.is_available() {
            return Err(XtsError::NoSuchKernel(kernel));
        }
        let (halves, _) = key.as_chunks::<{ KEY_BYTES / 2 }>();
        // All bytes are looked at: how long this takes tells nothing of the key.
        let differences = halves[0]
            .iter()
            .zip(&halves[1])
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        if differences == 0 {
            return Err(XtsError::EqualKeyHalves);
        }
        let expand = || XtsAes256(Expanded::new(kernel, &halves[0], &halves[1]));
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
        if !data.len().is_multiple_of(SECTOR_BYTES) {
            return Err(XtsError::NotWholeSectors(data.len()));
        }
        self.process(direction, first, Run::of(data));
        Ok(())
    }

    pub(super) fn process(&self, direction: Direction, first: Sector, run: Run<'_>) {
        let mut number = u128::from(first.0);
        self.process_seeded(direction, run, |kernel, seeds| {
            for seed in seeds.iter_mut() {
                *seed = Array(number.to_le_bytes());
                number += 1;
            }
            kernel.encrypt_tweaks(seeds);
        });
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
        let kernel = self.0.kernel();
        let mut seed = [Array(*tweak)];
        kernel.encrypt_tweaks(&mut seed);
        let mut next = u128::from_le_bytes(seed[0].0);
        let stolen_from = match data.len() % BLOCK_BYTES {
            0 => data.len(),
            partial => data.len() - partial - BLOCK_BYTES,
        };
        let (plainly, tail) = data.split_at(stolen_from);
        let (runs, blocks) = plainly.split_at(stolen_from - stolen_from % SECTOR_BYTES);
        self.process_seeded(direction, Run::of(runs), |_, seeds| {
            for seed in seeds {
                *seed = Array(next.to_le_bytes());
                next = (0..RUN_BLOCKS).fold(next, |tweak, _| times_x(tweak));
            }
        });
        for mut block in blocks.into_chunks::<U16>().0 {
            let mut value = block.clone_in();
            kernel.process_block(direction, &Array(next.to_le_bytes()), &mut value);
            *block.get_out() = value;
            next = times_x(next);
        }
        if !tail.is_empty() {
            self.process_tail(direction, next, tail);
        }
        Ok(())
    }

    /// Ciphertext stealing on the last whole block and the partial one after it.
    ///
    /// Both directions do the same, but for the order of the tweaks: the first result lends its end to the partial
    /// block, which is processed instead, and gives its beginning away in exchange.
    fn process_tail(&self, direction: Direction, tweak: u128, mut tail: InOutBuf<'_, '_, u8>) {
        let kernel = self.0.kernel();
        let [earlier, later] = [tweak, times_x(tweak)].map(|tweak| Array(tweak.to_le_bytes()));
        let (first, second) = match direction {
            Direction::Encrypt => (earlier, later),
            Direction::Decrypt => (later, earlier),
        };
        let (whole, partial) = tail.get_in().split_at(BLOCK_BYTES);
        let mut lender = Block::default();
        lender.copy_from_slice(whole);
        kernel.process_block(direction, &first, &mut lender);
        let mut borrower = lender;
        borrower[..partial.len()].copy_from_slice(partial);
        kernel.process_block(direction, &second, &mut borrower);
        let (whole, partial) = tail.get_out().split_at_mut(BLOCK_BYTES);
        partial.copy_from_slice(&lender[..partial.len()]);
        whole.copy_from_slice(&borrower);
    }

    /// Processes sectors, or as much of longer data units, under the seeds of `fill`.
    fn process_seeded(
        &self,
        direction: Direction,
        mut run: Run<'_>,
        mut fill: impl FnMut(&dyn KernelKeys, &mut [Block]),
    ) {
        let kernel = self.0.kernel();
        let mut seeds = [Block::default(); SEEDS];
        while run.sectors() > 0 {
            let part = run.take(SEEDS);
            let seeds = &mut seeds[..part.sectors()];
            fill(kernel, seeds);
            kernel.process_run(direction, seeds, part);
        }
        seeds.fill(Block::default());
        optimization_barrier(&seeds);
    }
}

#[cfg(test)]
mod tests;
