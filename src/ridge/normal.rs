//! The normal equations `(G + Λ) w = g` of a training set, brought to unit diagonal by powers of two.

use super::{
    blas,
    double_double::{Dd, exponent, scaled},
    moments::Moments,
    params::{Loss, Params},
    precision::Real,
    triangle::Triangle,
};
use std::borrow::Cow;

/// What is minimised, apart from λ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Objective {
    pub(super) fit_intercept: bool,
    pub(super) loss: Loss,
    pub(super) standardize: bool,
}

impl Objective {
    pub(super) fn new(params: &Params) -> Self {
        Self { fit_intercept: params.fit_intercept, loss: params.loss, standardize: params.standardize }
    }

    /// Whether the loss is a mean, so that α depends on the weight of the training rows.
    pub(super) fn is_mean(&self) -> bool {
        matches!(self.loss, Loss::Mean)
    }

    /// `α = λ W` (loss mean) or λ (sum), as `mantissa 2^exponent`: the ridge that λ adds to `Σ v_i x_i x_iᵀ`.
    pub(super) fn ridge(&self, penalty: f64, weight: Dd) -> (Dd, i32) {
        let e = exponent(penalty);
        let mantissa = Dd::from(scaled(penalty, -e));
        match self.loss {
            Loss::Mean => (mantissa * weight, e),
            Loss::Sum => (mantissa, e),
        }
    }
}

/// The products of a training set that the objective sees: (p, p), centred with an intercept, else around zero.
pub(super) fn products<'m, T: Real>(objective: &Objective, training: &'m Moments<T>) -> Cow<'m, Triangle<T>> {
    if objective.fit_intercept { Cow::Borrowed(&training.m) } else { Cow::Owned(training.around_zero()) }
}

/// `A = D (G + Λ) D` and `b = D g`, `D = diag(2^-f_j)`, with the diagonal of A between 1/4 and 8. By van der Sluis (1969)
/// hardly any diagonal scaling gives a smaller condition number, and powers of two round nothing.
///
/// Columns that the equations do not see (zero, and with `standardize` all that are constant) get the equation `w_j = 0`.
#[derive(Debug, Clone)]
pub(super) struct Equilibrated<T> {
    pub(super) d: usize,
    /// Shape (d, d), row-major, the upper triangle.
    pub(super) a: Vec<T>,
    pub(super) b: Vec<T>,
    /// `D Λ D`.
    pub(super) ridge: Vec<T>,
    /// f.
    pub(super) shift: Vec<i32>,
    /// `mantissa 2^exponent` by which equilibrated coefficients are multiplied to get those whose norm is penalised.
    pub(super) metric: Vec<(Dd, i32)>,
    /// How many columns the equations do not see.
    pub(super) n_unseen: usize,
}

impl<T: Real> Equilibrated<T> {
    /// `units`: the exponents of the columns' units.
    pub(super) fn new(
        objective: &Objective,
        training: &Moments<T>,
        products: &Triangle<T>,
        penalty: f64,
        units: &[i32],
    ) -> Self {
        Self::in_room(Vec::new(), objective, training, products, penalty, units)
    }

    /// The same with a matrix that is not needed any more, or an empty one, as room for A.
    pub(super) fn in_room(
        room: Vec<T>,
        objective: &Objective,
        training: &Moments<T>,
        products: &Triangle<T>,
        penalty: f64,
        units: &[i32],
    ) -> Self {
        let d = training.p() - 1;
        let (alpha, alpha_exponent) = objective.ridge(penalty, training.weight);
        let one = Dd::from(1.0);
        let (mut ridge, mut shift, mut metric, mut factor) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (j, unit) in units.iter().enumerate().take(d) {
            // α w_j² in original units; standardize: α s_j² w_j² with s_j² = M_jj / W, whatever the units.
            let variance = if objective.standardize { training.m.diagonal(j).dd() / training.weight } else { one };
            let square = products.diagonal(j).dd().hi;
            if !(variance.hi > 0.0) || (square == 0.0 && alpha.hi == 0.0) {
                ridge.push(T::from(0.0));
                shift.push(0);
                metric.push((one, 0));
                factor.push(T::from(0.0));
                continue;
            }
            let (scale, e) = if objective.standardize {
                let e = exponent(variance.hi).div_euclid(2);
                (variance.scaled(-2 * e), e)
            } else {
                (one, -unit)
            };
            let size = |x: f64, e: i32| {
                if x > 0.0 { (exponent(x) + e).div_euclid(2) } else { i32::MIN }
            };
            let f = size(square, 0).max(size(alpha.hi * scale.hi, alpha_exponent + 2 * e)).clamp(-1000, 1000);
            ridge.push(T::from_dd((alpha * scale).scaled(alpha_exponent + 2 * e - 2 * f)));
            shift.push(f);
            metric.push((scale.sqrt(), e - f));
            factor.push(T::from(scaled(1.0, -f)));
        }
        let mut n_unseen = 0;
        let mut a = room;
        a.resize(d * d, T::from(0.0));
        for i in 0..d {
            let row = &mut a[i * d + i..(i + 1) * d];
            let from = &products.row(i)[..d - i];
            for ((a, g), factor_j) in row.iter_mut().zip(from).zip(&factor[i..]) {
                *a = *g * factor[i] * *factor_j;
            }
            if factor[i].dd().hi == 0.0 {
                row[0] = T::from(1.0);
                n_unseen += 1;
            } else {
                row[0] = row[0] + ridge[i];
            }
        }
        let b = (0..d).map(|j| products.at(j, d) * factor[j]).collect();
        Self { d, a, b, ridge, shift, metric, n_unseen }
    }

