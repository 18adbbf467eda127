//! Cross-validation of data with more columns than rows, by the dual: `w = X_cᵀ S a`, `(S K_c S + α I) a = S (y - μ_y)`.
//!
//! `K_c` is the Gram matrix of the rows, centred by the training rows' mean, S the roots of their weights. The folds' systems
//! are sub-matrices of one Gram matrix (Saunders, Gammerman & Vovk 1998).

use super::{
    blas,
    double_double::{Dd, exponent, scaled},
    error::RidgeError,
    folds::Partition,
    gather::Source,
    kernel::{KernelReal, Samples, kernel},
    normal::{Equilibrated, Objective, symmetric_norm},
    pivoted::PivotedFactor,
    primal::rank_tolerance,
    scores::{FoldScore, FoldScores, ROUNDOFF},
};

/// The centred system of some training rows.
pub(super) struct DualSystem<T> {
    /// The training rows with weight.
    pub(super) rows: Vec<usize>,
    /// Roots of their weights.
    pub(super) roots: Vec<T>,
    pub(super) weight: Dd,
    /// `2^-shift (S K_c S + α I + m s sᵀ)`, s = S 1 / |S 1|: the last term fills the direction that centring empties.
    pub(super) b: Vec<T>,
    /// `S (y - μ_y)`.
    pub(super) right: Vec<T>,
    /// `2^-shift α`.
    pub(super) ridge: T,
    pub(super) shift: i32,
    /// `μ_y`.
    pub(super) target_mean: T,
    /// `Σ_j v_j K_ij / W` for all rows i, and its mean.
    kernel_means: Vec<T>,
    kernel_mean: T,
    fit_intercept: bool,
}

impl<T: KernelReal> DualSystem<T> {
    pub(super) fn new(
        objective: &Objective,
        samples: &Samples,
        k: &[T],
        is_training: impl Fn(usize) -> bool,
        penalty: f64,
        unit: i32,
    ) -> Self {
        let n = samples.weights.len();
        let rows: Vec<usize> = (0..n).filter(|i| samples.weights[*i] > 0.0 && is_training(*i)).collect();
        let weights: Vec<Dd> = rows.iter().map(|i| Dd::from(samples.weights[*i])).collect();
        let weight = weights.iter().fold(Dd::ZERO, |sum, w| sum + *w);
        let roots: Vec<T> = weights.iter().map(|w| T::from_dd(w.sqrt())).collect();
        let shares: Vec<T> = weights.iter().map(|w| T::from_dd(*w / weight)).collect();
        let zero = T::from(0.0);
        let (mut kernel_means, mut kernel_mean, mut target_mean) = (vec![zero; n], zero, zero);
        if objective.fit_intercept {
            for (i, mean) in kernel_means.iter_mut().enumerate() {
                *mean = rows.iter().zip(&shares).fold(zero, |sum, (j, share)| sum + k[i * n + j] * *share);
            }
            for (i, share) in rows.iter().zip(&shares) {
                kernel_mean = kernel_mean + kernel_means[*i] * *share;
                target_mean = target_mean
                    + T::from_dd(Dd::sum(samples.targets[*i], -samples.origin[samples.origin.len() - 1])) * *share;
            }
        }
        let mut system = Self {
            rows,
            roots,
            weight,
            b: Vec::new(),
            right: Vec::new(),
            ridge: zero,
            shift: 0,
            target_mean,
            kernel_means,
            kernel_mean,
            fit_intercept: objective.fit_intercept,
        };
        system.fill(objective, samples, k, penalty, unit);
        system
    }

    fn fill(&mut self, objective: &Objective, samples: &Samples, k: &[T], penalty: f64, unit: i32) {
        let (n, m) = (samples.weights.len(), self.rows.len());
        let mut b = vec![T::from(0.0); m * m];
        let mut largest = 0.0_f64;
        for (i, row) in self.rows.iter().enumerate() {
            for (j, other) in self.rows.iter().enumerate().skip(i) {
                b[i * m + j] = self.centred(k, n, *row, *other) * self.roots[i] * self.roots[j];
            }
            largest = largest.max(b[i * m + i].dd().hi);
        }
        let (alpha, e) = objective.ridge(penalty, self.weight);
        // Standardised features have no unit.
        let e = if objective.standardize { e } else { e - 2 * unit };
        self.shift =
            exponent(largest).max(if alpha.hi > 0.0 { exponent(alpha.hi) + e } else { -1100 }).clamp(-1000, 1000);
        self.ridge = T::from_dd(alpha.scaled(e - self.shift));
        let factor = T::from(scaled(1.0, -self.shift));
        b.iter_mut().for_each(|b| *b = *b * factor);
        if self.fit_intercept {
            let trace = (0..m).fold(0.0, |sum, i| sum + b[i * m + i].dd().hi);
            let fill = Dd::from(if trace > 0.0 { trace / m as f64 } else { 1.0 }) / self.weight;
            for i in 0..m {
                let left = T::from_dd(fill) * self.roots[i];
                for j in i..m {
                    b[i * m + j] = b[i * m + j] + left * self.roots[j];
                }
            }
        }
        for i in 0..m {
            b[i * m + i] = b[i * m + i] + self.ridge;
        }
        self.b = b;
        self.right = (0..m).map(|i| self.target(samples, self.rows[i]) * self.roots[i]).collect();
    }

