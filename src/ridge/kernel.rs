//! The Gram matrix of the rows, for data with more columns than rows.

use super::{
    blas, dd_loops,
    double_double::{Dd, scaled, two_sum},
    error::RidgeError,
    gather::Source,
    moments::Real,
    rows::for_each_row,
};
use std::ops::Range;

/// Precisions that Gram matrices of rows come in.
pub(super) trait KernelReal: Real {
    /// Adds `z zᵀ` (upper triangle) of a tile of columns to k; the tile is filled by `fill(row, column, hi, lo)`.
    fn add_tile(n: usize, tile: &mut Tile, k: &mut [Self]);
}

/// Some columns of all rows.
pub(super) struct Tile {
    n_rows: usize,
    n_columns: usize,
    /// Row-major (`n_rows`, `n_columns`); in doubled precision the transpose, and with low parts.
    hi: Vec<f64>,
    lo: Vec<f64>,
}

impl KernelReal for f64 {
    fn add_tile(n: usize, tile: &mut Tile, k: &mut [Self]) {
        blas::add_outer_gram(n, tile.n_columns, &tile.hi, k);
    }
}

impl KernelReal for Dd {
    fn add_tile(n: usize, tile: &mut Tile, k: &mut [Self]) {
        let z = (tile.hi.as_slice(), tile.lo.as_slice());
        dd_loops::add_gram(n, z, z, k);
    }
}

/// The weights and targets of all rows, and a point near all rows that they are measured from.
pub(super) struct Samples {
    pub(super) weights: Vec<f64>,
    /// In the target's unit.
    pub(super) targets: Vec<f64>,
    /// For each of (features.., target), in its unit: near the mean with an intercept, exactly the value of a constant
    /// column; else 0.
    pub(super) origin: Vec<f64>,
}

impl Samples {
    pub(super) fn new(source: &Source<'_>, fit_intercept: bool) -> Result<Self, RidgeError> {
        let (n, p) = (source.rows.n_rows(), source.p());
        let (mut weights, mut targets) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let (mut first, mut sum, mut z) = (Vec::new(), vec![0.0; p], vec![0.0; p]);
        for block in 0..source.rows.n_blocks() {
            for_each_row(source.rows, block, |_, row| {
                source.gather(row, &mut z);
                if first.is_empty() {
                    first.clone_from(&z);
                }
                weights.push(source.columns.weight(row));
                targets.push(z[p - 1]);
                for ((sum, z), first) in sum.iter_mut().zip(&z).zip(&first) {
                    *sum += z - first;
                }
            })?;
            source.run.check()?;
        }
        let origin = if fit_intercept {
            first.iter().zip(sum).map(|(first, sum)| first + sum / n as f64).collect()
        } else {
            vec![0.0; p]
        };
        Ok(Self { weights, targets, origin })
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
    let n_groups = (d / (2 * n)).clamp(1, 8).min(n_tiles);
    let mut parts = source.run.map(n_groups, source.is_small(), |group| {
        let mut k = vec![T::from(0.0); n * n];
        for t in group * n_tiles / n_groups..(group + 1) * n_tiles / n_groups {
            source.run.check()?;
            let columns = t * width..((t + 1) * width).min(d);
            let mut tile = tile::<T>(source, samples, scale, columns)?;
            T::add_tile(n, &mut tile, &mut k);
        }
        Ok(k)
    })?;
    let mut k = parts.swap_remove(0);
    for i in 0..n {
        for j in i..n {
            let sum = parts.iter().fold(k[i * n + j], |sum, part| sum + part[i * n + j]);
            k[i * n + j] = sum;
            k[j * n + i] = sum;
        }
    }
    Ok(k)
}

fn tile<T: KernelReal>(
    source: &Source<'_>,
    samples: &Samples,
    scale: Option<&[f64]>,
    columns: Range<usize>,
) -> Result<Tile, RidgeError> {
    let (n, width) = (source.rows.n_rows(), columns.len());
    let low = if T::IS_DOUBLED { n * width } else { 0 };
    let mut tile = Tile { n_rows: n, n_columns: width, hi: vec![0.0; n * width], lo: vec![0.0; low] };
    for block in 0..source.rows.n_blocks() {
        for_each_row(source.rows, block, |i, row| {
            if let (false, None, false, Some(x)) =
                (T::IS_DOUBLED, scale, source.is_scaled(), source.columns.adjacent(row))
            {
                let place = &mut tile.hi[i * width..(i + 1) * width];
                for ((place, x), origin) in
                    place.iter_mut().zip(&x[columns.clone()]).zip(&samples.origin[columns.clone()])
                {
                    *place = x - origin;
                }
                return;
            }
            for (t, j) in columns.clone().enumerate() {
                let x = scaled(row[source.columns.features[j]], -source.exponents[j]);
                let scale = scale.map_or(1.0, |scale| scale[j]);
                if T::IS_DOUBLED {
                    let (hi, lo) = two_sum(x, -samples.origin[j]);
                    let z = Dd { hi, lo } * Dd::from(scale);
                    (tile.hi[t * n + i], tile.lo[t * n + i]) = (z.hi, z.lo);
                } else {
                    tile.hi[i * width + t] = (x - samples.origin[j]) * scale;
                }
            }
        })?;
    }
    debug_assert_eq!(tile.n_rows, n);
    Ok(tile)
}
