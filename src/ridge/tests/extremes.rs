//! Shapes and numbers at the edge: against truths that are known in closed form or by exact arithmetic.

use super::super::{Folds, Loss, Params, RidgeError};
use super::{exact, leave_one_out, params, relative, run, run_on};

/// Coefficients, intercept and leave-one-out mean MSE of a run against exact arithmetic: (digits' error, error).
fn errors(values: &[f64], n_columns: usize, given: &Params) -> (f64, f64) {
    let n = values.len() / n_columns;
    let report = run(values, n_columns, given.clone());
    let penalty = report.cv[report.best].penalty;
    let all = exact::problem(values, n_columns, given, |_| true);
    let model = exact::fit(&all, given, penalty);
    // A coefficient that is zero in exact arithmetic has no digits; doubled precision leaves 1e-30 of it.
    let digits = |found: f64, truth: f64| {
        if truth == 0.0 && found.abs() <= 1e-25 { 0.0 } else { relative(found, truth) }
    };
    let coef = report.coef.iter().zip(&model.w).map(|(found, w)| digits(*found, exact::f(w)));
    let worst = coef.chain([digits(report.intercept, exact::f(&model.b))]).fold(0.0, |a, b| if b <= a { a } else { b });
    let mut mean = exact::q(0.0);
    for i in 0..n {
        let training = exact::problem(values, n_columns, given, |k| k != i);
        let held_out = exact::problem(values, n_columns, given, |k| k == i);
        mean += exact::mse(&held_out, &exact::fit(&training, given, penalty)) / exact::q(n as f64);
    }
    (worst, relative(report.cv[report.best].mean_mse, exact::f(&mean)))
}

/// Rows (y, x, x², ..) for x = 0, 1, ..
fn powers(n: usize, degree: i32, y: impl Fn(f64) -> f64) -> Vec<f64> {
    let row = |i: usize| {
        let x = i as f64;
        std::iter::once(y(x)).chain((1..=degree).map(move |e| x.powi(e))).collect::<Vec<_>>()
    };
    (0..n).flat_map(row).collect()
}

#[test]
fn wampler_1_and_2_have_all_digits() {
    // Wampler 1: y = 1 + x + .. + x⁵, an exact fit.
    let first = powers(21, 5, |x| (0..=5).map(|e| x.powi(e)).sum());
    let report = run(&first, 6, params(leave_one_out(21), &[0.0]));
    assert!(report.coef.iter().chain([&report.intercept]).all(|w| relative(*w, 1.0) <= 1e-15));
    assert!(report.cv[0].mean_mse <= 1e-40);
    // Wampler 2: y = 1 + x/10 + .. + x⁵/10⁵ to five digits.
    let second = powers(21, 5, |x| ((0..=5).map(|e| (x / 10.0).powi(e)).sum::<f64>() * 1e5).round() / 1e5);
    let (worst, error) = errors(&second, 6, &params(leave_one_out(21), &[0.0]));
    assert!(worst <= 1e-14 && error <= 1e-8, "{worst} {error}");
    for penalty in [1.0 / 1024.0, 1.0] {
        let (worst, error) = errors(&second, 6, &params(leave_one_out(21), &[penalty]));
        assert!(worst <= 1e-14 && error <= 1e-10, "{worst} {error}");
    }
}

#[test]
fn no_intercept_sets_have_all_digits() {
    let first: Vec<f64> = (60..71).flat_map(|x| [f64::from(x + 70), f64::from(x)]).collect();
    let second = [3.0, 4.0, 4.0, 5.0, 4.0, 6.0];
    for (values, slope) in [(first.as_slice(), 2.074_380_165_289_256), (&second, 8.0 / 11.0)] {
        let given = Params { fit_intercept: false, ..params(leave_one_out(values.len() / 2), &[0.0]) };
        assert!(relative(run(values, 2, given.clone()).coef[0], slope) <= 1e-15);
        let (worst, error) = errors(values, 2, &given);
        assert!(worst <= 1e-15 && error <= 1e-8, "{worst} {error}");
    }
}

