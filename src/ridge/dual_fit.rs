//! The final fit of data with more columns than rows.

use super::{
    blas, dd_loops,
    double_double::{self, Dd},
    dual::{factor, standardising},
    dual_system::DualSystem,
    error::RidgeError,
    fit::Fit,
    gather::Source,
    kernel::{Samples, kernel},
    normal::{Objective, symmetric_norm},
    primal::rank_tolerance,
    refine::Solution,
    rows::for_each_row,
    scores::ROUNDOFF,
};

/// The fit to all rows, by the dual in double precision and refinement with the rows in doubled precision, or all in doubled
/// precision if the condition number is large.
pub(super) fn fit(
    source: &Source<'_>,
    samples: &Samples,
    shared: Option<Vec<f64>>,
    objective: &Objective,
    penalty: f64,
) -> Result<Fit, RidgeError> {
    let n = samples.weights.len();
    let scale = match objective.standardize {
        true => Some(standardising(&samples.deviations(source, &vec![true; n])?)),
        false => None,
    };
    let rows = Rows { source, samples, scale: scale.as_deref() };
    let k = match shared {
        Some(k) => k,
        None => kernel::<f64>(source, samples, scale.as_deref())?,
    };
    let mut system = DualSystem::new(objective, samples, &k, |_| true);
    system.set_penalty(objective, penalty, source.exponents[0]);
    drop(k);
    let m = system.rows.len();
    let mut u = system.b.clone();
    let norm = symmetric_norm(m, &u);
    let reciprocal = if blas::cholesky(m, &mut u) { blas::reciprocal_condition(m, &u, norm) } else { 0.0 };
    if reciprocal > 1e-10 {
        let solve = |right: &[Dd]| {
            let mut a: Vec<f64> = right.iter().map(|x| x.value()).collect();
            blas::cholesky_solve(m, &u, &mut a);
            Ok(a.into_iter().map(Dd::from).collect())
        };
        let mut dof = 0.0;
        let aside = || dof = double_dof(&system, u.clone(), objective);
        let refine = || rows.refine(&System::of(&system), &solve, 16.0 * ROUNDOFF / reciprocal);
        if let Some((solution, variation)) = source.run.beside(source.is_small(), aside, refine)? {
            return Ok(Fit { solution, dof, condition_number: None, variation });
        }
    }
    let k = kernel::<Dd>(source, samples, scale.as_deref())?;
    let mut system = DualSystem::new(objective, samples, &k, |_| true);
    system.set_penalty(objective, penalty, source.exponents[0]);
    drop(k);
    let factor = factor(&system, rank_tolerance(penalty, n, source.columns.n_features()), source)?;
    let solve = |right: &[Dd]| factor.pseudo_solve(right, source.run);
    let (solution, variation) = match rows.refine(&System::of(&system), &solve, f64::INFINITY)? {
        Some(found) if !factor.is_deficient() => found,
        _ => rows.evaluate(&System::of(&system), &factor.pseudo_solve(&system.right, source.run)?)?,
    };
    let intercept = f64::from(u8::from(objective.fit_intercept));
    let dof = if system.ridge.hi == 0.0 {
        factor.rank() as f64 - intercept
    } else {
        // n - α tr(B⁻¹), without the direction that centring empties.
        let mut unit = vec![Dd::ZERO; m];
        let mut trace = Dd::ZERO;
        for i in 0..m {
            source.run.check()?;
            unit[i] = Dd::from(1.0);
            trace = factor.forward(&unit).iter().fold(trace, |sum, z| sum + *z * *z);
            unit[i] = Dd::ZERO;
        }
        (Dd::from(m as f64) - system.ridge * trace).value() - intercept * filled_share(&system)
    };
    Ok(Fit { solution, dof, condition_number: None, variation })
}

/// `m / (m + α)`: what the term m s sᵀ adds to `n - α tr(B⁻¹)`.
fn filled_share<T: super::kernel::KernelReal>(system: &DualSystem<T>) -> f64 {
    let fill = system.fill_of_b().dd().value();
    fill / (fill + system.ridge.dd().value())
}

/// `tr(K_c (K_c + α)⁻¹)` (dpotri).
fn double_dof(system: &DualSystem<f64>, mut u: Vec<f64>, objective: &Objective) -> f64 {
    let m = system.rows.len();
    let intercept = if objective.fit_intercept { 1.0 } else { 0.0 };
    if system.ridge == 0.0 {
        return m as f64 - intercept;
    }
    blas::cholesky_inverse(m, &mut u);
    let mut trace = 0.0;
    for i in 0..m {
        let (b, q) = (&system.b[i * m + i..(i + 1) * m], &u[i * m + i..(i + 1) * m]);
        trace += (b[0] - system.ridge) * q[0] + 2.0 * b[1..].iter().zip(&q[1..]).map(|(b, q)| b * q).sum::<f64>();
    }
    if objective.fit_intercept { trace - filled_share(system) } else { trace }
}

