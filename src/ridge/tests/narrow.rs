//! The paths for narrow rows against doubled precision, against those for wide rows, and against exact arithmetic.

use super::super::double_double::Dd;
use super::super::fit;
use super::super::moments::Moments;
use super::super::residuals::{Model, of_narrow_rows, of_wide_rows};
use super::super::scores::ROUNDOFF;
use super::super::{Folds, Loss, Params};
use super::switches::{data, with_source};
use super::{exact, params, relative};

/// Largest error of moments, with products relative to the roots of their diagonal entries, means to those of the second.
fn moments_error(found: &Moments<f64>, truth: &Moments<Dd>) -> f64 {
    let p = truth.p();
    let root = |j: usize| truth.m.diagonal(j).value().sqrt();
    let mut worst = relative(found.weight.value(), truth.weight.value());
    for i in 0..p {
        let mean = (found.mean[i] - truth.mean[i]).value().abs();
        worst = worst.max(mean / (truth.mean[i].value().abs() + root(i)));
        for j in i..p {
            let difference = (found.m.at(i, j) - truth.m.at(i, j).value()).abs();
            worst = if difference == 0.0 { worst } else { worst.max(difference / (root(i) * root(j))) };
        }
    }
    worst
}

#[test]
fn moments_of_narrow_rows_keep_their_digits_whatever_the_rows_are_like() {
    for (n, d) in [(3_000, 1), (3_000, 7), (900, 8), (900, 22), (700, 100)] {
        let mut values = data(n, d, 0.3, 1.0);
        for (i, row) in values.chunks_exact_mut(d + 1).enumerate() {
            // A trend, a constant column, two values, and an outlier in the first row, all far from zero.
            row[0] += i as f64;
            if d > 6 {
                row[2] = 1e9 + i as f64 * 0.25;
                row[3] = 0.1;
                row[4] = f64::from(u8::from(i % 10 < 3));
                row[5] = if i == 0 { 1e8 } else { row[5] };
            }
        }
        let weight_of = |i: usize| [0.0, 0.5, 3.0, 1e-8][i % 4];
        let weighted: Vec<f64> = values
            .chunks_exact(d + 1)
            .enumerate()
            .flat_map(|(i, row)| [&row[..1], &[weight_of(i)], &row[1..]].concat())
            .collect();
        let folds = Folds::Random { n_folds: 5, seed: 0 };
        // With the target first, last, and with a weight between target and features.
        for (values, n_columns, given) in [
            (&values, d + 1, params(folds, &[1.0])),
            (&values, d + 1, Params { target: d, ..params(folds, &[1.0]) }),
            (&weighted, d + 2, Params { weight: Some(1), ..params(folds, &[1.0]) }),
        ] {
            with_source(values, n_columns, &given, |source, _| {
                for n_cells in [1, 3, n / 2] {
                    // Some rows are in no cell.
                    let cell_of = |i: usize| (i % 17 != 5).then_some(i * 7 % n_cells);
                    let found = source.moments::<f64>(n_cells, cell_of, (0.0, 0.0)).unwrap();
                    let truth = source.moments::<Dd>(n_cells, cell_of, (0.0, 0.0)).unwrap();
                    for (found, truth) in found.iter().zip(&truth) {
                        let error = if truth.mean.is_empty() { 0.0 } else { moments_error(found, truth) };
                        assert!(error <= 2e-14, "{n} rows, {d} features, {n_cells} cells: {error}");
                        assert_eq!(found.mean.len(), truth.mean.len());
                    }
                }
            });
        }
    }
}

#[test]
fn moments_of_few_values_err_by_no_more_roundoffs_than_unrefined_coefficients_are_allowed_for() {
    // Sums of equal terms: the rounding errors of a row of additions all have one sign.
    for (n, d) in [(500_000, 2), (60_000, 20), (30_000, 7), (10_000, 60), (2_000, 200)] {
        for seed in 0..3 {
            let value = |i: usize, j: usize| {
                let level = (i.wrapping_mul(2 * j + 3).wrapping_mul(0x9e37_79b9) >> 7) % (2 + j % 3);
                (level as f64 + 0.1 * (seed as f64 + 1.0)) / (1.0 + 0.7 * j as f64)
            };
            let values: Vec<f64> = (0..n).flat_map(|i| (0..=d).map(move |j| value(i, j))).collect();
            with_source(&values, d + 1, &params(Folds::Random { n_folds: 5, seed: 0 }, &[1.0]), |source, _| {
                let found = source.moments::<f64>(5, |i| Some(i * 7 % 5), (0.0, 0.0)).unwrap();
                let truth = source.moments::<Dd>(5, |i| Some(i * 7 % 5), (0.0, 0.0)).unwrap();
                let found = Moments::sum(&found.iter().collect::<Vec<_>>());
                let error = moments_error(&found, &Moments::sum(&truth.iter().collect::<Vec<_>>()));
                let error = error / ROUNDOFF;
                assert!(error <= fit::moments_roundoffs(d + 1), "{n} rows, {d} features: {error} roundoffs");
            });
        }
    }
}

