//! The portable kernel: the `aes` crate, which chooses instructions at run time.
//!
//! Its backends work on many blocks at a time (64 with VAES and AVX-512), more than a sector has. So the blocks of
//! neighbouring sectors are gathered into batches. They are processed in place, in steps that write to memory what must
//! not be seen; so that is always private memory of this kernel's own.
//!
//! All of a pass is inlined into the backend's own function, so that the compiler may use the backend's vector
//! instructions for the rest as well. That is what the `inline(always)` is for.

use aes::cipher::array::{Array, ArraySize};
use aes::cipher::consts::{U4, U16};
use aes::cipher::{
    BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit,
};
use aes::{Aes256, Aes256Enc, Block};
use zeroize::optimization_barrier;

use super::keys::{Direction, HalfKey, KernelKeys, RUN_BLOCKS, times_x};
use crate::crypto::pieces::Run;
use crate::units::SECTOR_BYTES;

/// Sectors that are in private memory at a time.
const STAGED_SECTORS: usize = 8;

/// An expanded key.
pub(super) struct Portable {
    data: Aes256,
    tweak: Aes256Enc,
}

impl Portable {
    pub(super) fn expand(data: &HalfKey, tweak: &HalfKey) -> Self {
        Portable {
            data: Aes256::new(data.into()),
            tweak: Aes256Enc::new(tweak.into()),
        }
    }

    fn pass(&self, direction: Direction, seeds: &[Block], blocks: &mut [Block]) {
        let pass = Pass { seeds, blocks };
        match direction {
            Direction::Encrypt => self.data.encrypt_with_backend(pass),
            Direction::Decrypt => self.data.decrypt_with_backend(pass),
        }
    }
}

impl KernelKeys for Portable {
    fn encrypt_tweaks(&self, tweaks: &mut [Block]) {
        self.tweak.encrypt_blocks(tweaks);
    }

    fn process_run(&self, direction: Direction, seeds: &[Block], mut run: Run<'_>) {
        let mut staged = [[0; SECTOR_BYTES]; STAGED_SECTORS];
        for seeds in seeds.chunks(STAGED_SECTORS) {
            let part = run.take(seeds.len());
            let sectors = &mut staged[..part.sectors()];
            part.read(sectors);
            let (blocks, _) = Block::slice_as_chunks_mut(sectors.as_flattened_mut());
            self.pass(direction, seeds, blocks);
            part.write(sectors);
        }
        staged.as_flattened_mut().fill(0);
        optimization_barrier(&staged);
    }

    fn process_block(&self, direction: Direction, tweak: &Block, block: &mut Block) {
        self.pass(
            direction,
            std::slice::from_ref(tweak),
            std::slice::from_mut(block),
        );
    }
}

/// Blocks to process in place, and for each run of [`RUN_BLOCKS`] of them the tweak of its first.
pub(super) struct Pass<'s, 'b> {
    pub(super) seeds: &'s [Block],
    pub(super) blocks: &'b mut [Block],
}

impl BlockSizeUser for Pass<'_, '_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Pass<'_, '_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        self.run::<B::ParBlocksSize>(
            |batch| backend.encrypt_par_blocks_inplace(batch),
            |block| backend.encrypt_block_inplace(block),
        );
    }
}

impl BlockCipherDecClosure for Pass<'_, '_> {
    #[inline(always)]
    fn call<B: BlockCipherDecBackend<BlockSize = U16>>(self, backend: &B) {
        self.run::<B::ParBlocksSize>(
            |batch| backend.decrypt_par_blocks_inplace(batch),
            |block| backend.decrypt_block_inplace(block),
        );
    }
}

impl Pass<'_, '_> {
    /// Chooses how many tweaks are at hand at a time: few, since they are made, used twice and wiped, but whole
    /// batches of the backend's. One backend (VAES without AVX-512) has batches of 30.
    #[inline(always)]
    fn run<N: ArraySize>(self, batch: impl Fn(&mut Array<Block, N>), single: impl Fn(&mut Block)) {
        if (2 * RUN_BLOCKS).is_multiple_of(N::USIZE) {
            self.run_with::<N, { 2 * RUN_BLOCKS }>(batch, single);
        } else {
            self.run_with::<N, { 15 * RUN_BLOCKS }>(batch, single);
        }
    }

    #[inline(always)]
    fn run_with<N: ArraySize, const TWEAKS: usize>(
        self,
        batch: impl Fn(&mut Array<Block, N>),
        single: impl Fn(&mut Block),
    ) {
        // With a seed too few, plaintext would stay what it is.
        assert_eq!(self.seeds.len(), self.blocks.len().div_ceil(RUN_BLOCKS));
        let mut tweaks = [Block::default(); TWEAKS];
        let parts = self.blocks.chunks_mut(TWEAKS);
        for (seeds, part) in self.seeds.chunks(TWEAKS / RUN_BLOCKS).zip(parts) {
            for (seed, run) in seeds.iter().zip(tweaks.as_chunks_mut().0) {
                expand(seed, run);
            }
            let tweaks = &tweaks[..part.len()];
            xor(part, tweaks);
            let (batches, singles) = Array::slice_as_chunks_mut(part);
            // Loops, since iterator adapters are not inlined this deep: a `for_each` costs a third of the speed.
            for blocks in batches {
                batch(blocks);
            }
            for block in singles {
                single(block);
            }
            xor(part, tweaks);
        }
        tweaks.fill(Block::default());
        optimization_barrier(&tweaks);
    }
}

/// The tweaks of a run: the seed times 1, x, x², … (IEEE 1619-2018, 5.2).
#[inline(always)]
fn expand(seed: &Block, run: &mut [Block; RUN_BLOCKS]) {
    let mut tweak = u128::from_le_bytes(seed.0);
    for block in run {
        *block = Array(tweak.to_le_bytes());
        tweak = times_x(tweak);
    }
}

/// Adds tweaks to blocks. Four blocks at a time are one AVX-512 register.
#[inline(always)]
fn xor(blocks: &mut [Block], tweaks: &[Block]) {
    let (fours, ones) = Array::<Block, U4>::slice_as_chunks_mut(blocks);
    let (four_tweaks, one_tweaks) = Array::<Block, U4>::slice_as_chunks(tweaks);
    for (four, tweaks) in fours.iter_mut().zip(four_tweaks) {
        for (block, tweak) in four.iter_mut().zip(tweaks) {
            *block = sum_of(block, tweak);
        }
    }
    for (block, tweak) in ones.iter_mut().zip(one_tweaks) {
        *block = sum_of(block, tweak);
    }
}

#[inline(always)]
fn sum_of(block: &Block, tweak: &Block) -> Block {
    Array((u128::from_ne_bytes(block.0) ^ u128::from_ne_bytes(tweak.0)).to_ne_bytes())
}