#[test]
fn hilbert_vandermonde_and_lauchli_have_twelve_digits() {
    let hilbert = |n: usize, d: usize| {
        let row = move |i: usize| {
            std::iter::once((i % 3) as f64).chain((0..d).map(move |j| 1.0 / (1 + i + j) as f64)).collect::<Vec<_>>()
        };
        (0..n).flat_map(row).collect::<Vec<f64>>()
    };
    // Condition numbers 1e5 to 1e10 of the scaled columns.
    for d in [4, 6, 8] {
        let (worst, error) = errors(&hilbert(d + 4, d), d + 1, &params(leave_one_out(d + 4), &[0.0]));
        assert!(worst <= 1e-12 && error <= 1e-8, "Hilbert {d}: {worst} {error}");
    }
    let vandermonde = powers(12, 7, |x| (x * 7.0) % 5.0);
    let (worst, error) = errors(&vandermonde, 8, &params(leave_one_out(12), &[0.0]));
    assert!(worst <= 1e-12 && error <= 1e-8, "Vandermonde: {worst} {error}");
    // Läuchli: a row of ones over ε I; its products are singular in doubles.
    for epsilon in [1e-4, 1e-8] {
        let d = 4;
        let mut values = vec![f64::from(d as u8); 1];
        values.extend(vec![1.0; d]);
        for i in 0..d + 2 {
            values.push(epsilon * i as f64);
            values.extend((0..d).map(|j| if i % d == j { epsilon } else { 0.0 }));
        }
        let given = Params { fit_intercept: false, ..params(leave_one_out(d + 3), &[0.0]) };
        let (worst, error) = errors(&values, d + 1, &given);
        assert!(worst <= 1e-12 && error <= 1e-8, "Läuchli {epsilon}: {worst} {error}");
    }
}

#[test]
fn columns_from_1e_minus_150_to_1e150_in_one_set() {
    let cells =
        [[1, 3, -2, 2], [4, -1, 5, -3], [2, 6, 1, 4], [-3, 2, 2, 1], [5, 5, -4, -2], [0, -2, 3, 6], [7, 1, 0, 3]];
    let units = [1.0, 1e-150, 1e150, 1.0];
    let values: Vec<f64> =
        cells.iter().flat_map(|row| row.iter().zip(units).map(|(x, unit)| f64::from(*x) * unit)).collect();
    for penalty in [0.0, 1.0] {
        let (worst, error) = errors(&values, 4, &params(leave_one_out(7), &[penalty]));
        assert!(worst <= 1e-12 && error <= 1e-10, "penalty {penalty}: {worst} {error}");
    }
    let standardised = Params { standardize: true, loss: Loss::Sum, ..params(leave_one_out(7), &[1.0]) };
    let (worst, error) = errors(&values, 4, &standardised);
    assert!(worst <= 1e-12 && error <= 1e-10, "standardised: {worst} {error}");
}

#[test]
fn all_shapes_around_square_and_two_rows() {
    let cell = |i: usize, j: usize| ((i * 7 + j * 5 + i * j * 3) % 11) as f64 - 4.0;
    for (n, d) in [(2, 1), (2, 3), (3, 1), (6, 5), (6, 6), (6, 7), (6, 9)] {
        let values: Vec<f64> = (0..n).flat_map(|i| (0..=d).map(move |j| cell(i, j))).collect();
        for penalty in [0.0, 0.5] {
            let (worst, error) = errors(&values, d + 1, &params(leave_one_out(n), &[penalty]));
            assert!(worst <= 1e-12 && error <= 1e-8, "({n}, {d}), penalty {penalty}: {worst} {error}");
        }
    }
}

#[test]
fn y_shifted_by_1e9_keeps_its_digits() {
    let values: Vec<f64> =
        (0..12).flat_map(|i| [1e9 + f64::from(i * i % 7), f64::from(i), f64::from(i * 5 % 13)]).collect();
    for penalty in [0.0, 0.25] {
        let (worst, error) = errors(&values, 3, &params(leave_one_out(12), &[penalty]));
        assert!(worst <= 1e-13 && error <= 1e-10, "{worst} {error}");
    }
}

