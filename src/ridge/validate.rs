//! The course of a run: partition, errors of every fold and penalty, choice, final fit, report.

use super::{
    blas, check,
    columns::Columns,
    double_double::{Dd, exponent, scaled},
    dual::{self, standardising},
    dual_fit, dual_hat,
    error::RidgeError,
    fit::{self, Fit, Totals, in_original_units},
    folds::Partition,
    gather::Source,
    grid, hat,
    kernel::{Samples, kernel},
    moments::Moments,
    normal::{Objective, products},
    params::ValidParams,
    primal,
    report::{PenaltyScore, Report, Warning},
    rows::Rows,
    run::{Control, Run},
    scores::{self, FoldScores, is_certified},
    training::FoldMoments,
};
use std::sync::OnceLock;

/// Chooses the penalty with the lowest mean of the folds' mean squared errors, and fits all rows with it.
///
/// The same rows, parameters and machine give the same bits, whatever the number of threads.
///
/// # Errors
/// What [`ValidParams::check_rows`] finds wrong, [`RidgeError::Overflow`], [`RidgeError::Stopped`], [`RidgeError::Rows`].
pub fn cross_validate(rows: &dyn Rows, params: &ValidParams, control: &Control<'_>) -> Result<Report, RidgeError> {
    blas::use_one_thread();
    check::check_shape(params, rows)?;
    let run = Run::new(control);
    run.check()?;
    run.report(0.0);
    let partition = Partition::new(params, rows)?;
    check::check_fold_weights(params, rows, &partition)?;
    let columns = Columns::new(&params.params, params.n_columns);
    let mut source = Source::new(rows, columns, &run);
    let objective = Objective::new(&params.params);
    let found = if source.columns.n_features() > source.rows.n_rows() {
        dual(&mut source, params, &objective, &partition)?
    } else {
        primal(&mut source, params, &objective, &partition)?
    };
    let report = report(&source, params, found, partition.n_folds())?;
    run.report(1.0);
    Ok(report)
}

/// What the report is made of.
struct Found {
    cv: Vec<PenaltyScore>,
    best: usize,
    fit: Fit,
    weight: Dd,
    constant: Vec<usize>,
}

/// Tall data: from the folds' moments.
fn primal(
    source: &mut Source<'_>,
    params: &ValidParams,
    objective: &Objective,
    partition: &Partition,
) -> Result<Found, RidgeError> {
    let is_many = hat::is_cheaper(objective, source.rows.n_rows(), source.columns.n_features(), partition.n_folds());
    let moments = |source: &Source<'_>| {
        if is_many {
            let total = source.moments::<f64>(1, |_| Some(0), (0.0, 0.3))?;
            Ok((None, Moments::sum(&total.iter().collect::<Vec<_>>())))
        } else {
            let folds = FoldMoments::<f64>::new(source, partition, (0.0, 0.3))?;
            let total = folds.total();
            Ok::<_, RidgeError>((Some(folds), total))
        }
    };
    let (mut folds, mut total) = moments(source)?;
    let constant = take_units(source, params, objective, &total)?;
    if source.is_scaled() {
        drop(folds);
        (folds, total) = moments(source)?;
    }
    let penalties = match &params.params.penalties {
        Some(penalties) => penalties.clone(),
        None => {
            let (squared, trace) = spectrum(objective, &total, &source.exponents);
            grid::automatic(objective, total.weight, squared, trace)
        }
    };
    let share = (0.3, 0.6);
    let found = OnceLock::new();
    let beside = || {
        found.get_or_init(|| fit::correlation_spectrum(source.rows.n_rows(), objective, &total));
    };
    let mut scores = match &folds {
        Some(folds) => {
            primal::double_scores(source, folds, objective, &penalties, partition.n_folds(), share, &beside)?
        }
        None => hat::scores(source, partition, objective, &total, &penalties, share, &beside)?,
    };
    drop(folds);
    let mut totals = Totals { double: total, doubled: None };
    let uncertain: Vec<usize> = (0..penalties.len()).filter(|i| !is_certified(&scores[*i])).collect();
    if !uncertain.is_empty() {
        let folds = FoldMoments::<Dd>::new(source, partition, (0.6, 0.7))?;
        let chosen: Vec<f64> = uncertain.iter().map(|i| penalties[*i]).collect();
        let again = primal::doubled_scores(source, &folds, objective, &chosen, partition, (0.7, 0.9))?;
        uncertain.into_iter().zip(again).for_each(|(i, score)| scores[i] = score);
        totals.doubled = Some(folds.total());
    }
    let (cv, best) = table(&penalties, scores, source)?;
    source.run.report(0.9);
    let weight = totals.double.weight;
    let fit = fit::fit(source, objective, penalties[best], &mut totals, found.into_inner())?;
    Ok(Found { cv, best, fit, weight, constant })
}

