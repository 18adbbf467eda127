//! Cross-validation with many small folds, up to leave-one-out, without refits.
//!
//! With H the hat matrix of the fit to all rows (with the ridge of the fold's training set), the errors of a fold f that the
//! fit without it would make are `e_f = (I - H_ff)⁻¹ r_f` (Cook & Weisberg 1982; for blocks: Burman 1989, Christensen 2001).

use super::{
    blas,
    double_double::{Dd, scaled},
    error::RidgeError,
    folds::Partition,
    gather::Source,
    leave_one_out,
    moments::Moments,
    normal::{CholeskyFactor, Equilibrated, Objective, products},
    rows::for_each_row,
    scores::{FoldScore, FoldScores, ROUNDOFF},
    triangle::Triangle,
};
use ndarray::{ArrayView1, ArrayView2};
use std::ops::Range;

/// Whether the identity beats a refit for each fold: the folds are many and much smaller than the number of features.
/// Standardised features have other penalties in every fold, for which it does not hold.
pub(super) fn is_cheaper(objective: &Objective, n_rows: usize, n_features: usize, n_folds: usize) -> bool {
    !objective.standardize && n_folds > 128 && 3 * n_rows < n_folds * n_features.max(24)
}

/// The rows in the order of their folds, centred and multiplied by the roots of their weights.
struct Sorted {
    /// Shape (n, d).
    x: Vec<f64>,
    y: Vec<f64>,
    roots: Vec<f64>,
    /// The rows of each fold.
    folds: Vec<Range<usize>>,
}

impl Sorted {
    fn new(source: &Source<'_>, partition: &Partition, centre: &[Dd]) -> Result<Self, RidgeError> {
        let (p, d, n) = (source.p(), source.p() - 1, source.rows.n_rows());
        let mut end = 0;
        let folds: Vec<Range<usize>> =
            partition.sizes().into_iter().map(|size| (end..end + size, end += size).0).collect();
        let mut next: Vec<usize> = folds.iter().map(|fold| fold.start).collect();
        let mut sorted = Self { x: vec![0.0; n * d], y: vec![0.0; n], roots: vec![0.0; n], folds };
        let mut z = vec![0.0; p];
        for block in 0..source.rows.n_blocks() {
            for_each_row(source.rows, block, |i, row| {
                source.gather(row, &mut z);
                let root = source.columns.weight(row).sqrt();
                z.iter_mut().zip(centre).for_each(|(z, c)| *z = ((*z - c.hi) - c.lo) * root);
                let place = &mut next[partition.fold_of(i)];
                sorted.x[*place * d..(*place + 1) * d].copy_from_slice(&z[..d]);
                (sorted.y[*place], sorted.roots[*place]) = (z[d], root);
                *place += 1;
            })?;
            source.run.check()?;
        }
        Ok(sorted)
    }

    fn weight(&self, fold: usize) -> f64 {
        self.roots[self.folds[fold].clone()].iter().map(|root| root * root).sum()
    }
}

/// The fit to all rows with one ridge.
struct HatFactor {
    /// `D U⁻¹` with `D (G + Λ) D = Uᵀ U`: rows x become z with `h_ij = <z_i, z_j>`. Shape (d, d).
    to_hat: Vec<f64>,
    w: Vec<f64>,
    rounding: Rounding,
}

/// What a smallest eigenvalue of `I - H_ff` must exceed: its inverse enlarges all rounding errors.
pub(super) const LEAST_GAP: f64 = 1e-4;

/// What the rounding errors of a fit depend on.
pub(super) struct Rounding {
    /// The condition number of the system that was solved.
    pub(super) condition: f64,
    /// `Σ_j w_j² G_jj`.
    pub(super) size: f64,
}

