//! What the columns of a table are like: count, range, mean, spread.
//!
//! The statistics of two parts of a table give those of the whole (Chan, Golub & `LeVeque` 1983), so a table can be described
//! piece by piece as it arrives. Nothing overflows or underflows on the way, whatever finite numbers the cells hold.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Cells that are described at once: each such block is passed over several times, and should stay in the cache.
const BLOCK_CELLS: usize = 1 << 17;
/// Most rows of a block: so few that their plain sum loses no digit that matters.
const BLOCK_ROWS: usize = 4096;

/// The statistics of one column.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ColumnStatistics {
    /// The number of cells; all hold a finite number.
    pub count: u64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
    /// Their population standard deviation: the root of the mean squared deviation, n in the denominator.
    pub std: f64,
}

impl ColumnStatistics {
    /// Of no cell at all.
    const NONE: Self = Self { count: 0, min: f64::INFINITY, max: f64::NEG_INFINITY, mean: 0.0, std: 0.0 };

    /// Adds those of other cells of the same column.
    fn merge(&mut self, other: &Self) {
        if self.count == 0 || other.count == 0 {
            if self.count == 0 {
                *self = *other;
            }
            return;
        }
        let count = self.count + other.count;
        let [own, others] = [self.count, other.count].map(|part| part as f64 / count as f64);
        // Half the difference: the whole one may be too large for a double.
        let half = other.mean / 2.0 - self.mean / 2.0;
        let mean = self.mean + half * others + half * others;
        let std = norm([own.sqrt() * self.std, others.sqrt() * other.std, half * (2.0 * (own * others).sqrt())]);
        *self = Self { count, min: self.min.min(other.min), max: self.max.max(other.max), mean, std }.in_range();
    }

    /// A mean lies between the extremes, and a spread is at most half their distance; rounding might say otherwise.
    fn in_range(self) -> Self {
        let std = self.std.min(self.max / 2.0 - self.min / 2.0);
        Self { mean: self.mean.clamp(self.min, self.max), std, ..self }
    }
}

/// `sqrt(a² + b² + c²)`, where the squares may be out of range.
fn norm(values: [f64; 3]) -> f64 {
    let largest = values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    if largest > 0.0 { largest * values.iter().map(|value| (value / largest).powi(2)).sum::<f64>().sqrt() } else { 0.0 }
}

/// The statistics of all columns of a table, of which more and more rows are seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics(Vec<ColumnStatistics>);

impl Statistics {
    /// Of a table of `n_columns` columns, at least one, that has no rows yet.
    pub fn new(n_columns: usize) -> Self {
        Self(vec![ColumnStatistics::NONE; n_columns])
    }

    /// Adds whole rows, row-major; an incomplete last one is not seen.
    pub fn add(&mut self, cells: &[f64]) {
        let n_columns = self.0.len();
        let rows = (BLOCK_CELLS / n_columns).clamp(1, BLOCK_ROWS);
        for block in cells.chunks(rows * n_columns) {
            self.merge(&describe(block, n_columns));
        }
    }

    /// Adds the rows that other statistics have seen of the same columns.
    pub fn merge(&mut self, others: &Self) {
        for (own, other) in self.0.iter_mut().zip(&others.0) {
            own.merge(other);
        }
    }

    /// The columns in order.
    pub fn columns(&self) -> &[ColumnStatistics] {
        &self.0
    }
}

/// The statistics of rows that are few enough to be passed over several times.
fn describe(cells: &[f64], n_columns: usize) -> Statistics {
    let rows = || cells.chunks_exact(n_columns);
    let n = rows().len() as f64;
    let mut columns = vec![ColumnStatistics { count: rows().len() as u64, ..ColumnStatistics::NONE }; n_columns];
    for row in rows() {
        for (column, &value) in columns.iter_mut().zip(row) {
            column.min = column.min.min(value);
            column.max = column.max.max(value);
        }
    }
    // Powers of two, which round nothing.
    let scales: Vec<f64> = columns.iter().map(|column| 1.0 / power_of_two(column.max.max(-column.min))).collect();
    // Sums with what their additions round away (Knuth's TwoSum): the mean of whole numbers comes out as one divides by hand.
    let mut sums = vec![(0.0, 0.0); n_columns];
    for row in rows() {
        for (((sum, rest), &value), scale) in sums.iter_mut().zip(row).zip(&scales) {
            let value = value * scale;
            let total = *sum + value;
            let added = total - *sum;
            *rest += (*sum - (total - added)) + (value - added);
            *sum = total;
        }
    }
    let means: Vec<f64> = sums.iter().map(|(sum, rest)| (sum + rest) / n).collect();
    // The sum of the deviations says how far off the rounded mean is.
    let mut deviations = vec![(0.0, 0.0); n_columns];
    for row in rows() {
        for (((sum, squares), &value), (scale, mean)) in deviations.iter_mut().zip(row).zip(scales.iter().zip(&means)) {
            let deviation = value * scale - mean;
            *sum += deviation;
            *squares += deviation * deviation;
        }
    }
    for (column, ((sum, squares), (scale, mean))) in
        columns.iter_mut().zip(deviations.iter().zip(scales.iter().zip(&means)))
    {
        column.mean = mean / scale;
        column.std = ((squares - sum * sum / n) / n).max(0.0).sqrt() / scale;
        *column = column.in_range();
    }
    Statistics(columns)
}