/// Solves the system for a right-hand side.
pub(super) type Solver<'s> = dyn Fn(&[Dd]) -> Result<Vec<Dd>, RidgeError> + 's;

/// What refinement needs to know of a system.
pub(super) struct System<'s> {
    rows: &'s [usize],
    /// Roots of the rows' weights, if there is an intercept.
    roots: Option<Vec<Dd>>,
    weight: Dd,
    ridge: Dd,
    shift: i32,
    right: Vec<Dd>,
}

impl<'s> System<'s> {
    pub(super) fn of<T: super::kernel::KernelReal>(system: &'s DualSystem<T>) -> Self {
        Self {
            rows: &system.rows,
            roots: system.fit_intercept().then(|| system.roots.iter().map(|root| root.dd()).collect()),
            weight: system.weight,
            ridge: system.ridge.dd(),
            shift: system.shift,
            right: system.right.iter().map(|x| x.dd()).collect(),
        }
    }
}

impl System<'_> {
    /// Takes the direction s out of a residual. No coefficient sees it, and b has another eigenvalue there than the
    /// equations that the residual belongs to, so that steps in it would hardly shrink.
    fn project(&self, residual: &mut [Dd]) {
        if let Some(roots) = &self.roots {
            let along = residual.iter().zip(roots).fold(Dd::ZERO, |sum, (r, root)| sum + *r * *root) / self.weight;
            residual.iter_mut().zip(roots).for_each(|(r, root)| *r = *r - along * *root);
        }
    }
}

/// The rows, with what their columns are multiplied with.
pub(super) struct Rows<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) samples: &'a Samples,
    pub(super) scale: Option<&'a [f64]>,
}

