//! The AES-256 key expansion (FIPS 197, 5.2).
//!
//! Round keys stay in the locked memory where they were expanded. Kernels load each one there whenever they use it, by a
//! volatile read, which the compiler can neither move out of a loop nor turn into a copy on the stack.

use std::arch::x86_64::{
    __m128i, _mm_aesimc_si128, _mm_aeskeygenassist_si128, _mm_shuffle_epi32, _mm_slli_si128, _mm_xor_si128,
};

use super::super::keys::HalfKey;

/// Rounds of AES-256.
pub(super) const ROUNDS: usize = 14;

/// The round keys of one key and direction.
#[derive(Clone, Copy)]
pub(super) struct Schedule(pub(super) [__m128i; ROUNDS + 1]);

impl Schedule {
    /// One of them, read from where it is.
    #[inline]
    pub(super) fn round_key(&self, round: usize) -> __m128i {
        let key = &raw const self.0[round];
        // SAFETY: a reference to an aligned vector.
        unsafe { key.read_volatile() }
    }
}

/// An expanded XTS key. There is one only where the processor has AES-NI.
pub(super) struct RoundKeys {
    pub(super) encrypt: Schedule,
    pub(super) decrypt: Schedule,
    pub(super) tweak: Schedule,
}

impl RoundKeys {
    pub(super) fn expand(data: &HalfKey, tweak: &HalfKey) -> Self {
        assert!(std::arch::is_x86_feature_detected!("aes"));
        // SAFETY: the processor has AES-NI.
        unsafe {
            let encrypt = expand(data);
            RoundKeys {
                decrypt: invert(&encrypt),
                encrypt,
                tweak: expand(tweak),
            }
        }
    }
}

/// The key schedule for encryption.
#[target_feature(enable = "aes,sse2")]
fn expand(key: &HalfKey) -> Schedule {
    let (halves, _) = key.as_chunks::<16>();
    // SAFETY: any 16 bytes are a vector.
    let [first, second] = [halves[0], halves[1]].map(|half| unsafe { std::mem::transmute(half) });
    let (k2, k3) = next_pair::<0x01>(first, second);
    let (k4, k5) = next_pair::<0x02>(k2, k3);
    let (k6, k7) = next_pair::<0x04>(k4, k5);
    let (k8, k9) = next_pair::<0x08>(k6, k7);
    let (k10, k11) = next_pair::<0x10>(k8, k9);
    let (k12, k13) = next_pair::<0x20>(k10, k11);
    let (k14, _) = next_pair::<0x40>(k12, k13);
    Schedule([
        first, second, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11, k12, k13, k14,
    ])
}

/// The next two round keys.
#[target_feature(enable = "aes,sse2")]
fn next_pair<const CONSTANT: i32>(even: __m128i, odd: __m128i) -> (__m128i, __m128i) {
    // The last word of the key before, rotated, substituted and with the constant; then only substituted.
    let even = prefix_sums(
        even,
        _mm_shuffle_epi32(_mm_aeskeygenassist_si128(odd, CONSTANT), 0xff),
    );
    let odd = prefix_sums(odd, _mm_shuffle_epi32(_mm_aeskeygenassist_si128(even, 0), 0xaa));
    (even, odd)
}

/// Each word plus all words before it, plus `first`.
#[target_feature(enable = "aes,sse2")]
fn prefix_sums(words: __m128i, first: __m128i) -> __m128i {
    let pairs = _mm_xor_si128(words, _mm_slli_si128(words, 4));
    let sums = _mm_xor_si128(pairs, _mm_slli_si128(pairs, 8));
    _mm_xor_si128(sums, first)
}

/// The key schedule for decryption, of the equivalent inverse cipher (FIPS 197, 5.3.5).
#[target_feature(enable = "aes,sse2")]
fn invert(encrypt: &Schedule) -> Schedule {
    let mut decrypt = *encrypt;
    decrypt.0.reverse();
    for key in &mut decrypt.0[1..ROUNDS] {
        *key = _mm_aesimc_si128(*key);
    }
    decrypt
}
