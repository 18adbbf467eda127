//! The course of a run: partition, errors of every fold and penalty, choice, final fit, report.

use super::{
    blas, check,
    columns::Columns,
    double_double::{Dd, scaled},
    error::RidgeError,
    fit::{self, Fit, Totals, in_original_units, is_in_range},
    folds::Partition,
    gather::Source,
    grid,
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
    let exponents = vec![0; columns.n_features() + 1];
    let mut source = Source { rows, columns, exponents, run: &run };
    let objective = Objective::new(&params.params);
    let found = primal(&mut source, params, &objective, &partition)?;
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
    let total = FoldMoments::<f64>::new(source, partition, (0.0, 0.3))?.total();
    let constant = if is_in_range(&total) { Vec::new() } else { take_units(source, params, objective)? };
    let folds = FoldMoments::<f64>::new(source, partition, (0.0, 0.3))?;
    let total = folds.total();
    let penalties = match &params.params.penalties {
        Some(penalties) => penalties.clone(),
        None => {
            let (squared, trace) = spectrum(objective, &total, &source.exponents);
            grid::automatic(objective, total.weight, squared, trace)
        }
    };
    let mut scores = primal::double_scores(source, &folds, objective, &penalties, partition.n_folds(), (0.3, 0.6))?;
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
    let (cv, best) = table(&penalties, &scores, source)?;
    source.run.report(0.9);
    let weight = totals.double.weight;
    let fit = fit::fit(source, objective, penalties[best], &mut totals)?;
    Ok(Found { cv, best, fit, weight, constant })
}

/// `Σ c_j²` and `Σ c_j` over the eigenvalues of the features' products, in original units (standardised ones if asked for).
fn spectrum(objective: &Objective, total: &Moments<f64>, units: &[i32]) -> (f64, f64) {
    let products = products(objective, total);
    let p = total.p();
    let (mut squared, mut trace) = (0.0, 0.0);
    let scale: Vec<f64> = (0..p - 1)
        .map(|j| {
            if objective.standardize {
                let variance = total.m[j * p + j] / total.weight.value();
                if variance > 0.0 { 1.0 / variance.sqrt() } else { 0.0 }
            } else {
                scaled(1.0, units[j])
            }
        })
        .collect();
    for i in 0..p - 1 {
        let entry = |j: usize| products[i * p + j] * scale[i] * scale[j];
        trace += entry(i);
        squared += entry(i).powi(2) + 2.0 * (i + 1..p - 1).map(|j| entry(j).powi(2)).sum::<f64>();
    }
    (squared, trace)
}

/// Looks at the range of all columns, takes their units from it, and returns the features that are constant.
fn take_units(source: &mut Source<'_>, params: &ValidParams, objective: &Objective) -> Result<Vec<usize>, RidgeError> {
    let ranges = source.ranges()?;
    if ranges.iter().any(|(low, high)| !(low.is_finite() && high.is_finite())) {
        check::check_cells(params, source.rows)?;
    }
    source.set_units(&ranges, objective.fit_intercept);
    let is_constant =
        |(low, high): (f64, f64)| if objective.fit_intercept { low >= high } else { low == 0.0 && high == 0.0 };
    Ok(source.columns.features.iter().enumerate().filter(|(j, _)| is_constant(ranges[*j])).map(|(_, c)| *c).collect())
}

/// The cross-validation table and the index of its best penalty.
fn table(
    penalties: &[f64],
    scores: &[FoldScores],
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
    let (coef, intercept) = in_original_units(source, &fit.solution, penalty)?;
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
