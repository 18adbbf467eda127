//! The rows of a dataset for the engine: those that are stored are read chunk by chunk, so that only one is held at a time.

use std::sync::{Mutex, PoisonError};

use diesel::QueryResult;
use diesel::pg::PgConnection;
use ndarray::ArrayView2;

use crate::db;
use crate::db::datasets;
use crate::ridge::{Matrix, Rows, RowsError};

/// Bytes of a chunk, about.
const CHUNK_BYTES: usize = 4 << 20;

/// How many rows of so many columns make a chunk of a dataset: whole blocks of the engine, and at least one.
#[must_use]
pub fn rows_per_chunk(n_columns: usize) -> usize {
    let block = Matrix::rows_per_block(n_columns);
    block * (CHUNK_BYTES / 8 / (block * n_columns)).max(1)
}

/// The rows of a dataset in the database. A block is a chunk.
pub struct StoredRows<'a> {
    /// One block is read at a time, whoever asks.
    conn: Mutex<&'a mut PgConnection>,
    dataset_id: i32,
    n_columns: usize,
    /// The first row of each chunk, and at last the number of all rows.
    first_rows: Vec<usize>,
}

impl<'a> StoredRows<'a> {
    /// The `n_rows` rows of a dataset.
    ///
    /// # Errors
    /// Those of the database; `NotFound` when the dataset was deleted meanwhile.
    pub fn new(conn: &'a mut PgConnection, dataset_id: i32, n_columns: usize, n_rows: usize) -> QueryResult<Self> {
        let mut first_rows = vec![0];
        let mut n_stored = 0;
        for n_cells in datasets::chunk_sizes(conn, dataset_id)? {
            n_stored += n_cells / n_columns;
            first_rows.push(n_stored);
        }
        if n_stored != n_rows {
            return Err(diesel::result::Error::NotFound);
        }
        Ok(Self { conn: Mutex::new(conn), dataset_id, n_columns, first_rows })
    }
}

impl Rows for StoredRows<'_> {
    fn n_rows(&self) -> usize {
        self.first_rows[self.n_blocks()]
    }

    fn n_columns(&self) -> usize {
        self.n_columns
    }

    fn n_blocks(&self) -> usize {
        self.first_rows.len() - 1
    }

    fn visit_block(&self, block: usize, visit: &mut dyn FnMut(usize, ArrayView2<'_, f64>)) -> Result<(), RowsError> {
        let mut conn = self.conn.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = datasets::chunk(&mut conn, self.dataset_id, block as i32).map_err(db::Error::from)?;
        drop(conn);
        let shape = (cells.len() / self.n_columns, self.n_columns);
        visit(self.first_rows[block], ArrayView2::from_shape(shape, &cells)?);
        Ok(())
    }
}

/// Rows that are held in chunks: all of [`rows_per_chunk`] rows, but for the last one.
#[derive(Debug, Clone, Copy)]
pub struct HeldRows<'a> {
    chunks: &'a [Vec<f64>],
    n_columns: usize,
}

impl<'a> HeldRows<'a> {
    /// Those of chunks with row-major cells.
    #[must_use]
    pub fn new(chunks: &'a [Vec<f64>], n_columns: usize) -> Self {
        Self { chunks, n_columns }
    }
}

impl Rows for HeldRows<'_> {
    fn n_rows(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len() / self.n_columns).sum()
    }

    fn n_columns(&self) -> usize {
        self.n_columns
    }

    fn n_blocks(&self) -> usize {
        self.chunks.len()
    }

    fn visit_block(&self, block: usize, visit: &mut dyn FnMut(usize, ArrayView2<'_, f64>)) -> Result<(), RowsError> {
        let shape = (self.chunks[block].len() / self.n_columns, self.n_columns);
        visit(block * rows_per_chunk(self.n_columns), ArrayView2::from_shape(shape, &self.chunks[block])?);
        Ok(())
    }
}
