//! What a kernel is given and what it does: keys, blocks, tweaks.

use aes::Block;

use crate::crypto::pieces::Run;
use crate::units::SECTOR_BYTES;

/// Length of a key, in bytes: K1 and then K2 (IEEE 1619-2018, 5.1).
pub const KEY_BYTES: usize = 64;

/// One of the two AES-256 keys.
pub(super) type HalfKey = [u8; KEY_BYTES / 2];

pub(super) const BLOCK_BYTES: usize = 16;

/// Blocks under tweaks that follow from one seed: a sector.
pub(super) const RUN_BLOCKS: usize = SECTOR_BYTES / BLOCK_BYTES;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Plaintext to ciphertext.
    Encrypt,
    /// Ciphertext to plaintext.
    Decrypt,
}

/// What a kernel does with a key that is expanded for it.
pub(super) trait KernelKeys {
    /// Encrypts each tweak under the tweak key, in place.
    fn encrypt_tweaks(&self, tweaks: &mut [Block]);

    /// Processes sectors under the data key, each under tweaks that start with its seed, an encrypted tweak.
    ///
    /// Each byte of the source is read once, and nothing but results is written to the destination, which is not read.
    fn process_run(&self, direction: Direction, seeds: &[Block], run: Run<'_>);

    /// Processes one block under the data key and an encrypted tweak.
    fn process_block(&self, direction: Direction, tweak: &Block, block: &mut Block);
}

/// `tweak · x` in GF(2¹²⁸) modulo x¹²⁸ + x⁷ + x² + x + 1, in constant time.
#[inline(always)]
pub(super) fn times_x(tweak: u128) -> u128 {
    let overflow = (tweak as i128 >> 127) as u128;
    (tweak << 1) ^ (overflow & 0x87)
}
