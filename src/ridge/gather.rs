//! Passes over the rows: their moments by cells (folds), and their range.

use super::{
    columns::Columns,
    double_double::{scaled, two_sum},
    error::RidgeError,
    moments::{Block, Moments, Real},
    rows::{Rows, for_each_row},
    run::{Phase, Run},
};
use std::ops::Range;

/// The rows of one run, with their columns' parts and units.
pub(super) struct Source<'a> {
    pub(super) rows: &'a dyn Rows,
    pub(super) columns: Columns,
    /// The unit of each of (features.., target) is `2^exponent`, so that no product of two values leaves the range of
    /// doubles. Scaling by powers of two is exact.
    pub(super) exponents: Vec<i32>,
    pub(super) run: &'a Run<'a>,
}

/// Below this many values, threads cost more than they bring.
const SMALL: usize = 100_000;

impl Source<'_> {
    /// The length d + 1 of (features.., target).
    pub(super) fn p(&self) -> usize {
        self.columns.n_features() + 1
    }

    /// Whether a pass over the rows is too short for threads.
    pub(super) fn is_small(&self) -> bool {
        self.rows.n_rows() * self.p() < SMALL
    }

    /// At most `n_chunks` runs of blocks of about equal length; depends on the shape alone.
    pub(super) fn chunks(&self, n_chunks: usize) -> Vec<Range<usize>> {
        let n_blocks = self.rows.n_blocks();
        let n_chunks = n_chunks.clamp(1, n_blocks.max(1));
        (0..n_chunks).map(|c| c * n_blocks / n_chunks..(c + 1) * n_blocks / n_chunks).collect()
    }

    /// The row's (features.., target) in the columns' units.
    pub(super) fn gather(&self, row: &[f64], z: &mut [f64]) {
        self.columns.gather(row, z);
        if self.is_scaled() {
            z.iter_mut().zip(&self.exponents).for_each(|(z, e)| *z = scaled(*z, -e));
        }
    }

    pub(super) fn is_scaled(&self) -> bool {
        self.exponents.iter().any(|e| *e != 0)
    }

    /// The moments of the rows in each of `n_cells` cells; rows in no cell and rows without weight are left out.
    ///
    /// The rows are cut into chunks of blocks by the shape alone; chunks run in parallel and are merged in order.
    pub(super) fn moments<T: Real>(
        &self,
        n_cells: usize,
        cell_of: impl Fn(usize) -> Option<usize> + Sync,
        share: (f64, f64),
    ) -> Result<Vec<Moments<T>>, RidgeError> {
        let p = self.p();
        let cell_values = p * p * n_cells * size_of::<T>() / 8;
        let budget = (self.rows.n_rows() * p).max(1 << 22);
        let chunks = self.chunks((budget / cell_values.max(1)).clamp(1, 16));
        let phase = self.run.phase(share.0, share.1, self.rows.n_blocks());
        let mut parts: Vec<Vec<Moments<T>>> = self
            .run
            .map(chunks.len(), self.is_small(), |c| self.chunk_moments(chunks[c].clone(), n_cells, &cell_of, &phase))?;
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let is_small = cell_values < SMALL;
        self.run
            .map(n_cells, is_small, |cell| Ok(Moments::sum(&parts.iter().map(|part| &part[cell]).collect::<Vec<_>>())))
    }

    fn chunk_moments<T: Real>(
        &self,
        blocks: Range<usize>,
        n_cells: usize,
        cell_of: &impl Fn(usize) -> Option<usize>,
        phase: &Phase<'_>,
    ) -> Result<Vec<Moments<T>>, RidgeError> {
        let p = self.p();
        // Rows are collected until a block is worth a call of dsyrk; all blocks together stay in the cache.
        let largest = if T::IS_DOUBLED { 64 } else { 512 };
        let capacity = ((1 << 19) / (p * n_cells)).clamp(1, largest);
        let mut cells: Vec<Cell<T>> = (0..n_cells).map(|_| Cell::new(p)).collect();
        let mut z = vec![0.0; p];
        for block in blocks {
            for_each_row(self.rows, block, |i, row| {
                let weight = self.columns.weight(row);
                if weight > 0.0
                    && let Some(cell) = cell_of(i)
                {
                    self.gather(row, &mut z);
                    cells[cell].push(&z, weight, capacity);
                }
            })?;
            phase.step()?;
        }
        Ok(cells.into_iter().map(Cell::finish).collect())
    }

    /// The exact range of each of (features.., target) over the rows with weight.
    pub(super) fn ranges(&self) -> Result<Vec<(f64, f64)>, RidgeError> {
        let nothing = vec![(f64::INFINITY, f64::NEG_INFINITY); self.p()];
        let chunks = self.chunks(16);
        let parts = self.run.map(chunks.len(), self.is_small(), |c| {
            let (mut ranges, mut z) = (nothing.clone(), vec![0.0; self.p()]);
            for block in chunks[c].clone() {
                for_each_row(self.rows, block, |_, row| {
                    if self.columns.weight(row) > 0.0 {
                        self.columns.gather(row, &mut z);
                        for (range, z) in ranges.iter_mut().zip(&z) {
                            *range = (if *z < range.0 { *z } else { range.0 }, if *z > range.1 { *z } else { range.1 });
                        }
                    }
                })?;
                self.run.check()?;
            }
            Ok(ranges)
        })?;
        let mut ranges = nothing;
        for part in parts {
            ranges.iter_mut().zip(part).for_each(|(range, part)| *range = (range.0.min(part.0), range.1.max(part.1)));
        }
        Ok(ranges)
    }
}

/// Rows of one cell on their way into its moments.
struct Cell<T> {
    moments: Moments<T>,
    block: Block,
    /// The cell's first row; the rows are kept as differences from it, so that constant columns vanish exactly and
    /// nothing cancels later.
    shift: Vec<f64>,
}

impl<T: Real> Cell<T> {
    fn new(p: usize) -> Self {
        let block = Block { p, hi: Vec::new(), lo: Vec::new(), weights: Vec::new() };
        Self {
            moments: Moments { weight: Default::default(), mean: Vec::new(), m: Vec::new() },
            block,
            shift: Vec::new(),
        }
    }

    fn push(&mut self, z: &[f64], weight: f64, capacity: usize) {
        if self.shift.is_empty() {
            self.shift = z.to_vec();
            self.moments = Moments::empty(z.len());
        }
        if T::IS_DOUBLED {
            for (z, shift) in z.iter().zip(&self.shift) {
                let (hi, lo) = two_sum(*z, -shift);
                self.block.hi.push(hi);
                self.block.lo.push(lo);
            }
        } else {
            self.block.hi.extend(z.iter().zip(&self.shift).map(|(z, shift)| z - shift));
        }
        self.block.weights.push(weight);
        if self.block.weights.len() >= capacity {
            self.moments.add_block(&mut self.block, &self.shift);
        }
    }

    fn finish(mut self) -> Moments<T> {
        self.moments.add_block(&mut self.block, &self.shift);
        self.moments
    }
}
