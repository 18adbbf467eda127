//! Leave-one-out for all penalties from one eigendecomposition, where the penalty is the same for every row left out.
//!
//! With `G = Σ s_k q_k q_kᵀ` (dsyevd) and `t_ik = <x_i, q_k>`, the leverages are `h_i = Σ_k t_ik² / (s_k + α)` and the fitted
//! values `Σ_k t_ik <q_k, g> / (s_k + α)`: two products of matrices (dgemm) for all rows and penalties.

use super::{
    blas,
    double_double::{Dd, scaled},
    error::RidgeError,
    folds::Partition,
    gather::Source,
    hat::{LEAST_GAP, Rounding},
    moments::Moments,
    normal::Objective,
    params::Loss,
    rows::for_each_row,
    scores::{FoldScores, ROUNDOFF, is_certified},
    simd::kernel,
    triangle::Triangle,
};
use ndarray::{Array2, ArrayView2, linalg::general_mat_mul};

/// Rows that are multiplied at once.
const ROWS: usize = 256;

/// The decomposition, and what each penalty makes of it.
struct Spectrum {
    /// Eigenvectors as columns, (d, d).
    vectors: Array2<f64>,
    /// `1 / (s_k + α)`, (penalties, d).
    inverse: Array2<f64>,
    /// `<q_k, g> / (s_k + α)`, (penalties, d).
    fit: Array2<f64>,
    roundings: Vec<Rounding>,
}

/// All penalties' errors of every row, by penalty, then fold; `None` if rows have different penalties, or if some errors do
/// not keep their digits so: columns of different sizes need scaling, which is for one penalty at a time.
pub(super) fn scores(
    source: &Source<'_>,
    partition: &Partition,
    objective: &Objective,
    total: &Moments<f64>,
    products: &Triangle<f64>,
    penalties: &[f64],
) -> Result<Option<Vec<FoldScores>>, RidgeError> {
    let n = source.rows.n_rows();
    let is_one_penalty = objective.loss == Loss::Sum || source.columns.weight.is_none();
    if partition.n_folds() != n || objective.standardize || source.is_scaled() || !is_one_penalty {
        return Ok(None);
    }
    let Some(spectrum) = Spectrum::new(objective, total, products, penalties) else {
        return Ok(None);
    };
    let centre: (Vec<f64>, Vec<f64>) = match objective.fit_intercept {
        true => total.mean.iter().map(|mean| (mean.hi, mean.lo)).unzip(),
        false => (vec![0.0; source.p()], vec![0.0; source.p()]),
    };
    let mean_leverage = if objective.fit_intercept { 1.0 / total.weight.value() } else { 0.0 };
    let chunks = source.chunks(16);
    let parts = source.run.map(chunks.len(), source.is_small(), |c| {
        let mut group = Group::new(penalties.len(), n.div_ceil(chunks.len()), mean_leverage);
        let mut z = vec![0.0; source.p()];
        for block in chunks[c].clone() {
            for_each_row(source.rows, block, |_, row| {
                source.gather(row, &mut z);
                let root = source.columns.weight(row).sqrt();
                centre_row((&centre.0, &centre.1), root, &mut z);
                let (x, y) = z.split_at(z.len() - 1);
                group.x.extend_from_slice(x);
                group.y.push(y[0]);
                group.roots.push(root);
                if group.y.len() == ROWS {
                    group.finish(&spectrum);
                }
            })?;
            group.finish(&spectrum);
            source.run.check()?;
        }
        Ok(group.found)
    })?;
    let mut scores = vec![FoldScores::default(); penalties.len()];
    for part in parts {
        scores.iter_mut().zip(part).for_each(|(scores, part)| scores.append(part));
    }
    if !partition.is_by_row() {
        // From the order of the rows to that of the folds.
        for scores in &mut scores {
            let by_row = std::mem::replace(&mut scores.mse, vec![f64::NAN; n]);
            by_row.into_iter().enumerate().for_each(|(row, mse)| scores.mse[partition.fold_of(row)] = mse);
        }
    }
    Ok(scores.iter().all(is_certified).then_some(scores))
}

