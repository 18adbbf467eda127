//! Passes over the rows: their moments by cells (folds), and their range.

use super::{
    block::{Block, GrowingMoments},
    columns::Columns,
    double_double::scaled,
    error::RidgeError,
    moments::Moments,
    narrow::{self, NarrowCells},
    precision::Real,
    rows::{Rows, for_each_row},
    run::{Phase, Run},
    simd,
};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The rows of one run, with their columns' parts and units.
pub(super) struct Source<'a> {
    pub(super) rows: &'a dyn Rows,
    pub(super) columns: Columns,
    /// The unit of each of (features.., target) is `2^exponent`, so that no product of two values leaves the range of
    /// doubles. Scaling by powers of two is exact.
    pub(super) exponents: Vec<i32>,
    /// Whether any of them is not zero.
    is_scaled: bool,
    pub(super) run: &'a Run<'a>,
}

/// The values that sums of products may take in any case, and those that they take at most if one matrix of them for each cell
/// takes no more: 32 and 256 MiB.
pub(super) const LEAST_VALUES: usize = 1 << 22;
const MOST_VALUES: usize = 1 << 25;

/// The values that sums of products of so many rows may take: as much as the rows, within bounds.
pub(super) fn room_for_sums(n_rows: usize, p: usize) -> usize {
    n_rows.saturating_mul(p).clamp(LEAST_VALUES, MOST_VALUES)
}

/// Passes over the rows for moments that do not find room at once.
const MOST_PASSES: usize = 4;

/// Below this many values, threads cost more than they bring.
const SMALL: usize = 100_000;

impl<'a> Source<'a> {
    /// Rows whose columns have the unit 1.
    pub(super) fn new(rows: &'a dyn Rows, columns: Columns, run: &'a Run<'a>) -> Self {
        let exponents = vec![0; columns.n_features() + 1];
        Self { rows, columns, exponents, is_scaled: false, run }
    }

    /// Gives (features.., target) the units `2^exponent`.
    pub(super) fn set_units(&mut self, exponents: Vec<i32>) {
        self.is_scaled = exponents.iter().any(|e| *e != 0);
        self.exponents = exponents;
    }

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

    /// The row's features in their units; `z`, of length p, is room for them if they must be gathered.
    pub(super) fn features<'r>(&self, row: &'r [f64], z: &'r mut [f64]) -> &'r [f64] {
        match self.columns.adjacent(row) {
            Some(x) if !self.is_scaled => x,
            _ => {
                self.gather(row, z);
                &z[..self.columns.n_features()]
            }
        }
    }

    /// The row's target in its unit.
    pub(super) fn target(&self, row: &[f64]) -> f64 {
        scaled(row[self.columns.target], -self.exponents[self.columns.n_features()])
    }

    pub(super) fn is_scaled(&self) -> bool {
        self.is_scaled
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
        // As few passes, each for some of the cells, as leave room for two chunks.
        let most = |n_passes: usize| {
            let n_now = n_cells.div_ceil(n_passes);
            self.most_chunks::<T>(n_now, n_cells - n_now)
        };
        let n_passes = (1..=MOST_PASSES.min(n_cells)).find(|n| most(*n) >= 2).unwrap_or(1);
        let mut moments = Vec::with_capacity(n_cells);
        for pass in 0..n_passes {
            let cells = pass * n_cells / n_passes..(pass + 1) * n_cells / n_passes;
            let cell_of = |row| cell_of(row).filter(|cell| cells.contains(cell)).map(|cell| cell - cells.start);
            let at = |pass: usize| share.0 + (share.1 - share.0) * pass as f64 / n_passes as f64;
            moments.extend(self.some_moments(cells.len(), most(n_passes), cell_of, (at(pass), at(pass + 1)))?);
        }
        Ok(moments)
    }

    /// How many chunks may have moments of their own for `n_cells` cells, beside those of `n_kept` cells, which take half as
    /// much: with the rows that are collected, and with room for what BLAS and the allocator take, together no more than there
    /// is room for.
    fn most_chunks<T: Real>(&self, n_cells: usize, n_kept: usize) -> usize {
        let (n, p) = (self.rows.n_rows(), self.p());
        let room = room_for_sums(n, p) * 3 / 4;
        let square = p * p * size_of::<T>() / 8;
        room.saturating_sub(n_kept * square / 2) / ((square + Cells::<T>::capacity(n, p, n_cells) * p) * n_cells)
    }

