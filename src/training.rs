//! From a dataset and parameters to a result: the only place that knows both the database and the engine.

mod capacity;
mod messages;
mod stored;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ridge::{self, Control, Folds, RidgeError, Rows, RowsError};
use crate::table::shown;
pub use capacity::{Capacity, check_growth};
use messages::{describe, explain};
pub use stored::{StoredRows, rows_per_chunk};

/// What a client asked for, defaults filled in: the `params` of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Params {
    /// The column to predict.
    pub target: String,
    /// The number of random folds; none with a fold column.
    pub n_folds: Option<usize>,
    /// Whether there is an intercept, which is not penalised.
    pub fit_intercept: bool,
    /// The penalties to choose from; an automatic grid where there are none.
    pub l2_coef: Option<Vec<f64>>,
    /// What the random folds are drawn from; none with a fold column.
    pub seed: Option<u64>,
    /// How the squared errors are summed up in the objective.
    pub loss: Loss,
    /// Whether columns are scaled to unit standard deviation before they are penalised.
    pub standardize: bool,
    /// The column with the rows' weights.
    pub weight_column: Option<String>,
    /// The column whose distinct values are the folds.
    pub fold_column: Option<String>,
}

/// How the squared errors are summed up in the objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Their mean: a penalty means the same however many rows there are.
    Mean,
    /// Their sum: the penalty is scikit-learn's `alpha`.
    Sum,
}

/// All that is kept of a training.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The coefficients.
    pub model: FittedModel,
    /// The score of each penalty, in the order of the penalties.
    pub cv_results: Vec<PenaltyScore>,
    /// The penalty that won.
    pub best: Best,
    /// How well the final model fits.
    pub metrics: Metrics,
    /// What a careful user should know.
    pub warnings: Vec<String>,
}

/// A linear function of named features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "StoredModel", try_from = "StoredModel")]
pub struct FittedModel {
    /// What is predicted where all features are 0.
    pub intercept: f64,
    /// The features' names in the order of the training CSV.
    pub features: Vec<String>,
    /// The coefficients, in the same order.
    pub coef: Vec<f64>,
}

/// [`FittedModel`] as JSON: readable by name in SQL, with the order beside it because jsonb objects have none.
#[derive(Serialize, Deserialize)]
struct StoredModel {
    intercept: f64,
    coef: HashMap<String, f64>,
    features: Vec<String>,
}

impl From<FittedModel> for StoredModel {
    fn from(model: FittedModel) -> Self {
        let coef = model.features.iter().cloned().zip(model.coef).collect();
        Self { intercept: model.intercept, coef, features: model.features }
    }
}

impl TryFrom<StoredModel> for FittedModel {
    type Error = String;

    fn try_from(stored: StoredModel) -> Result<Self, String> {
        let coef = |name| stored.coef.get(name).copied().ok_or_else(|| format!("no coefficient of {name:?} is stored"));
        let coef = stored.features.iter().map(coef).collect::<Result<_, _>>()?;
        Ok(Self { intercept: stored.intercept, features: stored.features, coef })
    }
}

/// The cross-validation of one penalty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PenaltyScore {
    /// The penalty.
    pub param_value: f64,
    /// The plain mean of the folds' mean squared errors.
    pub mean_mse: f64,
    /// Their population standard deviation.
    pub std_mse: f64,
    /// The mean squared error of each fold, held out.
    pub fold_mse: Vec<f64>,
}

/// The penalty with the lowest mean error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Best {
    /// The penalty.
    pub param_value: f64,
    /// Its mean error over the folds.
    pub mean_mse: f64,
}

/// How well the final model fits the rows that it was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Metrics {
    /// The share of the target's variance that the model explains; none when the target is constant.
    pub r2: Option<f64>,
    /// The root of the mean squared error.
    pub rmse: f64,
    /// Rows trained on.
    pub n_rows: usize,
    /// Features, that is coefficients.
    pub n_features: usize,
    /// Folds that the rows were split into.
    pub n_folds: usize,
    /// Effective degrees of freedom, the intercept counted.
    pub effective_dof: f64,
    /// Of the centred and scaled features; none when they are linearly dependent.
    pub condition_number: Option<f64>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The data or the parameters do not allow one: another try would end the same way.
    #[error("{0}")]
    Refused(String),
    /// The stop flag was set.
    #[error("stopped")]
    Stopped,
    /// The rows could not be read: whoever reads them knows whether another try would end the same way.
    #[error("the rows cannot be read")]
    Rows(#[source] RowsError),
}

