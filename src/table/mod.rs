//! Tables of numbers and their CSV. No I/O: text in, numbers out, and back.

mod cells;
mod csv;
mod digits;
mod encoded;
mod error;
mod packed;
mod pieces;
mod reader;
mod statistics;
mod writer;

pub use csv::read;
pub use encoded::{Encoded, cell_bytes};
pub use error::CsvError;
pub(crate) use error::shown;

pub use pieces::{Piece, Pieces};
pub use reader::{Header, ReadError, Reader};
pub use statistics::{ColumnStatistics, Statistics};
pub use writer::{print_header, print_rows};

/// Named columns of finite numbers, row after row.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    columns: Vec<String>,
    cells: Vec<f64>,
}

impl Table {
    /// A table of shape `(cells.len() / columns.len(), columns.len())`, row-major; `None` if the cells do not fill whole rows.
    pub fn new(columns: Vec<String>, cells: Vec<f64>) -> Option<Self> {
        (!columns.is_empty() && cells.len().is_multiple_of(columns.len())).then_some(Self { columns, cells })
    }

    /// The columns' names, in order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// All cells, row after row.
    pub fn cells(&self) -> &[f64] {
        &self.cells
    }

    /// The number of rows.
    pub fn n_rows(&self) -> usize {
        self.cells.len() / self.columns.len()
    }

    /// What each column is like.
    pub fn statistics(&self) -> Statistics {
        let mut statistics = Statistics::new(self.n_columns());
        statistics.add(&self.cells);
        statistics
    }

    /// The number of columns.
    pub fn n_columns(&self) -> usize {
        self.columns.len()
    }
}
