//! What can be wrong in the data.

use super::{
    columns::Columns,
    error::RidgeError,
    folds::Partition,
    params::{Folds, ValidParams},
    rows::{Rows, for_each_row},
};
use std::collections::HashMap;

/// See [`ValidParams::check_rows`].
pub(super) fn check_rows(params: &ValidParams, rows: &dyn Rows) -> Result<(), RidgeError> {
    check_shape(params, rows)?;
    match params.params.folds {
        Folds::Column(column) => check_fold_values(params, rows, column),
        Folds::Random { .. } => {
            check_cells(params, rows)?;
            check_fold_weights(params, rows, &Partition::new(params, rows)?)
        }
    }
}

/// [`check_cells`], and that there are enough folds, each with weight: in one pass, and without a list of the rows' folds.
fn check_fold_values(params: &ValidParams, rows: &dyn Rows, column: usize) -> Result<(), RidgeError> {
    let columns = Columns::new(&params.params, params.n_columns);
    let mut has_weight = HashMap::new();
    check_each_row(params, rows, |row| {
        // Adding zero makes -0.0 and 0.0 the same fold.
        let has: &mut bool = has_weight.entry((row[column] + 0.0).to_bits()).or_default();
        *has |= columns.weight(row) > 0.0;
    })?;
    if has_weight.len() < 2 {
        return Err(RidgeError::TooFewFoldValues { n_folds: has_weight.len() });
    }
    let value = |(bits, _): (&u64, &bool)| f64::from_bits(*bits);
    match has_weight.iter().filter(|(_, has)| !**has).map(value).min_by(f64::total_cmp) {
        Some(empty) => {
            let fold = has_weight.iter().map(value).filter(|other| other.total_cmp(&empty).is_lt()).count();
            Err(RidgeError::FoldWithoutWeight { fold })
        }
        None => Ok(()),
    }
}

/// That the rows have the shape that the parameters were checked for.
pub(super) fn check_shape(params: &ValidParams, rows: &dyn Rows) -> Result<(), RidgeError> {
    let (n_rows, n_columns) = (rows.n_rows(), rows.n_columns());
    if (n_rows, n_columns) == (params.n_rows, params.n_columns) {
        Ok(())
    } else {
        Err(RidgeError::ShapeMismatch { n_rows, n_columns })
    }
}

/// That all cells are finite and no weight is negative; the first wrong one in row order.
pub(super) fn check_cells(params: &ValidParams, rows: &dyn Rows) -> Result<(), RidgeError> {
    check_each_row(params, rows, |_| ())
}

/// The same, and shows `visit` the rows up to the first wrong one.
fn check_each_row(params: &ValidParams, rows: &dyn Rows, mut visit: impl FnMut(&[f64])) -> Result<(), RidgeError> {
    let weight = params.params.weight;
    let mut wrong = None;
    for block in 0..rows.n_blocks() {
        for_each_row(rows, block, |row, values| {
            if wrong.is_some() {
                return;
            }
            // The product with zero is zero exactly if all values are finite, and the sum has no branch.
            let is_finite = values.iter().fold(0.0, |sum, v| sum + v * 0.0) >= 0.0;
            if !is_finite && let Some(column) = values.iter().position(|v| !v.is_finite()) {
                wrong = Some(RidgeError::NonFinite { row, column, value: values[column] });
            } else if let Some(c) = weight
                && values[c] < 0.0
            {
                wrong = Some(RidgeError::NegativeWeight { row, value: values[c] });
            } else {
                visit(values);
            }
        })?;
        if let Some(error) = wrong {
            return Err(error);
        }
    }
    Ok(())
}

/// That every fold has a row with a positive weight, so that every fold's error is defined and every training part
/// has weight.
pub(super) fn check_fold_weights(
    params: &ValidParams,
    rows: &dyn Rows,
    partition: &Partition,
) -> Result<(), RidgeError> {
    if params.params.weight.is_none() {
        return Ok(());
    }
    let columns = Columns::new(&params.params, params.n_columns);
    let mut has_weight = vec![false; partition.n_folds()];
    let mut is_wrong = false;
    for block in 0..rows.n_blocks() {
        for_each_row(rows, block, |row, values| {
            let weight = columns.weight(values);
            has_weight[partition.fold_of(row)] |= weight > 0.0;
            is_wrong |= !(weight.is_finite() && weight >= 0.0);
        })?;
    }
    if is_wrong {
        check_cells(params, rows)?;
    }
    match has_weight.iter().position(|has| !has) {
        Some(fold) => Err(RidgeError::FoldWithoutWeight { fold }),
        None => Ok(()),
    }
}
