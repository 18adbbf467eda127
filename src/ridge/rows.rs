//! Where the engine reads its rows: blocks of whole rows that can be visited several times.

use super::error::RidgeError;
use ndarray::ArrayView2;
use std::ops::Range;

/// What a source of rows may fail with while it reads.
pub type RowsError = Box<dyn std::error::Error + Send + Sync>;

/// Blocks of whole rows, always the same ones in the same order, readable several times and by several threads.
///
/// The partition into blocks is part of the input: sums are formed block by block, so the same rows in other blocks may
/// give results that differ in the last bits.
pub trait Rows: Sync {
    /// The number of rows.
    fn n_rows(&self) -> usize;
    /// The number of columns, the same in all rows.
    fn n_columns(&self) -> usize;
    /// The number of blocks that the rows come in.
    fn n_blocks(&self) -> usize;
    /// Calls `visit` once with the index of the block's first row and the block, of shape (rows of the block, `n_columns`).
    ///
    /// # Errors
    /// Whatever keeps the source from reading the block.
    fn visit_block(&self, block: usize, visit: &mut dyn FnMut(usize, ArrayView2<'_, f64>)) -> Result<(), RowsError>;
}

/// A row-major matrix in memory, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f64],
    n_columns: usize,
    rows_per_block: usize,
}

impl<'a> Matrix<'a> {
    /// The values of one block of a matrix in memory: 1 MiB of doubles.
    const BLOCK_VALUES: usize = 1 << 17;

    /// A matrix of `values.len() / n_columns` rows.
    ///
    /// # Errors
    /// [`RidgeError::UnevenRows`] if `n_columns` is zero or does not divide the number of values.
    pub fn new(values: &'a [f64], n_columns: usize) -> Result<Self, RidgeError> {
        if n_columns == 0 || !values.len().is_multiple_of(n_columns) {
            return Err(RidgeError::UnevenRows { n_values: values.len(), n_columns });
        }
        Ok(Self { values, n_columns, rows_per_block: Self::rows_per_block(n_columns) })
    }

    /// How many of its rows make a block, for so many columns. Another source that parts its rows likewise gets the same bits.
    #[must_use]
    pub fn rows_per_block(n_columns: usize) -> usize {
        (Self::BLOCK_VALUES / n_columns).clamp(16, 16_384)
    }

    fn rows_of_block(&self, block: usize) -> Range<usize> {
        let first = block * self.rows_per_block;
        first..(first + self.rows_per_block).min(self.n_rows())
    }
}

impl Rows for Matrix<'_> {
    fn n_rows(&self) -> usize {
        self.values.len() / self.n_columns
    }

    fn n_columns(&self) -> usize {
        self.n_columns
    }

    fn n_blocks(&self) -> usize {
        self.n_rows().div_ceil(self.rows_per_block)
    }

    fn visit_block(&self, block: usize, visit: &mut dyn FnMut(usize, ArrayView2<'_, f64>)) -> Result<(), RowsError> {
        let rows = self.rows_of_block(block);
        let values = &self.values[rows.start * self.n_columns..rows.end * self.n_columns];
        visit(rows.start, ArrayView2::from_shape((rows.len(), self.n_columns), values)?);
        Ok(())
    }
}

/// Calls `visit` with the index and the values of every row of a block, in order.
pub(super) fn for_each_row(
    rows: &dyn Rows,
    block: usize,
    mut visit: impl FnMut(usize, &[f64]),
) -> Result<(), RidgeError> {
    let n_columns = rows.n_columns();
    rows.visit_block(block, &mut |first, view| {
        let view = view.as_standard_layout();
        let values = view.as_slice().unwrap_or_default();
        for (i, row) in values.chunks_exact(n_columns).enumerate() {
            visit(first + i, row);
        }
    })
    .map_err(RidgeError::Rows)
}
