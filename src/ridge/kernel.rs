//! The Gram matrix of the rows, for data with more columns than rows.

use super::{
    blas, dd_loops,
    double_double::{Dd, scaled, two_sum},
    error::RidgeError,
    gather::Source,
    precision::Real,
    rows::for_each_row,
    simd,
};
use std::ops::Range;

/// Precisions that Gram matrices of rows come in.
pub(super) trait KernelReal: Real {
    /// Adds `z zᵀ` (upper triangle) of a tile of columns to k; the tile is filled by `fill(row, column, hi, lo)`.
    fn add_tile(n: usize, tile: &mut Tile, k: &mut [Self]);
    /// `<a, b>`.
    fn dot(a: &[Self], b: &[Self]) -> Self;
    /// `<a, b>` and the sum of its terms' sizes.
    fn dot_and_size(a: &[Self], b: &[Self]) -> (Self, f64);
}

/// Some columns of all rows.
#[derive(Default)]
pub(super) struct Tile {
    n_columns: usize,
    /// Row-major (`n_rows`, `n_columns`); in doubled precision the transpose, and with low parts.
    hi: Vec<f64>,
    lo: Vec<f64>,
}

impl KernelReal for f64 {
    fn add_tile(n: usize, tile: &mut Tile, k: &mut [Self]) {
        blas::add_outer_gram(n, tile.n_columns, &tile.hi, k);
    }

    fn dot(a: &[Self], b: &[Self]) -> Self {
        dot_and_size(a, b).0
    }

    fn dot_and_size(a: &[Self], b: &[Self]) -> (Self, f64) {
        dot_and_size(a, b)
    }
}

impl KernelReal for Dd {
    fn add_tile(n: usize, tile: &mut Tile, k: &mut [Self]) {
        let z = (tile.hi.as_slice(), tile.lo.as_slice());
        dd_loops::add_gram(n, z, z, k);
    }

    fn dot(a: &[Self], b: &[Self]) -> Self {
        a.iter().zip(b).fold(Dd::ZERO, |sum, (a, b)| sum + *a * *b)
    }

    fn dot_and_size(a: &[Self], b: &[Self]) -> (Self, f64) {
        (Self::dot(a, b), a.iter().zip(b).map(|(a, b)| (a.hi * b.hi).abs()).sum())
    }
}

simd::kernel! {
    /// `<a, b>` and the sum of its terms' sizes, in eight lanes.
    fn dot_and_size(a: &[f64], b: &[f64]) -> (f64, f64) {
        let (mut sums, mut sizes) = ([0.0; 8], [0.0_f64; 8]);
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
        for (a, b) in a.iter().zip(b) {
            for l in 0..8 {
                let term = a[l] * b[l];
                sums[l] += term;
                sizes[l] += term.abs();
            }
        }
        for ((a, b), l) in a_rest.iter().zip(b_rest).zip(0..8) {
            sums[l] += a * b;
            sizes[l] += (a * b).abs();
        }
        (sums.iter().sum(), sizes.iter().sum())
    }
}

/// The weights and targets of all rows, and a point near all rows that they are measured from.
pub(super) struct Samples {
    pub(super) weights: Vec<f64>,
    /// In the target's unit.
    pub(super) targets: Vec<f64>,
    /// The weighted means of (features.., target), in their units, with an intercept; else 0.
    pub(super) means: Vec<Dd>,
    /// The same as doubles: exactly the value of a constant column.
    pub(super) origin: Vec<f64>,
}

impl Samples {
    /// One pass over the rows.
    pub(super) fn new(source: &Source<'_>, fit_intercept: bool) -> Result<Self, RidgeError> {
        let p = source.p();
        let chunks = source.chunks(16);
        let parts = source.run.map(chunks.len(), source.is_small(), |c| {
            let (mut weights, mut targets) = (Vec::new(), Vec::new());
            let (mut hi, mut lo, mut z) = (vec![0.0; p], vec![0.0; p], vec![0.0; p]);
            let d = p - 1;
            for block in chunks[c].clone() {
                for_each_row(source.rows, block, |_, row| {
                    let weight = source.columns.weight(row);
                    let y = source.target(row);
                    weights.push(weight);
                    targets.push(y);
                    if fit_intercept && weight > 0.0 {
                        let weight = Dd::from(weight);
                        dd_loops::add_scaled(weight, source.features(row, &mut z), &mut hi[..d], &mut lo[..d]);
                        dd_loops::add_scaled(weight, &[y], &mut hi[d..], &mut lo[d..]);
                    }
                })?;
                source.run.check()?;
            }
            Ok((weights, targets, hi, lo))
        })?;
        let (mut weights, mut targets, mut means) = (Vec::new(), Vec::new(), vec![Dd::ZERO; p]);
        for (more_weights, more_targets, hi, lo) in parts {
            weights.extend(more_weights);
            targets.extend(more_targets);
            means.iter_mut().zip(hi.into_iter().zip(lo)).for_each(|(sum, (hi, lo))| *sum = *sum + Dd::sum(hi, lo));
        }
        if fit_intercept {
            let weight = weights.iter().fold(Dd::ZERO, |sum, w| sum + Dd::from(*w));
            means.iter_mut().for_each(|mean| *mean = *mean / weight);
        }
        let origin = means.iter().map(|mean| mean.value()).collect();
        Ok(Self { weights, targets, means, origin })
    }

