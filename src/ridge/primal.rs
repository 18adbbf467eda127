//! Cross-validation of tall data from the folds' moments, in double precision and in doubled precision.

use super::{
    dd_loops,
    double_double::{Dd, scaled},
    error::RidgeError,
    gather::Source,
    moments::Moments,
    normal::{CholeskyFactor, Equilibrated, Objective, products},
    pivoted::PivotedFactor,
    rows::for_each_row,
    scores::{ACCEPTED, FoldScore, FoldScores, ROUNDOFF},
    simd,
    training::FoldMoments,
    triangle::Triangle,
};
use std::ops::Range;

/// All penalties' errors in every fold, from moments alone: one Cholesky factorisation (dpotrf) for each fold and penalty.
/// `beside` is done among them, by a thread that has nothing else to do.
///
/// With v = (w, -1), the sum of squared errors of a fold is `vᵀ F v + W_f <μ_f - μ, v>²`, where F and `μ_f` are the fold's
/// moments and μ the training set's mean. Returned by penalty, then fold.
pub(super) fn double_scores(
    source: &Source<'_>,
    folds: &FoldMoments<'_, f64>,
    objective: &Objective,
    penalties: &[f64],
    n_folds: usize,
    share: (f64, f64),
    beside: &(dyn Fn() + Sync),
) -> Result<Vec<FoldScores>, RidgeError> {
    /// So many at least, as far as there are as many folds and penalties.
    const TASKS: usize = 5;
    let phase = source.run.phase(share.0, share.1, n_folds);
    let mut ascending: Vec<usize> = (0..penalties.len()).collect();
    ascending.sort_by(|a, b| penalties[*a].total_cmp(&penalties[*b]));
    let of_fold = |training: &Moments<f64>, own: &Moments<f64>, chosen: &[usize]| {
        let products = products(objective, training);
        let mut found = Vec::with_capacity(chosen.len());
        let (mut known, mut known_leverage, mut room) = (None, f64::INFINITY, Vec::new());
        for &i in chosen {
            source.run.check()?;
            let equations =
                Equilibrated::in_room(room, objective, training, &products, penalties[i], &source.exponents);
            let mut w = equations.b.clone();
            let Some(factor) = CholeskyFactor::new(equations, known) else {
                found.push(FoldScore::UNKNOWN);
                room = Vec::new();
                continue;
            };
            // Condition number and leverages fall as the penalty grows.
            known = Some(factor.norms);
            factor.solve_equilibrated(&mut w);
            factor.unscale(&mut w);
            found.push(score(objective, training, &products, own, w, &factor, &mut known_leverage));
            room = factor.into_room();
        }
        Ok(found)
    };
    let mut scores = vec![FoldScores::default(); penalties.len()];
    let mut keep = |found: Vec<FoldScore>| ascending.iter().zip(found).for_each(|(i, score)| scores[*i].push(score));
    if folds.are_few() {
        let n_shares = if source.is_small() { 1 } else { TASKS.div_ceil(n_folds).min(penalties.len()) };
        let bound = |share: usize| share * penalties.len() / n_shares;
        let chosen = |share: usize| &ascending[bound(share)..bound(share + 1)];
        let visit = |training: &Moments<f64>, own: &Moments<f64>, share| of_fold(training, own, chosen(share));
        for found in folds.for_each_share(source, &phase, n_shares, beside, visit)? {
            keep(found.concat());
        }
    } else {
        beside();
        let visit = |_: usize, training: &Moments<f64>, own: &Moments<f64>| of_fold(training, own, &ascending);
        folds.for_each_fold(source, &phase, visit, |_, found| {
            found.into_iter().for_each(&mut keep);
            Ok(())
        })?;
    }
    Ok(scores)
}

simd::kernel! {
    /// `<a, b>` in sixteen lanes.
    fn dot(a: &[f64], b: &[f64]) -> f64 {
        let mut sums = [0.0; 16];
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
        for (a, b) in a.iter().zip(b) {
            for l in 0..16 {
                sums[l] += a[l] * b[l];
            }
        }
        for ((a, b), sum) in a_rest.iter().zip(b_rest).zip(&mut sums) {
            *sum += a * b;
        }
        sums.iter().sum()
    }
}