/// Most errors that a model keeps, folds times penalties: a jsonb value ends at 256 MB.
const MOST_SCORES: usize = 1_000_000;

/// Why a job is not queued.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The data or the parameters do not allow a training: a sentence for the client that names the field, or the place.
    #[error("{0}")]
    Refused(String),
    /// The rows could not be read.
    #[error("the rows cannot be read")]
    Rows(#[source] RowsError),
}

/// Checks at the door what can be known to be wrong when no more than the names of the columns are known. Returns which column
/// holds the rows' weights, if there is one.
///
/// # Errors
/// A sentence for the client that names the field.
pub fn check_columns(params: &Params, columns: &[String]) -> Result<Option<usize>, CheckError> {
    let explained = |error| refuse(&error, params, columns, |row| format!("row {}", row + 1));
    let engine = engine_params(params, columns).map_err(CheckError::Refused)?;
    if let Folds::Random { n_folds, .. } = engine.folds {
        check_scores(params, n_folds)?;
    }
    let weight = engine.weight;
    engine.check(usize::MAX, columns.len()).map_err(explained)?;
    Ok(weight)
}

/// Checks at the door all that can be known to be wrong before training: parameters against rows whose cells are known to be
/// numbers, and which are read only where more of them must be known.
///
/// # Errors
/// See [`CheckError`]. Rows are named by their number, from 1 below the header.
pub fn check_rows(params: &Params, columns: &[String], rows: &dyn Rows, capacity: Capacity) -> Result<(), CheckError> {
    let explained = |error| refuse(&error, params, columns, |row| format!("row {}", row + 1));
    let engine = engine_params(params, columns).map_err(CheckError::Refused)?;
    let n_folds = match engine.folds {
        Folds::Random { n_folds, .. } => n_folds,
        Folds::Column(column) => distinct_values(rows, column).map_err(CheckError::Rows)?,
    };
    check_scores(params, n_folds)?;
    let reads_cells = engine.weight.is_some() || matches!(engine.folds, Folds::Column(_));
    let engine = engine.check(rows.n_rows(), rows.n_columns()).map_err(explained)?;
    capacity.check(engine.needs(n_folds, ridge::n_threads(capacity.n_threads)), columns.len(), n_folds)?;
    // Without weights and a fold column, every table of numbers that has this shape will do.
    if reads_cells { engine.check_rows(rows).map_err(explained) } else { Ok(()) }
}

/// That no more scores come of it than a model can keep.
fn check_scores(params: &Params, n_folds: usize) -> Result<(), CheckError> {
    // The automatic grid has more than one.
    let n_penalties = params.l2_coef.as_ref().map_or(1, Vec::len);
    if n_folds.saturating_mul(n_penalties) > MOST_SCORES {
        return Err(CheckError::Refused(format!(
            "l2_coef: {n_folds} folds times {n_penalties} penalties are more than the {MOST_SCORES} errors that can be kept"
        )));
    }
    Ok(())
}

/// What the engine says is wrong, in the client's terms.
fn refuse(error: &RidgeError, params: &Params, columns: &[String], place: impl Fn(usize) -> String) -> CheckError {
    CheckError::Refused(explain(error, params, columns, place))
}

/// How many different values a column holds; no further than is too many in any case.
fn distinct_values(rows: &dyn Rows, column: usize) -> Result<usize, RowsError> {
    let mut values = HashSet::new();
    for block in 0..rows.n_blocks() {
        // Adding zero makes -0.0 and 0.0 the same, as they are to the engine.
        rows.visit_block(block, &mut |_, cells| {
            values.extend(cells.column(column).iter().map(|v| (v + 0.0).to_bits()))
        })?;
        if values.len() > MOST_SCORES {
            break;
        }
    }
    Ok(values.len())
}