impl Rows<'_> {
    /// `Σ_i t_i x_i` over all rows, x the features, for one t per row; in doubles if `is_small`.
    fn combine(&self, t: &[Dd], is_small: bool) -> Result<Vec<Dd>, RidgeError> {
        let (p, d) = (self.source.p(), self.source.columns.n_features());
        let chunks = self.source.chunks(16);
        let parts = self.source.run.map(chunks.len(), self.source.is_small(), |c| {
            let (mut hi, mut lo, mut z) = (vec![0.0; d], vec![0.0; d], vec![0.0; p]);
            for block in chunks[c].clone() {
                for_each_row(self.source.rows, block, |i, row| {
                    if t[i].hi != 0.0 {
                        let x = self.source.features(row, &mut z);
                        if is_small {
                            dd_loops::add_rounded(t[i].hi, x, &mut hi);
                        } else {
                            dd_loops::add_scaled(t[i], x, &mut hi, &mut lo);
                        }
                    }
                })?;
                self.source.run.check()?;
            }
            Ok((hi, lo))
        })?;
        let mut total = vec![Dd::ZERO; d];
        for (hi, lo) in parts {
            total
                .iter_mut()
                .zip(hi.into_iter().zip(lo))
                .for_each(|(total, (hi, lo))| *total = *total + Dd::sum(hi, lo));
        }
        Ok(total)
    }

    /// `y_i - b - <x_i, w>` for all rows.
    fn residuals(&self, w: &[Dd], b: Dd) -> Result<Vec<Dd>, RidgeError> {
        let (hi, lo): (Vec<f64>, Vec<f64>) = w.iter().map(|w| (w.hi, w.lo)).unzip();
        let chunks = self.source.chunks(16);
        let parts = self.source.run.map(chunks.len(), self.source.is_small(), |c| {
            let (mut residuals, mut z) = (Vec::new(), vec![0.0; self.source.p()]);
            for block in chunks[c].clone() {
                for_each_row(self.source.rows, block, |i, row| {
                    let x = self.source.features(row, &mut z);
                    residuals.push(Dd::from(self.samples.targets[i]) - b - dd_loops::dot(x, &hi, &lo));
                })?;
                self.source.run.check()?;
            }
            Ok(residuals)
        })?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// The coefficients that dual coefficients mean; with products in doubles if they are `small`.
    fn coefficients(&self, system: &System<'_>, a: &[Dd], is_small: bool) -> Result<Vec<Dd>, RidgeError> {
        let mut t = vec![Dd::ZERO; self.samples.weights.len()];
        for (i, a) in system.rows.iter().zip(a) {
            t[*i] = (*a * Dd::from(self.samples.weights[*i]).sqrt()).scaled(-system.shift);
        }
        let sum = t.iter().fold(Dd::ZERO, |sum, t| sum + *t);
        let mut w = self.combine(&t, is_small)?;
        for (j, (w, mean)) in w.iter_mut().zip(&self.samples.means).enumerate() {
            *w = *w - sum * *mean;
            if let Some(scale) = self.scale {
                *w = *w * Dd::from(scale[j]) * Dd::from(scale[j]);
            }
        }
        Ok(w)
    }

    /// `μ_y - <μ, w>`.
    fn intercept(&self, w: &[Dd]) -> Dd {
        let (features, target) = self.samples.means.split_at(w.len());
        w.iter().zip(features).fold(target[0], |b, (w, mean)| b - *w * *mean)
    }

    fn squares(&self, residuals: &[Dd]) -> f64 {
        residuals.iter().zip(&self.samples.weights).map(|(r, w)| w * (r.value() * r.value())).sum()
    }

    /// `Σ v_i (y_i - μ_y)²`.
    fn variation(&self, system: &System<'_>) -> f64 {
        let first = self.samples.targets[system.rows[0]];
        let offset = |i: &usize| self.samples.targets[*i] - first;
        let weight = system.weight.value();
        let mean = system.rows.iter().map(|i| self.samples.weights[*i] * offset(i)).sum::<f64>() / weight;
        system.rows.iter().map(|i| self.samples.weights[*i] * (offset(i) - mean).powi(2)).sum()
    }

    /// The solution for given dual coefficients.
    fn evaluate(&self, system: &System<'_>, a: &[Dd]) -> Result<(Solution, f64), RidgeError> {
        let w = self.coefficients(system, a, false)?;
        let b = self.intercept(&w);
        let squares = self.squares(&self.residuals(&w, b)?);
        Ok((Solution { w, b, squares }, self.variation(system)))
    }

    /// Iterative refinement of a: `r = S (y - b - X w) - α a` in doubled precision, `a += B⁻¹ r`; `None` if it fails.
    ///
    /// A step reduces the error by about `contraction`. If that leaves nothing that w shows, the step is the last one: it is
    /// so small that doubles are enough for its part of w, and at the solution `S (y - b - X w) = α a`.
    pub(super) fn refine(
        &self,
        system: &System<'_>,
        solve: &Solver<'_>,
        contraction: f64,
    ) -> Result<Option<(Solution, f64)>, RidgeError> {
        const MOST_STEPS: usize = 20;
        /// Smaller than what the digits of w and of the residuals need.
        const NOTHING: f64 = 1e-22;
        let mut a = solve(&system.right)?;
        let size = |a: &[Dd]| a.iter().fold(0.0, |largest: f64, a| largest.max(a.hi.abs()));
        let mut last_step = f64::INFINITY;
        for _ in 0..MOST_STEPS {
            let mut w = self.coefficients(system, &a, false)?;
            let mut b = self.intercept(&w);
            let residuals = self.residuals(&w, b)?;
            let mut right: Vec<Dd> = system
                .rows
                .iter()
                .zip(&a)
                .map(|(i, a)| residuals[*i] * Dd::from(self.samples.weights[*i]).sqrt() - system.ridge * *a)
                .collect();
            system.project(&mut right);
            let delta = solve(&right)?;
            let step = size(&delta);
            if step <= NOTHING * size(&a) {
                return Ok(Some((Solution { w, b, squares: self.squares(&residuals) }, self.variation(system))));
            }
            if !(step <= 0.25 * last_step) {
                return Ok(None);
            }
            last_step = step;
            a.iter_mut().zip(&delta).for_each(|(a, delta)| *a = *a + *delta);
            let left = (contraction + ROUNDOFF * (a.len() as f64)) * step;
            if system.ridge.hi > 0.0 && left <= NOTHING * size(&a) {
                let last = self.coefficients(system, &delta, true)?;
                w.iter_mut().zip(last).for_each(|(w, last)| *w = *w + last);
                b = self.intercept(&w);
                let squares = a.iter().map(|a| (system.ridge * *a).value().powi(2)).sum();
                return Ok(Some((Solution { w, b, squares }, self.variation(system))));
            }
        }
        Ok(None)
    }
}

/// The exponent that brings `size` to about 1, unless that is close enough.
pub(super) fn unit_for(size: f64) -> i32 {
    let e = double_double::exponent(size);
    if size == 0.0 || (-200..200).contains(&e) { 0 } else { e }
}