    /// Population standard deviation of each feature over some rows, weighted.
    pub(super) fn deviations(&self, source: &Source<'_>, is_training: &[bool]) -> Result<Vec<f64>, RidgeError> {
        let (p, d) = (source.p(), source.columns.n_features());
        let (mut sum, mut squares, mut weight, mut z) = (vec![0.0; d], vec![0.0; d], 0.0, vec![0.0; p]);
        let mut first: Vec<f64> = Vec::new();
        for block in 0..source.rows.n_blocks() {
            for_each_row(source.rows, block, |i, row| {
                if is_training[i] && self.weights[i] > 0.0 {
                    source.gather(row, &mut z);
                    if first.is_empty() {
                        first.clone_from(&z);
                    }
                    weight += self.weights[i];
                    for j in 0..d {
                        let x = z[j] - first[j];
                        sum[j] += self.weights[i] * x;
                        squares[j] += self.weights[i] * x * x;
                    }
                }
            })?;
        }
        let variance = |(sum, squares): (f64, f64)| (squares / weight - (sum / weight).powi(2)).max(0.0);
        Ok(sum.into_iter().zip(squares).map(variance).map(f64::sqrt).collect())
    }
}

/// `K = Z Zᵀ`, Z the features of all rows less the origin, columns multiplied by `scale`: (n, n), full.
///
/// Tiles of columns are copied and multiplied (dsyrk) in a fixed number of groups, which run in parallel and are summed in
/// order.
pub(super) fn kernel<T: KernelReal>(
    source: &Source<'_>,
    samples: &Samples,
    scale: Option<&[f64]>,
) -> Result<Vec<T>, RidgeError> {
    let (n, d) = (source.rows.n_rows(), source.columns.n_features());
    let width = ((1 << 17) / n).clamp(16, 512).min(d);
    let n_tiles = d.div_ceil(width);
    let n_groups = n_groups(n, d).min(n_tiles);
    let mut parts = source.run.map(n_groups, source.is_small(), |group| {
        let mut k = vec![T::from(0.0); n * n];
        let mut tile = Tile::default();
        for t in group * n_tiles / n_groups..(group + 1) * n_tiles / n_groups {
            source.run.check()?;
            let columns = t * width..((t + 1) * width).min(d);
            tile.resize::<T>(n, columns.len());
            if !T::IS_DOUBLED && scale.is_none() && !source.is_scaled() && source.columns.are_adjacent() {
                tile.copy(source, samples, columns)?;
            } else {
                tile.fill::<T>(source, samples, scale, columns)?;
            }
            T::add_tile(n, &mut tile, &mut k);
        }
        Ok(k)
    })?;
    let mut k = parts.swap_remove(0);
    // Bands of rows at a time, so that they stay in the cache.
    for top in (0..n).step_by(16) {
        for part in &parts {
            for i in top..(top + 16).min(n) {
                let (sum, part) = (&mut k[i * n + i..(i + 1) * n], &part[i * n + i..(i + 1) * n]);
                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum = *sum + *part);
            }
        }
    }
    mirror(n, &mut k);
    Ok(k)
}

/// Groups of columns whose products are made in parallel: together they are no larger than half of the features.
pub(super) fn n_groups(n: usize, d: usize) -> usize {
    (d / (2 * n)).clamp(1, 8)
}

/// Copies the upper triangle to the lower one, by squares that stay in the cache.
fn mirror<T: Copy>(n: usize, k: &mut [T]) {
    const SIDE: usize = 32;
    for top in (0..n).step_by(SIDE) {
        for left in (top..n).step_by(SIDE) {
            for i in top..(top + SIDE).min(n) {
                for j in left.max(i + 1)..(left + SIDE).min(n) {
                    k[j * n + i] = k[i * n + j];
                }
            }
        }
    }
}

impl Tile {
    fn resize<T: Real>(&mut self, n_rows: usize, n_columns: usize) {
        let n_values = n_rows * n_columns;
        self.n_columns = n_columns;
        self.hi.resize(n_values, 0.0);
        self.lo.resize(if T::IS_DOUBLED { n_values } else { 0 }, 0.0);
    }

    /// Columns in their own unit that lie side by side.
    fn copy(&mut self, source: &Source<'_>, samples: &Samples, columns: Range<usize>) -> Result<(), RidgeError> {
        let origin = &samples.origin[columns.clone()];
        for block in 0..source.rows.n_blocks() {
            for_each_row(source.rows, block, |i, row| {
                let x = &source.columns.adjacent(row).unwrap_or_default()[columns.clone()];
                let place = &mut self.hi[i * x.len()..(i + 1) * x.len()];
                place.iter_mut().zip(x.iter().zip(origin)).for_each(|(place, (x, origin))| *place = x - origin);
            })?;
        }
        Ok(())
    }

    fn fill<T: Real>(
        &mut self,
        source: &Source<'_>,
        samples: &Samples,
        scale: Option<&[f64]>,
        columns: Range<usize>,
    ) -> Result<(), RidgeError> {
        let (n, width) = (source.rows.n_rows(), columns.len());
        for block in 0..source.rows.n_blocks() {
            for_each_row(source.rows, block, |i, row| {
                for (t, j) in columns.clone().enumerate() {
                    let x = scaled(row[source.columns.features[j]], -source.exponents[j]);
                    let scale = scale.map_or(1.0, |scale| scale[j]);
                    if T::IS_DOUBLED {
                        let (hi, lo) = two_sum(x, -samples.origin[j]);
                        let z = Dd { hi, lo } * Dd::from(scale);
                        (self.hi[t * n + i], self.lo[t * n + i]) = (z.hi, z.lo);
                    } else {
                        self.hi[i * width + t] = (x - samples.origin[j]) * scale;
                    }
                }
            })?;
        }
        Ok(())
    }
}