#[test]
fn overflow_is_an_error_and_never_nan() {
    let wide = |y: f64, x: f64| vec![y, x, -y, -x, y / 2.0, x / 3.0, y, -x / 7.0];
    // Squared errors of 1e300 do not fit; coefficients of 1e300 / 1e-300 neither.
    for (values, why) in [(wide(1e300, 1.0), "errors"), (wide(1e200, 1e-200), "both")] {
        let found = run_on(&values, 2, params(leave_one_out(4), &[0.0]), 1);
        assert!(matches!(found, Err(RidgeError::Overflow { .. })), "{why}: {found:?}");
    }
    let report = run(&wide(1e140, 1e300), 2, params(leave_one_out(4), &[0.0]));
    assert!(report.cv[0].mean_mse.is_finite() && report.coef[0].is_finite());
    // The largest penalties leave nothing of the coefficients.
    let report = run(&wide(1.0, 1.0), 2, params(leave_one_out(4), &[f64::MAX, 5e-324]));
    assert!(report.coef[0].is_finite() && report.cv.iter().all(|s| s.mean_mse.is_finite()));
}

#[test]
fn bad_input_is_named() {
    let good = [1.0, 2.0, 1.0, 2.0, 3.0, 0.0, 4.0, 9.0, 1.0];
    let given = params(leave_one_out(3), &[1.0]);
    let refused = |change: &dyn Fn(&mut Vec<f64>), given: Params| {
        let mut values = good.to_vec();
        change(&mut values);
        run_on(&values, 3, given, 1).unwrap_err()
    };
    let nan = refused(&|v| v[4] = f64::NAN, given.clone());
    assert!(matches!(nan, RidgeError::NonFinite { row: 1, column: 1, .. }), "{nan:?}");
    let weighted = Params { weight: Some(2), ..given.clone() };
    let negative = refused(&|v| v[8] = -1.0, weighted.clone());
    assert!(matches!(negative, RidgeError::NegativeWeight { row: 2, .. }), "{negative:?}");
    let empty = refused(&|_| (), weighted);
    assert!(matches!(empty, RidgeError::FoldWithoutWeight { fold: 1 }), "{empty:?}");
    let same = |v: &mut Vec<f64>| (v[2], v[5], v[8]) = (-0.0, 0.0, 0.0);
    let one = refused(&same, Params { folds: Folds::Column(2), ..given });
    assert!(matches!(one, RidgeError::TooFewFoldValues { n_folds: 1 }), "{one:?}");
}

#[test]
fn bad_parameters_are_named() {
    let given = params(Folds::Random { n_folds: 2, seed: 0 }, &[1.0]);
    let refused = |given: Params| given.check(4, 3).unwrap_err();
    assert!(matches!(
        refused(Params { target: 3, ..given.clone() }),
        RidgeError::NoSuchColumn { column: 3, n_columns: 3 }
    ));
    assert!(matches!(refused(Params { weight: Some(0), ..given.clone() }), RidgeError::ColumnUsedTwice { column: 0 }));
    assert!(matches!(
        refused(Params { weight: Some(1), folds: Folds::Column(2), ..given.clone() }),
        RidgeError::NoFeatures
    ));
    assert!(matches!(
        refused(Params { folds: leave_one_out(1), ..given.clone() }),
        RidgeError::TooFewFolds { n_folds: 1 }
    ));
    assert!(matches!(
        refused(Params { folds: leave_one_out(5), ..given.clone() }),
        RidgeError::TooFewRows { n_rows: 4, n_folds: 5 }
    ));
    assert!(matches!(refused(Params { penalties: Some(vec![]), ..given.clone() }), RidgeError::NoPenalties));
    for value in [-1.0, f64::NAN, f64::INFINITY] {
        let found = refused(Params { penalties: Some(vec![0.0, value]), ..given.clone() });
        assert!(matches!(found, RidgeError::InvalidPenalty { index: 1, .. }), "{value}");
    }
}
