//! Cross-validation of data with more columns than rows, by the dual: `w = X_cᵀ S a`, `(S K_c S + α I) a = S (y - μ_y)`.
//!
//! `K_c` is the Gram matrix of the rows, centred by the training rows' mean, S the roots of their weights. The folds' systems
//! are sub-matrices of one Gram matrix (Saunders, Gammerman & Vovk 1998).
//!
//! Many penalties share one reduction of a fold's system to tridiagonal form; few, and those that want more digits, are factored each.

use super::{
    blas,
    double_double::Dd,
    dual_system::DualSystem,
    error::RidgeError,
    folds::Partition,
    gather::Source,
    kernel::{KernelReal, Samples, kernel},
    normal::{Equilibrated, Objective, symmetric_norm},
    pivoted::PivotedFactor,
    precision::Real,
    primal::rank_tolerance,
    scores::{ACCEPTED, FoldScore, FoldScores, ROUNDOFF},
    tridiagonal::{Side, Solved, Tridiagonal},
};

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

/// The errors of some penalties in every fold, by penalty, then fold: a system for each fold;
/// with standardised features also a Gram matrix for each fold.
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
        let chosen: Vec<f64> = chosen.iter().map(|i| penalties[*i]).collect();
        let reduced = scores_by_reduction(&mut system, &held_out, objective, &chosen, source, k);
        let mut known = f64::INFINITY;
        let mut found = Vec::with_capacity(chosen.len());
        for (penalty, reduced) in chosen.into_iter().zip(reduced) {
            found.push(match reduced {
                Some(score) => score,
                None => {
                    system.set_penalty(objective, penalty, source.exponents[0]);
                    let norm = system.largest(k, n);
                    let tolerance = rank_tolerance(penalty, n, source.columns.n_features());
                    T::solve(&mut system, known, tolerance, source)?.map_or(FoldScore::UNKNOWN, |(a, condition)| {
                        // It falls as the penalty grows.
                        known = condition;
                        held_out.score(&system, &a, condition, norm)
                    })
                }
            });
            phase.step()?;
        }
        Ok(found)
    };
    let mut scores = vec![FoldScores::unknown(n_folds); n_penalties];
    if let Some(k) = shared {
        let n_chunks = if is_reduced::<T>(n, n_penalties) { 1 } else { TASKS.div_ceil(n_folds).min(n_penalties) };
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

/// Whether so many penalties of a system of up to n rows share a reduction. It costs as much as five factors with what belongs to
/// each; of more rows its matrix leaves the caches, and it cannot be stopped halfway.
fn is_reduced<T: Real>(n: usize, n_penalties: usize) -> bool {
    !T::IS_DOUBLED && n_penalties >= 8 && n <= 1500
}

/// The errors of a fold by penalty, in one reduction of its system; `None` where another way may keep more digits.
fn scores_by_reduction<T: KernelReal>(
    system: &mut DualSystem<T>,
    held_out: &HeldOut<T>,
    objective: &Objective,
    penalties: &[f64],
    source: &Source<'_>,
    k: &[T],
) -> Vec<Option<FoldScore>> {
    let (m, n) = (system.rows.len(), source.rows.n_rows());
    if !is_reduced::<T>(n, penalties.len()) {
        return vec![None; penalties.len()];
    }
    let values = |x: &[T]| x.iter().map(|x| x.dd().hi).collect::<Vec<f64>>();
    let reduced = Tridiagonal::new(m, values(system.base()));
    let mut right = values(&system.right);
    reduced.turn(Side::Reduced, &mut right);
    let mut solve = |penalty: &f64| {
        system.set_ridge(objective, *penalty, source.exponents[0]);
        reduced.solve(system.factor_of_b().dd().hi, system.ridge.dd().hi, &right)
    };
    let solved: Vec<Option<Solved>> = penalties.iter().map(&mut solve).collect();
    // Brought back all at once.
    let mut a: Vec<f64> = solved.iter().flatten().flat_map(|solved| &solved.x).copied().collect();
    reduced.turn(Side::Original, &mut a);
    let mut a = a.chunks_exact(m);
    let mut score = |(penalty, solved): (&f64, Option<Solved>)| {
        let Solved { condition, norm, .. } = solved?;
        let a: Vec<T> = a.next()?.iter().map(|a| T::from(*a)).collect();
        system.set_ridge(objective, *penalty, source.exponents[0]);
        // The reduction errs by u times the norm of all of b, not of its largest entry.
        let norm = norm.max(system.largest_of_kernel(k, n));
        let score = held_out.score(system, &a, condition, norm);
        (score.error <= ACCEPTED * score.mse).then_some(score)
    };
    penalties.iter().zip(solved).map(&mut score).collect()
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
        let factor = system.factor_of_b();
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
