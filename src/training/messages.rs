//! The engine's errors and warnings as sentences for the client: columns by name, rows by their place.

use super::Params;
use crate::ridge::{RidgeError, Warning};
use crate::table::{Table, shown};

/// What is wrong, in the client's terms; `place` says where row `row` stands.
pub(super) fn explain(error: &RidgeError, params: &Params, table: &Table, place: impl Fn(usize) -> String) -> String {
    let name = |column: usize| shown(&table.columns()[column]);
    match *error {
        RidgeError::NoFeatures => {
            "the CSV has no feature: every column is the target, the weight or the fold".to_owned()
        }
        RidgeError::ColumnWithTwoRoles { column } => {
            format!("column {} cannot be two of target, weight_column and fold_column", name(column))
        }
        RidgeError::TooFewFolds { n_folds } => format!("n_folds must be at least 2, but is {n_folds}"),
        RidgeError::TooFewSamples { n_rows, n_folds } => {
            format!("n_folds is {n_folds}, but the CSV has only {n_rows} row{}", if n_rows == 1 { "" } else { "s" })
        }
        RidgeError::NoPenalties => "l2_coef must not be empty; leave it out for the automatic grid".to_owned(),
        RidgeError::InvalidPenalty { index, value } => {
            format!("l2_coef[{index}] must be a finite number of at least 0, but is {value:?}")
        }
        RidgeError::NegativeWeight { row, value } => {
            let column = params.weight_column.as_deref().map(shown).unwrap_or_default();
            format!("{}, column {column}: a weight must be at least 0, but is {value:?}", place(row))
        }
        _ => error.to_string(),
    }
}

/// A warning in the client's terms.
pub(super) fn describe(warning: &Warning, table: &Table) -> String {
    match warning {
        Warning::ConstantColumns { columns } => {
            let names: Vec<String> = columns.iter().map(|&column| shown(&table.columns()[column])).collect();
            format!("constant columns carry no information: {}", names.join(", "))
        }
    }
}
