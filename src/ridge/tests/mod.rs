//! Larger tests of the engine.
#![allow(clippy::unwrap_used, reason = "tests")]

mod digits;
mod exact;
mod extremes;
mod narrow;
mod nist;
mod random;
mod rank;
mod steering;
mod switches;
mod wide;

use super::{Control, Folds, Loss, Matrix, Params, Report, RidgeError, Threads, cross_validate};
use std::sync::atomic::AtomicBool;

/// Parameters with an intercept, loss mean, no weights.
pub(super) fn params(folds: Folds, penalties: &[f64]) -> Params {
    Params {
        target: 0,
        weight: None,
        folds,
        fit_intercept: true,
        loss: Loss::Mean,
        standardize: false,
        penalties: Some(penalties.to_vec()),
    }
}

/// Leave-one-out of `n` rows.
fn leave_one_out(n: usize) -> Folds {
    Folds::Random { n_folds: n, seed: 0 }
}

fn run_on(values: &[f64], n_columns: usize, params: Params, n_threads: usize) -> Result<Report, RidgeError> {
    let rows = Matrix::new(values, n_columns)?;
    let params = params.check(values.len() / n_columns, n_columns)?;
    params.check_rows(&rows)?;
    let stop = AtomicBool::new(false);
    cross_validate(&rows, &params, &Control { threads: &Threads::new(n_threads), stop: &stop, progress: &|_| () })
}

/// The report for a row-major matrix.
fn run(values: &[f64], n_columns: usize, params: Params) -> Report {
    run_on(values, n_columns, params, 2).unwrap()
}

/// |found - expected| relative to the expected size; NaN stays NaN.
fn relative(found: f64, expected: f64) -> f64 {
    let difference = (found - expected).abs();
    if difference == 0.0 { 0.0 } else { difference / expected.abs() }
}
