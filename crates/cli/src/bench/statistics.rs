//! Percentiles, medians, means.

/// What the calls of a timed run took, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Percentiles {
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
}

impl Percentiles {
    /// Of at least one time.
    pub(super) fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        // The smallest time that at least so many thousandths of the calls did not exceed.
        let at = |thousandths: usize| times[(times.len() * thousandths).div_ceil(1000).saturating_sub(1)];
        Self { p50: at(500), p90: at(900), p99: at(990), p999: at(999), max: at(1000) }
    }
}

/// The middle of at least one value, or between the two middle ones.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// The mean of at least one value.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_occurred() {
        let all = Percentiles::of((1..=1000).rev().collect());
        assert_eq!(all, Percentiles { p50: 500, p90: 900, p99: 990, p999: 999, max: 1000 });
        let one = Percentiles::of(vec![7]);
        assert_eq!(one, Percentiles { p50: 7, p90: 7, p99: 7, p999: 7, max: 7 });
    }

    #[test]
    fn a_median_shrugs_off_an_outlier() {
        assert_eq!(median(vec![3.0, 1.0, 1e9]), 3.0);
        assert_eq!(median(vec![4.0, 2.0]), 3.0);
        assert_eq!(mean(&[1.0, 3.0]), 2.0);
    }
}
