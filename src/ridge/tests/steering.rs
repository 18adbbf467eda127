//! Progress and the stop flag.

use super::super::{Control, Folds, Matrix, RidgeError, Threads, cross_validate};
use super::params;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn progress_never_falls_and_a_stop_ends_the_run_at_the_next_step() {
    let values: Vec<f64> = (0..8000).map(|i| f64::from(i * i % 101)).collect();
    let rows = Matrix::new(&values, 4).unwrap();
    let given = params(Folds::Random { n_folds: 5, seed: 0 }, &[0.0, 1.0]);
    let given = given.check(2000, 4).unwrap();
    let (stop, seen) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let progress = |done: f64| seen.lock().unwrap().push(done);
    let control = Control { threads: &Threads::new(2), stop: &stop, progress: &progress };
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

#[test]
fn a_stop_ends_the_largest_runs_in_a_fraction_of_their_time() {
    // Square and tall data, on one thread; uniform numbers, y their sum.
    for (n, d) in [(10_000, 1_000), (500_000, 20)] {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut values: Vec<f64> = (0..n * (d + 1)).map(|_| uniform()).collect();
        values.chunks_exact_mut(d + 1).for_each(|row| row[0] += row[1..].iter().sum::<f64>());
        let rows = Matrix::new(&values, d + 1).unwrap();
        let penalties: Vec<f64> = (0..10).map(|i| 10.0_f64.powi(i - 5)).collect();
        let given = params(Folds::Random { n_folds: 5, seed: 0 }, &penalties).check(n, d + 1).unwrap();
        // The time from the stop to the end of a run, and whether it was stopped.
        let run_until = |after: Duration| {
            let stop = AtomicBool::new(false);
            let control = Control { threads: &Threads::new(1), stop: &stop, progress: &|_| () };
            std::thread::scope(|scope| {
                let stopped_at = scope.spawn(|| {
                    std::thread::sleep(after);
                    stop.store(true, Ordering::Relaxed);
                    Instant::now()
                });
                let found = cross_validate(&rows, &given, &control);
                let ended_at = Instant::now();
                let stopped_at = stopped_at.join().unwrap();
                (ended_at.saturating_duration_since(stopped_at), matches!(found, Err(RidgeError::Stopped)))
            })
        };
        let start = Instant::now();
        let control = Control { threads: &Threads::new(1), stop: &AtomicBool::new(false), progress: &|_| () };
        cross_validate(&rows, &given, &control).unwrap();
        let whole = start.elapsed();
        // Whatever it is doing.
        let stopped: Vec<_> = (0..8).map(|i| run_until(whole * i / 10)).collect();
        assert!(
            stopped.iter().filter(|(_, is_stopped)| *is_stopped).count() >= 2,
            "{n} rows: {stopped:?} of {whole:?}"
        );
        // A machine that is busy with other tests may take its time; the run's own share of it says how much.
        let most = (whole / 2).clamp(Duration::from_millis(50), Duration::from_secs(1).max(whole / 4));
        assert!(stopped.iter().all(|(after, _)| *after <= most), "{n} rows: {stopped:?} of {whole:?}");
    }
}