/// Data with more columns than rows: from the Gram matrix of the rows.
fn dual(
    source: &mut Source<'_>,
    params: &ValidParams,
    objective: &Objective,
    partition: &Partition,
) -> Result<Found, RidgeError> {
    let constant = take_dual_units(source, params, objective)?;
    let samples = Samples::new(source, objective.fit_intercept)?;
    let n = samples.weights.len();
    let shared = if objective.standardize { None } else { Some(kernel::<f64>(source, &samples, None)?) };
    source.run.report(0.3);
    let penalties = match &params.params.penalties {
        Some(penalties) => penalties.clone(),
        None => {
            let all = vec![true; n];
            let standardised = match shared {
                Some(_) => None,
                None => {
                    Some(kernel::<f64>(source, &samples, Some(&standardising(&samples.deviations(source, &all)?)))?)
                }
            };
            let k = standardised.as_deref().or(shared.as_deref()).unwrap_or_default();
            let (weight, squared, trace) = dual::spectrum(objective, &samples, k);
            let unit = if objective.standardize { 0 } else { source.exponents[0] };
            grid::automatic(objective, weight, scaled(squared, 4 * unit), scaled(trace, 2 * unit))
        }
    };
    let mut scores = dual_scores(source, &samples, shared.as_deref(), objective, &penalties, partition, (0.3, 0.6))?;
    let uncertain: Vec<usize> = (0..penalties.len()).filter(|i| !is_certified(&scores[*i])).collect();
    if !uncertain.is_empty() {
        let chosen: Vec<f64> = uncertain.iter().map(|i| penalties[*i]).collect();
        let doubled = if objective.standardize { None } else { Some(kernel::<Dd>(source, &samples, None)?) };
        let again = dual_scores(source, &samples, doubled.as_deref(), objective, &chosen, partition, (0.6, 0.9))?;
        uncertain.into_iter().zip(again).for_each(|(i, score)| scores[i] = score);
    }
    let (cv, best) = table(&penalties, scores, source)?;
    source.run.report(0.9);
    let weight = samples.weights.iter().fold(Dd::ZERO, |sum, w| sum + Dd::from(*w));
    let fit = dual_fit::fit(source, &samples, shared, objective, penalties[best])?;
    Ok(Found { cv, best, fit, weight, constant })
}

/// The errors of all penalties and folds: from inverses of the whole system if that is cheaper, and in doubled precision if
/// they are found for all; else from refits.
fn dual_scores<T: dual::Solve + dual_hat::Invert>(
    source: &Source<'_>,
    samples: &Samples,
    shared: Option<&[T]>,
    objective: &Objective,
    penalties: &[f64],
    partition: &Partition,
    share: (f64, f64),
) -> Result<Vec<FoldScores>, RidgeError> {
    if let Some(k) = shared
        && let Some(scores) = dual_hat::scores(source, samples, k, objective, penalties, partition, share)?
        && (!T::IS_DOUBLED || scores.iter().all(|scores| scores.error == 0.0 && is_certified(scores)))
    {
        return Ok(scores);
    }
    dual::scores(source, samples, shared, objective, penalties, partition, share)
}

/// As [`take_units`] for the dual, where all features must share one unit unless they are standardised.
fn take_dual_units(
    source: &mut Source<'_>,
    params: &ValidParams,
    objective: &Objective,
) -> Result<Vec<usize>, RidgeError> {
    let ranges = source.ranges()?;
    if ranges.iter().any(|(low, high)| !(low.is_finite() && high.is_finite())) {
        check::check_cells(params, source.rows)?;
    }
    let d = source.columns.n_features();
    let size = |(low, high): &(f64, f64)| {
        let reach = high.abs().max(low.abs());
        if objective.fit_intercept { (high / 2.0 - low / 2.0).max(reach * 1e-100) } else { reach }
    };
    let largest = ranges[..d].iter().map(size).fold(0.0, f64::max);
    let unit = |range| dual_fit::unit_for(if objective.standardize { size(range) } else { largest });
    let mut units: Vec<i32> = ranges[..d].iter().map(unit).collect();
    units.push(dual_fit::unit_for(size(&ranges[d])));
    source.set_units(units);
    let is_constant = |(low, high): (f64, f64)| {
        if objective.fit_intercept { low >= high } else { low == 0.0 && high == 0.0 }
    };
    Ok((0..d).filter(|j| is_constant(ranges[*j])).map(|j| source.columns.features[j]).collect())
}

