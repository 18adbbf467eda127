//! Data with more columns than rows: errors of the folds from one inverse against refits.

use super::super::double_double::Dd;
use super::super::folds::Partition;
use super::super::kernel::{Samples, kernel};
use super::super::scores::is_certified;
use super::super::{Folds, Loss, Params, blas, dual, dual_fit, dual_hat, dual_system::DualSystem};
use super::switches::{PENALTIES, data, mean, with_source};
use super::{leave_one_out, params, relative, run};

#[test]
fn one_inverse_and_refits_agree_wherever_they_are_certified() {
    let (n, d) = (30, 45);
    let (mut n_certified, mut n_refused) = (0, 0);
    for (correlation, noise, fit_intercept, n_folds, loss, weight) in [
        (0.0, 1.0, true, 30, Loss::Mean, None),
        (0.0, 1.0, false, 10, Loss::Mean, None),
        (0.9, 0.1, true, 30, Loss::Sum, Some(d)),
        (0.99999, 1.0, true, 15, Loss::Sum, None),
        (0.999_999_9, 1e-3, false, 30, Loss::Mean, None),
        (0.999_999_99, 1.0, true, 10, Loss::Sum, Some(d)),
    ] {
        let mut values = data(n, d, correlation, noise);
        // Weights are the last column, and positive.
        values
            .chunks_mut(d + 1)
            .enumerate()
            .for_each(|(i, row)| row[d] = if weight.is_some() { 1.0 + (i % 3) as f64 } else { row[d] });
        let given = Params { fit_intercept, loss, weight, ..params(Folds::Random { n_folds, seed: 5 }, &PENALTIES) };
        with_source(&values, d + 1, &given, |source, objective| {
            let partition = Partition::random(n, n_folds, 5);
            let samples = Samples::new(source, fit_intercept).unwrap();
            let k = kernel::<f64>(source, &samples, None).unwrap();
            let doubled = kernel::<Dd>(source, &samples, None).unwrap();
            let share = (0.0, 0.0);
            let inverse =
                dual_hat::scores(source, &samples, &k, objective, &PENALTIES, &partition, share).unwrap().unwrap();
            let exact = dual_hat::scores(source, &samples, &doubled, objective, &PENALTIES, &partition, share)
                .unwrap()
                .unwrap();
            let refits =
                dual::scores(source, &samples, Some(&doubled[..]), objective, &PENALTIES, &partition, share).unwrap();
            for ((inverse, exact), refits) in inverse.iter().zip(&exact).zip(&refits) {
                for (one, other) in exact.mse.iter().zip(&refits.mse) {
                    assert!(relative(*one, *other) <= 1e-12, "{one:?} {other:?}");
                }
                if is_certified(inverse) {
                    n_certified += 1;
                    // What is certified keeps ten digits.
                    assert!(relative(mean(inverse), mean(refits)) <= 1e-10);
                } else {
                    n_refused += 1;
                }
            }
        });
    }
    assert!(n_certified >= 8 && n_refused >= 2, "both sides were seen: {n_certified}, {n_refused}");
}

#[test]
fn repeated_rows_without_penalty_fall_back_to_refits() {
    // Two rows are the same, so that the whole system is singular without a penalty, while the folds' fits exist.
    let (n, d) = (12, 20);
    let mut values = data(n, d, 0.0, 1.0);
    let (first, others) = values.split_at_mut(d + 1);
    others[1..=d].copy_from_slice(&first[1..]);
    others[0] = first[0];
    let report = run(&values, d + 1, params(leave_one_out(n), &[0.0, 1e-3]));
    // Each of the two predicts the other exactly.
    assert!(report.cv[0].fold_mse[..2].iter().all(|mse| *mse <= 1e-20), "{:?}", report.cv[0].fold_mse);
    assert!(report.cv[0].fold_mse[2..].iter().all(|mse| *mse > 1e-6));
}

