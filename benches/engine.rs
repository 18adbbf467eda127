//! The engine on the sets of `docs/engine.md`.
//!
//! `cargo bench --bench engine` measures it on data made here (divan). `script/bench-engine` calls the same program:
//! - `engine measure FILE ROWS FOLDS PENALTIES` prints the median seconds of a run on a file of doubles, the best penalty, its mean MSE, and the
//!   peak memory of a run beside the matrix and what a process takes once, in copies of the matrix;
//! - `engine limit ROWS COLUMNS FOLDS PENALTIES` prints the seconds of the shape's plain limit;
//! - `engine digits FOLDER` prints the correct digits on the sets of a folder, as `docs/engine.md` shows them.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a program for the developer")]

#[path = "../src/ridge/tests/digits.rs"]
mod digits;

use digits::digits;
use ndarray::Array2;
use ndarray_linalg::{Cholesky, UPLO};
use ridgeline::ridge::{Control, Folds, Loss, Matrix, Params, Report, Threads, allocator, blas, cross_validate};
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Rows, columns (features), folds, penalties.
const SETS: [(&str, usize, usize, usize, usize); 6] = [
    ("medium", 20_000, 100, 10, 20),
    ("tall", 500_000, 20, 5, 10),
    ("square", 10_000, 1_000, 5, 10),
    ("wide", 500, 10_000, 5, 10),
    ("leave-one-out", 5_000, 50, 5_000, 10),
    ("small", 442, 10, 5, 10),
];

/// Penalties from 1e-3 to 1e3 for the sum of squares, scikit-learn's alpha.
fn penalties(n: usize) -> Vec<f64> {
    (0..n).map(|i| 10.0_f64.powf(-3.0 + 6.0 * i as f64 / (n - 1) as f64)).collect()
}

/// As a worker does, which keeps its threads.
static THREADS: LazyLock<Threads> = LazyLock::new(|| Threads::new(0));

fn run(values: &[f64], n_rows: usize, n_folds: usize, n_penalties: usize) -> Report {
    let rows = Matrix::new(values, values.len() / n_rows).unwrap();
    let params = Params {
        target: 0,
        weight: None,
        folds: Folds::Random { n_folds, seed: 1 },
        fit_intercept: true,
        loss: Loss::Sum,
        standardize: false,
        penalties: Some(penalties(n_penalties)),
    };
    let params = params.check(n_rows, values.len() / n_rows).unwrap();
    let stop = AtomicBool::new(false);
    cross_validate(&rows, &params, &Control { threads: &THREADS, stop: &stop, progress: &|_| () }).unwrap()
}

/// y = <x, w> + 3 + noise, all standard normal, from a fixed sequence; row-major (y, x..).
fn data(n_rows: usize, n_features: usize) -> Vec<f64> {
    let mut state = 1_u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    let mut normal = move || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    let w: Vec<f64> = (0..n_features).map(|_| normal()).collect();
    let mut values = Vec::with_capacity(n_rows * (n_features + 1));
    for _ in 0..n_rows {
        let at = values.len();
        values.push(3.0 + normal());
        for w in &w {
            let x = normal();
            values.push(x);
            values[at] += w * x;
        }
    }
    values
}

#[divan::bench(args = SETS.map(|set| set.0), sample_count = 10)]
fn set(bencher: divan::Bencher<'_, '_>, name: &str) {
    let (_, n, d, folds, penalties) = SETS.into_iter().find(|set| set.0 == name).unwrap();
    let values = data(n, d);
    bencher.bench(|| run(&values, n, folds, penalties));
}

