//! The residuals of all rows in doubled precision, summed up in one pass.

use super::{
    dd_loops,
    double_double::{Dd, two_product, two_sum},
    error::RidgeError,
    gather::Source,
    gram,
    rows::for_each_row,
    simd::{Aligned, kernel},
    transpose::{ROWS, transpose},
};
use std::ops::Range;

/// What the rows leave over.
pub(super) struct Residuals {
    /// `Σ v_i x_i r_i`.
    pub(super) features: Vec<Dd>,
    /// `Σ v_i r_i`.
    pub(super) sum: Dd,
    /// `Σ v_i r_i²`.
    pub(super) squares: f64,
}

impl Residuals {
    fn zero(d: usize) -> Self {
        Self { features: vec![Dd::ZERO; d], sum: Dd::ZERO, squares: 0.0 }
    }
}

/// The residuals `r_i = y_i - b - <x_i, w>` of all rows.
pub(super) fn residuals(source: &Source<'_>, w: &[Dd], b: Dd) -> Result<Residuals, RidgeError> {
    let model = Model::new(w, b);
    let chunks = source.chunks(16);
    let parts = source.run.map(chunks.len(), source.is_small(), |c| {
        if w.len() < gram::WIDEST {
            of_narrow_rows(source, chunks[c].clone(), &model)
        } else {
            of_wide_rows(source, chunks[c].clone(), &model)
        }
    })?;
    let mut total = Residuals::zero(w.len());
    for part in parts {
        total.features.iter_mut().zip(part.features).for_each(|(total, part)| *total = *total + part);
        total.sum = total.sum + part.sum;
        total.squares += part.squares;
    }
    Ok(total)
}

pub(super) struct Model {
    hi: Vec<f64>,
    lo: Vec<f64>,
    b: Dd,
}

impl Model {
    pub(super) fn new(w: &[Dd], b: Dd) -> Self {
        Self { hi: w.iter().map(|w| w.hi).collect(), lo: w.iter().map(|w| w.lo).collect(), b }
    }
}

/// Row by row, each in vectors of columns.
pub(super) fn of_wide_rows(source: &Source<'_>, blocks: Range<usize>, model: &Model) -> Result<Residuals, RidgeError> {
    let d = model.hi.len();
    let (mut g_hi, mut g_lo, mut z) = (vec![0.0; d], vec![0.0; d], vec![0.0; d + 1]);
    let mut found = Residuals::zero(d);
    for block in blocks {
        for_each_row(source.rows, block, |_, row| {
            let weight = source.columns.weight(row);
            if weight == 0.0 {
                return;
            }
            let adjacent = if source.is_scaled() { None } else { source.columns.adjacent(row) };
            let (x, y) = match adjacent {
                Some(x) => (x, row[source.columns.target]),
                None => {
                    source.gather(row, &mut z);
                    (&z[..d], z[d])
                }
            };
            let r = Dd::from(y) - model.b - dd_loops::dot(x, &model.hi, &model.lo);
            let weighted = if weight == 1.0 { r } else { r * Dd::from(weight) };
            dd_loops::add_scaled(weighted, x, &mut g_hi, &mut g_lo);
            found.sum = found.sum + weighted;
            found.squares += weighted.hi * r.hi;
        })?;
        source.run.check()?;
    }
    found.features = g_hi.into_iter().zip(g_lo).map(|(hi, lo)| Dd::sum(hi, lo)).collect();
    Ok(found)
}