/// A fold's error from its moments, with an estimate of the rounding errors.
fn score(
    objective: &Objective,
    training: &Moments<f64>,
    products: &Triangle<f64>,
    own: &Moments<f64>,
    w: Vec<f64>,
    factor: &CholeskyFactor,
    known_leverage: &mut f64,
) -> FoldScore {
    let p = own.p();
    let mut v = w;
    v.push(-1.0);
    let offset: Vec<f64> = if objective.fit_intercept {
        own.mean.iter().zip(&training.mean).map(|(own, training)| (*own - *training).value()).collect()
    } else {
        own.mean.iter().map(|mean| mean.value()).collect()
    };
    let weight = own.weight.value();
    let (mut sse, mut size) = (0.0, 0.0);
    for i in 0..p {
        let row = own.m.row(i);
        let right = dot(&row[1..], &v[i + 1..]);
        sse += v[i] * (row[0] * v[i] + 2.0 * right);
        size += v[i] * v[i] * (row[0] / weight + offset[i] * offset[i]);
    }
    let at_mean: f64 = offset.iter().zip(&v).map(|(offset, v)| offset * v).sum();
    let mse = sse / weight + at_mean * at_mean;
    let training_size: f64 = (0..p).map(|j| v[j] * v[j] * products.diagonal(j)).sum();
    // δw = A⁻¹ δA w with |δA| about u |A| changes predictions by u (ℓ κ(A) Σ w_j² A_jj)^(1/2) in the mean, where ℓ is the mean
    // of xᵀ A⁻¹ x over the fold (Higham 2002, 10.1); the quadratic form cancels down to the error of its terms.
    let error_for = |leverage: f64| {
        let prediction = ROUNDOFF * (leverage * factor.condition() * training_size).sqrt() + ROUNDOFF * size.sqrt();
        4.0 * ROUNDOFF * size + 4.0 * prediction * mse.sqrt() + 4.0 * prediction * prediction
    };
    let squares = |j: usize| scaled(own.m.diagonal(j) / weight + offset[j] * offset[j], -2 * factor.shift()[j]);
    let bound = factor.norms.inverse(p - 1) * (0..p - 1).map(squares).sum::<f64>();
    let mut error = error_for(bound.min(*known_leverage));
    if !(error <= ACCEPTED * mse) && *known_leverage > bound {
        *known_leverage = leverage(own, &offset, factor);
        error = error_for(*known_leverage);
    }
    FoldScore { mse, error }
}

/// The mean of `xᵀ A⁻¹ x` over the rows of a fold: `Σ_jk (A⁻¹)_jk (F / W_f + δ δᵀ)_jk` (dpotri).
fn leverage(own: &Moments<f64>, offset: &[f64], factor: &CholeskyFactor) -> f64 {
    let d = own.p() - 1;
    let inverse = factor.inverse();
    let scale: Vec<f64> = factor.shift().iter().map(|f| scaled(1.0, -f)).collect();
    let weight = own.weight.value();
    let mut sum = 0.0;
    for j in 0..d {
        let entry =
            |k: usize| (own.m.at(j, k) / weight + offset[j] * offset[k]) * scale[j] * scale[k] * inverse[j * d + k];
        sum += entry(j) + 2.0 * (j + 1..d).map(entry).sum::<f64>();
    }
    sum.abs()
}

/// A model in the columns' units, for one fold and penalty.
struct Model {
    hi: Vec<f64>,
    lo: Vec<f64>,
    intercept: Dd,
}