/// The median of repeated timings, at least 5 and for about 3 seconds.
fn median(mut task: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || (start.elapsed().as_secs_f64() < 3.0 && times.len() < 1000) {
        let start = Instant::now();
        task();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn measure(file: &str, n_rows: usize, n_folds: usize, n_penalties: usize) {
    let bytes = std::fs::read(file).unwrap();
    let values: Vec<f64> = bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    drop(bytes);
    // What the first run takes once, for code and BLAS's buffers, is not the rows'.
    let (n_few, d_few) = (5_000, 25);
    drop(run(&data(n_few, d_few), n_few, if n_folds == n_rows { n_few } else { n_folds }, n_penalties));
    allocator::give_back();
    // The peak from here on; where there is no /proc, 0 is printed.
    std::fs::write("/proc/self/clear_refs", "5").unwrap_or_default();
    let before = memory("VmRSS:");
    let report = run(&values, n_rows, n_folds, n_penalties);
    let copies = (memory("VmHWM:") - before) / (8 * values.len()) as f64;
    let seconds = median(|| drop(run(&values, n_rows, n_folds, n_penalties)));
    println!("{seconds} {} {:.17e} {copies}", report.cv[report.best].penalty, report.cv[report.best].mean_mse);
}

/// A line of the process's status in bytes.
fn memory(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).map_or(0.0, |kib| 1024.0 * kib)
}

/// One dsyrk of all rows at the measured rate of dgemm, reading the matrix once, and the factorisations, all on two threads.
fn limit(n: usize, d: usize, n_folds: usize, n_penalties: usize) {
    blas::use_one_thread();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
    let size = 1000;
    let a = Array2::from_shape_fn((size, size), |(i, j)| ((i * 7 + j * 3) % 11) as f64);
    let rate = cores * 2.0 * (size as f64).powi(3) / median(|| drop(std::hint::black_box(a.dot(&a))));
    let values = vec![1.0_f64; n * d];
    let read = median(|| {
        let half = values.len() / 2;
        std::thread::scope(|scope| {
            scope.spawn(|| std::hint::black_box(lanes(&values[half..])));
            std::hint::black_box(lanes(&values[..half]));
        });
    });
    let m = n.min(d);
    let syrk = (n * d) as f64 * m as f64 / rate;
    let a = Array2::from_shape_fn((m, m), |(i, j)| if i == j { 3.0 } else { 1.0 / (1.0 + i as f64 + j as f64) });
    // Leave-one-out needs one factorisation for each penalty, not one for each fold.
    let factorisations = if n_folds == n { n_penalties } else { n_folds * n_penalties } + 1;
    // It needs the leverages of all rows too, one product with a matrix of d columns.
    let leverages = if n_folds == n { 2.0 * (n * d) as f64 * d as f64 / rate } else { 0.0 };
    let factor =
        median(|| drop(std::hint::black_box(a.cholesky(UPLO::Lower).unwrap()))) * factorisations as f64 / cores;
    println!("{} {rate} {syrk} {read} {factor} {leverages}", syrk + read + factor + leverages);
}

/// For each set of `FOLDER/truth.json` and each of its penalties: the least digits of a coefficient, and those of the
/// leave-one-out mean squared error.
fn digits_table(folder: &str) {
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
    let truth: serde_json::Value = serde_json::from_str(&read("truth.json")).unwrap();
    for (name, set) in truth.as_object().unwrap() {
        let table = ridgeline::table::read(&read(&format!("{name}.csv"))).unwrap();
        let rows = Matrix::new(table.cells(), table.n_columns()).unwrap();
        print!("| {name} |");
        for fit in set["fits"].as_array().unwrap() {
            let params = Params {
                target: 0,
                weight: None,
                folds: Folds::Random { n_folds: table.n_rows(), seed: 0 },
                fit_intercept: set["fit_intercept"].as_bool().unwrap(),
                loss: Loss::Mean,
                standardize: false,
                penalties: Some(vec![fit["l2_coef"].as_f64().unwrap()]),
            };
            let params = params.check(table.n_rows(), table.n_columns()).unwrap();
            let control = Control { threads: &THREADS, stop: &AtomicBool::new(false), progress: &|_| () };
            let report = cross_validate(&rows, &params, &control).unwrap();
            let coef = table.columns()[1..].iter().zip(&report.coef);
            let least = coef.map(|(column, found)| digits(*found, &fit["coef"][column])).fold(16.0, f64::min);
            let least = least.min(digits(report.intercept, &fit["intercept"]));
            print!(" {least:.1} / {:.1} |", digits(report.cv[0].mean_mse, &fit["loo_mean_mse"]));
        }
        println!();
    }
}

/// A sum that is as fast as memory.
fn lanes(values: &[f64]) -> f64 {
    let mut sums = [0.0; 16];
    for chunk in values.as_chunks::<16>().0 {
        sums.iter_mut().zip(chunk).for_each(|(sum, v)| *sum += v);
    }
    sums.iter().sum()
}

fn main() {
    // As a worker does.
    allocator::keep_freed();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args[i].parse::<usize>().unwrap();
    match args.first().map(String::as_str) {
        Some("measure") => measure(&args[1], number(2), number(3), number(4)),
        Some("limit") => limit(number(1), number(2), number(3), number(4)),
        Some("digits") => digits_table(&args[1]),
        Some("times") => {
            for (name, n, d, folds, penalties) in SETS {
                let values = data(n, d);
                println!("{name:14} {:.2} ms", 1e3 * median(|| drop(run(&values, n, folds, penalties))));
                limit(n, d, folds, penalties);
            }
        }
        _ => divan::main(),
    }
}
