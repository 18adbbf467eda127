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
#[derive(Clone)]
pub(super) struct DualSystem<T> {
    /// The training rows with weight.
    pub(super) rows: Vec<usize>,
    /// Roots of their weights.
    pub(super) roots: Vec<T>,
    pub(super) weight: Dd,
    /// `2^-base_shift (S K_c S + m s sᵀ)`, s = S 1 / |S 1|: the last term fills the direction that centring empties.
    /// Shape (rows, rows), the upper triangle.
    base: Vec<T>,
    base_shift: i32,
    /// `2^-base_shift m`; 0 without intercept.
    base_fill: T,
    /// `2^-shift (S K_c S + m s sᵀ + α I)` for the α that was set last, or what a solver left of it.
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
    pub(super) fn new(objective: &Objective, samples: &Samples, k: &[T], is_training: impl Fn(usize) -> bool) -> Self {
        let n = samples.weights.len();
        let rows: Vec<usize> = (0..n).filter(|i| samples.weights[*i] > 0.0 && is_training(*i)).collect();
        let weights: Vec<Dd> = rows.iter().map(|i| Dd::from(samples.weights[*i])).collect();
        let weight = weights.iter().fold(Dd::ZERO, |sum, w| sum + *w);
        let roots: Vec<T> = weights.iter().map(|w| T::from_dd(w.sqrt())).collect();
        let shares: Vec<T> = weights.iter().map(|w| T::from_dd(*w / weight)).collect();
        let zero = T::from(0.0);
        let (mut kernel_means, mut kernel_mean, mut target_mean) = (vec![zero; n], zero, zero);
        if objective.fit_intercept {
            let mut all_shares = vec![zero; n];
            rows.iter().zip(&shares).for_each(|(i, share)| all_shares[*i] = *share);
            for (mean, k) in kernel_means.iter_mut().zip(k.chunks_exact(n)) {
                *mean = T::dot(k, &all_shares);
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
            base: Vec::new(),
            base_shift: 0,
            base_fill: zero,
            b: Vec::new(),
            right: Vec::new(),
            ridge: zero,
            shift: 0,
            target_mean,
            kernel_means,
            kernel_mean,
            fit_intercept: objective.fit_intercept,
        };
        system.right = system.rows.iter().zip(&system.roots).map(|(i, s)| system.target(samples, *i) * *s).collect();
        system.fill(k, n);
        system
    }

    fn fill(&mut self, k: &[T], n: usize) {
        let m = self.rows.len();
        let mut base = vec![T::from(0.0); m * m];
        let mut largest = 0.0_f64;
        for (i, row) in self.rows.iter().enumerate() {
            let (k, place) = (&k[row * n..(row + 1) * n], &mut base[i * m + i..(i + 1) * m]);
            for ((place, other), root) in place.iter_mut().zip(&self.rows[i..]).zip(&self.roots[i..]) {
                *place = self.centred(k, *row, *other) * self.roots[i] * *root;
            }
            largest = largest.max(place[0].dd().hi);
        }
        self.base_shift = exponent(largest).clamp(-1000, 1000);
        let factor = T::from(scaled(1.0, -self.base_shift));
        base.iter_mut().for_each(|b| *b = *b * factor);
        if self.fit_intercept {
            let trace = (0..m).fold(0.0, |sum, i| sum + base[i * m + i].dd().hi);
            let fill = Dd::from(if trace > 0.0 { trace / m as f64 } else { 1.0 });
            self.base_fill = T::from_dd(fill);
            let fill = fill / self.weight;
            for i in 0..m {
                let left = T::from_dd(fill) * self.roots[i];
                let place = &mut base[i * m + i..(i + 1) * m];
                place.iter_mut().zip(&self.roots[i..]).for_each(|(b, root)| *b = *b + left * *root);
            }
        }
        self.base = base;
    }

    /// Sets the system's penalty.
    pub(super) fn set_penalty(&mut self, objective: &Objective, penalty: f64, unit: i32) {
        self.set_penalty_for(objective, penalty, self.weight, unit);
    }

    /// Sets the penalty that training rows of another weight would have.
    pub(super) fn set_penalty_for(&mut self, objective: &Objective, penalty: f64, weight: Dd, unit: i32) {
        let m = self.rows.len();
        let (alpha, e) = objective.ridge(penalty, weight);
        // Standardised features have no unit.
        let e = if objective.standardize { e } else { e - 2 * unit };
        let least = if alpha.hi > 0.0 { exponent(alpha.hi) + e } else { -1100 };
        self.shift = self.base_shift.max(least).clamp(-1000, 1000);
        self.ridge = T::from_dd(alpha.scaled(e - self.shift));
        if self.shift == self.base_shift {
            self.b.clone_from(&self.base);
        } else {
            let factor = T::from(scaled(1.0, self.base_shift - self.shift));
            self.b.clear();
            self.b.extend(self.base.iter().map(|b| *b * factor));
        }
        for i in 0..m {
            self.b[i * m + i] = self.b[i * m + i] + self.ridge;
        }
    }

    /// `y_i - μ_y`.
    pub(super) fn target(&self, samples: &Samples, row: usize) -> T {
        let origin = samples.origin[samples.origin.len() - 1];
        T::from_dd(Dd::sum(samples.targets[row], -origin)) - self.target_mean
    }

    /// `K_ij - k̄_i - k̄_j + k̄`, for row i of K.
    fn centred(&self, k: &[T], i: usize, j: usize) -> T {
        if self.fit_intercept { k[j] - self.kernel_means[i] - self.kernel_means[j] + self.kernel_mean } else { k[j] }
    }

    pub(super) fn fit_intercept(&self) -> bool {
        self.fit_intercept
    }

    /// `2^-shift m`: with α, the eigenvalue of b for s.
    pub(super) fn fill_of_b(&self) -> T {
        self.base_fill * T::from(scaled(1.0, self.base_shift - self.shift))
    }

    /// The largest entry of b, before it is solved, or of K in the same units: centring K adds the rounding errors of its
    /// own, larger, entries.
    fn largest(&self, k: &[T], n: usize) -> f64 {
        let m = self.rows.len();
        let largest = self.rows.iter().fold(0.0, |a: f64, i| a.max(k[i * n + i].dd().hi)) * scaled(1.0, -self.shift);
        (0..m).fold(largest, |a, i| a.max(self.b[i * m + i].dd().hi))
    }

    /// `2^-base_shift (K_c S)_ij` for a row i outside, all training rows j.
    fn products_with(&self, k: &[T], n: usize, i: usize) -> Vec<T> {
        let factor = T::from(scaled(1.0, -self.base_shift));
        let k = &k[i * n..(i + 1) * n];
        self.rows.iter().zip(&self.roots).map(|(j, root)| self.centred(k, i, *j) * factor * *root).collect()
    }
}

/// Solves systems in one of the two precisions.
pub(super) trait Solve: KernelReal {
    /// The solution and the condition number (0: not needed), or the condition number that is `known` for a smaller
    /// penalty if it is small enough. The system's b is lost.
    fn solve(
        system: &mut DualSystem<Self>,
        known: f64,
        tolerance: f64,
        source: &Source<'_>,
    ) -> Result<Option<(Vec<Self>, f64)>, RidgeError>;
}

impl Solve for f64 {
    fn solve(
        system: &mut DualSystem<Self>,
        known: f64,
        _: f64,
        _: &Source<'_>,
    ) -> Result<Option<(Vec<Self>, f64)>, RidgeError> {
        let m = system.rows.len();
        let is_known = known < 1e4;
        let norm = if is_known { 0.0 } else { symmetric_norm(m, &system.b) };
        if !blas::cholesky(m, &mut system.b) {
            return Ok(None);
        }
        let mut a = system.right.clone();
        blas::cholesky_solve(m, &system.b, &mut a);
        let condition = if is_known { known } else { 1.0 / blas::reciprocal_condition(m, &system.b, norm) };
        Ok(Some((a, condition)))
    }
}

impl Solve for Dd {
    fn solve(
        system: &mut DualSystem<Self>,
        _: f64,
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

/// The errors of some penalties in every fold, by penalty, then fold: a system for each fold, which is factored for each
/// penalty; with standardised features also a Gram matrix for each fold.
pub(super) fn scores<T: Solve>(
    source: &Source<'_>,
    samples: &Samples,
    shared: Option<&[T]>,
    objective: &Objective,
    penalties: &[f64],
    partition: &Partition,
    share: (f64, f64),
) -> Result<Vec<FoldScores>, RidgeError> {
    /// So many at least, as far as there are as many folds and penalties.
    const TASKS: usize = 16;
    let (n, n_folds, n_penalties) = (samples.weights.len(), partition.n_folds(), penalties.len());
    let phase = source.run.phase(share.0, share.1, n_folds * n_penalties);
    let mut held_out = vec![Vec::new(); n_folds];
    (0..n).filter(|i| samples.weights[*i] > 0.0).for_each(|i| held_out[partition.fold_of(i)].push(i));
    let mut ascending: Vec<usize> = (0..n_penalties).collect();
    ascending.sort_by(|a, b| penalties[*a].total_cmp(&penalties[*b]));
    let chosen = |chunk: usize, n_chunks: usize| {
        &ascending[chunk * n_penalties / n_chunks..(chunk + 1) * n_penalties / n_chunks]
    };
    let score = |k: &[T], fold: usize, chosen: &[usize]| {
        let mut system = DualSystem::new(objective, samples, k, |i| partition.fold_of(i) != fold);
        let held_out = HeldOut::new(&system, samples, k, &held_out[fold]);
        let mut known = f64::INFINITY;
        let mut found = Vec::with_capacity(chosen.len());
        for &i in chosen {
            system.set_penalty(objective, penalties[i], source.exponents[0]);
            let norm = system.largest(k, n);
            let tolerance = rank_tolerance(penalties[i], n, source.columns.n_features());
            found.push(match T::solve(&mut system, known, tolerance, source)? {
                Some((a, condition)) => {
                    // It falls as the penalty grows.
                    known = condition;
                    held_out.score(&system, &a, condition, norm)
                }
                None => FoldScore::UNKNOWN,
            });
            phase.step()?;
        }
        Ok(found)
    };
    let mut scores = vec![FoldScores::unknown(n_folds); n_penalties];
    if let Some(k) = shared {
        let n_chunks = TASKS.div_ceil(n_folds).min(n_penalties);
        let found =
            source.run.map(n_folds * n_chunks, n < 64, |t| score(k, t / n_chunks, chosen(t % n_chunks, n_chunks)))?;
        for (t, found) in found.into_iter().enumerate() {
            chosen(t % n_chunks, n_chunks).iter().zip(found).for_each(|(i, found)| scores[*i].set(t / n_chunks, found));
        }
    } else {
        let n_chunks = TASKS.min(n_penalties);
        let of_fold = |fold| {
            let is_training: Vec<bool> = (0..n).map(|i| partition.fold_of(i) != fold).collect();
            let scale = standardising(&samples.deviations(source, &is_training)?);
            let k = kernel::<T>(source, samples, Some(&scale))?;
            source.run.map(n_chunks, false, |c| score(&k, fold, chosen(c, n_chunks)))
        };
        for (fold, found) in (0..n_folds).map(of_fold).enumerate() {
            for (i, found) in ascending.iter().zip(found?.into_iter().flatten()) {
                scores[*i].set(fold, found);
            }
        }
    }
    Ok(scores)
}

/// What columns of these standard deviations are multiplied with; 0 for constant ones.
pub(super) fn standardising(deviations: &[f64]) -> Vec<f64> {
    deviations.iter().map(|s| if *s > 0.0 { 1.0 / s } else { 0.0 }).collect()
}

/// A fold's own rows.
struct HeldOut<T> {
    weights: Vec<f64>,
    /// `y_i - μ_y`.
    targets: Vec<T>,
    /// `2^-base_shift (K_c S)_ij`, row-major, j the training rows.
    products: Vec<T>,
}

impl<T: KernelReal> HeldOut<T> {
    fn new(system: &DualSystem<T>, samples: &Samples, k: &[T], rows: &[usize]) -> Self {
        let n = samples.weights.len();
        Self {
            weights: rows.iter().map(|i| samples.weights[*i]).collect(),
            targets: rows.iter().map(|i| system.target(samples, *i)).collect(),
            products: rows.iter().flat_map(|i| system.products_with(k, n, *i)).collect(),
        }
    }

    /// The fold's error for coefficients a of the system; `norm`: see [`DualSystem::largest`].
    fn score(&self, system: &DualSystem<T>, a: &[T], condition: f64, norm: f64) -> FoldScore {
        let length = a.iter().map(|a| a.dd().hi.powi(2)).sum::<f64>().sqrt();
        let factor = T::from(scaled(1.0, system.base_shift - system.shift));
        let a: Vec<T> = a.iter().map(|a| *a * factor).collect();
        let (mut weight, mut mse, mut size) = (0.0, 0.0, 0.0);
        for ((v, target), products) in self.weights.iter().zip(&self.targets).zip(self.products.chunks_exact(a.len())) {
            let (prediction, terms) = T::dot_and_size(products, &a);
            let error = (prediction - *target).dd().value();
            let terms = terms + target.dd().hi.abs();
            weight += v;
            mse += v * (error * error);
            size += v * (terms * terms);
        }
        let (mse, size) = (mse / weight, size / weight);
        if T::IS_DOUBLED {
            return FoldScore { mse, error: 0.0 };
        }
        // δa = B⁻¹ δB a changes a prediction by at most |B|^(1/2) |B^(-1/2)| |δB| |a| with |δB| about u |B|.
        let prediction_error = ROUNDOFF * (condition.sqrt() * norm * length + size.sqrt());
        FoldScore { mse, error: 4.0 * prediction_error * mse.sqrt() + 4.0 * prediction_error * prediction_error }
    }
}

/// Weight, `Σ c_j²` and `Σ c_j` over the eigenvalues of the rows' centred Gram matrix, in its units.
pub(super) fn spectrum(objective: &Objective, samples: &Samples, k: &[f64]) -> (Dd, f64, f64) {
    let system = DualSystem::new(objective, samples, k, |_| true);
    let m = system.rows.len();
    let n = samples.weights.len();
    let (mut squared, mut trace) = (0.0, 0.0);
    for i in 0..m {
        for j in 0..m {
            let (row, column) = (system.rows[i], system.rows[j]);
            let entry = system.centred(&k[row * n..], row, column) * system.roots[i] * system.roots[j];
            squared += entry * entry;
            trace += if i == j { entry } else { 0.0 };
        }
    }
    (system.weight, squared, trace)
}
