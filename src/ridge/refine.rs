//! Iterative refinement of a least-squares solution with residuals of the rows in doubled precision.
//!
//! Corrected semi-normal equations (Björck 1987; residuals in doubled precision after Demmel, Hida, Riedy & Li 2009): the
//! error shrinks by about κ(A) u in every step, and what remains is what the residuals' own rounding leaves, 10^-30 or so.

use super::{
    double_double::{Dd, scaled},
    error::RidgeError,
    gather::Source,
    residuals::residuals,
};

/// A solution in the columns' units.
#[derive(Debug, Clone)]
pub(super) struct Solution {
    pub(super) w: Vec<Dd>,
    pub(super) b: Dd,
    /// `Σ v_i r_i²` at the solution.
    pub(super) squares: f64,
}

/// A system that refinement can lean on.
pub(super) struct System<'s> {
    /// The training rows' weight and the means of (features.., target), if there is an intercept.
    pub(super) centre: Option<(Dd, &'s [Dd])>,
    /// The equilibrated ridge `D Λ D` and the exponents of D⁻¹.
    pub(super) ridge: &'s [Dd],
    pub(super) shift: &'s [i32],
    /// About the factor by which a step reduces the error.
    pub(super) contraction: f64,
    /// The coefficients in the columns' units that solve the equations for an equilibrated right-hand side.
    pub(super) solve: &'s dyn Fn(&[Dd]) -> Vec<Dd>,
}

/// Refines from `w` until the coefficients have all digits of a double; `None` if the steps stop shrinking before.
pub(super) fn refine(source: &Source<'_>, system: &System<'_>, w: Vec<Dd>) -> Result<Option<Solution>, RidgeError> {
    const MOST_STEPS: usize = 20;
    let d = w.len();
    let mean = |j: usize| system.centre.map_or(Dd::ZERO, |(_, mean)| mean[j]);
    let mut w = w;
    let mut b = (0..d).fold(mean(d), |b, j| b - w[j] * mean(j));
    let mut contraction = system.contraction;
    let mut last_step = f64::INFINITY;
    for _ in 0..MOST_STEPS {
        let rest = residuals(source, &w, b)?;
        // D (X_cᵀ r - Λ w), all in equilibrated coefficients w_eq = D⁻¹ w.
        let centred: Vec<Dd> = (0..d).map(|j| rest.features[j] - mean(j) * rest.sum).collect();
        let right: Vec<Dd> = (0..d)
            .map(|j| centred[j].scaled(-system.shift[j]) - system.ridge[j] * w[j].scaled(system.shift[j]))
            .collect();
        let delta = (system.solve)(&right);
        let size = |w: &[Dd]| w.iter().zip(system.shift).fold(0.0, |a: f64, (w, f)| a.max(scaled(w.hi.abs(), *f)));
        let step = size(&delta);
        if let Some((weight, _)) = system.centre {
            b = (0..d).fold(b + rest.sum / weight, |b, j| b - delta[j] * mean(j));
        }
        w.iter_mut().zip(&delta).for_each(|(w, delta)| *w = *w + *delta);
        if step > 0.25 * last_step || !step.is_finite() {
            // The steps are down to the residuals' rounding, or they never shrank.
            let is_done = step <= 1e-22 * size(&w);
            return Ok(is_done.then_some(Solution { w, b, squares: rest.squares }));
        }
        if last_step.is_finite() {
            contraction = step / last_step;
        }
        last_step = step;
        // The squares belong to the coefficients before the step; they change by -2 <δ, X_cᵀ r> + |X_c δ|².
        let slope: f64 = centred.iter().zip(&delta).map(|(g, delta)| (*g * *delta).hi).sum();
        let curved = (d as f64 * step).powi(2) * 8.0;
        let is_settled = 2.0 * slope.abs() + curved <= 1e-13 * rest.squares;
        let left = contraction * step;
        let is_exact = |w: &Dd, f: &i32| w.hi == 0.0 || left <= 1e-16 * scaled(w.hi.abs(), *f);
        if step <= 1e-30 * size(&w) || (is_settled && w.iter().zip(system.shift).all(|(w, f)| is_exact(w, f))) {
            return Ok(Some(Solution { w, b, squares: rest.squares }));
        }
    }
    Ok(None)
}