/// In tiles of transposed rows, so that a vector holds the same column of many rows and the number of columns does not
/// matter.
pub(super) fn of_narrow_rows(
    source: &Source<'_>,
    blocks: Range<usize>,
    model: &Model,
) -> Result<Residuals, RidgeError> {
    let (d, n_columns) = (model.hi.len(), source.rows.n_columns());
    let mut tile = Tile { x: Aligned::zeros(d * ROWS), y: [0.0; ROWS], weights: [0.0; ROWS] };
    let mut sums = LaneSums { g: vec![[[0.0; LANES]; 2]; d], sum: [[0.0; LANES]; 2], squares: [0.0; LANES] };
    let mut z = vec![0.0; d + 1];
    let is_scaled = source.is_scaled();
    let first = if is_scaled || d == 0 { None } else { source.columns.adjacent_from() };
    for block in blocks {
        let mut add = |values: &[f64]| {
            for values in values.chunks(ROWS * n_columns) {
                let rows = values.chunks_exact(n_columns);
                match first {
                    Some(first) => {
                        transpose(values, n_columns, first, tile.x.as_chunks_mut().0);
                        rows.clone().zip(&mut tile.y).for_each(|(row, y)| *y = row[source.columns.target]);
                    }
                    None => {
                        for (i, row) in rows.clone().enumerate() {
                            source.gather(row, &mut z);
                            tile.x.chunks_exact_mut(ROWS).zip(&z).for_each(|(x, z)| x[i] = *z);
                            tile.y[i] = z[d];
                        }
                    }
                }
                tile.weights = [0.0; ROWS];
                rows.zip(&mut tile.weights).for_each(|(row, weight)| *weight = source.columns.weight(row));
                add_tile(&tile, model, &mut sums);
            }
        };
        source
            .rows
            .visit_block(block, &mut |_, view| add(view.as_standard_layout().as_slice().unwrap_or_default()))
            .map_err(RidgeError::Rows)?;
        source.run.check()?;
    }
    let total = |[hi, lo]: &[[f64; LANES]; 2]| hi.iter().zip(lo).fold(Dd::ZERO, |sum, (h, l)| sum + Dd::sum(*h, *l));
    Ok(Residuals {
        features: sums.g.iter().map(total).collect(),
        sum: total(&sums.sum),
        squares: sums.squares.iter().sum(),
    })
}

/// Rows of a vector.
const LANES: usize = 8;

/// Some rows, transposed; rows without weight may hold anything finite.
pub(super) struct Tile {
    /// Shape (d, rows).
    x: Aligned,
    y: [f64; ROWS],
    weights: [f64; ROWS],
}

/// Sums in doubled precision, by lanes: high parts, then low parts.
pub(super) struct LaneSums {
    g: Vec<[[f64; LANES]; 2]>,
    sum: [[f64; LANES]; 2],
    squares: [f64; LANES],
}

kernel! {
    /// Adds what the rows of a tile leave over.
    fn add_tile(tile: &Tile, model: &Model, sums: &mut LaneSums) {
        let columns = tile.x.as_chunks::<ROWS>().0;
        let (mut r_hi, mut r_lo) = ([0.0; ROWS], [0.0; ROWS]);
        for from in (0..ROWS).step_by(LANES) {
            // Ogita, Rump & Oishi 2005, Dot2.
            let (mut s, mut c) = ([0.0; LANES], [0.0; LANES]);
            for ((x, hi), lo) in columns.iter().zip(&model.hi).zip(&model.lo) {
                let x: &[f64; LANES] = x[from..].first_chunk().unwrap_or(&[0.0; LANES]);
                for k in 0..LANES {
                    let (p, e) = two_product(x[k], *hi);
                    let (sum, t) = two_sum(s[k], p);
                    s[k] = sum;
                    c[k] += t + (e + x[k] * lo);
                }
            }
            for k in 0..LANES {
                let r = Dd::from(tile.y[from + k]) - model.b - Dd::sum(s[k], c[k]);
                let weighted = r * Dd::from(tile.weights[from + k]);
                (r_hi[from + k], r_lo[from + k]) = (weighted.hi, weighted.lo);
                let (sum, t) = two_sum(sums.sum[0][k], weighted.hi);
                sums.sum[0][k] = sum;
                sums.sum[1][k] += t + weighted.lo;
                sums.squares[k] += weighted.hi * r.hi;
            }
        }
        for (x, [g_hi, g_lo]) in columns.iter().zip(&mut sums.g) {
            let (mut s, mut c) = (*g_hi, *g_lo);
            let parts = x.as_chunks::<LANES>().0.iter().zip(r_hi.as_chunks::<LANES>().0).zip(r_lo.as_chunks::<LANES>().0);
            for ((x, r_hi), r_lo) in parts {
                for k in 0..LANES {
                    let (p, e) = two_product(x[k], r_hi[k]);
                    let (sum, t) = two_sum(s[k], p);
                    s[k] = sum;
                    c[k] += t + (e + x[k] * r_lo[k]);
                }
            }
            (*g_hi, *g_lo) = (s, c);
        }
    }
}
