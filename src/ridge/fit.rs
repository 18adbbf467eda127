//! The final fit of tall data: coefficients with all their digits, effective degrees of freedom, condition number.

use super::{
    blas,
    double_double::{Dd, exponent, scaled},
    error::RidgeError,
    gather::Source,
    gram,
    moments::Moments,
    normal::{CholeskyFactor, Equilibrated, Objective, products},
    pivoted::PivotedFactor,
    primal::rank_tolerance,
    refine::{Solution, System, refine},
    residuals::residuals,
    scores::{ACCEPTED, ROUNDOFF},
    triangle::Triangle,
};
use ndarray::Array2;
use ndarray_linalg::SVD;

/// A fitted model in the columns' units.
pub(super) struct Fit {
    pub(super) solution: Solution,
    /// Without the intercept's.
    pub(super) dof: f64,
    pub(super) condition_number: Option<f64>,
    /// `Σ v_i (y_i - mean)²`.
    pub(super) variation: f64,
}

/// The moments of all rows; in doubled precision only once they are asked for.
pub(super) struct Totals {
    pub(super) double: Moments<f64>,
    pub(super) doubled: Option<Moments<Dd>>,
}

impl Totals {
    fn doubled(&mut self, source: &Source<'_>) -> Result<&Moments<Dd>, RidgeError> {
        let total = match self.doubled.take() {
            Some(total) => total,
            None => {
                let moments = source.moments::<Dd>(1, |_| Some(0), (0.0, 0.0))?;
                Moments::sum(&moments.iter().collect::<Vec<_>>())
            }
        };
        Ok(self.doubled.insert(total))
    }
}

/// Above this condition number the refinement does not lean on a factor in double precision.
const MOST_FOR_DOUBLES: f64 = 1e10;

/// The fit to all rows; `spectrum`: [`correlation_spectrum`], if it is known.
pub(super) fn fit(
    source: &Source<'_>,
    objective: &Objective,
    penalty: f64,
    totals: &mut Totals,
    spectrum: Option<Spectrum>,
) -> Result<Fit, RidgeError> {
    let fitted = match in_doubles(source, objective, penalty, &totals.double)? {
        Some(fitted) => fitted,
        None => in_doubled(source, objective, penalty, totals.doubled(source)?)?,
    };
    source.run.report(0.95);
    let (solution, dof) = fitted;
    let condition_number = condition_number(source, objective, totals, spectrum)?;
    let d = source.columns.n_features();
    let variation =
        totals.doubled.as_ref().map_or(totals.double.m.diagonal(d), |doubled| doubled.m.diagonal(d).value());
    Ok(Fit { solution, dof, condition_number, variation })
}

/// Cholesky in double precision (dpotrf), refined unless it has its digits without; `None` if the condition number is too
/// large for that.
pub(super) fn in_doubles(
    source: &Source<'_>,
    objective: &Objective,
    penalty: f64,
    total: &Moments<f64>,
) -> Result<Option<(Solution, f64)>, RidgeError> {
    let products = products(objective, total);
    let equations = Equilibrated::new(objective, total, &products, penalty, &source.exponents);
    let mut w = equations.b.clone();
    let ridge: Vec<Dd> = equations.ridge.iter().map(|r| Dd::from(*r)).collect();
    let (a, n_unseen) = (equations.a.clone(), equations.n_unseen);
    let Some(factor) = CholeskyFactor::new(equations, None) else {
        return Ok(None);
    };
    if !(factor.condition() < MOST_FOR_DOUBLES) {
        return Ok(None);
    }
    factor.solve_equilibrated(&mut w);
    let estimate = coefficient_error(&factor, &a, &w, products.diagonal(w.len()).sqrt());
    let is_exact = w.iter().all(|w| *w == 0.0 || estimate <= ACCEPTED_UNREFINED * w.abs());
    factor.unscale(&mut w);
    if is_exact && let Some(solution) = unrefined_in_doubles(objective, total, &products, &w, estimate, factor.shift())
    {
        return Ok(Some((solution, effective_dof(&factor, &a, &ridge) - n_unseen as f64)));
    }
    let solve = |right: &[Dd]| {
        let mut delta: Vec<f64> = right.iter().map(|x| x.value()).collect();
        factor.solve_equilibrated(&mut delta);
        factor.unscale(&mut delta);
        delta.into_iter().map(Dd::from).collect()
    };
    let system = System {
        centre: objective.fit_intercept.then_some((total.weight, total.mean.as_slice())),
        ridge: &ridge,
        shift: factor.shift(),
        contraction: factor.condition() * ROUNDOFF * 16.0,
        solve: &solve,
    };
    let solution = refine(source, &system, w.into_iter().map(Dd::from).collect())?;
    Ok(solution.map(|solution| (solution, effective_dof(&factor, &a, &ridge) - n_unseen as f64)))
}

