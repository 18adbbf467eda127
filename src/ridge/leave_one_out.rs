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
    hat::Rounding,
    moments::Moments,
    normal::Objective,
    params::Loss,
    rows::for_each_row,
    scores::{FoldScore, FoldScores, is_certified},
};
use ndarray::{Array2, ArrayView2};

/// Rows that are multiplied at once.
const ROWS: usize = 256;

/// The decomposition, and what each penalty makes of it.
struct Spectrum {
    /// Eigenvectors as columns, (d, d).
    vectors: Array2<f64>,
    /// `1 / (s_k + α)`, (d, penalties).
    inverse: Array2<f64>,
    /// `<q_k, g> / (s_k + α)`, (d, penalties).
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
    products: &[f64],
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
    let zero = vec![Dd::ZERO; source.p()];
    let centre = if objective.fit_intercept { &total.mean } else { &zero };
    let mean_leverage = if objective.fit_intercept { 1.0 / total.weight.value() } else { 0.0 };
    let chunks = source.chunks(16);
    let parts = source.run.map(chunks.len(), source.is_small(), |c| {
        let mut group = Group::new(penalties.len(), mean_leverage);
        let mut z = vec![0.0; source.p()];
        for block in chunks[c].clone() {
            for_each_row(source.rows, block, |_, row| {
                source.gather(row, &mut z);
                let root = source.columns.weight(row).sqrt();
                z.iter_mut().zip(centre).for_each(|(z, c)| *z = ((*z - c.hi) - c.lo) * root);
                let (y, x) = (z[z.len() - 1], &z[..z.len() - 1]);
                group.x.extend_from_slice(x);
                group.rows.push((y, root));
                if group.rows.len() == ROWS {
                    group.finish(&spectrum);
                }
            })?;
            group.finish(&spectrum);
            source.run.check()?;
        }
        Ok(group.found)
    })?;
    // In the order of the rows, then of the folds.
    let in_order = |i: usize| {
        let found: Vec<FoldScore> = parts.iter().flat_map(|part| part[i].iter().copied()).collect();
        if partition.is_by_row() {
            return found;
        }
        let mut scores = vec![FoldScore::UNKNOWN; n];
        found.into_iter().enumerate().for_each(|(row, score)| scores[partition.fold_of(row)] = score);
        scores
    };
    let scores: Vec<FoldScores> = (0..penalties.len()).map(in_order).collect();
    Ok(scores.iter().all(|scores| is_certified(scores)).then_some(scores))
}

impl Spectrum {
    /// `None` if dsyevd gives up, or if some sum `s_k + α` is not positive.
    fn new(objective: &Objective, total: &Moments<f64>, products: &[f64], penalties: &[f64]) -> Option<Self> {
        let (p, d) = (total.p(), total.p() - 1);
        let mut q = vec![0.0; d * d];
        (0..d).for_each(|i| q[i * d + i..(i + 1) * d].copy_from_slice(&products[i * p + i..i * p + d]));
        let values = blas::eigen(d, &mut q)?;
        let along: Vec<f64> = q.chunks_exact(d).map(|q| (0..d).map(|j| q[j] * products[j * p + d]).sum()).collect();
        // All rows weigh as much, or the weight does not matter.
        let training = total.weight - Dd::from(1.0);
        let (m, mut roundings) = (penalties.len(), Vec::new());
        let (mut inverse, mut fit) = (Array2::zeros((d, m)), Array2::zeros((d, m)));
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
                (inverse[(k, i)], fit[(k, i)]) = (inverted, along * inverted);
                w.iter_mut().zip(q).for_each(|(w, q)| *w += along * inverted * q);
            }
            let size = w.iter().enumerate().map(|(j, w)| w * w * products[j * p + j]).sum();
            roundings.push(Rounding { condition: largest / least, size });
        }
        let vectors = Array2::from_shape_vec((d, d), q).ok()?.reversed_axes();
        Some(Self { vectors, inverse, fit, roundings })
    }
}

/// Rows on their way to their errors.
struct Group {
    /// Target and root of the weight, the target centred and times the root.
    rows: Vec<(f64, f64)>,
    /// Shape (rows, d), centred and times the root.
    x: Vec<f64>,
    /// `1 / W` with an intercept, else 0.
    mean_leverage: f64,
    /// The rows' errors, by penalty.
    found: Vec<FoldScores>,
}

impl Group {
    fn new(n_penalties: usize, mean_leverage: f64) -> Self {
        Self { rows: Vec::new(), x: Vec::new(), mean_leverage, found: vec![Vec::new(); n_penalties] }
    }

    fn finish(&mut self, spectrum: &Spectrum) {
        if let Ok(x) = ArrayView2::from_shape((self.rows.len(), spectrum.vectors.nrows()), &self.x) {
            let mut t = x.dot(&spectrum.vectors);
            let fitted = t.dot(&spectrum.fit);
            t.mapv_inplace(|t| t * t);
            let leverages = t.dot(&spectrum.inverse);
            for (i, (found, rounding)) in self.found.iter_mut().zip(&spectrum.roundings).enumerate() {
                let of_rows = self.rows.iter().zip(fitted.column(i)).zip(leverages.column(i));
                found.extend(of_rows.map(|(((y, root), fitted), leverage)| {
                    rounding.score_of_row(*y, *fitted, leverage + root * root * self.mean_leverage, *root)
                }));
            }
        }
        self.rows.clear();
        self.x.clear();
    }
}
