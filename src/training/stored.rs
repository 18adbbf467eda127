//! The rows of a stored dataset for the engine: read chunk by chunk, so that only one is held at a time.

use std::sync::{Mutex, PoisonError};

use diesel::QueryResult;
use diesel::pg::PgConnection;
use ndarray::ArrayView2;

use crate::db;
use crate::db::datasets::{self, Shape};
use crate::ridge::{Rows, RowsError};

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
    /// The rows of a dataset.
    ///
    /// # Errors
    /// Those of the database; `NotFound` when the dataset was deleted meanwhile.
    pub fn new(conn: &'a mut PgConnection, shape: &Shape) -> QueryResult<Self> {
        let n_columns = shape.column_names.len();
        let mut first_rows = vec![0];
        let mut n_rows = 0;
        for n_cells in datasets::chunk_sizes(conn, shape.id)? {
            n_rows += n_cells / n_columns;
            first_rows.push(n_rows);
        }
        if n_rows as i64 != shape.n_rows {
            return Err(diesel::result::Error::NotFound);
        }
        Ok(Self { conn: Mutex::new(conn), dataset_id: shape.id, n_columns, first_rows })
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