impl Rounding {
    /// A fold's error with an estimate of its rounding errors, for its largest leverage h, the smallest eigenvalue of
    /// `I - H_ff` and the largest target or prediction.
    ///
    /// As in the primal: residuals err by `u (h κ Σ w_j² G_jj)^(1/2)`, leverages by `u κ h`; both count `1 / (1 - h)` times.
    fn score(&self, mse: f64, leverage: f64, gap: f64, size: f64) -> FoldScore {
        if !(gap > LEAST_GAP) {
            return FoldScore::UNKNOWN;
        }
        let residual = ROUNDOFF * ((leverage * self.condition * self.size).sqrt() + size) / gap;
        let relative = ROUNDOFF * (self.condition * leverage + 2.0) / gap;
        FoldScore { mse, error: 4.0 * residual * mse.sqrt() + 4.0 * residual * residual + 8.0 * relative * mse }
    }

    /// The same for a fold of one row: `e = (y - ŷ) / (1 - h)`; target and fitted value are multiplied by the root of the
    /// row's weight.
    fn score_of_row(&self, y: f64, fitted: f64, leverage: f64, root: f64) -> FoldScore {
        let e = (y - fitted) / (1.0 - leverage);
        self.score(e * e / (root * root), leverage, 1.0 - leverage, y.abs().max(fitted.abs()) / root)
    }
}

/// All penalties' errors in every fold, by penalty, then fold. `beside` is done meanwhile if a thread has nothing else to do.
pub(super) fn scores(
    source: &Source<'_>,
    partition: &Partition,
    objective: &Objective,
    total: &Moments<f64>,
    penalties: &[f64],
    share: (f64, f64),
    beside: &(dyn Fn() + Sync),
) -> Result<Vec<FoldScores>, RidgeError> {
    let products = products(objective, total);
    match leave_one_out::scores(source, partition, objective, total, &products, penalties, beside)? {
        Some(scores) => Ok(scores),
        None => by_factors(source, partition, objective, total, penalties, share),
    }
}

/// One Cholesky factorisation (dpotrf, dtrtri) for each penalty and each distinct weight of the training sets.
pub(super) fn by_factors(
    source: &Source<'_>,
    partition: &Partition,
    objective: &Objective,
    total: &Moments<f64>,
    penalties: &[f64],
    share: (f64, f64),
) -> Result<Vec<FoldScores>, RidgeError> {
    let p = source.p();
    let zero = vec![Dd::ZERO; p];
    let sorted = Sorted::new(source, partition, if objective.fit_intercept { &total.mean } else { &zero })?;
    let products = products(objective, total);
    let n_folds = sorted.folds.len();
    let weight = total.weight;
    let mut classes: Vec<f64> = (0..n_folds).map(|f| sorted.weight(f)).collect();
    let class_of = classes.clone();
    classes.sort_unstable_by(f64::total_cmp);
    classes.dedup_by(|a, b| a.total_cmp(b).is_eq());
    let class_of = |fold: usize| classes.partition_point(|w| w.total_cmp(&class_of[fold]).is_lt());
    let phase = source.run.phase(share.0, share.1, penalties.len() * classes.len());
    let factors_at_once = ((1 << 22) / (p * p)).clamp(1, penalties.len() * classes.len());
    let mut scores = vec![FoldScores::unknown(n_folds); penalties.len()];
    let jobs: Vec<(usize, usize)> =
        (0..classes.len()).flat_map(|c| (0..penalties.len()).map(move |i| (c, i))).collect();
    // Groups of folds of about 256 rows.
    let n_groups = source.rows.n_rows().div_ceil(256).min(n_folds);
    let groups: Vec<Range<usize>> =
        (0..n_groups).map(|g| g * n_folds / n_groups..(g + 1) * n_folds / n_groups).collect();
    for jobs in jobs.chunks(factors_at_once) {
        let factors = source.run.map(jobs.len(), p < 64, |t| {
            let (class, i) = jobs[t];
            let training =
                Moments { weight: weight - Dd::from(classes[class]), mean: total.mean.clone(), m: Triangle::default() };
            phase.step()?;
            let equations = Equilibrated::new(objective, &training, &products, penalties[i], &source.exponents);
            Ok(hat_factor(equations, &products))
        })?;
        let found = source.run.map(n_groups, source.is_small(), |g| {
            let folds = groups[g].clone();
            let mut found = Vec::new();
            for ((class, i), factor) in jobs.iter().zip(&factors) {
                source.run.check()?;
                let Some(factor) = factor else { continue };
                let wanted: Vec<bool> = folds.clone().map(|fold| class_of(fold) == *class).collect();
                if wanted.contains(&true) {
                    let centre = if objective.fit_intercept { Some(weight.value()) } else { None };
                    let errors = group_scores(&sorted, folds.clone(), &wanted, factor, centre);
                    found.extend(errors.into_iter().map(|(fold, score)| (*i, fold, score)));
                }
            }
            Ok(found)
        })?;
        for (i, fold, score) in found.into_iter().flatten() {
            scores[i].set(fold, score);
        }
    }
    Ok(scores)
}

