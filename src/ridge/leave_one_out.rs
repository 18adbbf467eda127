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
use ndarray::{Array2, ArrayView2, ArrayViewMut2, linalg::general_mat_mul, s};

/// Rows that are multiplied at once.
const ROWS: usize = 128;
/// Rows, and penalties, whose sums are formed at once.
const LANES: usize = 16;
const PENALTIES: usize = 5;

/// The decomposition, and what each penalty makes of it.
pub(super) struct Spectrum {
    /// Eigenvectors as rows, (d, d).
    vectors: Array2<f64>,
    /// By groups of penalties, then by k: `<q_k, g> / (s_k + α)` and `1 / (s_k + α)`; zeros where there are no penalties left.
    factors: Vec<Vec<[[f64; PENALTIES]; 2]>>,
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
    beside: &(dyn Fn() + Sync),
) -> Result<Option<Vec<FoldScores>>, RidgeError> {
    let n = source.rows.n_rows();
    let is_one_penalty = objective.loss == Loss::Sum || source.columns.weight.is_none();
    if partition.n_folds() != n || objective.standardize || source.is_scaled() || !is_one_penalty {
        return Ok(None);
    }
    let spectrum = || Spectrum::new(objective, total, products, penalties);
    let Some(spectrum) = source.run.beside(source.is_small(), beside, spectrum) else {
        return Ok(None);
    };
    let centre: (Vec<f64>, Vec<f64>) = match objective.fit_intercept {
        true => total.mean.iter().map(|mean| (mean.hi, mean.lo)).unzip(),
        false => (vec![0.0; source.p()], vec![0.0; source.p()]),
    };
    let mean_leverage = if objective.fit_intercept { 1.0 / total.weight.value() } else { 0.0 };
    let chunks = source.chunks(16);
    let parts = source.run.map(chunks.len(), source.is_small(), |c| {
        let mut group = Group::new(source.p(), penalties.len(), n.div_ceil(chunks.len()), mean_leverage);
        for block in chunks[c].clone() {
            for_each_row(source.rows, block, |_, row| {
                source.gather(row, group.next());
                group.roots.push(source.columns.weight(row).sqrt());
                if group.roots.len() == ROWS {
                    group.finish(&spectrum, &centre);
                }
            })?;
            group.finish(&spectrum, &centre);
            source.run.check()?;
        }
        Ok(group.scores())
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
        let mut roundings = Vec::new();
        let mut factors = vec![vec![[[0.0; PENALTIES]; 2]; d]; penalties.len().div_ceil(PENALTIES)];
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
                let [fit, inverse] = &mut factors[i / PENALTIES][k];
                (fit[i % PENALTIES], inverse[i % PENALTIES]) = (along * inverted, inverted);
                w.iter_mut().zip(q).for_each(|(w, q)| *w += along * inverted * q);
            }
            let size = w.iter().enumerate().map(|(j, w)| w * w * products.diagonal(j)).sum();
            roundings.push(Rounding { condition: largest / least, size });
        }
        Some(Self { vectors: Array2::from_shape_vec((d, d), q).ok()?, factors, roundings })
    }
}

/// Rows on their way to their errors.
pub(super) struct Group {
    /// (features.., target), shape (rows, p); in the end centred and times the root of the weight.
    z: Vec<f64>,
    p: usize,
    /// The roots of the weights of the rows that are there.
    roots: Vec<f64>,
    /// The rows along the eigenvectors, shape (d, rows).
    t: Vec<f64>,
    /// `1 / W` with an intercept, else 0.
    mean_leverage: f64,
    /// The rows' errors, by penalty.
    mse: Vec<Vec<f64>>,
    /// The sums of their bounds, by penalty.
    bounds: Vec<[f64; LANES]>,
}

impl Group {
    fn new(p: usize, n_penalties: usize, n_rows: usize, mean_leverage: f64) -> Self {
        Self {
            z: vec![0.0; ROWS * p],
            p,
            roots: Vec::with_capacity(ROWS),
            t: vec![0.0; ROWS * (p - 1)],
            mean_leverage,
            mse: (0..n_penalties).map(|_| Vec::with_capacity(n_rows)).collect(),
            bounds: vec![[0.0; LANES]; n_penalties],
        }
    }

    /// The place of the row that is next.
    fn next(&mut self) -> &mut [f64] {
        &mut self.z[self.roots.len() * self.p..][..self.p]
    }

