//! Progress and the stop flag.

use super::super::{Control, Folds, Matrix, RidgeError, cross_validate};
use super::params;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn progress_never_falls_and_a_stop_ends_the_run_at_the_next_step() {
    let values: Vec<f64> = (0..8000).map(|i| f64::from(i * i % 101)).collect();
    let rows = Matrix::new(&values, 4).unwrap();
    let given = params(Folds::Random { n_folds: 5, seed: 0 }, &[0.0, 1.0]);
    let given = given.check(2000, 4).unwrap();
    let (stop, seen) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let progress = |done: f64| seen.lock().unwrap().push(done);
    let control = Control { n_threads: 2, stop: &stop, progress: &progress };
    cross_validate(&rows, &given, &control).unwrap();
    {
        let seen = seen.lock().unwrap();
        assert!(seen.first() == Some(&0.0) && seen.last() == Some(&1.0) && seen.len() > 5);
        assert!(seen.windows(2).all(|w| w[0] < w[1]));
    }
    // Raised from within, at the first report past the start.
    let progress = |done: f64| stop.store(done > 0.0, Ordering::Relaxed);
    let stopped = cross_validate(&rows, &given, &Control { progress: &progress, ..control });
    assert!(matches!(stopped, Err(RidgeError::Stopped)), "{stopped:?}");
}
