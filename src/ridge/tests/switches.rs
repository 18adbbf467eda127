//! Both sides of every switch against each other, and laws that the results obey.

use super::super::columns::Columns;
use super::super::double_double::Dd;
use super::super::folds::Partition;
use super::super::gather::Source;
use super::super::grid;
use super::super::hat;
use super::super::kernel::{Samples, kernel};
use super::super::normal::Objective;
use super::super::primal;
use super::super::run::Run;
use super::super::scores::{FoldScores, is_certified};
use super::super::training::FoldMoments;
use super::super::{Control, Folds, Loss, Matrix, Params, Report, Threads, Warning, dual};
use super::{leave_one_out, params, relative, run, run_on};
use std::sync::atomic::AtomicBool;

/// Row-major (y, x..), standard normal but for a share of the first feature in all others, y = sum of x + noise.
pub(super) fn data(n: usize, d: usize, correlation: f64, noise: f64) -> Vec<f64> {
    let mut state = 7_u64;
    let mut uniform = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut normal = move || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
    let mut values = Vec::new();
    for _ in 0..n {
        let at = values.len();
        values.push(5.0 + noise * normal());
        let first = normal();
        for j in 0..d {
            let x = if j == 0 { first } else { correlation * first + (1.0 - correlation) * normal() };
            values.push(x + 10.0);
            values[at] += x;
        }
    }
    values
}