/// The power of two below `value`, as far as its reciprocal is one too.
fn power_of_two(value: f64) -> f64 {
    const MANTISSA_BITS: u32 = 52;
    let exponent = (value.to_bits() >> MANTISSA_BITS & 0x7ff).clamp(1, 2045);
    if value > 0.0 { f64::from_bits(exponent << MANTISSA_BITS) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt;
    use num_rational::BigRational;
    use num_traits::{FromPrimitive, ToPrimitive};
    use proptest::prelude::*;

    use super::*;

    fn of(cells: &[f64], n_columns: usize) -> Vec<ColumnStatistics> {
        let mut statistics = Statistics::new(n_columns);
        statistics.add(cells);
        statistics.columns().to_vec()
    }

    /// Mean and variance by exact arithmetic, rounded once.
    fn exactly(cells: &[f64]) -> (f64, f64) {
        let cells: Vec<BigRational> = cells.iter().map(|&cell| BigRational::from_float(cell).unwrap()).collect();
        let n = BigRational::from(BigInt::from_usize(cells.len()).unwrap());
        let mean = cells.iter().sum::<BigRational>() / &n;
        let variance = cells.iter().map(|cell| (cell - &mean) * (cell - &mean)).sum::<BigRational>() / n;
        (mean.to_f64().unwrap(), variance.to_f64().unwrap())
    }

    #[track_caller]
    fn assert_close(found: f64, expected: f64, scale: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance * scale, "{found:e} is not {expected:e}");
    }

    #[test]
    fn many_rows_far_from_zero_keep_their_digits() {
        // A spread of a millionth of the mean, over several blocks.
        let cells: Vec<f64> = (0..10_000_u32).map(|i| 1e6 + f64::from(i * 7919 % 1009) / 1009.0).collect();
        let (mean, variance) = exactly(&cells);
        let [found] = of(&cells, 1)[..] else { panic!("one column") };
        assert_close(found.mean, mean, mean, 1e-15);
        // The deviations themselves are known to 1e-10 of their size, and their errors average out.
        assert_close(found.std, variance.sqrt(), variance.sqrt(), 1e-12);
        assert_eq!((found.count, found.min, found.max), (10_000, 1e6, 1e6 + 1008.0 / 1009.0));
    }

    #[test]
    fn the_largest_and_the_smallest_doubles_have_statistics() {
        let huge = f64::MAX;
        let tiny = f64::from_bits(1);
        let [a, b, c] = of(&[huge, tiny, 0.0, -huge, 3.0 * tiny, 0.0], 3)[..] else { panic!("three columns") };
        assert_eq!((a.min, a.max, a.mean, a.std), (-huge, huge, 0.0, huge));
        assert_eq!((b.mean, b.std), (2.0 * tiny, tiny));
        assert_eq!((c.mean, c.std), (0.0, 0.0));

        let [mut part] = of(&[huge; 5], 1)[..] else { panic!("one column") };
        part.merge(&of(&[-huge; 5], 1)[0]);
        assert_eq!((part.count, part.mean, part.std), (10, 0.0, huge));
    }

    #[test]
    fn the_mean_of_few_numbers_is_the_nearest_double() {
        // Ascending, so that the partial sums are far from the mean.
        let cells: Vec<f64> = (0..50_u32).map(|i| f64::from(4 + i * 21 / 49)).collect();
        let [found] = of(&cells, 1)[..] else { panic!("one column") };
        assert_eq!(found.mean.to_bits(), exactly(&cells).0.to_bits());
    }

    #[test]
    fn a_constant_column_has_its_value_and_no_spread() {
        for value in [0.1, -1e300, 1e-310] {
            let [found] = of(&[value; 9_999], 1)[..] else { panic!("one column") };
            assert_eq!((found.mean, found.std), (value, 0.0));
        }
    }

    proptest! {
        #[test]
        fn any_parts_give_the_statistics_of_the_whole(
            cells in prop::collection::vec(-1e3..1e3, 2..400),
            offset in prop::sample::select(vec![0.0, 1e4, -1e-3]),
            cut in 0.0..1.0,
        ) {
            let cells: Vec<f64> = cells.iter().map(|cell| cell + offset).collect();
            let cut = (cut * cells.len() as f64) as usize;
            let mut parts = Statistics::new(1);
            parts.add(&cells[..cut]);
            let mut rest = Statistics::new(1);
            rest.add(&cells[cut..]);
            parts.merge(&rest);
            let (mean, variance) = exactly(&cells);
            for found in [parts.columns()[0], of(&cells, 1)[0]] {
                let scale = found.max.abs().max(found.min.abs());
                prop_assert!((found.mean - mean).abs() <= 1e-15 * scale);
                prop_assert!((found.std - variance.sqrt()).abs() <= 1e-12 * variance.sqrt() + 1e-15 * scale);
                prop_assert_eq!(found.count, cells.len() as u64);
            }
        }
    }
}