impl Spectrum {
    /// `None` if dsyevd gives up, or if some sum `s_k + α` is not positive.
    fn new(objective: &Objective, total: &Moments<f64>, products: &Triangle<f64>, penalties: &[f64]) -> Option<Self> {
        let d = total.p() - 1;
        let mut q = vec![0.0; d * d];
        (0..d).for_each(|i| q[i * d + i..(i + 1) * d].copy_from_slice(&products.row(i)[..d - i]));
        let values = blas::eigen(d, &mut q)?;
        let along: Vec<f64> = q.chunks_exact(d).map(|q| (0..d).map(|j| q[j] * products.at(j, d)).sum()).collect();
        // All rows weigh as much, or the weight does not matter.
        let training = total.weight - Dd::from(1.0);
        let (m, mut roundings) = (penalties.len(), Vec::new());
        let (mut inverse, mut fit) = (Array2::zeros((m, d)), Array2::zeros((m, d)));
        for (i, penalty) in penalties.iter().enumerate() {
            let (mantissa, e) = objective.ridge(*penalty, training);
            let alpha = scaled(mantissa.value(), e);
            let (least, largest) = (values[0] + alpha, values[d - 1] + alpha);
            if !(least > 0.0) {
                return None;
            }
            let mut w = vec![0.0; d];
            for (k, ((value, along), q)) in values.iter().zip(&along).zip(q.chunks_exact(d)).enumerate() {
                let inverted = 1.0 / (value.max(0.0) + alpha);
                (inverse[(i, k)], fit[(i, k)]) = (inverted, along * inverted);
                w.iter_mut().zip(q).for_each(|(w, q)| *w += along * inverted * q);
            }
            let size = w.iter().enumerate().map(|(j, w)| w * w * products.diagonal(j)).sum();
            roundings.push(Rounding { condition: largest / least, size });
        }
        let vectors = Array2::from_shape_vec((d, d), q).ok()?.reversed_axes();
        Some(Self { vectors, inverse, fit, roundings })
    }
}

/// Rows on their way to their errors.
struct Group {
    /// Shape (rows, d), centred and times the root of the weight.
    x: Vec<f64>,
    /// Targets, likewise.
    y: Vec<f64>,
    roots: Vec<f64>,
    /// `1 / W` with an intercept, else 0.
    mean_leverage: f64,
    /// The rows' errors, by penalty.
    found: Vec<FoldScores>,
}

impl Group {
    fn new(n_penalties: usize, n_rows: usize, mean_leverage: f64) -> Self {
        let room = || FoldScores { mse: Vec::with_capacity(n_rows), error: 0.0 };
        let found = (0..n_penalties).map(|_| room()).collect();
        Self { x: Vec::new(), y: Vec::new(), roots: Vec::new(), mean_leverage, found }
    }

    fn finish(&mut self, spectrum: &Spectrum) {
        let n = self.y.len();
        if let Ok(x) = ArrayView2::from_shape((n, spectrum.vectors.nrows()), &self.x) {
            let mut t = x.dot(&spectrum.vectors);
            let by_penalty = |factor: &Array2<f64>, t: &Array2<f64>| {
                let mut product = Array2::zeros((factor.nrows(), n));
                general_mat_mul(1.0, factor, &t.t(), 0.0, &mut product);
                product
            };
            let fitted = by_penalty(&spectrum.fit, &t);
            t.mapv_inplace(|t| t * t);
            let leverages = by_penalty(&spectrum.inverse, &t);
            let of_penalties = fitted.rows().into_iter().zip(leverages.rows()).zip(&spectrum.roundings);
            for (found, ((fitted, leverages), rounding)) in self.found.iter_mut().zip(of_penalties) {
                let from = found.mse.len();
                found.mse.resize(from + n, f64::NAN);
                found.error += score_rows(
                    rounding,
                    self.mean_leverage,
                    (&self.y, &self.roots),
                    fitted.to_slice().unwrap_or_default(),
                    leverages.to_slice().unwrap_or_default(),
                    &mut found.mse[from..],
                );
            }
        }
        self.x.clear();
        self.y.clear();
        self.roots.clear();
    }
}

kernel! {
    /// `z = (z - centre) root`, the centre as high and low parts.
    fn centre_row(centre: (&[f64], &[f64]), root: f64, z: &mut [f64]) {
        for ((z, hi), lo) in z.iter_mut().zip(centre.0).zip(centre.1) {
            *z = ((*z - hi) - lo) * root;
        }
    }
}

kernel! {
    /// [`Rounding::score_of_row`] for many rows: sets their errors, and returns the sum of the bounds.
    fn score_rows(
        rounding: &Rounding,
        mean_leverage: f64,
        of_rows: (&[f64], &[f64]),
        fitted: &[f64],
        leverages: &[f64],
        mse: &mut [f64]
    ) -> f64 {
        const LANES: usize = 8;
        let (n, mut bounds) = (mse.len(), [0.0; LANES]);
        let (y, roots, fitted, leverages) = (&of_rows.0[..n], &of_rows.1[..n], &fitted[..n], &leverages[..n]);
        let Rounding { condition, size } = *rounding;
        for from in (0..n).step_by(LANES) {
            for l in 0..LANES.min(n - from) {
                let i = from + l;
                let per_root = 1.0 / roots[i];
                let leverage = leverages[i] + roots[i] * roots[i] * mean_leverage;
                let gap = 1.0 - leverage;
                let error = ((y[i] - fitted[i]) / gap * per_root).abs();
                let reach = y[i].abs().max(fitted[i].abs()) * per_root;
                let residual = ROUNDOFF * ((leverage * condition * size).sqrt() + reach) / gap;
                let relative = ROUNDOFF * (condition * leverage + 2.0) / gap;
                let bound = 4.0 * residual * error + 4.0 * residual * residual + 8.0 * relative * error * error;
                mse[i] = error * error;
                bounds[l] += if gap > LEAST_GAP { bound } else { f64::INFINITY };
            }
        }
        bounds.iter().sum()
    }
}