fn hat_factor(equations: Equilibrated<f64>, products: &Triangle<f64>) -> Option<HatFactor> {
    let d = equations.d;
    let mut w = equations.b.clone();
    let factor = CholeskyFactor::new(equations, None)?;
    factor.solve_equilibrated(&mut w);
    factor.unscale(&mut w);
    let mut to_hat = factor.inverse_factor();
    for (row, f) in to_hat.chunks_exact_mut(d).zip(factor.shift()) {
        let scale = scaled(1.0, -f);
        row.iter_mut().for_each(|x| *x *= scale);
    }
    let size = w.iter().enumerate().map(|(j, w)| w * w * products.diagonal(j)).sum();
    Some(HatFactor { to_hat, w, rounding: Rounding { condition: factor.condition(), size } })
}

/// The errors of a group of folds, of those that are wanted; `centre`: the total weight, if there is an intercept.
fn group_scores(
    sorted: &Sorted,
    folds: Range<usize>,
    wanted: &[bool],
    factor: &HatFactor,
    centre: Option<f64>,
) -> Vec<(usize, FoldScore)> {
    let d = factor.w.len();
    let first = sorted.folds[folds.start].start;
    let rows = first..sorted.folds[folds.end - 1].end;
    let Ok(x) = ArrayView2::from_shape((rows.len(), d), &sorted.x[rows.start * d..rows.end * d]) else {
        return Vec::new();
    };
    let Ok(to_hat) = ArrayView2::from_shape((d, d), &factor.to_hat) else {
        return Vec::new();
    };
    let z = x.dot(&to_hat);
    let fitted = x.dot(&ArrayView1::from(&factor.w));
    let mut found = Vec::new();
    for fold in folds.clone().filter(|fold| wanted[fold - folds.start]) {
        let own = sorted.folds[fold].clone();
        let n = own.len();
        if n == 1 {
            let (root, z) = (sorted.roots[own.start], z.row(own.start - first));
            let leverage = z.dot(&z) + centre.map_or(0.0, |weight| root * root / weight);
            let (y, fitted) = (sorted.y[own.start], fitted[own.start - first]);
            found.push((fold, factor.rounding.score_of_row(y, fitted, leverage, root)));
            continue;
        }
        // I - H_ff, H = s sᵀ / W + Z Zᵀ, s the roots of the weights; in place its Cholesky factor.
        let mut rest = vec![0.0; n * n];
        let (mut leverage, mut size) = (0.0_f64, 0.0_f64);
        for (i, a) in own.clone().enumerate() {
            for (j, b) in own.clone().enumerate().skip(i) {
                let mean = centre.map_or(0.0, |weight| sorted.roots[a] * sorted.roots[b] / weight);
                let h = z.row(a - first).dot(&z.row(b - first)) + mean;
                rest[i * n + j] = if i == j { 1.0 - h } else { -h };
                if i == j {
                    leverage = leverage.max(h);
                }
            }
            size = size.max(sorted.y[a].abs().max(fitted[a - first].abs()));
        }
        let mut e: Vec<f64> = own.clone().map(|a| sorted.y[a] - fitted[a - first]).collect();
        if !blas::cholesky(n, &mut rest) {
            continue;
        }
        blas::cholesky_solve(n, &rest, &mut e);
        let gap = (0..n).map(|i| rest[i * n + i].powi(2)).fold(1.0, f64::min);
        let weight = sorted.weight(fold);
        let mse = e.iter().map(|e| e * e).sum::<f64>() / weight;
        found.push((fold, factor.rounding.score(mse, leverage, gap, size * (n as f64 / weight).sqrt())));
    }
    found
}
