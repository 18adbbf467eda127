//! Random shapes and parameters against the naive implementation in exact arithmetic.

use super::super::folds::Partition;
use super::super::{Folds, Loss, Params};
use super::{exact, relative, run};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

#[derive(Debug, Clone)]
struct Case {
    values: Vec<f64>,
    n_columns: usize,
    params: Params,
}

/// Columns: target, weight, fold, features. Cells are small multiples of 1/4, so that collinear rows and columns happen.
fn case() -> impl Strategy<Value = Case> {
    let shape = (2..9_usize, 1..7_usize);
    let cells = shape.prop_flat_map(|(n, d)| {
        let features = prop::collection::vec(prop::collection::vec(-6..7_i32, d), n);
        let sides = prop::collection::vec((-40..40_i32, 1..4_i32, 0..3_i32), n);
        (features, sides)
    });
    let penalty = prop_oneof![Just(0.0), Just(2.0_f64.powi(-20)), Just(0.125), Just(1.0), Just(30.0)];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (cells, prop::collection::vec(penalty, 1..4), flags, 0..3_u8, any::<u64>(), any::<bool>()).prop_map(
        |(
            (features, sides),
            penalties,
            (fit_intercept, is_mean, standardize, is_weighted),
            fold_kind,
            seed,
            duplicate,
        )| {
            let n = features.len();
            let mut values = Vec::new();
            for (i, (row, (y, weight, fold))) in features.iter().zip(&sides).enumerate() {
                let fold = if i == 0 {
                    0
                } else if i == 1 {
                    1
                } else {
                    *fold
                };
                values.extend([f64::from(*y) / 4.0, f64::from(*weight) / 2.0, f64::from(fold)]);
                values.extend(row.iter().map(|x| f64::from(*x) / 4.0));
                if duplicate {
                    values.push(f64::from(row[0]) / 2.0);
                }
            }
            let n_columns = values.len() / n;
            let folds = match fold_kind {
                0 => Folds::Column(2),
                1 => Folds::Random { n_folds: n, seed },
                _ => Folds::Random { n_folds: 2 + seed as usize % (n - 1), seed },
            };
            let loss = if is_mean { Loss::Mean } else { Loss::Sum };
            let weight = is_weighted.then_some(1);
            let params =
                Params { target: 0, weight, folds, fit_intercept, loss, standardize, penalties: Some(penalties) };
            Case { values, n_columns, params }
        },
    )
}

proptest! {
    // A seed of its own, so that a run fails because of a change and not by chance; raise `cases` to look further.
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn small_problems_agree_with_exact_arithmetic(case in case()) {
        let Case { values, n_columns, params } = case;
        let report = run(&values, n_columns, params.clone());
        let n = values.len() / n_columns;
        let fold_of: Vec<usize> = match params.folds {
            Folds::Column(c) => {
                let mut distinct: Vec<f64> = values.chunks(n_columns).map(|row| row[c]).collect();
                let column = distinct.clone();
                distinct.sort_by(f64::total_cmp);
                distinct.dedup();
                column.iter().map(|v| distinct.iter().position(|u| u == v).unwrap()).collect()
            }
            Folds::Random { n_folds, .. } if n_folds == n => (0..n).collect(),
            Folds::Random { n_folds, seed } => {
                let partition = Partition::random(n, n_folds, seed);
                (0..n).map(|i| partition.fold_of(i)).collect()
            }
        };
        prop_assert_eq!(report.n_folds, fold_of.iter().max().unwrap() + 1);
        for score in &report.cv {
            for (fold, mse) in score.fold_mse.iter().enumerate() {
                let training = exact::problem(&values, n_columns, &params, |i| fold_of[i] != fold);
                let held_out = exact::problem(&values, n_columns, &params, |i| fold_of[i] == fold);
                let model = exact::fit(&training, &params, score.penalty);
                let expected = exact::f(&exact::mse(&held_out, &model));
                // Single folds may have errors near zero; 1e-10 of the mean is what is promised.
                let error = (mse - expected).abs();
                prop_assert!(error <= 1e-10 * score.mean_mse.max(expected) + 1e-25, "penalty {} fold {fold}: {mse} is not {expected}", score.penalty);
            }
        }
        let best = &report.cv[report.best];
        let all = exact::problem(&values, n_columns, &params, |_| true);
        let model = exact::fit(&all, &params, best.penalty);
        for (found, expected) in report.coef.iter().zip(&model.w) {
            let expected = exact::f(expected);
            prop_assert!((found - expected).abs() <= 1e-12 * expected.abs() + 1e-18, "penalty {}: coefficient {found} is not {expected}", best.penalty);
        }
        let b = exact::f(&model.b);
        prop_assert!((report.intercept - b).abs() <= 1e-12 * b.abs() + 1e-18, "penalty {}: intercept {} is not {b}", best.penalty, report.intercept);
        let rmse = exact::f(&exact::mse(&all, &model)).sqrt();
        prop_assert!((report.rmse - rmse).abs() <= 1e-11 * rmse + 1e-18, "rmse {} is not {rmse}", report.rmse);
        prop_assert!(relative(best.mean_mse, report.cv.iter().map(|s| s.mean_mse).fold(f64::INFINITY, f64::min)) <= 0.0);
    }
}