    fn some_moments<T: Real>(
        &self,
        n_cells: usize,
        most: usize,
        cell_of: impl Fn(usize) -> Option<usize> + Sync,
        share: (f64, f64),
    ) -> Result<Vec<Moments<T>>, RidgeError> {
        let n = self.rows.n_rows();
        let cell_values = self.p() * self.p() * n_cells * size_of::<T>() / 8;
        // Enough rows in a cell make up for merging it; powers of two keep all threads busy.
        let n_chunks = most.min(n / (256 * n_cells)).clamp(2, 16).min(most.max(1));
        let chunks = self.chunks(1 << n_chunks.ilog2());
        let phase = self.run.phase(share.0, share.1, self.rows.n_blocks());
        let mut parts: Vec<Vec<Moments<T>>> = self.run.map(chunks.len(), self.is_small(), |c| {
            T::chunk_moments(self, chunks[c].clone(), n_cells, &cell_of, &phase)
        })?;
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        // By cell, each of which is taken once.
        let mut cells: Vec<_> = (0..n_cells).map(|_| Vec::with_capacity(parts.len())).collect();
        for part in parts {
            cells.iter_mut().zip(part).for_each(|(cell, part)| cell.push(part));
        }
        let cells: Vec<_> = cells.into_iter().map(Mutex::new).collect();
        let take = |cell: usize| std::mem::take(&mut *cells[cell].lock().unwrap_or_else(PoisonError::into_inner));
        self.run.map(n_cells, cell_values < SMALL, |cell| Ok(Moments::merge(take(cell))))
    }

    /// The exact range of each of (features.., target) over the rows with weight.
    pub(super) fn ranges(&self) -> Result<Vec<(f64, f64)>, RidgeError> {
        let p = self.p();
        let chunks = self.chunks(16);
        let parts = self.run.map(chunks.len(), self.is_small(), |c| {
            let (mut low, mut high) = (vec![f64::INFINITY; p], vec![f64::NEG_INFINITY; p]);
            for block in chunks[c].clone() {
                for_each_row(self.rows, block, |_, row| {
                    if self.columns.weight(row) > 0.0 {
                        for (at, run) in self.columns.parts() {
                            let place = at..at + run.len();
                            widen(&row[run], &mut low[place.clone()], &mut high[place]);
                        }
                    }
                })?;
                self.run.check()?;
            }
            Ok((low, high))
        })?;
        let mut ranges = vec![(f64::INFINITY, f64::NEG_INFINITY); p];
        for (low, high) in parts {
            for (range, (low, high)) in ranges.iter_mut().zip(low.into_iter().zip(high)) {
                *range = (range.0.min(low), range.1.max(high));
            }
        }
        Ok(ranges)
    }
}

simd::kernel! {
    /// Widens ranges to hold x.
    fn widen(x: &[f64], low: &mut [f64], high: &mut [f64]) {
        for (x, (low, high)) in x.iter().zip(low.iter_mut().zip(high)) {
            *low = if *x < *low { *x } else { *low };
            *high = if *x > *high { *x } else { *high };
        }
    }
}

/// The moments of some blocks' rows by cells.
pub(super) fn chunk_moments<T: Real>(
    source: &Source<'_>,
    blocks: Range<usize>,
    n_cells: usize,
    cell_of: &impl Fn(usize) -> Option<usize>,
    phase: &Phase<'_>,
) -> Result<Vec<Moments<T>>, RidgeError> {
    let mut cells = Cells::<T>::new(source, n_cells);
    for block in blocks {
        for_each_row(source.rows, block, |i, row| {
            let weight = source.columns.weight(row);
            if weight > 0.0
                && let Some(cell) = cell_of(i)
            {
                cells.push(cell, row, weight);
            }
        })?;
        phase.step()?;
    }
    Ok(cells.finish())
}

/// The same in double precision for rows of less than [`super::gram::WIDEST`] values.
pub(super) fn narrow_chunk_moments(
    source: &Source<'_>,
    blocks: Range<usize>,
    n_cells: usize,
    cell_of: &impl Fn(usize) -> Option<usize>,
    phase: &Phase<'_>,
) -> Result<Vec<Moments<f64>>, RidgeError> {
    let (n, p) = (source.rows.n_rows(), source.p());
    let capacity = rows_at_once(n * p, narrow::stride(p), n_cells, (256, 512));
    let mut cells = NarrowCells::new(source, n_cells, capacity);
    for block in blocks {
        cells.push_block(block, cell_of)?;
        phase.step()?;
    }
    Ok(cells.finish())
}

