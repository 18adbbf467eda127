//! The normal equations `(G + Λ) w = g` of a training set, brought to unit diagonal by powers of two.

use super::{
    blas,
    double_double::{Dd, exponent, scaled},
    moments::{Moments, Real},
    params::{Loss, Params},
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
pub(super) fn products<'m, T: Real>(objective: &Objective, training: &'m Moments<T>) -> Cow<'m, [T]> {
    if objective.fit_intercept { Cow::Borrowed(&training.m) } else { Cow::Owned(training.around_zero()) }
}

/// `A = D (G + Λ) D` and `b = D g`, `D = diag(2^-f_j)`, with the diagonal of A between 1/4 and 8 (or zero). By van der Sluis
/// (1969) hardly any diagonal scaling gives a smaller condition number, and powers of two round nothing.
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
}

impl<T: Real> Equilibrated<T> {
    /// `units`: the exponents of the columns' units.
    pub(super) fn new(
        objective: &Objective,
        training: &Moments<T>,
        products: &[T],
        penalty: f64,
        units: &[i32],
    ) -> Self {
        let p = training.p();
        let d = p - 1;
        let (alpha, alpha_exponent) = objective.ridge(penalty, training.weight);
        let mut ridge = Vec::with_capacity(d);
        let mut shift = Vec::with_capacity(d);
        for j in 0..d {
            // α w_j² in the column's units; standardize: α s_j² w_j² with s_j² = M_jj / W, whatever the units.
            let (mantissa, e) = if objective.standardize {
                let variance = training.m[j * p + j].dd() / training.weight;
                let e = exponent(variance.hi);
                (alpha * variance.scaled(-e), alpha_exponent + e)
            } else {
                (alpha, alpha_exponent - 2 * units[j])
            };
            let size = |x: f64, e: i32| if x > 0.0 { (exponent(x) + e).div_euclid(2) } else { i32::MIN };
            let f = size(products[j * p + j].dd().hi, 0).max(size(mantissa.hi, e));
            let f = if f == i32::MIN { 0 } else { f.clamp(-1000, 1000) };
            ridge.push(T::from_dd(mantissa.scaled(e - 2 * f)));
            shift.push(f);
        }
        let factor: Vec<T> = shift.iter().map(|f| T::from(scaled(1.0, -f))).collect();
        let mut a = vec![T::from(0.0); d * d];
        for i in 0..d {
            let row = &mut a[i * d + i..(i + 1) * d];
            let from = &products[i * p + i..i * p + d];
            for ((a, g), factor_j) in row.iter_mut().zip(from).zip(&factor[i..]) {
                *a = *g * factor[i] * *factor_j;
            }
            row[0] = row[0] + ridge[i];
        }
        let b = (0..d).map(|j| products[j * p + d] * factor[j]).collect();
        Self { d, a, b, ridge, shift }
    }
}

/// The Cholesky factor of equilibrated normal equations in double precision, with the condition number.
pub(super) struct CholeskyFactor {
    d: usize,
    u: Vec<f64>,
    shift: Vec<i32>,
    /// An estimate of the 1-norm condition number of A.
    pub(super) condition: f64,
}

impl CholeskyFactor {
    /// `None` if A is not positive definite to working precision.
    /// The condition number is estimated only if `known` (an upper bound) is not small.
    pub(super) fn new(equations: Equilibrated<f64>, known: Option<f64>) -> Option<Self> {
        let Equilibrated { d, mut a, shift, .. } = equations;
        let condition = known.filter(|known| *known < 1e4);
        let norm = if condition.is_some() { 0.0 } else { symmetric_norm(d, &a) };
        if !blas::cholesky(d, &mut a) {
            return None;
        }
        let condition = condition.unwrap_or_else(|| 1.0 / blas::reciprocal_condition(d, &a, norm));
        condition.is_finite().then_some(Self { d, u: a, shift, condition })
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

    /// The Cholesky factor itself, (d, d), upper triangle.
    pub(super) fn into_factor(self) -> Vec<f64> {
        self.u
    }

    /// The factor.
    pub(super) fn factor(&self) -> &[f64] {
        &self.u
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