/// `Σ c_j²` and `Σ c_j` over the eigenvalues of the features' products, in original units (standardised ones if asked for).
fn spectrum(objective: &Objective, total: &Moments<f64>, units: &[i32]) -> (f64, f64) {
    let products = products(objective, total);
    let p = total.p();
    let (mut squared, mut trace) = (0.0, 0.0);
    let scale: Vec<f64> = (0..p - 1)
        .map(|j| {
            if objective.standardize {
                let variance = total.m.diagonal(j) / total.weight.value();
                if variance > 0.0 { 1.0 / variance.sqrt() } else { 0.0 }
            } else {
                scaled(1.0, units[j])
            }
        })
        .collect();
    for i in 0..p - 1 {
        let entry = |j: usize| products.at(i, j) * scale[i] * scale[j];
        trace += entry(i);
        squared += entry(i).powi(2) + 2.0 * (i + 1..p - 1).map(|j| entry(j).powi(2)).sum::<f64>();
    }
    (squared, trace)
}

/// Finds the features that are constant, and gives other units to columns whose products would leave the range of
/// doubles; looks at the rows again only if some products are zero or extreme.
fn take_units(
    source: &mut Source<'_>,
    params: &ValidParams,
    objective: &Objective,
    total: &Moments<f64>,
) -> Result<Vec<usize>, RidgeError> {
    let suspects = fit::out_of_range(total);
    if suspects.is_empty() {
        return Ok(Vec::new());
    }
    if total.mean.iter().any(|mean| !mean.value().is_finite()) {
        check::check_cells(params, source.rows)?;
    }
    let ranges = source.ranges()?;
    let (mut constant, mut units) = (Vec::new(), source.exponents.clone());
    for j in suspects {
        let (low, high) = ranges[j];
        let (size, reach) = (high / 2.0 - low / 2.0, high.abs().max(low.abs()));
        let size = if objective.fit_intercept { size } else { reach };
        if size > 0.0 {
            units[j] = exponent(size).max(exponent(reach) - 400).clamp(-1000, 1000);
        } else if j < source.columns.n_features() {
            constant.push(source.columns.features[j]);
        }
    }
    source.set_units(units);
    Ok(constant)
}

/// The cross-validation table and the index of its best penalty.
fn table(
    penalties: &[f64],
    scores: Vec<FoldScores>,
    source: &Source<'_>,
) -> Result<(Vec<PenaltyScore>, usize), RidgeError> {
    let unit = source.exponents[source.columns.n_features()];
    let cv: Vec<PenaltyScore> =
        penalties.iter().zip(scores).map(|(p, s)| scores::penalty_score(*p, s, unit)).collect::<Result<_, _>>()?;
    let best = scores::best(&cv);
    Ok((cv, best))
}

fn report(source: &Source<'_>, params: &ValidParams, found: Found, n_folds: usize) -> Result<Report, RidgeError> {
    let Found { cv, best, fit, weight, constant } = found;
    let penalty = cv[best].penalty;
    let (mut coef, intercept) = in_original_units(source, &fit.solution, penalty)?;
    for (w, column) in coef.iter_mut().zip(&source.columns.features) {
        if constant.contains(column) {
            // Exactly, not up to the rounding of the residuals' sums.
            *w = 0.0;
        }
    }
    let unit = source.exponents[source.columns.n_features()];
    let is_constant_target = !(fit.variation > 0.0);
    let r2 = if is_constant_target { None } else { Some(1.0 - fit.solution.squares / fit.variation) };
    let rmse = scaled((fit.solution.squares / weight.value()).sqrt(), unit);
    let effective_dof = fit.dof + f64::from(u8::from(params.params.fit_intercept));
    if !rmse.is_finite() || r2.is_some_and(|r2| !r2.is_finite()) || !effective_dof.is_finite() {
        return Err(RidgeError::Overflow { what: "the error of the fit", penalty });
    }
    let mut warnings = Vec::new();
    let (low, high) =
        cv.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), s| (low.min(s.penalty), high.max(s.penalty)));
    if low < high && penalty <= low && penalty > 0.0 {
        warnings.push(Warning::BestPenaltyAtLowerEdge { penalty });
    }
    if low < high && penalty >= high {
        warnings.push(Warning::BestPenaltyAtUpperEdge { penalty });
    }
    if !constant.is_empty() {
        warnings.push(Warning::ConstantColumns { columns: constant });
    }
    if is_constant_target {
        warnings.push(Warning::ConstantTarget);
    }
    Ok(Report {
        intercept,
        coef,
        best,
        cv,
        r2,
        rmse,
        effective_dof,
        condition_number: fit.condition_number,
        n_folds,
        warnings,
    })
}
