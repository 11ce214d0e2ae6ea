//! The kernel for AES-NI, with eight blocks in flight.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, _mm_add_epi64, _mm_aesdec_si128, _mm_aesdeclast_si128, _mm_aesenc_si128, _mm_aesenclast_si128,
    _mm_and_si128, _mm_loadu_si128, _mm_set_epi32, _mm_shuffle_epi32, _mm_srai_epi32, _mm_storeu_si128,
    _mm_xor_si128,
};

use aes::Block;

use super::schedule::{ROUNDS, RoundKeys, Schedule};
use crate::crypto::pieces::{Run, SectorBytes};
use crate::crypto::xts::keys::{Direction, HalfKey, KernelKeys, RUN_BLOCKS};

/// Blocks in flight: as many as hide the latency of a round.
const LANES: usize = 8;

/// An expanded key. There is one only where the processor has AES-NI.
pub(in crate::crypto::xts) struct AesNi(RoundKeys);

impl AesNi {
    pub(in crate::crypto::xts) fn is_available() -> bool {
        std::arch::is_x86_feature_detected!("aes")
    }

    /// # Panics
    /// If the processor cannot do it.
    pub(in crate::crypto::xts) fn expand(data: &HalfKey, tweak: &HalfKey) -> Self {
        assert!(AesNi::is_available());
        AesNi(RoundKeys::expand(data, tweak))
    }
}

impl KernelKeys for AesNi {
    fn encrypt_tweaks(&self, tweaks: &mut [Block]) {
        // SAFETY: the processor has AES-NI.
        unsafe { encrypt_tweaks(&self.0.tweak, tweaks) }
    }

    fn process_run(&self, direction: Direction, seeds: &[Block], run: Run<'_>) {
        assert_eq!(seeds.len(), run.sectors());
        let (source, destination) = (run.source(), run.destination());
        // SAFETY: the processor has AES-NI; source and destination are as many sectors as there are seeds.
        unsafe {
            match direction {
                Direction::Encrypt => process::<true>(&self.0.encrypt, seeds, source, destination),
                Direction::Decrypt => process::<false>(&self.0.decrypt, seeds, source, destination),
            }
        }
    }

    fn process_block(&self, direction: Direction, tweak: &Block, block: &mut Block) {
        // SAFETY: the processor has AES-NI.
        unsafe { process_block(&self.0, direction, tweak, block) }
    }
}

#[target_feature(enable = "aes,sse2")]
fn encrypt_tweaks(keys: &Schedule, tweaks: &mut [Block]) {
    let zero = _mm_set_epi32(0, 0, 0, 0);
    let (groups, singles) = tweaks.as_chunks_mut::<LANES>();
    for group in groups {
        let mut lanes = [zero; LANES];
        for (lane, block) in lanes.iter_mut().zip(&*group) {
            *lane = load(block);
        }
        let lanes = process_lanes::<true, LANES>(keys, lanes, [zero; LANES]);
        for (lane, block) in lanes.iter().zip(group) {
            store(block, *lane);
        }
    }
    for block in singles {
        let [lane] = process_lanes::<true, 1>(keys, [load(block)], [zero]);
        store(block, lane);
    }
}

/// One block; also for the wider kernel.
#[target_feature(enable = "aes,sse2")]
pub(super) fn process_block(keys: &RoundKeys, direction: Direction, tweak: &Block, block: &mut Block) {
    let (lane, tweak) = ([load(block)], [load(tweak)]);
    let [lane] = match direction {
        Direction::Encrypt => process_lanes::<true, 1>(&keys.encrypt, lane, tweak),
        Direction::Decrypt => process_lanes::<false, 1>(&keys.decrypt, lane, tweak),
    };
    store(block, lane);
}

/// # Safety
/// Source and destination must be valid for as many sectors as there are seeds.
#[target_feature(enable = "aes,sse2")]
unsafe fn process<const ENCRYPT: bool>(
    keys: &Schedule,
    seeds: &[Block],
    source: *const SectorBytes,
    destination: *mut SectorBytes,
) {
    for (sector, seed) in seeds.iter().enumerate() {
        let mut next = load(seed);
        for group in 0..RUN_BLOCKS / LANES {
            let mut tweaks = [next; LANES];
            for tweak in &mut tweaks {
                *tweak = next;
                next = times_x(next);
            }
            // SAFETY: this group of this sector, which the caller vouches for.
            unsafe {
                let lanes = load_lanes(source.add(sector).cast::<[u8; 16 * LANES]>().add(group));
                let lanes = process_lanes::<ENCRYPT, LANES>(keys, lanes, tweaks);
                store_lanes(
                    destination.add(sector).cast::<[u8; 16 * LANES]>().add(group),
                    lanes,
                );
            }
        }
    }
}

