//! Cross-validation of data with more columns than rows and with many folds, up to leave-one-out, without refits.
//!
//! With `B = S K_c S + α I + m s sᵀ` of all rows, `a = B⁻¹ S (y - μ_y)` and `T = B⁻¹ - s sᵀ / (m + α)`, its inverse off the
//! direction s that the intercept takes, the errors of a fold f that the fit without it would make are
//! `S_f e_f = T_ff⁻¹ a_f`: the inverse of a block of an inverse is the Schur complement that predicts the block from the
//! others (Allen 1974; for blocks of kernels: Pahikkala, Boberg & Salakoski 2006). It does not matter which rows centre K.

use super::{
    blas,
    double_double::Dd,
    dual::factor,
    dual_system::DualSystem,
    error::RidgeError,
    folds::Partition,
    gather::Source,
    kernel::{KernelReal, Samples},
    normal::{Equilibrated, Objective, symmetric_norm},
    pivoted::PivotedFactor,
    primal::rank_tolerance,
    scores::{FoldScore, FoldScores, ROUNDOFF},
};

/// From so many folds on for each distinct weight of the training sets, one inverse is cheaper than their factorisations.
const LEAST_FOLDS: usize = 8;

/// What the identity needs of a system.
pub(super) struct Inverse<T> {
    /// `B⁻¹ S (y - μ_y)`.
    a: Vec<T>,
    /// Blocks of `B⁻¹`, one for each fold, row-major, the upper triangle.
    blocks: Vec<Vec<T>>,
    /// `|B| |B⁻¹|` and `|B⁻¹|`, estimated; 0 where rounding does not matter.
    condition: f64,
    norm: f64,
}

/// Precisions that systems are inverted in.
pub(super) trait Invert: KernelReal {
    /// `None` if the system is singular to working precision; its b is lost. `folds`: indices among its rows.
    fn invert(
        system: &mut DualSystem<Self>,
        folds: &[Vec<usize>],
        tolerance: f64,
        source: &Source<'_>,
    ) -> Result<Option<Inverse<Self>>, RidgeError>;
    /// Solves a positive definite system in place; the smallest squared pivot, `None` if it is not definite.
    fn solve_block(n: usize, t: Vec<Self>, a: &mut Vec<Self>, source: &Source<'_>) -> Result<Option<f64>, RidgeError>;
}

/// The upper triangle of a block of a symmetric matrix.
fn block<T: KernelReal>(rows: &[usize], entry: impl Fn(usize, usize) -> T) -> Vec<T> {
    let n = rows.len();
    let mut block = vec![T::from(0.0); n * n];
    for (i, row) in rows.iter().enumerate() {
        for (j, column) in rows.iter().enumerate().skip(i) {
            block[i * n + j] = entry(*row.min(column), *row.max(column));
        }
    }
    block
}

impl Invert for f64 {
    fn invert(
        system: &mut DualSystem<Self>,
        folds: &[Vec<usize>],
        _: f64,
        _: &Source<'_>,
    ) -> Result<Option<Inverse<Self>>, RidgeError> {
        let m = system.rows.len();
        let b_norm = symmetric_norm(m, &system.b);
        if !blas::cholesky(m, &mut system.b) {
            return Ok(None);
        }
        // The norms are those of the 1-norm: see `Norms::condition`.
        let condition = 1.0 / blas::reciprocal_condition(m, &system.b, b_norm) / (m as f64).sqrt();
        let norm = condition / b_norm * (m as f64).powf(0.25);
        let mut a = system.right.clone();
        blas::cholesky_solve(m, &system.b, &mut a);
        blas::cholesky_inverse(m, &mut system.b);
        let blocks = folds.iter().map(|rows| block(rows, |i, j| system.b[i * m + j])).collect();
        Ok(Some(Inverse { a, blocks, condition: condition.max(1.0), norm }))
    }

    fn solve_block(n: usize, mut t: Vec<Self>, a: &mut Vec<Self>, _: &Source<'_>) -> Result<Option<f64>, RidgeError> {
        if !blas::cholesky(n, &mut t) {
            return Ok(None);
        }
        blas::cholesky_solve(n, &t, a);
        Ok(Some((0..n).map(|i| t[i * n + i].powi(2)).fold(f64::INFINITY, f64::min)))
    }
}

impl Invert for Dd {
    fn invert(
        system: &mut DualSystem<Self>,
        folds: &[Vec<usize>],
        tolerance: f64,
        source: &Source<'_>,
    ) -> Result<Option<Inverse<Self>>, RidgeError> {
        let m = system.rows.len();
        let factor = factor(system, tolerance, source)?;
        if factor.is_deficient() {
            return Ok(None);
        }
        let a = factor.backward(&factor.forward(&system.right));
        // Columns of R⁻ᵀ: (B⁻¹)_ij = <R⁻ᵀ e_i, R⁻ᵀ e_j>.
        let of_fold = |rows: &Vec<usize>| -> Result<Vec<Dd>, RidgeError> {
            source.run.check()?;
            let columns: Vec<Vec<Dd>> = rows
                .iter()
                .map(|i| {
                    let mut unit = vec![Dd::ZERO; m];
                    unit[*i] = Dd::from(1.0);
                    factor.forward(&unit)
                })
                .collect();
            let indices: Vec<usize> = (0..rows.len()).collect();
            Ok(block(&indices, |i, j| Self::dot(&columns[i], &columns[j])))
        };
        let blocks = folds.iter().map(of_fold).collect::<Result<_, RidgeError>>()?;
        Ok(Some(Inverse { a, blocks, condition: 0.0, norm: 0.0 }))
    }

