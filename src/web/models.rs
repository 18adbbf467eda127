//! `GET /model/N`: the model document.

use chrono::{DateTime, SecondsFormat, Utc};
use rocket::response::content::RawJson;
use rocket::{Route, State, get, routes};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::error::ApiError;
use crate::db::models::{self, Model, Status};
use crate::db::{self, Pool};
use crate::queue;
use crate::training::{Best, FittedModel, Metrics, Params, PenaltyScore};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![get_model]
}

/// A model as clients see it.
#[derive(Serialize)]
struct ModelDocument {
    model_id: i32,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// 1 is the next job that a worker takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_position: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<f64>,
    name: Option<String>,
    created_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    attempt: i32,
    params: Params,
    model: Option<Coefficients>,
    best: Option<Best>,
    cv_results: Option<Vec<PenaltyScore>>,
    metrics: Option<Metrics>,
    warnings: Vec<String>,
}

/// `{"intercept": b, "coef": {column: w, ..}}` with the columns in the training CSV's order.
#[derive(Serialize)]
struct Coefficients {
    intercept: f64,
    #[serde(serialize_with = "in_order")]
    coef: Vec<(String, f64)>,
}

fn in_order<S: Serializer>(coef: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(coef.len()))?;
    for (name, value) in coef {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

impl From<FittedModel> for Coefficients {
    fn from(model: FittedModel) -> Self {
        Self { intercept: model.intercept, coef: model.features.into_iter().zip(model.coef).collect() }
    }
}

impl ModelDocument {
    fn new(model: Model, queue_position: Option<i64>) -> Self {
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
        Self {
            model_id: model.id,
            status: model.status.as_str(),
            error: model.error,
            queue_position,
            progress: (model.status == Status::Training).then_some(model.progress),
            name: model.name,
            created_at: time(model.created_at),
            started_at: model.started_at.map(time),
            finished_at: model.finished_at.map(time),
            attempt: model.attempt,
            params: model.params.0,
            model: model.model.map(|model| model.0.into()),
            best: model.best.map(|best| best.0),
            cv_results: model.cv_results.map(|scores| scores.0),
            metrics: model.metrics.map(|metrics| metrics.0),
            warnings: model.warnings.0,
        }
    }
}

#[get("/model/<id>")]
async fn get_model(id: &str, pool: &State<Pool>) -> Result<RawJson<String>, ApiError> {
    let number = parse_id(id)?;
    let query = move |conn: &mut _| {
        let model = models::find(conn, number)?;
        let is_queued = model.status == Status::Queued;
        let position = is_queued.then(|| queue::position(conn, number)).transpose()?;
        Ok(ModelDocument::new(model, position))
    };
    let document = pool.run(query).await.map_err(|error| unless_absent(error, number))?;
    // A document with many folds or columns takes its time to print: not on a thread that others wait for.
    let print = move || serde_json::to_string(&document).map_err(|error| ApiError::internal(error.into()));
    Ok(RawJson(super::on_blocking_thread(print).await?))
}

/// The number of a model from a path.
///
/// # Errors
/// 404: a model that cannot be numbered like this does not exist.
pub(super) fn parse_id(id: &str) -> Result<i32, ApiError> {
    // Digits alone: a sign or a blank would be a second name of the same model.
    let number = id.bytes().all(|byte| byte.is_ascii_digit()).then(|| id.parse().ok()).flatten();
    number.ok_or_else(|| {
        let id: String = id.chars().take(40).collect();
        ApiError::not_found(format!("there is no model {id:?}: a model's id is a positive integer"))
    })
}

/// What a failed look-up of model `id` means.
pub(super) fn unless_absent(error: db::Error, id: i32) -> ApiError {
    match error {
        db::Error::Query(diesel::result::Error::NotFound) => ApiError::not_found(format!("there is no model {id}")),
        error => error.into(),
    }
}