/// Some penalties' errors in every fold, in doubled precision: moments and factorisations, and errors row by row, so that
/// even those of a nearly exact fit have digits. Returned by penalty, then fold.
pub(super) fn doubled_scores(
    source: &Source<'_>,
    folds: &FoldMoments<'_, Dd>,
    objective: &Objective,
    penalties: &[f64],
    partition: &super::folds::Partition,
    share: (f64, f64),
) -> Result<Vec<FoldScores>, RidgeError> {
    let n_folds = partition.n_folds();
    let phase = source.run.phase(share.0, share.1, n_folds);
    let tolerance = |penalty| rank_tolerance(penalty, source.rows.n_rows(), source.columns.n_features());
    let mut scores = vec![FoldScores::default(); penalties.len()];
    let visit = |_: usize, training: &Moments<Dd>, _: &Moments<Dd>| {
        let products = products(objective, training);
        let fit = |penalty: &f64| {
            let equations = Equilibrated::new(objective, training, &products, *penalty, &source.exponents);
            let b = equations.b.clone();
            let w = PivotedFactor::new(equations, tolerance(*penalty), source.run)?.solve(&b);
            let intercept = if objective.fit_intercept { intercept(training, &w) } else { Dd::ZERO };
            Ok(Model { hi: w.iter().map(|w| w.hi).collect(), lo: w.iter().map(|w| w.lo).collect(), intercept })
        };
        penalties.iter().map(fit).collect::<Result<Vec<_>, RidgeError>>()
    };
    folds.for_each_fold(source, &phase, visit, |batch, models| {
        for fold in errors(source, partition, batch, &models)? {
            scores.iter_mut().zip(fold).for_each(|(scores, mse)| scores.push(FoldScore { mse, error: 0.0 }));
        }
        Ok(())
    })?;
    Ok(scores)
}

/// `b = μ_y - <μ, w>`.
pub(super) fn intercept(moments: &Moments<Dd>, w: &[Dd]) -> Dd {
    let (features, target) = moments.mean.split_at(w.len());
    w.iter().zip(features).fold(target[0], |b, (w, mean)| b - *w * *mean)
}

/// The share of a column's squared norm that must be left when it is projected off the columns before it, for the columns
/// to count as independent.
///
/// At penalty 0 the square of `max(n, d) ε`, the usual cutoff for singular values of a matrix of doubles. With a penalty the
/// matrix is definite, and only directions where doubled precision has no digits left are taken for the limit.
pub(super) fn rank_tolerance(penalty: f64, n_rows: usize, n_features: usize) -> f64 {
    let size = n_rows.max(n_features).max(16) as f64;
    if penalty > 0.0 { 1e-24 } else { (size * f64::EPSILON).powi(2) }
}

/// The mean squared errors of a batch of folds under their models, by fold, then penalty.
fn errors(
    source: &Source<'_>,
    partition: &super::folds::Partition,
    batch: Range<usize>,
    models: &[Vec<Model>],
) -> Result<Vec<Vec<f64>>, RidgeError> {
    let (p, d) = (source.p(), source.columns.n_features());
    let chunks = source.chunks(16);
    let n_penalties = models.first().map_or(0, Vec::len);
    let parts = source.run.map(chunks.len(), source.is_small(), |c| {
        let mut sums = vec![vec![0.0; n_penalties + 1]; batch.len()];
        let mut z = vec![0.0; p];
        for block in chunks[c].clone() {
            for_each_row(source.rows, block, |i, row| {
                let (fold, weight) = (partition.fold_of(i), source.columns.weight(row));
                if !batch.contains(&fold) || weight == 0.0 {
                    return;
                }
                source.gather(row, &mut z);
                let sums = &mut sums[fold - batch.start];
                sums[n_penalties] += weight;
                for (sum, model) in sums.iter_mut().zip(&models[fold - batch.start]) {
                    let prediction = dd_loops::dot(&z[..d], &model.hi, &model.lo) + model.intercept;
                    let error = (prediction - Dd::from(z[d])).value();
                    *sum += weight * (error * error);
                }
            })?;
            source.run.check()?;
        }
        Ok(sums)
    })?;
    let mut total = vec![vec![0.0; n_penalties + 1]; batch.len()];
    for part in parts {
        for (total, part) in total.iter_mut().flatten().zip(part.into_iter().flatten()) {
            *total += part;
        }
    }
    for sums in &mut total {
        let weight = sums.pop().unwrap_or(1.0);
        sums.iter_mut().for_each(|sum| *sum /= weight);
    }
    Ok(total)
}