/// The relative error of a coefficient, as estimated, that is left unrefined: twelve digits are promised.
const ACCEPTED_UNREFINED: f64 = 5e-13;

/// By how many unit roundoffs the moments of rows of p values may be off, products relative to the roots of their diagonal
/// entries. Random rounding errors leave less than one. Those of columns with a few values do not average out: narrow rows
/// are summed 32 in a row (`gram`), by dsyrk 256.
pub(super) fn moments_roundoffs(p: usize) -> f64 {
    if p < gram::WIDEST { 8.0 } else { 48.0 }
}

/// An estimate of the largest error of an equilibrated coefficient w that comes from rounding errors of the moments:
/// `δw = A⁻¹ (δb - δA w)` with `|δA_ij| <= ε (A_ii A_jj)^(1/2)`, `|δb_i| <= ε A_ii^(1/2) |y|`, ε as in [`moments_roundoffs`].
fn coefficient_error(factor: &CholeskyFactor, a: &[f64], w: &[f64], y: f64) -> f64 {
    let d = w.len();
    let diagonal = (0..d).map(|j| a[j * d + j]).fold(0.0, f64::max);
    let length = w.iter().map(|w| w * w).sum::<f64>().sqrt();
    moments_roundoffs(d + 1) * ROUNDOFF * factor.norms.inverse(d) * (diagonal * length + diagonal.sqrt() * y)
}

/// The solution w with its squared errors from the moments, if they keep eleven digits, as those of the folds do: `vᵀ M v`,
/// v = (w, -1), cancels down to the rounding errors of its terms, `ε Σ_ij |v_i v_j| (M_ii M_jj)^(1/2)`.
fn unrefined_in_doubles(
    objective: &Objective,
    total: &Moments<f64>,
    products: &Triangle<f64>,
    w: &[f64],
    error: f64,
    shift: &[i32],
) -> Option<Solution> {
    let (p, d) = (total.p(), w.len());
    let (mut squares, mut reach) = (0.0, 0.0);
    let v = |j: usize| if j < d { w[j] } else { -1.0 };
    for i in 0..p {
        let row = products.row(i);
        let right: f64 = (i + 1..p).map(|j| row[j - i] * v(j)).sum();
        squares += v(i) * (row[0] * v(i) + 2.0 * right);
        reach += v(i).abs() * row[0].sqrt();
    }
    let w: Vec<Dd> = w.iter().map(|w| Dd::from(*w)).collect();
    let b = if objective.fit_intercept {
        w.iter().zip(&total.mean).fold(total.mean[d], |b, (w, mean)| b - *w * *mean)
    } else {
        Dd::ZERO
    };
    // Means err by about ε of a standard deviation, coefficients as estimated.
    let terms = w.iter().zip(shift).zip(&total.mean).enumerate().map(|(j, ((w, f), mean))| {
        let deviation = (total.m.diagonal(j) / total.weight.hi).sqrt();
        scaled(error, -f) * mean.hi.abs() + 8.0 * ROUNDOFF * w.hi.abs() * (deviation + mean.hi.abs() * f64::EPSILON)
    });
    let of_target = 8.0 * ROUNDOFF * (total.m.diagonal(d) / total.weight.hi).sqrt();
    let keeps_intercept = !objective.fit_intercept || terms.sum::<f64>() + of_target <= ACCEPTED_UNREFINED * b.hi.abs();
    let keeps_squares = moments_roundoffs(p) * ROUNDOFF * reach * reach <= ACCEPTED * squares;
    (keeps_intercept && keeps_squares).then_some(Solution { w, b, squares })
}