    pub(super) fn fit_intercept(&self) -> bool {
        self.fit_intercept
    }

    /// `y_i - μ_y`.
    pub(super) fn target(&self, samples: &Samples, row: usize) -> T {
        let origin = samples.origin[samples.origin.len() - 1];
        T::from_dd(Dd::sum(samples.targets[row], -origin)) - self.target_mean
    }

    /// `K_ij - k̄_i - k̄_j + k̄`.
    fn centred(&self, k: &[T], n: usize, i: usize, j: usize) -> T {
        if self.fit_intercept {
            k[i * n + j] - self.kernel_means[i] - self.kernel_means[j] + self.kernel_mean
        } else {
            k[i * n + j]
        }
    }

    /// `<x_i - μ, w> - (y_i - μ_y)` and the size of its terms, for coefficients a of the system b.
    fn error(&self, samples: &Samples, k: &[T], a: &[T], i: usize) -> (f64, f64) {
        let n = samples.weights.len();
        let factor = T::from(scaled(1.0, -self.shift));
        let (mut prediction, mut size) = (T::from(0.0), 0.0);
        for ((j, root), a) in self.rows.iter().zip(&self.roots).zip(a) {
            let term = self.centred(k, n, i, *j) * factor * (*root * *a);
            prediction = prediction + term;
            size += term.dd().hi.abs();
        }
        let target = self.target(samples, i);
        ((prediction - target).dd().value(), size + target.dd().hi.abs())
    }
}

/// Solves systems in one of the two precisions; the second number is the condition number (0: not needed).
pub(super) trait Solve: KernelReal {
    fn solve(
        system: &DualSystem<Self>,
        tolerance: f64,
        source: &Source<'_>,
    ) -> Result<Option<(Vec<Self>, f64)>, RidgeError>;
}

impl Solve for f64 {
    fn solve(system: &DualSystem<Self>, _: f64, _: &Source<'_>) -> Result<Option<(Vec<Self>, f64)>, RidgeError> {
        let m = system.rows.len();
        let mut u = system.b.clone();
        let norm = symmetric_norm(m, &u);
        if !blas::cholesky(m, &mut u) {
            return Ok(None);
        }
        let mut a = system.right.clone();
        blas::cholesky_solve(m, &u, &mut a);
        Ok(Some((a, 1.0 / blas::reciprocal_condition(m, &u, norm))))
    }
}

impl Solve for Dd {
    fn solve(
        system: &DualSystem<Self>,
        tolerance: f64,
        source: &Source<'_>,
    ) -> Result<Option<(Vec<Self>, f64)>, RidgeError> {
        let factor = factor(system, tolerance, source)?;
        Ok(Some((factor.pseudo_solve(&system.right, source.run)?, 0.0)))
    }
}

/// The pivoted factor of a system in doubled precision.
pub(super) fn factor(
    system: &DualSystem<Dd>,
    tolerance: f64,
    source: &Source<'_>,
) -> Result<PivotedFactor, RidgeError> {
    PivotedFactor::new(Equilibrated::plain(system.rows.len(), system.b.clone()), tolerance, source.run)
}

