//! The kernel for VAES, VPCLMULQDQ and AVX-512: a sector is eight registers of four blocks each.
//!
//! While the rounds of one sector are under way, the tweaks of the next one are computed between them, by instructions that
//! do not compete with the rounds for their port.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm512_aesdec_epi128, _mm512_aesdeclast_epi128, _mm512_aesenc_epi128,
    _mm512_aesenclast_epi128, _mm512_broadcast_i32x4, _mm512_bslli_epi128, _mm512_bsrli_epi128,
    _mm512_clmulepi64_epi128, _mm512_loadu_si512, _mm512_set_epi64, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_sllv_epi64, _mm512_srlv_epi64, _mm512_storeu_si512, _mm512_sub_epi64, _mm512_ternarylogic_epi64,
    _mm512_xor_si512,
};

use aes::Block;

use super::aes_ni::process_block;
use super::schedule::{ROUNDS, RoundKeys, Schedule};
use crate::crypto::pieces::{Run, SectorBytes};
use crate::crypto::xts::keys::{Direction, HalfKey, KernelKeys};

/// Registers that a sector fills.
const WIDES: usize = 8;

/// Blocks in a register.
const LANES: usize = 4;

/// A sector, or its tweaks.
type Wides = [__m512i; WIDES];

/// For [`_mm512_ternarylogic_epi64`]: the sum of all three.
const SUM: i32 = 0x96;

/// An expanded key. There is one only where the processor has the instructions.
pub(in crate::crypto::xts) struct Vaes512(RoundKeys);

impl Vaes512 {
    pub(in crate::crypto::xts) fn is_available() -> bool {
        use std::arch::is_x86_feature_detected as has;
        has!("aes") && has!("vaes") && has!("vpclmulqdq") && has!("avx512f") && has!("avx512bw")
    }

    /// # Panics
    /// If the processor cannot do it.
    pub(in crate::crypto::xts) fn expand(data: &HalfKey, tweak: &HalfKey) -> Self {
        assert!(Vaes512::is_available());
        Vaes512(RoundKeys::expand(data, tweak))
    }
}

impl KernelKeys for Vaes512 {
    fn encrypt_tweaks(&self, tweaks: &mut [Block]) {
        // SAFETY: the processor has the instructions.
        unsafe { encrypt_tweaks(&self.0.tweak, tweaks) }
    }

    fn process_run(&self, direction: Direction, seeds: &[Block], run: Run<'_>) {
        assert_eq!(seeds.len(), run.sectors());
        let (source, destination) = (run.source(), run.destination());
        // SAFETY: the processor has the instructions; source and destination are as many sectors as there are seeds.
        unsafe {
            match direction {
                Direction::Encrypt => process::<true>(&self.0.encrypt, seeds, source, destination),
                Direction::Decrypt => process::<false>(&self.0.decrypt, seeds, source, destination),
            }
        }
    }