/// `tr(G (G + Λ)⁻¹) = Σ_ij G_ij ((G + Λ)⁻¹)_ij` (dpotri), the same for equilibrated matrices.
fn effective_dof(factor: &CholeskyFactor, a: &[f64], ridge: &[Dd]) -> f64 {
    let d = ridge.len();
    if ridge.iter().all(|r| r.hi == 0.0) {
        return d as f64;
    }
    let inverse = factor.inverse();
    let mut trace = 0.0;
    for i in 0..d {
        let (a, q) = (&a[i * d + i..(i + 1) * d], &inverse[i * d + i..(i + 1) * d]);
        trace += (a[0] - ridge[i].hi) * q[0] + 2.0 * a[1..].iter().zip(&q[1..]).map(|(a, q)| a * q).sum::<f64>();
    }
    trace
}

/// Pivoted Cholesky in doubled precision, refined; minimum norm if the rows leave directions open.
fn in_doubled(
    source: &Source<'_>,
    objective: &Objective,
    penalty: f64,
    total: &Moments<Dd>,
) -> Result<(Solution, f64), RidgeError> {
    let d = source.columns.n_features();
    let products = products(objective, total);
    let equations = Equilibrated::new(objective, total, &products, penalty, &source.exponents);
    let (b, ridge, shift) = (equations.b.clone(), equations.ridge.clone(), equations.shift.clone());
    let n_unseen = equations.n_unseen as f64;
    let tolerance = rank_tolerance(penalty, source.rows.n_rows(), d);
    let factor = PivotedFactor::new(equations, tolerance, source.run)?;
    let solve = |right: &[Dd]| factor.solve(right);
    let w = factor.solve(&b);
    let system = System {
        centre: objective.fit_intercept.then_some((total.weight, total.mean.as_slice())),
        ridge: &ridge,
        shift: &shift,
        contraction: 1e-6,
        solve: &solve,
    };
    let start = Solution { b: Dd::ZERO, w: w.clone(), squares: f64::NAN };
    let mut solution = match refine(source, &system, w)? {
        Some(solution) => solution,
        None => unrefined(source, &system, start)?,
    };
    factor.project(&mut solution.w);
    let dof = if ridge.iter().all(|r| r.hi == 0.0) || factor.is_deficient() {
        factor.rank() as f64
    } else {
        // d - Σ λ_j ((G + Λ)⁻¹)_jj, and ((G + Λ)⁻¹)_jj = |R⁻ᵀ e_j|².
        let mut unit = vec![Dd::ZERO; d];
        let mut dof = Dd::from(d as f64);
        for j in 0..d {
            source.run.check()?;
            unit[j] = Dd::from(1.0);
            let square = factor.forward(&unit).iter().fold(Dd::ZERO, |sum, z| sum + *z * *z);
            unit[j] = Dd::ZERO;
            dof = dof - ridge[j] * square;
        }
        dof.value()
    };
    Ok((solution, dof - n_unseen))
}

/// The solution as the factor gives it, when refinement cannot improve it.
fn unrefined(source: &Source<'_>, system: &System<'_>, start: Solution) -> Result<Solution, RidgeError> {
    let b = system.centre.map_or(Dd::ZERO, |(_, mean)| {
        start.w.iter().zip(mean).fold(mean[start.w.len()], |b, (w, mean)| b - *w * *mean)
    });
    let squares = residuals(source, &start.w, b)?.squares;
    Ok(Solution { b, squares, ..start })
}

/// What is known of the eigenvalues of the features' correlation matrix.
#[derive(Debug, Clone, Copy)]
pub(super) enum Spectrum {
    /// The columns are dependent, because they are too many or some are constant.
    Dependent,
    /// The smallest and the largest; NaN if they were not found.
    Ends(f64, f64),
}