/// Rows on their way into the moments of their cells. They are collected until a block is worth multiplying.
struct Cells<'s, T> {
    source: &'s Source<'s>,
    /// See [`Columns::parts`].
    parts: Vec<(usize, Range<usize>)>,
    moments: Vec<GrowingMoments<T>>,
    blocks: Vec<Block>,
    /// Each cell's first row; the rows are kept as differences from it, so that constant columns vanish exactly and
    /// nothing cancels later.
    shifts: Vec<Vec<f64>>,
    /// A row that is gathered before it is stored.
    z: Vec<f64>,
}

impl<'s, T: Real> Cells<'s, T> {
    fn new(source: &'s Source<'s>, n_cells: usize) -> Self {
        let (n, p) = (source.rows.n_rows(), source.p());
        let capacity = Self::capacity(n, p, n_cells);
        Self {
            source,
            parts: source.columns.parts().collect(),
            moments: vec![GrowingMoments::new(0); n_cells],
            blocks: (0..n_cells).map(|_| Block::new::<T>(source.p(), capacity)).collect(),
            shifts: vec![Vec::new(); n_cells],
            z: vec![0.0; source.p()],
        }
    }

    /// How many rows of a cell are collected.
    fn capacity(n: usize, p: usize, n_cells: usize) -> usize {
        rows_at_once(n * p, T::stride(p), n_cells, if T::IS_DOUBLED { (1, 64) } else { (256, 512) })
    }

    fn push(&mut self, cell: usize, row: &[f64], weight: f64) {
        let (block, shift) = (&mut self.blocks[cell], &mut self.shifts[cell]);
        if shift.is_empty() {
            shift.resize(self.source.p(), 0.0);
            self.source.gather(row, shift);
            self.moments[cell] = GrowingMoments::new(self.source.p());
        }
        if T::IS_DOUBLED || self.source.is_scaled() {
            self.source.gather(row, &mut self.z);
            if T::IS_DOUBLED { block.set_exactly(&self.z, shift) } else { block.set(0, &self.z, shift) }
        } else {
            for (at, run) in &self.parts {
                block.set(*at, &row[run.clone()], &shift[*at..]);
            }
        }
        block.weights.push(weight);
        if block.is_full() {
            self.moments[cell].add_block(block, shift);
        }
    }

    fn finish(mut self) -> Vec<Moments<T>> {
        for ((moments, block), shift) in self.moments.iter_mut().zip(&mut self.blocks).zip(&self.shifts) {
            moments.add_block(block, shift);
        }
        self.moments.into_iter().map(GrowingMoments::finish).collect()
    }
}

/// How many rows of a cell are collected: so many that multiplying them pays, but few enough that all cells' blocks stay in
/// the cache unless the rows are long, and take no more than another copy of the rows however many cells there are.
fn rows_at_once(n_values: usize, stride: usize, n_cells: usize, (least, most): (usize, usize)) -> usize {
    const CACHED: usize = 1 << 18;
    let room = n_values.clamp(CACHED, MOST_VALUES) / (stride * n_cells);
    (CACHED / (stride * n_cells)).clamp(least, most).min(room).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_very_many_cells_take_no_more_than_the_rows() {
        for (n_rows, p, n_cells) in [(1_000_000, 2, 500_000), (1_000_000, 2, 4_000), (20_000, 21, 5_000), (500, 9, 250)]
        {
            let stride = narrow::stride(p);
            let taken = rows_at_once(n_rows * p, stride, n_cells, (256, 512)) * stride * n_cells;
            // One row of each cell must be there, in whole vectors.
            let most = (n_rows * p).max(1 << 18).max(n_cells * stride);
            assert!(taken <= most, "{n_rows} rows, {n_cells} cells: {taken}");
        }
        assert_eq!(rows_at_once(10_010_000, 1_008, 5, (256, 512)), 256);
        assert_eq!(rows_at_once(10_500_000, 24, 5, (256, 512)), 512);
    }
}