    fn process_block(&self, direction: Direction, tweak: &Block, block: &mut Block) {
        // SAFETY: the processor has AES-NI too.
        unsafe { process_block(&self.0, direction, tweak, block) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
fn encrypt_tweaks(keys: &Schedule, tweaks: &mut [Block]) {
    let (sectors, rest) = tweaks.as_chunks_mut::<{ WIDES * LANES }>();
    for blocks in sectors {
        encrypt_wides::<WIDES>(keys, blocks);
    }
    let (pairs, rest) = rest.as_chunks_mut::<{ 2 * LANES }>();
    for blocks in pairs {
        encrypt_wides::<2>(keys, blocks);
    }
    if !rest.is_empty() {
        let mut padded = [Block::default(); 2 * LANES];
        padded[..rest.len()].copy_from_slice(rest);
        encrypt_wides::<2>(keys, &mut padded);
        rest.copy_from_slice(&padded[..rest.len()]);
        padded.fill(Block::default());
        zeroize::optimization_barrier(&padded);
    }
}

/// Encrypts as many blocks as `N` registers hold.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
fn encrypt_wides<const N: usize>(keys: &Schedule, blocks: &mut [Block]) {
    let (groups, _) = blocks.as_chunks_mut::<LANES>();
    assert_eq!(groups.len(), N);
    let mut state = [_mm512_setzero_si512(); N];
    let key = round_key::<0>(keys);
    for (wide, group) in state.iter_mut().zip(&*groups) {
        // SAFETY: a reference to 64 bytes.
        let tweaks = unsafe { _mm512_loadu_si512(group.as_ptr().cast()) };
        *wide = _mm512_xor_si512(tweaks, key);
    }
    round::<true, 1, N>(keys, &mut state);
    round::<true, 2, N>(keys, &mut state);
    round::<true, 3, N>(keys, &mut state);
    round::<true, 4, N>(keys, &mut state);
    round::<true, 5, N>(keys, &mut state);
    round::<true, 6, N>(keys, &mut state);
    round::<true, 7, N>(keys, &mut state);
    round::<true, 8, N>(keys, &mut state);
    round::<true, 9, N>(keys, &mut state);
    round::<true, 10, N>(keys, &mut state);
    round::<true, 11, N>(keys, &mut state);
    round::<true, 12, N>(keys, &mut state);
    round::<true, 13, N>(keys, &mut state);
    let key = round_key::<ROUNDS>(keys);
    for (wide, group) in state.iter().zip(groups) {
        let encrypted = _mm512_aesenclast_epi128(*wide, key);
        // SAFETY: a reference to 64 bytes.
        unsafe { _mm512_storeu_si512(group.as_mut_ptr().cast(), encrypted) };
    }
}

/// # Safety
/// Source and destination must be valid for as many sectors as there are seeds.
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
unsafe fn process<const ENCRYPT: bool>(
    keys: &Schedule,
    seeds: &[Block],
    source: *const SectorBytes,
    destination: *mut SectorBytes,
) {
    let Some(first) = seeds.first() else { return };
    let (even, odd) = first_tweaks(first);
    let mut tweaks = [even, odd, even, even, even, even, even, even];
    for register in 2..WIDES {
        tweaks[register] = times_x8(tweaks[register - 2]);
    }
    for sector in 0..seeds.len() {
        // What is made for a sector after the last is not used.
        let next = seeds.get(sector + 1).unwrap_or(first);
        // SAFETY: this sector, which the caller vouches for.
        unsafe {
            let state = load_sector(source.add(sector));
            let state = process_sector::<ENCRYPT>(keys, state, &mut tweaks, next);
            store_sector(destination.add(sector), state);
        }
    }
}

/// `E(K, P ⊕ T) ⊕ T` on each block, or the same with the inverse cipher; meanwhile `tweaks` become those of the next
/// sector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
fn process_sector<const ENCRYPT: bool>(
    keys: &Schedule,
    mut state: Wides,
    tweaks: &mut Wides,
    next: &Block,
) -> Wides {
    let key = round_key::<0>(keys);
    let mut last = *tweaks;
    for (wide, tweak) in state.iter_mut().zip(&last) {
        *wide = _mm512_ternarylogic_epi64(*wide, *tweak, key, SUM);
    }
    round::<ENCRYPT, 1, WIDES>(keys, &mut state);
    round::<ENCRYPT, 2, WIDES>(keys, &mut state);
    (tweaks[0], tweaks[1]) = first_tweaks(next);
    round::<ENCRYPT, 3, WIDES>(keys, &mut state);
    round::<ENCRYPT, 4, WIDES>(keys, &mut state);
    tweaks[2] = times_x8(tweaks[0]);
    round::<ENCRYPT, 5, WIDES>(keys, &mut state);
    tweaks[3] = times_x8(tweaks[1]);
    round::<ENCRYPT, 6, WIDES>(keys, &mut state);
    tweaks[4] = times_x8(tweaks[2]);
    round::<ENCRYPT, 7, WIDES>(keys, &mut state);
    tweaks[5] = times_x8(tweaks[3]);
    round::<ENCRYPT, 8, WIDES>(keys, &mut state);
    tweaks[6] = times_x8(tweaks[4]);
    round::<ENCRYPT, 9, WIDES>(keys, &mut state);
    tweaks[7] = times_x8(tweaks[5]);
    round::<ENCRYPT, 10, WIDES>(keys, &mut state);
    round::<ENCRYPT, 11, WIDES>(keys, &mut state);
    round::<ENCRYPT, 12, WIDES>(keys, &mut state);
    round::<ENCRYPT, 13, WIDES>(keys, &mut state);
    let key = round_key::<ROUNDS>(keys);
    for (wide, tweak) in state.iter_mut().zip(&mut last) {
        // The last step of a round is the addition of its key, so the tweak goes with it.
        let key = _mm512_xor_si512(*tweak, key);
        *wide = if ENCRYPT {
            _mm512_aesenclast_epi128(*wide, key)
        } else {
            _mm512_aesdeclast_epi128(*wide, key)
        };
    }
    state
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
fn round<const ENCRYPT: bool, const ROUND: usize, const N: usize>(keys: &Schedule, state: &mut [__m512i; N]) {
    let key = round_key::<ROUND>(keys);
    for wide in state {
        *wide = if ENCRYPT {
            _mm512_aesenc_epi128(*wide, key)
        } else {
            _mm512_aesdec_epi128(*wide, key)
        };
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
fn round_key<const ROUND: usize>(keys: &Schedule) -> __m512i {
    _mm512_broadcast_i32x4(keys.round_key(ROUND))
}

/// The tweaks of a sector's first eight blocks: the seed times 1, x, … x⁷.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
fn first_tweaks(seed: &Block) -> (__m512i, __m512i) {
    // SAFETY: a reference to 16 bytes.
    let seed: __m128i = unsafe { _mm_loadu_si128(seed.as_ptr().cast()) };
    let seeds = _mm512_broadcast_i32x4(seed);
    (
        times_powers(seeds, _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0)),
        times_powers(seeds, _mm512_set_epi64(7, 7, 6, 6, 5, 5, 4, 4)),
    )
}

/// Each block times a power of x below 64, which both of its halves name.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
fn times_powers(blocks: __m512i, powers: __m512i) -> __m512i {
    // The bits that leave each half; a shift by 64 leaves none.
    let leaving = _mm512_srlv_epi64(blocks, _mm512_sub_epi64(_mm512_set1_epi64(64), powers));
    let reduced = _mm512_clmulepi64_epi128(leaving, reduction(), 0x01);
    let carried = _mm512_bslli_epi128(leaving, 8);
    _mm512_ternarylogic_epi64(_mm512_sllv_epi64(blocks, powers), carried, reduced, SUM)
}

/// Each block times x⁸: moved by a byte, and the byte that leaves reduced.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
fn times_x8(blocks: __m512i) -> __m512i {
    let reduced = _mm512_clmulepi64_epi128(_mm512_bsrli_epi128(blocks, 15), reduction(), 0x00);
    _mm512_xor_si512(_mm512_bslli_epi128(blocks, 1), reduced)
}

/// x¹²⁸ = x⁷ + x² + x + 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
fn reduction() -> __m512i {
    _mm512_set1_epi64(0x87)
}

/// Reads each byte once: the compiler cannot repeat an `asm!`.
///
/// # Safety
/// Valid for reads; it may be memory that others write to.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
unsafe fn load_sector(source: *const SectorBytes) -> Wides {
    let (a, b, c, d, e, f, g, h);
    // SAFETY: reads the 512 bytes that the caller vouches for.
    unsafe {
        asm!(
            "vmovdqu64 {a}, [{source}]",
            "vmovdqu64 {b}, [{source} + 64]",
            "vmovdqu64 {c}, [{source} + 128]",
            "vmovdqu64 {d}, [{source} + 192]",
            "vmovdqu64 {e}, [{source} + 256]",
            "vmovdqu64 {f}, [{source} + 320]",
            "vmovdqu64 {g}, [{source} + 384]",
            "vmovdqu64 {h}, [{source} + 448]",
            source = in(reg) source,
            a = out(zmm_reg) a, b = out(zmm_reg) b, c = out(zmm_reg) c, d = out(zmm_reg) d,
            e = out(zmm_reg) e, f = out(zmm_reg) f, g = out(zmm_reg) g, h = out(zmm_reg) h,
            options(nostack, preserves_flags, readonly),
        );
    }
    [a, b, c, d, e, f, g, h]
}

/// Writes each byte once, and nothing else, for the same reason.
///
/// # Safety
/// Valid for writes; it may be memory that others use.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
unsafe fn store_sector(destination: *mut SectorBytes, state: Wides) {
    let [a, b, c, d, e, f, g, h] = state;
    // SAFETY: writes the 512 bytes that the caller vouches for.
    unsafe {
        asm!(
            "vmovdqu64 [{destination}], {a}",
            "vmovdqu64 [{destination} + 64], {b}",
            "vmovdqu64 [{destination} + 128], {c}",
            "vmovdqu64 [{destination} + 192], {d}",
            "vmovdqu64 [{destination} + 256], {e}",
            "vmovdqu64 [{destination} + 320], {f}",
            "vmovdqu64 [{destination} + 384], {g}",
            "vmovdqu64 [{destination} + 448], {h}",
            destination = in(reg) destination,
            a = in(zmm_reg) a, b = in(zmm_reg) b, c = in(zmm_reg) c, d = in(zmm_reg) d,
            e = in(zmm_reg) e, f = in(zmm_reg) f, g = in(zmm_reg) g, h = in(zmm_reg) h,
            options(nostack, preserves_flags),
        );
    }
}