#[test]
fn residuals_in_lanes_of_rows_are_those_of_row_after_row() {
    for (n, d, weight) in [(100, 1, None), (1_000, 9, None), (333, 40, Some(3)), (64, 21, Some(0))] {
        let mut values = data(n, d, 0.5, 1.0);
        if let Some(column) = weight {
            values.chunks_exact_mut(d + 1).enumerate().for_each(|(i, row)| row[column] = (i % 3) as f64 / 4.0);
        }
        let given = Params { target: d, weight, ..params(Folds::Random { n_folds: 5, seed: 0 }, &[1.0]) };
        with_source(&values, d + 1, &given, |source, _| {
            let d = source.columns.n_features();
            let third = |j: usize| Dd::from(j as f64 + 1.0) / Dd::from(3.0);
            let model = Model::new(&(0..d).map(third).collect::<Vec<_>>(), third(10));
            let blocks = 0..source.rows.n_blocks();
            let lanes = of_narrow_rows(source, blocks.clone(), &model).unwrap();
            let rows = of_wide_rows(source, blocks, &model).unwrap();
            let close = |a: Dd, b: Dd| (a - b).value().abs() <= 1e-26 * b.value().abs();
            assert!(lanes.features.iter().zip(&rows.features).all(|(a, b)| close(*a, *b)));
            assert!(close(lanes.sum, rows.sum) && relative(lanes.squares, rows.squares) <= 1e-13);
        });
    }
}

#[test]
fn coefficients_keep_twelve_digits_whether_they_are_refined_or_not() {
    let (mut n_refined, mut n_unrefined) = (0, 0);
    let mut cases: Vec<(Vec<f64>, usize)> = Vec::new();
    for (correlation, noise) in [(0.0, 0.1), (0.0, 1.0), (0.3, 5.0), (0.9, 1.0), (0.999, 1.0), (0.0, 1e-7)] {
        cases.push((data(80, 5, correlation, noise), 6));
    }
    // Columns of two values, whose rounding errors do not average out; y depends on them in whole numbers, nearly.
    let indicator = |i: usize, share: usize| f64::from(u8::from(i * i % 101 < share));
    let row = |i: usize| {
        let x = [indicator(i, 30), indicator(i * 7 + 3, 50), indicator(i * 13 + 5, 11)];
        [3.0 + 2.0 * x[0] - x[1] + 5.0 * x[2] + (i % 9) as f64 / 8.0, x[0], x[1], x[2]]
    };
    cases.push(((0..4_000).flat_map(row).collect(), 4));
    for (values, n_columns) in cases {
        for (fit_intercept, penalty) in [(true, 0.0), (true, 0.125), (false, 0.0), (false, 8.0)] {
            let folds = Folds::Random { n_folds: 5, seed: 0 };
            let given = Params { fit_intercept, loss: Loss::Sum, ..params(folds, &[penalty]) };
            let truth = exact::problem(&values, n_columns, &given, |_| true);
            let model = exact::fit(&truth, &given, penalty);
            let squares = exact::f(&exact::mse(&truth, &model)) * truth.y.len() as f64;
            with_source(&values, n_columns, &given, |source, objective| {
                let moments = source.moments::<f64>(1, |_| Some(0), (0.0, 0.0)).unwrap();
                let total = Moments::sum(&moments.iter().collect::<Vec<_>>());
                let (found, _) = fit::in_doubles(source, objective, penalty, &total).unwrap().unwrap();
                // The steps of the refinement leave low parts.
                if found.w.iter().all(|w| w.lo == 0.0) {
                    n_unrefined += 1
                } else {
                    n_refined += 1
                }
                for (w, truth) in found.w.iter().zip(&model.w) {
                    assert!(relative(w.value(), exact::f(truth)) <= 1e-12);
                }
                assert!(!fit_intercept || relative(found.b.value(), exact::f(&model.b)) <= 1e-12);
                assert!(relative(found.squares, squares) <= 1e-11);
            });
        }
    }
    assert!(n_refined >= 4 && n_unrefined >= 4, "both sides were seen: {n_refined}, {n_unrefined}");
}
