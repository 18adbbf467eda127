//! Passes over the rows: their moments by cells (folds), and their range.

use super::{
    columns::Columns,
    double_double::scaled,
    error::RidgeError,
    moments::{Block, Moments, Real},
    rows::{Rows, for_each_row, visit_values},
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
        let (n, p) = (self.rows.n_rows(), self.p());
        let cell_values = p * p * n_cells * size_of::<T>() / 8;
        // As much as the matrix itself; and enough rows in a cell to make up for merging it.
        let most = (n * p).max(1 << 22) / cell_values.max(1);
        let chunks = self.chunks(most.min(n / (256 * n_cells)).clamp(2, 16).min(most.max(1)));
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
        let mut cells = Cells::<T>::new(self.p(), n_cells);
        let mut cell_of_row = Vec::new();
        for block in blocks {
            visit_values(self.rows, block, |first, values| {
                cell_of_row.clear();
                cell_of_row.extend(values.chunks_exact(self.rows.n_columns()).enumerate().map(|(i, row)| {
                    let cell = if self.columns.weight(row) > 0.0 { cell_of(first + i) } else { None };
                    cell.map_or(NOWHERE, |cell| cell as u32)
                }));
                cells.add(self, values, &cell_of_row);
            })?;
            phase.step()?;
        }
        Ok(cells.finish())
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

/// The cell of a row that counts nowhere.
const NOWHERE: u32 = u32::MAX;

/// Rows on their way into the moments of their cells. They are collected until a block is worth multiplying.
struct Cells<T> {
    moments: Vec<Moments<T>>,
    /// Each as long as it may become.
    blocks: Vec<Block>,
    /// Each cell's first row; the rows are kept as differences from it, so that constant columns vanish exactly and
    /// nothing cancels later.
    shifts: Vec<Vec<f64>>,
}

impl<T: Real> Cells<T> {
    fn new(p: usize, n_cells: usize) -> Self {
        // All blocks together stay in the cache, unless the rows are long.
        let (least, most) = if T::IS_DOUBLED { (1, 64) } else { (256, 512) };
        let capacity = ((1 << 18) / (p * n_cells)).clamp(least, most);
        Self {
            moments: vec![Moments { weight: Default::default(), mean: Vec::new(), m: Vec::new() }; n_cells],
            blocks: vec![Block::new::<T>(p, capacity); n_cells],
            shifts: vec![Vec::new(); n_cells],
        }
    }

    /// Adds the rows of a block of the source.
    fn add(&mut self, source: &Source<'_>, values: &[f64], cell_of_row: &[u32]) {
        let n_columns = source.rows.n_columns();
        let parts: Vec<(usize, Range<usize>)> = source.columns.parts().collect();
        let is_plain = !T::IS_DOUBLED && !source.is_scaled();
        let mut z = vec![0.0; source.p()];
        for (row, cell) in values.chunks_exact(n_columns).zip(cell_of_row) {
            let cell = *cell as usize;
            let Some(block) = self.blocks.get_mut(cell) else { continue };
            let shift = &mut self.shifts[cell];
            if shift.is_empty() {
                shift.resize(source.p(), 0.0);
                source.gather(row, shift);
                self.moments[cell] = Moments::empty(source.p());
            }
            if is_plain {
                for (at, run) in &parts {
                    block.set(*at, &row[run.clone()], &shift[*at..]);
                }
            } else {
                source.gather(row, &mut z);
                if T::IS_DOUBLED {
                    block.set_exactly(&z, shift);
                } else {
                    block.set(0, &z, shift);
                }
            }
            block.weights.push(source.columns.weight(row));
            if block.is_full() {
                self.moments[cell].add_block(block, shift);
            }
        }
    }

    fn finish(mut self) -> Vec<Moments<T>> {
        for ((moments, block), shift) in self.moments.iter_mut().zip(&mut self.blocks).zip(&self.shifts) {
            moments.add_block(block, shift);
        }
        self.moments
    }
}
