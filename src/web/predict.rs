//! `POST /model/N/predict`: the model's value for each row of a CSV.

mod rows;

use rocket::http::{Accept, MediaType};
use rocket::{Route, State, post, routes};
use serde::Deserialize;
use utoipa::{OpenApi, ToSchema};

use super::auth::Uploader;
use super::body::{self, Cores, RequestBody};
use super::connections::Lifeline;
use super::error::{self, ApiError};
use super::ids;
use super::library::Library;
use super::metrics::Metrics;
use super::models::parse_id;
use super::query;
use crate::config::Config;
use crate::db::models::{Predictor, Status};
use crate::training::FittedModel;
use rows::Predicted;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    query::knowing(&[], routes![predict])
}

/// The same as they are described.
#[derive(OpenApi)]
#[openapi(paths(predict))]
pub(super) struct Calls;

/// The JSON body. A client may repeat the model's id in it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct PredictRequest {
    /// A CSV with the model's columns, by their names, in any order; others are ignored.
    #[schema(content_media_type = "text/csv")]
    data: String,
    /// The model's number as in the path.
    #[serde(default, deserialize_with = "body::whole")]
    model_id: Option<i64>,
}

/// The JSON reply.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
struct Predictions {
    /// In the order of the rows.
    result: Vec<f64>,
}

/// Predictions for the rows of a CSV
#[utoipa::path(
    tag = "models",
    params(("id" = i32, Path, description = ids::MODEL, minimum = 1)),
    request_body(content(
        (PredictRequest = "application/json", example = json!({"data": "b,c\n1.0,2.0\n"})),
        (String = "text/csv", example = "b,c\n1.0,2.0\n")
    )),
    responses(
        (status = 200, description = "One number for each row, in their order; as CSV where `Accept` prefers it.", content(
            (Predictions = "application/json", example = json!({"result": [39.18468]})),
            (String = "text/csv", example = "prediction\n39.18468\n")
        )),
        error::NotFound,
        error::NotTrained,
        error::OfBody,
        error::Usual
    )
)]
#[post("/model/<id>/predict", data = "<body>")]
#[expect(clippy::too_many_arguments, reason = "a handler takes what its reply depends on")]
async fn predict<'r>(
    id: &str,
    uploader: Uploader,
    body: RequestBody<'r>,
    accept: Option<&Accept>,
    lifeline: Lifeline,
    config: &State<Config>,
    library: &State<Library>,
    metrics: &State<Metrics>,
    cores: &State<Cores>,
) -> Result<Predicted<'r>, ApiError> {
    let id = parse_id(id)?;
    let (caller, body) = uploader.admit(body).await?;
    let as_csv = accept.is_some_and(prefers_csv);
    // A list of numbers must be held, whatever it is made from.
    let csv_limit = if as_csv { config.stream_limit } else { config.predict_limit };
    let decode = move |text: &str| csv_of(text, id);
    let csv = body.read_csv(config.predict_limit, csv_limit, config, as_csv, decode).await?;
    let model = match library.predictor(caller, id).await {
        Ok(model) => model,
        Err(error) => return Err(csv.refuse(error).await),
    };
    if as_csv {
        return rows::as_csv(csv, model, cores, metrics.inner().clone(), lifeline).await;
    }
    rows::as_json(csv, model, cores, metrics).await
}

/// The coefficients, or 409 with the reason why there are none.
pub(super) fn trained(found: Predictor, id: i32) -> Result<FittedModel, ApiError> {
    match (found.model, found.status) {
        (Some(model), _) => Ok(model.0),
        (None, Status::Failed) => {
            let reason = found.error.unwrap_or_default();
            Err(ApiError::not_trained(format!("model {id} is not trained: its status is failed, because {reason}")))
        }
        (None, status) => {
            Err(ApiError::not_trained(format!("model {id} is not trained: its status is {}", status.as_str())))
        }
    }
}

fn csv_of(text: &str, id: i32) -> Result<String, ApiError> {
    let request: PredictRequest = body::from_json(text)?;
    match request.model_id {
        Some(other) if other != i64::from(id) => {
            Err(ApiError::invalid(format!("model_id: is {other} in the body, but {id} in the path")))
        }
        _ => Ok(request.data),
    }
}

/// `X w + b`. `cells` are the model's features, row after row; `place` says where a row stands.
pub(super) fn evaluate(
    model: &FittedModel,
    cells: &[f64],
    place: impl Fn(usize) -> String,
) -> Result<Vec<f64>, ApiError> {
    let rows = cells.chunks_exact(model.features.len());
    let result: Vec<f64> = rows.map(|row| dot(row, &model.coef) + model.intercept).collect();
    if let Some(row) = result.iter().position(|value| !value.is_finite()) {
        let place = place(row);
        return Err(ApiError::invalid(format!("{place}: the prediction overflows a 64-bit floating-point number")));
    }
    Ok(result)
}

/// The scalar product of two vectors of one length. BLAS sums a row in an order that depends on the rows around it: here it has
/// the same bits wherever it stands.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += a * b;
    }
    sums.iter().sum()
}

/// Whether a client would rather have CSV than JSON; JSON where it does not say.
pub(super) fn prefers_csv(accept: &Accept) -> bool {
    // The most specific range that matches a type gives its weight (RFC 9110, 12.5.1).
    let weight = |wanted: &MediaType| {
        let covers = |range: &MediaType| {
            [(range.top(), wanted.top()), (range.sub(), wanted.sub())]
                .iter()
                .all(|(range, part)| range == "*" || range == part)
        };
        let ranges = accept.iter().filter(|range| covers(range.media_type()));
        ranges.max_by_key(|range| range.media_type().specificity()).map_or(0.0, |range| range.weight_or(1.0))
    };
    weight(&MediaType::CSV) > weight(&MediaType::JSON)
}
