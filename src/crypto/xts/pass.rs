//! One pass of whitening, AES and whitening over many blocks.
//!
//! All of it is inlined into the backend's own function, so that the compiler may use the backend's vector
//! instructions for the rest as well. That is what the `inline(always)` is for.

use aes::Block;
use aes::cipher::array::{Array, ArraySize};
use aes::cipher::consts::{U4, U16};
use aes::cipher::inout::InOutBuf;
use aes::cipher::{
    BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherEncBackend, BlockCipherEncClosure, BlockSizeUser,
};
use zeroize::optimization_barrier;

/// Blocks whose tweaks follow from one seed: a sector, or as much of a longer data unit.
pub(super) const RUN_BLOCKS: usize = 32;

/// Blocks to process, and for each run of [`RUN_BLOCKS`] of them the tweak of its first.
pub(super) struct Pass<'s, 'i, 'o> {
    pub(super) seeds: &'s [Block],
    pub(super) blocks: InOutBuf<'i, 'o, Block>,
}

impl BlockSizeUser for Pass<'_, '_, '_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Pass<'_, '_, '_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        self.run::<B::ParBlocksSize>(
            |batch| backend.encrypt_par_blocks_inplace(batch),
            |block| backend.encrypt_block_inplace(block),
        );
    }
}

impl BlockCipherDecClosure for Pass<'_, '_, '_> {
    #[inline(always)]
    fn call<B: BlockCipherDecBackend<BlockSize = U16>>(self, backend: &B) {
        self.run::<B::ParBlocksSize>(
            |batch| backend.decrypt_par_blocks_inplace(batch),
            |block| backend.decrypt_block_inplace(block),
        );
    }
}

impl Pass<'_, '_, '_> {
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
        let mut tweaks = [Block::default(); TWEAKS];
        let mut blocks = self.blocks;
        for seeds in self.seeds.chunks(TWEAKS / RUN_BLOCKS) {
            for (seed, run) in seeds.iter().zip(tweaks.as_chunks_mut().0) {
                expand(seed, run);
            }
            let (part, rest) = {
                let count = blocks.len().min(TWEAKS);
                blocks.split_at(count)
            };
            let tweaks = &tweaks[..part.len()];
            let out = xor(part, tweaks);
            let (batches, singles) = Array::slice_as_chunks_mut(out);
            // Loops, since iterator adapters are not inlined this deep: a `for_each` costs a third of the speed.
            for blocks in batches {
                batch(blocks);
            }
            for block in singles {
                single(block);
            }
            xor(out.into(), tweaks);
            blocks = rest;
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

/// `tweak · x` in GF(2¹²⁸) modulo x¹²⁸ + x⁷ + x² + x + 1, in constant time.
#[inline(always)]
pub(super) fn times_x(tweak: u128) -> u128 {
    let overflow = (tweak as i128 >> 127) as u128;
    (tweak << 1) ^ (overflow & 0x87)
}

/// Writes input ⊕ tweaks to the output and returns that. Four blocks at a time are one AVX-512 register.
#[inline(always)]
fn xor<'o>(mut data: InOutBuf<'_, 'o, Block>, tweaks: &[Block]) -> &'o mut [Block] {
    let (fours, ones) = data.reborrow().into_chunks::<U4>();
    let (four_tweaks, one_tweaks) = Array::<Block, U4>::slice_as_chunks(tweaks);
    for (mut four, tweaks) in fours.into_iter().zip(four_tweaks) {
        let mut sum = four.clone_in();
        for (block, tweak) in sum.iter_mut().zip(tweaks) {
            *block = sum_of(block, tweak);
        }
        *four.get_out() = sum;
    }
    for (mut one, tweak) in ones.into_iter().zip(one_tweaks) {
        *one.get_out() = sum_of(one.get_in(), tweak);
    }
    data.into_out()
}

#[inline(always)]
fn sum_of(block: &Block, tweak: &Block) -> Block {
    Array((u128::from_ne_bytes(block.0) ^ u128::from_ne_bytes(tweak.0)).to_ne_bytes())
}