/// Cross-validates and fits.
///
/// # Errors
/// See [`TrainingError`].
pub fn fit(
    params: &Params,
    columns: &[String],
    rows: &dyn Rows,
    control: &Control<'_>,
) -> Result<Trained, TrainingError> {
    let refuse = |error| match error {
        RidgeError::Stopped => TrainingError::Stopped,
        RidgeError::Rows(error) => TrainingError::Rows(error),
        error => TrainingError::Refused(explain(&error, params, columns, |row| format!("row {}", row + 1))),
    };
    let engine = engine_params(params, columns).map_err(TrainingError::Refused)?;
    let engine = engine.check(rows.n_rows(), rows.n_columns()).map_err(refuse)?;
    let report = ridge::cross_validate(rows, &engine, control).map_err(refuse)?;
    if !is_finite(&report) {
        // JSON has no such numbers: they would be stored as nulls, and the model could never be read again.
        return Err(TrainingError::Refused(
            "data: the result is outside the range of 64-bit floating-point numbers".to_owned(),
        ));
    }
    Ok(keep(report, columns, rows.n_rows(), engine.params()))
}

fn is_finite(report: &ridge::Report) -> bool {
    let scores = report.cv.iter().flat_map(|score| score.fold_mse.iter().chain([&score.mean_mse, &score.std_mse]));
    let metrics = report.r2.iter().chain(&report.condition_number).chain([&report.rmse, &report.effective_dof]);
    scores.chain(metrics).chain(&report.coef).all(|value| value.is_finite()) && report.intercept.is_finite()
}

/// The parameters in the engine's terms: columns by their positions.
fn engine_params(params: &Params, columns: &[String]) -> Result<ridge::Params, String> {
    let position = |field: &str, name: &str| {
        let found = columns.iter().position(|column| column == name);
        found.ok_or_else(|| format!("{field}: the CSV has no column {}", shown(name)))
    };
    let folds = match (&params.fold_column, params.n_folds, params.seed) {
        (Some(name), _, _) => Folds::Column(position("fold_column", name)?),
        (None, Some(n_folds), Some(seed)) => Folds::Random { n_folds, seed },
        (None, ..) => return Err("n_folds and seed are needed where there is no fold_column".to_owned()),
    };
    Ok(ridge::Params {
        target: position("target", &params.target)?,
        weight: params.weight_column.as_ref().map(|name| position("weight_column", name)).transpose()?,
        folds,
        fit_intercept: params.fit_intercept,
        loss: match params.loss {
            Loss::Mean => ridge::Loss::Mean,
            Loss::Sum => ridge::Loss::Sum,
        },
        standardize: params.standardize,
        penalties: params.l2_coef.clone(),
    })
}

/// The report in the client's terms: columns by their names.
fn keep(report: ridge::Report, columns: &[String], n_rows: usize, engine: &ridge::Params) -> Trained {
    let fold = if let Folds::Column(column) = engine.folds { Some(column) } else { None };
    let has_role = |column| column == engine.target || Some(column) == engine.weight || Some(column) == fold;
    let named = columns.iter().enumerate();
    let features: Vec<String> = named.filter(|(i, _)| !has_role(*i)).map(|(_, name)| name.clone()).collect();
    let best = &report.cv[report.best];
    Trained {
        best: Best { param_value: best.penalty, mean_mse: best.mean_mse },
        metrics: Metrics {
            r2: report.r2,
            rmse: report.rmse,
            n_rows,
            n_features: features.len(),
            n_folds: report.n_folds,
            effective_dof: report.effective_dof,
            condition_number: report.condition_number,
        },
        warnings: report.warnings.iter().map(|warning| describe(warning, columns)).collect(),
        model: FittedModel { intercept: report.intercept, features, coef: report.coef },
        cv_results: report
            .cv
            .into_iter()
            .map(|score| PenaltyScore {
                param_value: score.penalty,
                mean_mse: score.mean_mse,
                std_mse: score.std_mse,
                fold_mse: score.fold_mse,
            })
            .collect(),
    }
}