#[test]
fn refinement_that_ends_early_has_the_digits_of_one_that_goes_on() {
    let (n, d) = (30, 45);
    for (correlation, fit_intercept) in [(0.0, true), (0.9, true), (0.99, false)] {
        let values = data(n, d, correlation, 1.0);
        let given = Params { fit_intercept, ..params(Folds::Random { n_folds: 5, seed: 5 }, &[]) };
        with_source(&values, d + 1, &given, |source, objective| {
            let samples = Samples::new(source, fit_intercept).unwrap();
            let k = kernel::<f64>(source, &samples, None).unwrap();
            // From hardly any to as large as the eigenvalues, where steps along s would not shrink.
            for penalty in [1e-6, 1e-3, 1.0, 30.0] {
                let mut system = DualSystem::new(objective, &samples, &k, |_| true);
                system.set_penalty(objective, penalty, 0);
                let (m, mut u) = (system.rows.len(), system.b.clone());
                assert!(blas::cholesky(m, &mut u));
                let solve = |right: &[Dd]| {
                    let mut a: Vec<f64> = right.iter().map(|x| x.value()).collect();
                    blas::cholesky_solve(m, &u, &mut a);
                    Ok(a.into_iter().map(Dd::from).collect())
                };
                let rows = dual_fit::Rows { source, samples: &samples, scale: None };
                let refine = |contraction| rows.refine(&dual_fit::System::of(&system), &solve, contraction).unwrap();
                let (early, _) = refine(1e-9).unwrap();
                let (late, _) = refine(f64::INFINITY).unwrap();
                for (early, late) in early.w.iter().chain([&early.b]).zip(late.w.iter().chain([&late.b])) {
                    assert!(relative(early.value(), late.value()) <= 1e-15, "{penalty}: {early:?} {late:?}");
                }
                assert!(relative(early.squares, late.squares) <= 1e-12);
            }
        });
    }
}

#[test]
fn penalties_that_share_a_reduction_agree_with_factors_wherever_they_are_certified() {
    const EIGHT: [f64; 8] = [0.0, 1e-8, 1e-4, 1e-2, 0.1, 1.0, 10.0, 1e4];
    let (n, d) = (30, 45);
    let (mut n_certified, mut n_refused, mut n_other_bits) = (0, 0, 0);
    for (correlation, noise, fit_intercept, loss, weight) in [
        (0.0, 1.0, true, Loss::Mean, None),
        (0.0, 1.0, false, Loss::Sum, Some(d)),
        (0.9, 0.1, true, Loss::Sum, None),
        (0.999, 1.0, true, Loss::Mean, Some(d)),
        (0.999_999_9, 1e-3, false, Loss::Mean, None),
        (0.999_999_99, 1.0, true, Loss::Sum, None),
    ] {
        let mut values = data(n, d, correlation, noise);
        if weight.is_some() {
            values.chunks_mut(d + 1).enumerate().for_each(|(i, row)| row[d] = (i % 3) as f64 + 0.5);
        }
        let given = Params { fit_intercept, loss, weight, ..params(Folds::Random { n_folds: 5, seed: 5 }, &EIGHT) };
        with_source(&values, d + 1, &given, |source, objective| {
            let partition = Partition::random(n, 5, 5);
            let samples = Samples::new(source, fit_intercept).unwrap();
            let k = kernel::<f64>(source, &samples, None).unwrap();
            let doubled = kernel::<Dd>(source, &samples, None).unwrap();
            let share = (0.0, 0.0);
            let scores =
                |penalties| dual::scores(source, &samples, Some(&k[..]), objective, penalties, &partition, share);
            let together = scores(&EIGHT).unwrap();
            // Too few at a time for a reduction.
            let apart = [scores(&EIGHT[..4]).unwrap(), scores(&EIGHT[4..]).unwrap()].concat();
            let exact =
                dual::scores(source, &samples, Some(&doubled[..]), objective, &EIGHT, &partition, share).unwrap();
            for ((together, apart), exact) in together.iter().zip(&apart).zip(&exact) {
                n_other_bits += usize::from(together.mse != apart.mse);
                for scores in [together, apart] {
                    if is_certified(scores) {
                        n_certified += 1;
                        assert!(relative(mean(scores), mean(exact)) <= 1e-10);
                    } else {
                        n_refused += 1;
                    }
                }
            }
        });
    }
    assert!(n_certified >= 30 && n_refused >= 10, "both sides were seen: {n_certified}, {n_refused}");
    assert!(n_other_bits >= 10, "both ways were taken: {n_other_bits}");
}