/// Runs a part of the engine on a matrix.
pub(super) fn with_source<R>(
    values: &[f64],
    n_columns: usize,
    params: &Params,
    test: impl FnOnce(&Source<'_>, &Objective) -> R,
) -> R {
    let rows = Matrix::new(values, n_columns).unwrap();
    let stop = AtomicBool::new(false);
    let control = Control { threads: &Threads::new(2), stop: &stop, progress: &|_| () };
    let run = Run::new(&control);
    let columns = Columns::new(params, n_columns);
    let source = Source::new(&rows, columns, &run);
    test(&source, &Objective::new(params))
}

pub(super) fn mean(scores: &FoldScores) -> f64 {
    scores.mse.iter().sum::<f64>() / scores.mse.len() as f64
}

pub(super) const PENALTIES: [f64; 4] = [0.0, 1e-4, 0.1, 10.0];

/// In doubles from moments; in doubles by the hat matrix, if rows are left out one by one by its eigenvectors, and by factors;
/// in doubled precision.
fn four_ways(values: &[f64], n_columns: usize, params: &Params) -> [Vec<FoldScores>; 4] {
    with_source(values, n_columns, params, |source, objective| {
        let n = source.rows.n_rows();
        let partition = match params.folds {
            Folds::Random { n_folds, seed } => Partition::random(n, n_folds, seed),
            Folds::Column(_) => unreachable!("random folds only"),
        };
        let folds = FoldMoments::<f64>::new(source, &partition, (0.0, 0.0)).unwrap();
        let doubled = FoldMoments::<Dd>::new(source, &partition, (0.0, 0.0)).unwrap();
        let n_folds = partition.n_folds();
        let total = folds.total();
        [
            primal::double_scores(source, &folds, objective, &PENALTIES, n_folds, (0.0, 0.0), &|| ()).unwrap(),
            hat::scores(source, &partition, objective, &total, &PENALTIES, (0.0, 0.0), &|| ()).unwrap(),
            hat::by_factors(source, &partition, objective, &total, &PENALTIES, (0.0, 0.0)).unwrap(),
            primal::doubled_scores(source, &doubled, objective, &PENALTIES, &partition, (0.0, 0.0)).unwrap(),
        ]
    })
}

#[test]
fn refits_in_doubles_block_identity_and_doubled_precision_agree_wherever_they_are_certified() {
    let (mut n_certified, mut n_refused) = (0, 0);
    for (correlation, noise, fit_intercept, n_folds) in [
        (0.0, 1.0, true, 60),
        (0.0, 1.0, false, 13),
        (0.9, 0.1, true, 5),
        (0.999, 1.0, true, 20),
        (0.99999, 1e-3, true, 60),
        (0.999_999_9, 1.0, true, 7),
        (0.5, 1e-6, true, 10),
    ] {
        let values = data(60, 6, correlation, noise);
        let params = Params { fit_intercept, ..params(Folds::Random { n_folds, seed: 3 }, &PENALTIES) };
        let [double, eigen, block, doubled] = four_ways(&values, 7, &params);
        for (((double, eigen), block), doubled) in double.iter().zip(&eigen).zip(&block).zip(&doubled) {
            for scores in [double, eigen, block] {
                if is_certified(scores) {
                    n_certified += 1;
                    // What is certified keeps ten digits.
                    assert!(relative(mean(scores), mean(doubled)) <= 1e-10);
                } else {
                    n_refused += 1;
                }
            }
        }
    }
    assert!(n_certified >= 10 && n_refused >= 10, "both sides were seen: {n_certified}, {n_refused}");
}

#[test]
fn the_dual_agrees_with_the_primal() {
    for (n, d) in [(30, 20), (30, 28), (24, 40)] {
        for standardize in [false, true] {
            let values = data(n, d, 0.3, 1.0);
            let params = Params { standardize, ..params(Folds::Random { n_folds: 4, seed: 1 }, &PENALTIES) };
            with_source(&values, d + 1, &params, |source, objective| {
                let partition = Partition::random(n, 4, 1);
                let penalties = &PENALTIES[1..];
                let doubled = FoldMoments::<Dd>::new(source, &partition, (0.0, 0.0)).unwrap();
                let primal =
                    primal::doubled_scores(source, &doubled, objective, penalties, &partition, (0.0, 0.0)).unwrap();
                let samples = Samples::new(source, true).unwrap();
                let shared = (!standardize).then(|| kernel::<f64>(source, &samples, None).unwrap());
                let in_doubles =
                    dual::scores(source, &samples, shared.as_deref(), objective, penalties, &partition, (0.0, 0.0))
                        .unwrap();
                let shared = (!standardize).then(|| kernel::<Dd>(source, &samples, None).unwrap());
                let in_doubled =
                    dual::scores(source, &samples, shared.as_deref(), objective, penalties, &partition, (0.0, 0.0))
                        .unwrap();
                for ((primal, in_doubles), in_doubled) in primal.iter().zip(in_doubles).zip(in_doubled) {
                    assert!(relative(mean(&in_doubled), mean(primal)) <= 1e-11);
                    assert!(!is_certified(&in_doubles) || relative(mean(&in_doubles), mean(primal)) <= 1e-10);
                }
            });
        }
    }
}

/// Largest relative differences of coefficients and of mean MSEs.
fn difference(a: &Report, b: &Report) -> f64 {
    let coef = a.coef.iter().zip(&b.coef).map(|(a, b)| relative(*a, *b));
    let cv = a.cv.iter().zip(&b.cv).map(|(a, b)| relative(a.mean_mse, b.mean_mse));
    coef.chain(cv).fold(0.0, |a, b| if b <= a { a } else { b })
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    // Shapes that are large enough for threads: moments, many folds, dual, doubled precision.
    for (n, d, n_folds, correlation) in [
        (6_000, 20, 5, 0.0),
        (3_000, 40, 3_000, 0.0),
        (60, 2_000, 5, 0.0),
        (70, 2_000, 70, 0.0),
        (6_000, 17, 6, 0.999_999_99),
    ] {
        let values = data(n, d, correlation, 1.0);
        let folds = Folds::Random { n_folds, seed: 9 };
        let reports = [1, 2, 4, 2].map(|threads| run_on(&values, d + 1, params(folds, &PENALTIES), threads).unwrap());
        for report in &reports[1..] {
            assert_eq!(format!("{report:?}"), format!("{:?}", reports[0]), "{n} rows, {d} columns");
        }
    }
}

#[test]
fn row_order_column_order_shift_and_scale_change_nothing_but_units() {
    let (n, d) = (40, 5);
    let mut values = data(n, d, 0.5, 1.0);
    // A fold column, so that folds move with their rows.
    values =
        values.chunks(d + 1).enumerate().flat_map(|(i, row)| row.iter().copied().chain([(i % 4) as f64])).collect();
    let given = params(Folds::Column(d + 1), &PENALTIES);
    let report = run(&values, d + 2, given.clone());

    let reversed: Vec<f64> = values.chunks(d + 2).rev().flatten().copied().collect();
    assert!(difference(&run(&reversed, d + 2, given.clone()), &report) <= 1e-10);

    let mirrored: Vec<f64> =
        values.chunks(d + 2).flat_map(|row| row.iter().rev().copied().collect::<Vec<_>>()).collect();
    let mut mirror = run(&mirrored, d + 2, Params { target: d + 1, folds: Folds::Column(0), ..given.clone() });
    mirror.coef.reverse();
    assert!(difference(&mirror, &report) <= 1e-10);

    // y times 2^20 is exact: everything scales exactly.
    let scaled: Vec<f64> = values.chunks(d + 2).flat_map(|row| [&[row[0] * 1_048_576.0], &row[1..]].concat()).collect();
    let larger = run(&scaled, d + 2, given.clone());
    for (a, b) in larger.coef.iter().zip(&report.coef) {
        assert!(relative(*a, b * 1_048_576.0) <= 1e-13);
    }

    // y shifted by 1e9 (the cells keep 7 digits after the point): only the intercept moves.
    let shifted: Vec<f64> = values.chunks(d + 2).flat_map(|row| [&[row[0] + 1e9], &row[1..]].concat()).collect();
    let moved = run(&shifted, d + 2, given.clone());
    for (a, b) in moved.coef.iter().zip(&report.coef) {
        assert!((a - b).abs() <= 1e-6);
    }
    assert!((moved.intercept - report.intercept - 1e9).abs() <= 1e-5);
    assert_eq!(moved.best, report.best);
}

#[test]
fn a_whole_weight_is_a_repeated_row() {
    let (n, d) = (24, 3);
    let plain = data(n, d, 0.2, 1.0);
    let weight = |i: usize| 1 + i % 3;
    let (mut weighted, mut repeated) = (Vec::new(), Vec::new());
    for (i, row) in plain.chunks(d + 1).enumerate() {
        weighted.extend(row.iter().copied().chain([(i % 4) as f64, weight(i) as f64]));
        (0..weight(i)).for_each(|_| repeated.extend(row.iter().copied().chain([(i % 4) as f64, 1.0])));
    }
    for loss in [Loss::Mean, Loss::Sum] {
        let given = Params { weight: Some(d + 2), loss, standardize: true, ..params(Folds::Column(d + 1), &PENALTIES) };
        assert!(difference(&run(&weighted, d + 3, given.clone()), &run(&repeated, d + 3, given)) <= 1e-10);
    }
}

#[test]
fn features_twice_over_root_two_are_the_same_problem() {
    let (n, d) = (30, 4);
    let values = data(n, d, 0.2, 1.0);
    let root = 0.5_f64.sqrt();
    let twice: Vec<f64> = values
        .chunks(d + 1)
        .flat_map(|row| {
            let x: Vec<f64> = row[1..].iter().map(|x| x * root).collect();
            [&row[..1], &x, &x].concat()
        })
        .collect();
    let given = params(leave_one_out(n), &[0.01, 1.0]);
    let (one, two) = (run(&values, d + 1, given.clone()), run(&twice, 2 * d + 1, given));
    for (a, b) in one.cv.iter().zip(&two.cv) {
        assert!(relative(b.mean_mse, a.mean_mse) <= 1e-10);
    }
    for j in 0..d {
        assert!(relative(two.coef[j] * 2.0 * root, one.coef[j]) <= 1e-12);
    }
}

#[test]
fn large_penalties_leave_the_mean_and_none_leave_least_squares() {
    let values = data(50, 3, 0.0, 1.0);
    let report = run(&values, 4, params(leave_one_out(50), &[1e12]));
    let mean = values.chunks(4).map(|row| row[0]).sum::<f64>() / 50.0;
    assert!(report.coef.iter().all(|w| w.abs() <= 1e-9));
    assert!(relative(report.intercept, mean) <= 1e-9);
    assert!((report.effective_dof - 1.0).abs() <= 1e-9);
    let report = run(&values, 4, params(leave_one_out(50), &[0.0]));
    assert!((report.effective_dof - 4.0).abs() <= 1e-12);
}

#[test]
fn the_automatic_grid_brackets_the_best_penalty_and_does_not_see_the_unit_of_y() {
    let values = data(60, 8, 0.9, 4.0);
    for loss in [Loss::Mean, Loss::Sum] {
        let given = Params { penalties: None, loss, ..params(Folds::Random { n_folds: 5, seed: 2 }, &[]) };
        let report = run(&values, 9, given.clone());
        assert_eq!(report.cv.len(), 41);
        assert!(report.cv.windows(2).all(|w| w[0].penalty < w[1].penalty));
        assert!((1..40).contains(&report.best), "best at {}", report.best);
        let scaled: Vec<f64> = values.chunks(9).flat_map(|row| [&[row[0] * 1e6], &row[1..]].concat()).collect();
        let other = run(&scaled, 9, given);
        assert!(report.cv.iter().zip(&other.cv).all(|(a, b)| a.penalty.to_bits() == b.penalty.to_bits()));
        assert_eq!(report.best, other.best);
    }
    let objective = Objective { fit_intercept: true, loss: Loss::Mean, standardize: false };
    assert!(grid::automatic(&objective, Dd::from(4.0), 0.0, 0.0).iter().all(|p| p.is_finite() && *p > 0.0));
}

#[test]
fn warnings_name_edges_and_constant_columns() {
    let mut values = data(40, 3, 0.0, 0.1);
    values.chunks_mut(4).for_each(|row| row[2] = 0.1);
    let report = run(&values, 4, params(leave_one_out(40), &[1.0, 10.0]));
    assert!(report.warnings.contains(&Warning::BestPenaltyAtLowerEdge { penalty: 1.0 }));
    assert!(report.warnings.contains(&Warning::ConstantColumns { columns: vec![2] }));
    assert!(report.coef[1] == 0.0 && report.condition_number.is_none());
}