/// `E(K, P ⊕ T) ⊕ T`, or the same with the inverse cipher.
#[inline]
#[target_feature(enable = "aes,sse2")]
fn process_lanes<const ENCRYPT: bool, const N: usize>(
    keys: &Schedule,
    mut lanes: [__m128i; N],
    tweaks: [__m128i; N],
) -> [__m128i; N] {
    let key = keys.round_key(0);
    for (lane, tweak) in lanes.iter_mut().zip(&tweaks) {
        *lane = _mm_xor_si128(*lane, _mm_xor_si128(*tweak, key));
    }
    for round in 1..ROUNDS {
        let key = keys.round_key(round);
        for lane in &mut lanes {
            *lane = if ENCRYPT {
                _mm_aesenc_si128(*lane, key)
            } else {
                _mm_aesdec_si128(*lane, key)
            };
        }
    }
    let key = keys.round_key(ROUNDS);
    for (lane, tweak) in lanes.iter_mut().zip(&tweaks) {
        // The last step of a round is the addition of its key, so the tweak goes with it.
        let key = _mm_xor_si128(*tweak, key);
        *lane = if ENCRYPT {
            _mm_aesenclast_si128(*lane, key)
        } else {
            _mm_aesdeclast_si128(*lane, key)
        };
    }
    lanes
}

/// `tweak · x` in GF(2¹²⁸): both halves doubled; the bit that leaves the lower one goes to the upper, the bit that leaves
/// the upper one comes back as x⁷ + x² + x + 1.
#[inline]
#[target_feature(enable = "aes,sse2")]
fn times_x(tweak: __m128i) -> __m128i {
    let leaving = _mm_srai_epi32(_mm_shuffle_epi32(tweak, 0x13), 31);
    let coming = _mm_and_si128(leaving, _mm_set_epi32(0, 1, 0, 0x87));
    _mm_xor_si128(_mm_add_epi64(tweak, tweak), coming)
}

#[inline]
#[target_feature(enable = "aes,sse2")]
fn load(block: &Block) -> __m128i {
    // SAFETY: a reference to 16 bytes.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "aes,sse2")]
fn store(block: &mut Block, lane: __m128i) {
    // SAFETY: a reference to 16 bytes.
    unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), lane) }
}

/// Reads each byte once: the compiler cannot repeat an `asm!`.
///
/// # Safety
/// Valid for reads; it may be memory that others write to.
#[inline]
#[target_feature(enable = "aes,sse2")]
unsafe fn load_lanes(source: *const [u8; 16 * LANES]) -> [__m128i; LANES] {
    let (a, b, c, d, e, f, g, h);
    // SAFETY: reads the 128 bytes that the caller vouches for.
    unsafe {
        asm!(
            "movdqu {a}, [{source}]",
            "movdqu {b}, [{source} + 16]",
            "movdqu {c}, [{source} + 32]",
            "movdqu {d}, [{source} + 48]",
            "movdqu {e}, [{source} + 64]",
            "movdqu {f}, [{source} + 80]",
            "movdqu {g}, [{source} + 96]",
            "movdqu {h}, [{source} + 112]",
            source = in(reg) source,
            a = out(xmm_reg) a, b = out(xmm_reg) b, c = out(xmm_reg) c, d = out(xmm_reg) d,
            e = out(xmm_reg) e, f = out(xmm_reg) f, g = out(xmm_reg) g, h = out(xmm_reg) h,
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
#[target_feature(enable = "aes,sse2")]
unsafe fn store_lanes(destination: *mut [u8; 16 * LANES], lanes: [__m128i; LANES]) {
    let [a, b, c, d, e, f, g, h] = lanes;
    // SAFETY: writes the 128 bytes that the caller vouches for.
    unsafe {
        asm!(
            "movdqu [{destination}], {a}",
            "movdqu [{destination} + 16], {b}",
            "movdqu [{destination} + 32], {c}",
            "movdqu [{destination} + 48], {d}",
            "movdqu [{destination} + 64], {e}",
            "movdqu [{destination} + 80], {f}",
            "movdqu [{destination} + 96], {g}",
            "movdqu [{destination} + 112], {h}",
            destination = in(reg) destination,
            a = in(xmm_reg) a, b = in(xmm_reg) b, c = in(xmm_reg) c, d = in(xmm_reg) d,
            e = in(xmm_reg) e, f = in(xmm_reg) f, g = in(xmm_reg) g, h = in(xmm_reg) h,
            options(nostack, preserves_flags),
        );
    }
}