    /// Finds the errors of the rows that are there.
    fn finish(&mut self, spectrum: &Spectrum, centre: &(Vec<f64>, Vec<f64>)) {
        let (n, d) = (self.roots.len(), self.p - 1);
        centre_rows((&centre.0, &centre.1), &self.roots, &mut self.z);
        // Whole vectors; what is behind the rows is not looked at.
        let n_padded = n.next_multiple_of(LANES);
        self.roots.resize(n_padded, 1.0);
        let z = ArrayView2::from_shape((n_padded, self.p), &self.z[..n_padded * self.p]);
        let t = ArrayViewMut2::from_shape((d, n_padded), &mut self.t[..n_padded * d]);
        if let (Ok(z), Ok(mut t)) = (z, t) {
            general_mat_mul(1.0, &spectrum.vectors, &z.slice(s![.., ..d]).t(), 0.0, &mut t);
        }
        score_rows(spectrum, n, self);
        self.roots.clear();
    }

    fn scores(self) -> Vec<FoldScores> {
        let of_penalties = self.mse.into_iter().zip(self.bounds);
        of_penalties.map(|(mse, bounds)| FoldScores { mse, error: bounds.iter().sum() }).collect()
    }
}

kernel! {
    /// `z = (z - centre) root` for rows z, the centre as high and low parts.
    fn centre_rows(centre: (&[f64], &[f64]), roots: &[f64], rows: &mut [f64]) {
        for (z, root) in rows.chunks_exact_mut(centre.0.len()).zip(roots) {
            for ((z, hi), lo) in z.iter_mut().zip(centre.0).zip(centre.1) {
                *z = ((*z - hi) - lo) * root;
            }
        }
    }
}

kernel! {
    /// [`Rounding::score_of_row`] for the `n` rows of a group and all penalties.
    fn score_rows(spectrum: &Spectrum, n: usize, group: &mut Group) {
        let (p, n_padded) = (group.p, group.roots.len());
        for from in (0..n).step_by(LANES) {
            let vector = |values: &[f64], from: usize| *values[from..].first_chunk::<LANES>().unwrap_or(&[0.0; LANES]);
            let roots = vector(&group.roots, from);
            let y: [f64; LANES] = std::array::from_fn(|l| group.z[(from + l) * p + p - 1]);
            let per_root = roots.map(|root| 1.0 / root);
            for (first, factors) in (0..).step_by(PENALTIES).zip(&spectrum.factors) {
                let mut sums = [[[0.0; LANES]; PENALTIES]; 2];
                for ([fit, inverse], t) in factors.iter().zip(group.t.chunks_exact(n_padded)) {
                    let t = vector(t, from);
                    let squares = t.map(|t| t * t);
                    for i in 0..PENALTIES {
                        for l in 0..LANES {
                            sums[0][i][l] = t[l].mul_add(fit[i], sums[0][i][l]);
                            sums[1][i][l] = squares[l].mul_add(inverse[i], sums[1][i][l]);
                        }
                    }
                }
                let of_penalties = spectrum.roundings[first..].iter().zip(&mut group.mse[first..]);
                for (i, ((rounding, mse), bounds)) in of_penalties.zip(&mut group.bounds[first..]).take(PENALTIES).enumerate() {
                    let (fitted, leverages) = (sums[0][i], sums[1][i]);
                    let Rounding { condition, size } = *rounding;
                    let mut found = [0.0; LANES];
                    for l in 0..LANES {
                        let leverage = leverages[l] + roots[l] * roots[l] * group.mean_leverage;
                        let gap = 1.0 - leverage;
                        let per_gap = 1.0 / gap;
                        let error = ((y[l] - fitted[l]) * per_gap * per_root[l]).abs();
                        let reach = y[l].abs().max(fitted[l].abs()) * per_root[l];
                        let residual = ROUNDOFF * ((leverage * condition * size).sqrt() + reach) * per_gap;
                        let relative = ROUNDOFF * (condition * leverage + 2.0) * per_gap;
                        let bound = 4.0 * residual * (error + residual) + 8.0 * relative * error * error;
                        let bound = if gap > LEAST_GAP { bound } else { f64::INFINITY };
                        bounds[l] += if from + l < n { bound } else { 0.0 };
                        found[l] = error * error;
                    }
                    mse.extend_from_slice(&found[..LANES.min(n - from)]);
                }
            }
        }
    }
}
