//! What is said of several runs of the same thing.

/// Smallest, middle and largest of several figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spread {
    /// Smallest.
    pub(crate) min: f64,
    /// Middle one; of an even number of figures, between the two.
    pub(crate) median: f64,
    /// Largest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of these; zeros if there are none.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
            return Spread::default();
        };
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        } else {
            sorted[middle]
        };
        Spread {
            min: *min,
            median,
            max: *max,
        }
    }

    /// Of the quotients of two series, pair by pair: those of one round were measured under the same conditions.
    pub(crate) fn of_ratios(above: &[f64], below: &[f64]) -> Self {
        Spread::of(above.iter().zip(below).map(|(above, below)| above / below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Spread::of([]), Spread::default());
        let odd = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        let ratios = Spread::of_ratios(&[2.0, 9.0, 8.0], &[1.0, 3.0, 2.0]);
        assert_eq!((ratios.min, ratios.median, ratios.max), (2.0, 3.0, 4.0));
    }
}
