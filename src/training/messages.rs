//! The engine's errors and warnings as sentences for the client: columns by name, rows by their place.

use super::Params;
use crate::ridge::{RidgeError, Warning};
use crate::table::shown;

/// What is wrong, in the client's terms; `place` says where row `row` stands.
pub(super) fn explain(
    error: &RidgeError,
    params: &Params,
    columns: &[String],
    place: impl Fn(usize) -> String,
) -> String {
    let name = |column: usize| shown(&columns[column]);
    let named = |column: &Option<String>| shown(column.as_deref().unwrap_or_default());
    match *error {
        RidgeError::NoFeatures => "data: there is no feature: every column has another role".to_owned(),
        RidgeError::ColumnUsedTwice { column } => {
            format!("column {} cannot be more than one of target, weight_column and fold_column", name(column))
        }
        RidgeError::TooFewFolds { n_folds } => format!("n_folds must be at least 2, but is {n_folds}"),
        RidgeError::TooFewRows { n_rows, n_folds } => {
            let wanted = if params.fold_column.is_some() { "fold_column needs" } else { "n_folds asks for" };
            format!("{wanted} at least {n_folds} rows, but the CSV has {n_rows}")
        }
        RidgeError::TooFewFoldValues { n_folds } => {
            format!(
                "fold_column: column {} must have at least 2 distinct values, but has {n_folds}",
                named(&params.fold_column)
            )
        }
        RidgeError::NoPenalties => "l2_coef must not be empty; leave it out for the automatic grid".to_owned(),
        RidgeError::InvalidPenalty { index, value } => {
            format!("l2_coef[{index}] must be a finite number of at least 0, but is {value:?}")
        }
        RidgeError::NegativeWeight { row, value } => {
            let column = named(&params.weight_column);
            format!("data: {}, column {column}: a weight must be at least 0, but is {value:?}", place(row))
        }
        RidgeError::FoldWithoutWeight { fold } => {
            format!("weight_column: all rows of fold {} have weight 0, so it has no error", fold + 1)
        }
        RidgeError::NonFinite { row, column, value } => {
            format!("data: {}, column {}: {value} is not a finite number", place(row), name(column))
        }
        RidgeError::Overflow { .. } => format!("data: {error}; scale the columns down"),
        // The shape and the columns were made by the service itself, so these are its own mistakes.
        _ => format!("training is not possible: {error}"),
    }
}

/// A warning in the client's terms.
pub(super) fn describe(warning: &Warning, columns: &[String]) -> String {
    const MOST: usize = 20;
    match warning {
        Warning::ConstantColumns { columns: constant } => {
            let names: Vec<String> = constant.iter().take(MOST).map(|&column| shown(&columns[column])).collect();
            let more =
                if constant.len() > MOST { format!(" and {} more", constant.len() - MOST) } else { String::new() };
            format!("columns with the same value in every row get the coefficient 0: {}{more}", names.join(", "))
        }
        other => other.to_string(),
    }
}
