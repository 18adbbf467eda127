//! How much memory the engine takes beside the rows. A program of its own, because its allocator counts what is in use; BLAS's
//! buffers of a few MB for each thread, whatever the rows, are not among that.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use peak_alloc::PeakAlloc;
use ridgeline::ridge::{Control, Folds, Loss, Matrix, Params, Threads, cross_validate};
use std::sync::atomic::AtomicBool;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Row-major (y, x..) of a linear model with noise, from a fixed sequence.
fn data(n_rows: usize, n_features: usize) -> Vec<f64> {
    let mut state = 1_u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    };
    let mut values = vec![0.0; n_rows * (n_features + 1)];
    for row in values.chunks_exact_mut(n_features + 1) {
        row[1..].iter_mut().for_each(|x| *x = uniform());
        row[0] = row[1..].iter().sum::<f64>() + uniform();
    }
    values
}

/// The bytes that a run takes at most, beside its rows, per byte of those.
fn copies(values: &[f64], n_rows: usize, n_folds: usize, n_penalties: i32) -> f64 {
    let rows = Matrix::new(values, values.len() / n_rows).unwrap();
    let params = Params {
        target: 0,
        weight: None,
        folds: Folds::Random { n_folds, seed: 1 },
        fit_intercept: true,
        loss: Loss::Mean,
        standardize: false,
        penalties: Some((0..n_penalties).map(|i| 10.0_f64.powi(i - 8)).collect()),
    };
    let params = params.check(n_rows, values.len() / n_rows).unwrap();
    let control = Control { threads: &Threads::new(2), stop: &AtomicBool::new(false), progress: &|_| () };
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    cross_validate(&rows, &params, &control).unwrap();
    (ALLOCATOR.peak_usage() - before) as f64 / size_of_val(values) as f64
}

#[test]
fn beside_the_rows_the_engine_takes_no_more_than_another_copy_of_them() {
    let taken = [
        ("medium", 20_000, 100, 10, 20),
        ("tall", 500_000, 20, 5, 10),
        ("square", 10_000, 1_000, 5, 10),
        ("wide", 500, 10_000, 5, 10),
        ("leave-one-out", 5_000, 50, 5_000, 10),
    ]
    .map(|(shape, n, d, n_folds, n_penalties)| (shape, copies(&data(n, d), n, n_folds, n_penalties)));
    assert!(taken.iter().all(|(_, copies)| *copies <= 1.0), "{taken:.2?}");
}