/// The errors of some penalties in every fold, by penalty, then fold; one task for each fold and penalty, and with
/// standardised features a Gram matrix for each fold.
pub(super) fn scores<T: Solve>(
    source: &Source<'_>,
    samples: &Samples,
    shared: Option<&[T]>,
    objective: &Objective,
    penalties: &[f64],
    partition: &Partition,
    share: (f64, f64),
) -> Result<Vec<FoldScores>, RidgeError> {
    let (n_folds, n_penalties) = (partition.n_folds(), penalties.len());
    let phase = source.run.phase(share.0, share.1, n_folds * n_penalties);
    let mut held_out = vec![Vec::new(); n_folds];
    (0..samples.weights.len()).for_each(|i| held_out[partition.fold_of(i)].push(i));
    let score = |k: &[T], fold: usize, penalty: f64| {
        let is_training = |i: usize| partition.fold_of(i) != fold;
        let system = DualSystem::new(objective, samples, k, is_training, penalty, source.exponents[0]);
        let tolerance = rank_tolerance(penalty, samples.weights.len(), source.columns.n_features());
        let score = match T::solve(&system, tolerance, source)? {
            Some((a, condition)) => fold_score(&system, samples, k, &a, condition, &held_out[fold]),
            None => FoldScore::UNKNOWN,
        };
        phase.step()?;
        Ok(score)
    };
    let mut scores = vec![Vec::with_capacity(n_folds); n_penalties];
    if let Some(k) = shared {
        let is_small = samples.weights.len() < 64;
        let found = source
            .run
            .map(n_folds * n_penalties, is_small, |t| score(k, t / n_penalties, penalties[t % n_penalties]))?;
        found.into_iter().enumerate().for_each(|(t, found)| scores[t % n_penalties].push(found));
    } else {
        for fold in 0..n_folds {
            let is_training: Vec<bool> = (0..samples.weights.len()).map(|i| partition.fold_of(i) != fold).collect();
            let scale = standardising(&samples.deviations(source, &is_training)?);
            let k = kernel::<T>(source, samples, Some(&scale))?;
            let found = source.run.map(n_penalties, false, |i| score(&k, fold, penalties[i]))?;
            found.into_iter().enumerate().for_each(|(i, found)| scores[i].push(found));
        }
    }
    Ok(scores)
}

/// What columns of these standard deviations are multiplied with; 0 for constant ones.
pub(super) fn standardising(deviations: &[f64]) -> Vec<f64> {
    deviations.iter().map(|s| if *s > 0.0 { 1.0 / s } else { 0.0 }).collect()
}

fn fold_score<T: KernelReal>(
    system: &DualSystem<T>,
    samples: &Samples,
    k: &[T],
    a: &[T],
    condition: f64,
    held_out: &[usize],
) -> FoldScore {
    let m = system.rows.len();
    let (mut weight, mut mse, mut size) = (0.0, 0.0, 0.0);
    for &i in held_out.iter().filter(|i| samples.weights[**i] > 0.0) {
        let (error, terms) = system.error(samples, k, a, i);
        weight += samples.weights[i];
        mse += samples.weights[i] * (error * error);
        size += samples.weights[i] * (terms * terms);
    }
    let (mse, size) = (mse / weight, size / weight);
    if T::IS_DOUBLED {
        return FoldScore { mse, error: 0.0 };
    }
    // δa = B⁻¹ δB a changes a prediction by at most |B|^(1/2) |B^(-1/2)| |δB| |a| with |δB| about u |B|; centring K adds
    // the rounding errors of its own, larger, entries.
    let n = samples.weights.len();
    let largest = system.rows.iter().fold(0.0, |a: f64, i| a.max(k[i * n + i].dd().hi)) * scaled(1.0, -system.shift);
    let norm = largest.max((0..m).fold(0.0, |a: f64, i| a.max(system.b[i * m + i].dd().hi)));
    let length = a.iter().map(|a| a.dd().hi.powi(2)).sum::<f64>().sqrt();
    let prediction_error = ROUNDOFF * (condition.sqrt() * norm * length + size.sqrt());
    FoldScore { mse, error: 4.0 * prediction_error * mse.sqrt() + 4.0 * prediction_error * prediction_error }
}

/// Weight, `Σ c_j²` and `Σ c_j` over the eigenvalues of the rows' centred Gram matrix, in its units.
pub(super) fn spectrum(objective: &Objective, samples: &Samples, k: &[f64]) -> (Dd, f64, f64) {
    let system = DualSystem::new(objective, samples, k, |_| true, 0.0, 0);
    let m = system.rows.len();
    let n = samples.weights.len();
    let (mut squared, mut trace) = (0.0, 0.0);
    for i in 0..m {
        for j in 0..m {
            let entry = system.centred(k, n, system.rows[i], system.rows[j]) * system.roots[i] * system.roots[j];
            squared += entry * entry;
            trace += if i == j { entry } else { 0.0 };
        }
    }
    (system.weight, squared, trace)
}
