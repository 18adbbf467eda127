//! Models: their document, their list, and how to be rid of them.

mod list;

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use diesel::Connection;
use diesel::pg::PgConnection;
use rocket::http::uri::Origin;
use rocket::response::content::RawJson;
use rocket::{Route, State, delete, get, http, post, routes};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use utoipa::{OpenApi, ToSchema};

use super::auth::Caller;
use super::error::{self, ApiError};
use super::export::Wanted;
use super::ids;
use super::library::Library;
use super::prefer::{self, Preferred};
use super::query;
use super::waiting::Patience;
use crate::db::models::{self, Model, Status};
use crate::db::{self, Pool};
use crate::queue;
use crate::training::{Best, FittedModel, Metrics, Params, PenaltyScore};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    let mut routes = query::knowing(&[], routes![cancel_model, delete_model]);
    routes.extend(query::knowing(&["format"], routes![get_model]));
    routes.extend(routes![list::list_models]);
    routes
}

/// The same as they are described.
#[derive(OpenApi)]
#[openapi(paths(get_model, list::list_models, cancel_model, delete_model))]
pub(super) struct Calls;

/// A model as clients see it.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelDocument {
    model_id: i32,
    #[schema(value_type = Status)]
    status: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// 1 is the next job that a worker takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_position: Option<i64>,
    /// The share of the training that is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1)]
    progress: Option<f64>,
    #[schema(required)]
    name: Option<String>,
    /// Words to find it by.
    tags: Vec<String>,
    /// What it is trained on, as long as that is there.
    #[schema(required)]
    dataset_id: Option<i32>,
    #[schema(format = DateTime)]
    created_at: String,
    /// When the current attempt began.
    #[schema(required, format = DateTime)]
    started_at: Option<String>,
    #[schema(required, format = DateTime)]
    finished_at: Option<String>,
    /// How many workers have taken it.
    attempt: i32,
    params: Params,
    #[schema(required)]
    model: Option<Coefficients>,
    #[schema(required)]
    best: Option<Best>,
    /// In the order of `l2_coef`.
    #[schema(required)]
    cv_results: Option<Vec<PenaltyScore>>,
    #[schema(required)]
    metrics: Option<Metrics>,
    /// What a careful user should know of the result.
    warnings: Vec<String>,
}

/// `{"intercept": b, "coef": {column: w, ..}}` with the columns in the training CSV's order.
#[derive(Serialize, ToSchema)]
struct Coefficients {
    intercept: f64,
    /// By the name of the column, in the order of the training CSV.
    #[serde(serialize_with = "in_order")]
    #[schema(value_type = std::collections::HashMap<String, f64>)]
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

/// A time as clients see it.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

impl ModelDocument {
    fn new(model: Model, queue_position: Option<i64>) -> Self {
        Self {
            model_id: model.id,
            status: model.status.as_str(),
            error: model.error,
            queue_position,
            progress: (model.status == Status::Training).then_some(model.progress),
            name: model.name,
            tags: model.tags.0,
            dataset_id: model.dataset_id,
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

/// The model: status, coefficients, cross-validation; or the trained model as a file
#[utoipa::path(
    tag = "models",
    params(
        ("id" = i32, Path, description = ids::MODEL, minimum = 1),
        ("format" = inline(Option<Wanted>), Query, description = "What the model is wanted as."),
        ("Prefer" = Option<String>, Header, description = prefer::WAIT, example = "wait=10")
    ),
    responses(
        (status = 200, description = "The model.", headers(
            ("Preference-Applied" = String, description = "How long the reply might have been held back."),
            ("Content-Disposition" = String, description = "The name of the file.")
        ), content(
            (ModelDocument = "application/json"),
            (String = "application/octet-stream", example = "An ONNX model: one LinearRegressor."),
            (String = "text/x-python", example = "import csv\nimport sys\n")
        )),
        error::NotFound,
        error::NotTrained,
        error::Invalid,
        error::Usual
    )
)]
#[get("/model/<id>")]
async fn get_model(
    id: &str,
    uri: &Origin<'_>,
    caller: Caller,
    patience: Patience<'_>,
    library: &State<Library>,
) -> Result<Preferred<RawJson<Arc<str>>>, ApiError> {
    let id = parse_id(id)?;
    // A format that is given twice ends here, where it would mean nothing.
    let _parameters = query::parameters(uri)?;
    let prefer = patience.prefer();
    let document = match patience.document_of_ended(caller, id).await? {
        Some(document) => document,
        None => library.document(caller, id).await?,
    };
    Ok(prefer.applied_to(RawJson(document)))
}

/// Withdraw a model that has not ended
///
/// A training in progress stops within a second.
#[utoipa::path(
    tag = "models",
    params(("id" = i32, Path, description = ids::MODEL, minimum = 1)),
    responses(
        (status = 202, description = "The model, cancelled.", body = ModelDocument),
        error::NotFound,
        error::HasEnded,
        error::Usual
    )
)]
#[post("/model/<id>/cancel")]
async fn cancel_model(
    id: &str,
    caller: Caller,
    pool: &State<Pool>,
    library: &State<Library>,
) -> Result<(http::Status, RawJson<Arc<str>>), ApiError> {
    let id = parse_id(id)?;
    let owner = caller.owner();
    let cancelled = pool.run(move |conn| Ok(queue::cancel(conn, owner, id)?)).await?;
    if cancelled {
        return Ok((http::Status::Accepted, RawJson(library.document(caller, id).await?)));
    }
    let found = pool.run(move |conn| Ok(models::find_state(conn, owner, id)?)).await;
    let found = found.map_err(|error| unless_absent(error, id))?;
    Err(ApiError::has_ended(format!("model {id} cannot be cancelled: its status is {}", found.status.as_str())))
}

/// Delete a model and the data that came with it
///
/// A training in progress is dropped.
#[utoipa::path(
    tag = "models",
    params(("id" = i32, Path, description = ids::MODEL, minimum = 1)),
    responses((status = 204, description = "They are gone."), error::NotFound, error::Usual)
)]
#[delete("/model/<id>")]
async fn delete_model(
    id: &str,
    caller: Caller,
    pool: &State<Pool>,
    library: &State<Library>,
) -> Result<http::Status, ApiError> {
    let id = parse_id(id)?;
    let owner = caller.owner();
    let delete = move |conn: &mut PgConnection| Ok(conn.transaction(|conn| models::delete(conn, owner, id))?);
    pool.run(delete).await.map_err(|error| unless_absent(error, id))?;
    library.forget_model(id).await;
    Ok(http::Status::NoContent)
}

/// The document of `owner`'s model `id`, and its status.
///
/// # Errors
/// Those of the database; [`diesel::result::Error::NotFound`] when there is none.
pub(super) fn read_document(
    conn: &mut PgConnection,
    owner: Option<i32>,
    id: i32,
) -> Result<(Status, ModelDocument), db::Error> {
    let model = models::find(conn, owner, id)?;
    let status = model.status;
    let position = (status == Status::Queued).then(|| queue::position(conn, id)).transpose()?;
    Ok((status, ModelDocument::new(model, position)))
}

/// The number of a model from a path.
///
/// # Errors
/// 404: a model that cannot be numbered like this does not exist.
pub(super) fn parse_id(id: &str) -> Result<i32, ApiError> {
    ids::parse("model", id)
}

/// What a failed look-up of model `id` means.
pub(super) fn unless_absent(error: db::Error, id: i32) -> ApiError {
    ids::unless_absent(error, "model", id)
}
