//! Iterative refinement of a least-squares solution with residuals of the rows in doubled precision.
//!
//! Corrected semi-normal equations (Björck 1987; residuals in doubled precision after Demmel, Hida, Riedy & Li 2009): the
//! error shrinks by about κ(A) u in every step, and what remains is what the residuals' own rounding leaves, 10^-30 or so.

use super::{
    dd_loops,
    double_double::{Dd, scaled},
    error::RidgeError,
    gather::Source,
    rows::for_each_row,
};

/// What the rows leave over.
pub(super) struct Residuals {
    /// `Σ v_i x_i r_i`.
    pub(super) features: Vec<Dd>,
    /// `Σ v_i r_i`.
    pub(super) sum: Dd,
    /// `Σ v_i r_i²`.
    pub(super) squares: f64,
}

/// The residuals `r_i = y_i - b - <x_i, w>` of all rows, summed up in one pass.
pub(super) fn residuals(source: &Source<'_>, w: &[Dd], b: Dd) -> Result<Residuals, RidgeError> {
    let (p, d) = (source.p(), w.len());
    let hi: Vec<f64> = w.iter().map(|w| w.hi).collect();
    let lo: Vec<f64> = w.iter().map(|w| w.lo).collect();
    let chunks = source.chunks(16);
    let parts = source.run.map(chunks.len(), source.is_small(), |c| {
        let (mut g_hi, mut g_lo, mut sum, mut squares) = (vec![0.0; d], vec![0.0; d], Dd::ZERO, 0.0);
        let mut z = vec![0.0; p];
        for block in chunks[c].clone() {
            for_each_row(source.rows, block, |_, row| {
                let weight = source.columns.weight(row);
                if weight == 0.0 {
                    return;
                }
                let adjacent = if source.is_scaled() { None } else { source.columns.adjacent(row) };
                let (x, y) = match adjacent {
                    Some(x) => (x, row[source.columns.target]),
                    None => {
                        source.gather(row, &mut z);
                        (&z[..d], z[d])
                    }
                };
                let r = Dd::from(y) - b - dd_loops::dot(x, &hi, &lo);
                let weighted = if weight == 1.0 { r } else { r * Dd::from(weight) };
                dd_loops::add_scaled(weighted, x, &mut g_hi, &mut g_lo);
                sum = sum + weighted;
                squares += weighted.hi * r.hi;
            })?;
            source.run.check()?;
        }
        Ok((g_hi, g_lo, sum, squares))
    })?;
    let mut total = Residuals { features: vec![Dd::ZERO; d], sum: Dd::ZERO, squares: 0.0 };
    for (hi, lo, sum, squares) in parts {
        for ((total, hi), lo) in total.features.iter_mut().zip(hi).zip(lo) {
            *total = *total + Dd::sum(hi, lo);
        }
        total.sum = total.sum + sum;
        total.squares += squares;
    }
    Ok(total)
}

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
