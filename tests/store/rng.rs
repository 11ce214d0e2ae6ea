//! Random numbers that can be had again: the seed is printed, and `SEALBLK_CRASH_SEED` sets it.

use std::ops::Range;

/// xorshift64* (Vigna, 2016).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// Of the seed, the same for the same `stream`.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Rng((seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        rng.next();
        rng.next();
        rng
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, range: Range<u64>) -> u64 {
        range.start + (self.next() >> 11) % (range.end - range.start)
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        self.below(0..n) == 0
    }
}

/// The seed of this run.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("SEALBLK_CRASH_SEED").ok();
    let seed = given.map_or(0x005e_a1b1, |text| {
        text.parse().expect("SEALBLK_CRASH_SEED is a number")
    });
    eprintln!("SEALBLK_CRASH_SEED={seed}");
    seed
}

/// Crash states that a test is to look at: `SEALBLK_CRASH_STATES`, of which it takes its `share` of 100, or `usual`.
pub(crate) fn states(usual: usize, share: usize) -> usize {
    let given = std::env::var("SEALBLK_CRASH_STATES").ok();
    let given = given.map(|text| text.parse::<usize>().expect("SEALBLK_CRASH_STATES is a number"));
    given.map_or(usual, |all| usual.max(all / 100 * share))
}