    /// A system that needs no scaling.
    pub(super) fn plain(d: usize, a: Vec<T>) -> Self {
        let (shift, metric) = (vec![0; d], vec![(Dd::from(1.0), 0); d]);
        Self { d, a, b: Vec::new(), ridge: Vec::new(), shift, metric, n_unseen: 0 }
    }
}

/// The Cholesky factor of equilibrated normal equations in double precision, with its norms.
pub(super) struct CholeskyFactor {
    d: usize,
    u: Vec<f64>,
    shift: Vec<i32>,
    pub(super) norms: Norms,
}

/// 1-norms of A and, estimated, of its inverse.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norms {
    norm: f64,
    inverse: f64,
}

impl Norms {
    /// An estimate of the condition number of A in the 2-norm.
    ///
    /// The norms are those of the 1-norm, up to `d^(1/2)` times as large each; for a matrix without structure about `d^(1/4)`.
    pub(super) fn condition(&self, d: usize) -> f64 {
        (self.norm * self.inverse / (d as f64).sqrt()).max(1.0)
    }

    /// The same for `|A⁻¹|`.
    pub(super) fn inverse(&self, d: usize) -> f64 {
        self.inverse / (d as f64).powf(0.25)
    }
}

impl CholeskyFactor {
    /// `None` if A is not positive definite to working precision.
    /// The norms are estimated only if `known` (those for a smaller penalty) are not small.
    pub(super) fn new(equations: Equilibrated<f64>, known: Option<Norms>) -> Option<Self> {
        let Equilibrated { d, mut a, shift, .. } = equations;
        let known = known.filter(|known| known.norm * known.inverse < 1e4);
        let norm = if known.is_some() { 0.0 } else { symmetric_norm(d, &a) };
        if !blas::cholesky(d, &mut a) {
            return None;
        }
        let estimate = || Norms { norm, inverse: 1.0 / (blas::reciprocal_condition(d, &a, norm) * norm) };
        let norms = known.unwrap_or_else(estimate);
        norms.inverse.is_finite().then_some(Self { d, u: a, shift, norms })
    }

    /// An estimate of the condition number of A.
    pub(super) fn condition(&self) -> f64 {
        self.norms.condition(self.d)
    }

    /// The room that the factor takes, for [`Equilibrated::in_room`].
    pub(super) fn into_room(self) -> Vec<f64> {
        self.u
    }

    /// `A⁻¹ b` in place, both equilibrated.
    pub(super) fn solve_equilibrated(&self, b: &mut [f64]) {
        blas::cholesky_solve(self.d, &self.u, b);
    }

    /// Turns equilibrated coefficients into those of the columns' units.
    pub(super) fn unscale(&self, w: &mut [f64]) {
        w.iter_mut().zip(&self.shift).for_each(|(w, f)| *w = scaled(*w, -f));
    }

    pub(super) fn shift(&self) -> &[i32] {
        &self.shift
    }

    /// `U⁻¹`, (d, d), upper triangular, `A = Uᵀ U` (dtrtri).
    pub(super) fn inverse_factor(&self) -> Vec<f64> {
        let mut inverse = self.u.clone();
        blas::triangular_inverse(self.d, &mut inverse);
        // Below the diagonal dpotrf leaves what was there: zeros.
        inverse
    }

    /// `A⁻¹`, (d, d), upper triangle (dpotri).
    pub(super) fn inverse(&self) -> Vec<f64> {
        let mut inverse = self.u.clone();
        blas::cholesky_inverse(self.d, &mut inverse);
        inverse
    }
}

/// The 1-norm of a symmetric matrix given by its upper triangle.
pub(super) fn symmetric_norm(d: usize, a: &[f64]) -> f64 {
    let mut sums = vec![0.0; d];
    for i in 0..d {
        let row = &a[i * d + i..(i + 1) * d];
        let (sum, rest) = sums[i..].split_at_mut(1);
        sum[0] += row[0].abs();
        let mut total = 0.0;
        for (a, other) in row[1..].iter().zip(rest) {
            *other += a.abs();
            total += a.abs();
        }
        sum[0] += total;
    }
    sums.into_iter().fold(0.0, f64::max)
}