/// The spectrum of the columns, centred with an intercept, each scaled to unit norm (dsyevd).
pub(super) fn correlation_spectrum(n_rows: usize, objective: &Objective, total: &Moments<f64>) -> Spectrum {
    let p = total.p();
    let d = p - 1;
    if d + usize::from(objective.fit_intercept) > n_rows {
        return Spectrum::Dependent;
    }
    let products = products(objective, total);
    let scale: Vec<f64> = (0..d).map(|j| products.diagonal(j).sqrt()).collect();
    if scale.contains(&0.0) {
        return Spectrum::Dependent;
    }
    let mut correlation = vec![0.0; d * d];
    for i in 0..d {
        for j in i..d {
            correlation[i * d + j] = products.at(i, j) / scale[i] / scale[j];
        }
    }
    blas::eigenvalues(d, correlation).map_or(Spectrum::Ends(f64::NAN, f64::NAN), |c| Spectrum::Ends(c[0], c[d - 1]))
}

/// `s_max / s_min` of the columns, centred with an intercept, each scaled to unit norm; `None` if they are dependent.
///
/// From the eigenvalues of their Gram matrix (dsyevd) while its smallest one has digits; else from the singular values
/// (dgesvd) of the Cholesky factor of the same matrix in doubled precision.
fn condition_number(
    source: &Source<'_>,
    objective: &Objective,
    totals: &mut Totals,
    spectrum: Option<Spectrum>,
) -> Result<Option<f64>, RidgeError> {
    let d = source.columns.n_features();
    let spectrum = spectrum.unwrap_or_else(|| correlation_spectrum(source.rows.n_rows(), objective, &totals.double));
    match spectrum {
        Spectrum::Dependent => return Ok(None),
        Spectrum::Ends(least, most) if least > 1e-10 * most => return Ok(Some((most / least).sqrt())),
        Spectrum::Ends(..) => {}
    }
    let doubled = totals.doubled(source)?;
    let products_ = products(objective, doubled);
    let mut equations = Equilibrated::new(objective, doubled, &products_, 0.0, &source.exponents);
    // Unit diagonal instead of powers of two.
    let root: Vec<Dd> = (0..d).map(|j| equations.a[j * d + j].sqrt()).collect();
    for i in 0..d {
        for j in i..d {
            equations.a[i * d + j] = equations.a[i * d + j] / (root[i] * root[j]);
        }
    }
    let tolerance = rank_tolerance(0.0, source.rows.n_rows(), d);
    let factor = PivotedFactor::new(equations, tolerance, source.run)?;
    if factor.is_deficient() {
        return Ok(None);
    }
    let r = Array2::from_shape_vec((d, d), factor.rounded()).unwrap_or_default();
    let (_, singular, _) = r.svd(false, false)?;
    Ok(Some(singular[0] / singular[d - 1]).filter(|condition| condition.is_finite()))
}

/// The coefficients and the intercept in original units: `w_j 2^(u_y - u_j)` and `b 2^(u_y)`.
///
/// # Errors
/// [`RidgeError::Overflow`].
pub(super) fn in_original_units(
    source: &Source<'_>,
    solution: &Solution,
    penalty: f64,
) -> Result<(Vec<f64>, f64), RidgeError> {
    let target = source.exponents[source.columns.n_features()];
    let coef: Vec<f64> = solution.w.iter().zip(&source.exponents).map(|(w, u)| scaled(w.value(), target - u)).collect();
    let intercept = scaled(solution.b.value(), target);
    if coef.iter().chain([&intercept]).all(|x| x.is_finite()) {
        Ok((coef, intercept))
    } else {
        Err(RidgeError::Overflow { what: "a coefficient", penalty })
    }
}

/// The columns of (features.., target) whose products are zero or near over- or underflow.
pub(super) fn out_of_range(m: &Moments<f64>) -> Vec<usize> {
    let p = m.p();
    let is_in_range = |j: &usize| (-400..400).contains(&exponent(m.m.diagonal(*j))) && m.mean[*j].hi.abs() < 1e150;
    (0..p).filter(|j| !is_in_range(j)).collect()
}
