//! What is wrong with a CSV, and where.

use super::pieces::LONGEST_RECORD;
use super::reader::{LONGEST_HEADER, MOST_COLUMNS};

/// Why a CSV is refused. Lines count from 1 at the header, columns from 0; `Display` counts columns from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsvError {
    /// There is not even a header.
    #[error("the CSV is empty: it needs a header line with the column names")]
    Empty,
    /// A quote that opens a cell is never closed.
    #[error("line {line}, column {}: the quote that opens the cell is never closed", column + 1)]
    UnclosedQuote {
        /// The line on which the cell begins.
        line: usize,
        /// The cell's column.
        column: usize,
    },
    /// Something other than a comma follows a quoted cell.
    #[error("line {line}, column {}: a quoted cell must end at a comma or at the end of the line", column + 1)]
    TextAfterQuote {
        /// The line.
        line: usize,
        /// The cell's column.
        column: usize,
    },
    /// A line is ended by a carriage return alone.
    #[error("line {line}, column {}: a carriage return must be followed by a line feed", column + 1)]
    BareCarriageReturn {
        /// The line, as far as line feeds tell.
        line: usize,
        /// The cell's column.
        column: usize,
    },
    /// The header has more columns than anybody trains on.
    #[error("the header has more than {MOST_COLUMNS} columns")]
    TooManyColumns,
    /// The names are longer than the database can keep.
    #[error("the column names are longer than {LONGEST_HEADER} bytes in all")]
    HeaderTooLong,
    /// A column has no name.
    #[error("line {line}: column {} has no name", column + 1)]
    UnnamedColumn {
        /// The header's line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// Two columns have the same name.
    #[error("line {line}: columns {} and {} are both called {}", first + 1, second + 1, shown(name))]
    DuplicateColumn {
        /// The header's line.
        line: usize,
        /// The name.
        name: String,
        /// The first column of that name.
        first: usize,
        /// The second.
        second: usize,
    },
    /// A column name holds a NUL character, which PostgreSQL cannot store.
    #[error("line {line}: the name of column {} holds a NUL character", column + 1)]
    NulInName {
        /// The header's line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// Columns that are needed are not there.
    #[error("the CSV lacks the {}", list_columns(names))]
    MissingColumns {
        /// Their names.
        names: Vec<String>,
    },
    /// A row has fewer cells than the header.
    #[error(
        "line {line} has {found} cell{}, but the header has {expected} columns: the cell of column {} is missing",
        if *found == 1 { "" } else { "s" },
        shown(next)
    )]
    MissingCells {
        /// The row's line.
        line: usize,
        /// The header's number of columns.
        expected: usize,
        /// The row's number of cells.
        found: usize,
        /// The first column without a cell.
        next: String,
    },
    /// A row has more cells than the header.
    #[error("line {line} has more cells than the header, which has {expected} column{}", if *expected == 1 { "" } else { "s" })]
    ExtraCells {
        /// The row's line.
        line: usize,
        /// The header's number of columns.
        expected: usize,
    },
    /// A row is longer than is held at once: more likely than not a quote in it is never closed.
    #[error("line {line}: the row that begins here is longer than {LONGEST_RECORD} bytes")]
    RecordTooLong {
        /// The line on which it begins.
        line: usize,
    },
    /// A cell does not hold what it should.
    #[error("line {line}, column {}: {reason}", shown(column))]
    BadCell {
        /// The row's line.
        line: usize,
        /// The column's name.
        column: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A name or cell for a message: quoted, control characters escaped, not longer than a line of text.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let cut: String = text.chars().take(MOST).collect();
    let dots = if cut.len() < text.len() { ".." } else { "" };
    format!("{cut:?}{dots}")
}

/// "column "a"" or "columns "a", "b" and 3 more".
fn list_columns(names: &[String]) -> String {
    const MOST: usize = 5;
    let listed: Vec<String> = names.iter().take(MOST).map(|name| shown(name)).collect();
    let noun = if names.len() == 1 { "column" } else { "columns" };
    match names.len().saturating_sub(MOST) {
        0 => format!("{noun} {}", listed.join(", ")),
        more => format!("{noun} {} and {more} more", listed.join(", ")),
    }
}
