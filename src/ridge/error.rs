//! What can be wrong with parameters and rows, and what can end a run. The variants carry data, the sentences no names.

use super::rows::RowsError;

/// Why the engine refuses its input or ends without a result. Rows, columns, penalties and folds are indices from 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RidgeError {
    /// The values do not make up whole rows.
    #[error("{n_values} values do not make rows of {n_columns} columns")]
    UnevenRows {
        /// How many values there are.
        n_values: usize,
        /// How many columns a row should have.
        n_columns: usize,
    },
    /// Target, weight or fold column is not one of the columns.
    #[error("column {column} does not exist: there are {n_columns} columns")]
    NoSuchColumn {
        /// The column asked for.
        column: usize,
        /// How many columns there are.
        n_columns: usize,
    },
    /// One column was given two roles out of target, weight and fold.
    #[error("column {column} has more than one role")]
    ColumnUsedTwice {
        /// The column.
        column: usize,
    },
    /// Every column is target, weight or fold.
    #[error("there are no feature columns")]
    NoFeatures,
    /// Fewer than two folds were asked for.
    #[error("{n_folds} folds: cross-validation needs at least 2")]
    TooFewFolds {
        /// The number of folds asked for.
        n_folds: usize,
    },
    /// More folds than rows.
    #[error("{n_rows} rows cannot make {n_folds} folds")]
    TooFewRows {
        /// How many rows there are.
        n_rows: usize,
        /// The number of folds asked for.
        n_folds: usize,
    },
    /// The list of penalties is empty.
    #[error("the list of penalties is empty")]
    NoPenalties,
    /// A penalty is negative, infinite or not a number.
    #[error("penalty {index} is {value}: penalties are finite and not negative")]
    InvalidPenalty {
        /// Its place in the list.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// A cell is infinite or not a number.
    #[error("the value {value} in row {row}, column {column} is not finite")]
    NonFinite {
        /// The row.
        row: usize,
        /// The column.
        column: usize,
        /// The value.
        value: f64,
    },
    /// A weight is negative.
    #[error("the weight {value} in row {row} is negative")]
    NegativeWeight {
        /// The row.
        row: usize,
        /// The weight.
        value: f64,
    },
    /// The fold column has fewer than two distinct values.
    #[error("the fold column has {n_folds} distinct values: cross-validation needs at least 2")]
    TooFewFoldValues {
        /// How many distinct values it has.
        n_folds: usize,
    },
    /// All rows of a fold have weight zero, so its error is not defined.
    #[error("all rows of fold {fold} have weight zero")]
    FoldWithoutWeight {
        /// The fold; for leave-one-out also the row.
        fold: usize,
    },
    /// The rows that were read do not have the shape that the parameters were checked for.
    #[error("the rows have shape ({n_rows}, {n_columns}), not the one that was checked")]
    ShapeMismatch {
        /// Rows that there are.
        n_rows: usize,
        /// Columns that there are.
        n_columns: usize,
    },
    /// A result is outside the range of doubles.
    #[error("{what} is outside the range of 64-bit floating-point numbers (penalty {penalty})")]
    Overflow {
        /// What would have overflowed.
        what: &'static str,
        /// The penalty at which it happened.
        penalty: f64,
    },
    /// A LAPACK routine gave up; not known to happen on finite input.
    #[error("the linear algebra library failed")]
    Linalg(#[from] ndarray_linalg::error::LinalgError),
    /// The source of the rows failed.
    #[error("the rows could not be read")]
    Rows(#[source] RowsError),
    /// The stop flag was raised.
    #[error("stopped")]
    Stopped,
}
