//! Latencies, in buckets of which each is 1/32 wider than the one before at the most.

const SUB_BITS: u32 = 5;
const SUB: usize = 1 << SUB_BITS;

/// How often each latency came, with an error of at most 3 %.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            counts: vec![0; (64 - SUB_BITS as usize + 1) * SUB],
            total: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Counts one of `nanoseconds`.
    pub(crate) fn add(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
        self.max = self.max.max(nanoseconds);
    }

    /// Counts those of another one too.
    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The latency in nanoseconds that `share` (0 to 1) of all do not exceed; 0 if there are none.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let rank = (share * self.total as f64).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return upper_bound(bucket).min(self.max);
            }
        }
        self.max
    }

    /// The longest one, exactly.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }
}

fn bucket(value: u64) -> usize {
    let bits = 64 - value.leading_zeros();
    let shift = bits.saturating_sub(SUB_BITS + 1);
    (shift as usize) * SUB + (value >> shift) as usize
}

fn upper_bound(bucket: usize) -> u64 {
    if bucket < 2 * SUB {
        return bucket as u64;
    }
    let shift = bucket / SUB - 1;
    (((bucket % SUB + SUB + 1) as u64) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_narrow() {
        for value in (0..200_000u64).chain([1 << 40, (1 << 40) + 12_345, u64::MAX >> 1]) {
            let bound = upper_bound(bucket(value));
            assert!(bound >= value && bound - value <= value / 32, "{value}: {bound}");
        }
    }

    #[test]
    fn quantiles_and_the_maximum() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), 0);
        (1..=1000).for_each(|value| histogram.add(value * 1000));
        let mut more = Histogram::default();
        more.add(5_000_123);
        histogram.merge(&more);
        let median = histogram.quantile(0.5);
        assert!((500_000..=520_000).contains(&median), "{median}");
        assert_eq!(histogram.quantile(1.0), 5_000_123);
        assert_eq!(histogram.max(), 5_000_123);
    }
}