    fn solve_block(n: usize, t: Vec<Self>, a: &mut Vec<Self>, source: &Source<'_>) -> Result<Option<f64>, RidgeError> {
        let factor = PivotedFactor::new(Equilibrated::plain(n, t), 1e-28, source.run)?;
        if factor.is_deficient() {
            return Ok(None);
        }
        *a = factor.backward(&factor.forward(a));
        Ok(Some(1.0))
    }
}

/// The errors of some penalties in every fold, by penalty, then fold: one inverse (dpotri) for each penalty and each distinct
/// weight of the training sets. `None` if refits are cheaper.
///
/// `k`: the Gram matrix of features that are not standardised, as standardising them is another problem in every fold.
pub(super) fn scores<T: Invert>(
    source: &Source<'_>,
    samples: &Samples,
    k: &[T],
    objective: &Objective,
    penalties: &[f64],
    partition: &Partition,
    share: (f64, f64),
) -> Result<Option<Vec<FoldScores>>, RidgeError> {
    let system = DualSystem::new(objective, samples, k, |_| true);
    let mut folds = vec![Vec::new(); partition.n_folds()];
    system.rows.iter().enumerate().for_each(|(at, row)| folds[partition.fold_of(*row)].push(at));
    let weight_of = |rows: &Vec<usize>| rows.iter().map(|at| samples.weights[system.rows[*at]]).sum::<f64>();
    let weights: Vec<f64> = folds.iter().map(weight_of).collect();
    // Without the mean in the loss the penalty is the same for all training sets.
    let class_of = |fold: usize| if objective.is_mean() { weights[fold] } else { 0.0 };
    let mut classes: Vec<f64> = (0..folds.len()).map(class_of).collect();
    classes.sort_unstable_by(f64::total_cmp);
    classes.dedup_by(|a, b| a.total_cmp(b).is_eq());
    if folds.len() < LEAST_FOLDS * classes.len() {
        return Ok(None);
    }
    let phase = source.run.phase(share.0, share.1, classes.len() * penalties.len());
    let found = source.run.map(classes.len() * penalties.len(), system.rows.len() < 64, |t| {
        let (class, i) = (classes[t / penalties.len()], t % penalties.len());
        let chosen: Vec<usize> = (0..folds.len()).filter(|fold| class_of(*fold).total_cmp(&class).is_eq()).collect();
        let rows: Vec<Vec<usize>> = chosen.iter().map(|fold| folds[*fold].clone()).collect();
        let mut system = system.clone();
        let training = if objective.is_mean() { system.weight - Dd::from(class) } else { system.weight };
        system.set_penalty_for(objective, penalties[i], training, source.exponents[0]);
        let tolerance = rank_tolerance(penalties[i], samples.weights.len(), source.columns.n_features());
        let inverse = T::invert(&mut system, &rows, tolerance, source)?;
        phase.step()?;
        let Some(Inverse { a, blocks, condition, norm }) = inverse else {
            return Ok(Vec::new());
        };
        let length = a.iter().map(|a| a.dd().hi.powi(2)).sum::<f64>() / a.len() as f64;
        let mut found = Vec::with_capacity(chosen.len());
        for ((fold, rows), mut t) in chosen.into_iter().zip(&rows).zip(blocks) {
            let n = rows.len();
            if objective.fit_intercept {
                let scale = Dd::from(1.0) / ((system.fill_of_b().dd() + system.ridge.dd()) * system.weight);
                for i in 0..n {
                    for j in i..n {
                        let root = T::from_dd(system.roots[rows[i]].dd() * system.roots[rows[j]].dd() * scale);
                        t[i * n + j] = t[i * n + j] - root;
                    }
                }
            }
            let mut e: Vec<T> = rows.iter().map(|at| a[*at]).collect();
            let Some(pivot) = T::solve_block(n, t, &mut e, source)? else {
                continue;
            };
            let squares = e.iter().map(|e| e.dd().value().powi(2)).sum::<f64>();
            // B⁻¹ errs by u κ |B⁻¹|, a by u κ |a|, spread over its entries; the inverse of the block enlarges both.
            let error = ROUNDOFF * condition * (norm * squares.sqrt() + (length * n as f64).sqrt()) / pivot;
            let (mse, error) = (squares / weights[fold], error / weights[fold].sqrt());
            let error = if T::IS_DOUBLED { 0.0 } else { 4.0 * (error * mse.sqrt() + error * error) };
            found.push((i, fold, FoldScore { mse, error }));
        }
        Ok(found)
    })?;
    let mut scores = vec![FoldScores::unknown(folds.len()); penalties.len()];
    for (i, fold, score) in found.into_iter().flatten() {
        scores[i].set(fold, score);
    }
    Ok(Some(scores))
}
