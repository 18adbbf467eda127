//! Health for load balancers and supervisors, and the index of the calls.

use std::collections::BTreeMap;

use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::db::{self, Pool};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![index, live, ready]
}

/// What there is to call.
#[derive(Serialize)]
struct Index {
    service: &'static str,
    version: &'static str,
    calls: BTreeMap<&'static str, &'static str>,
}

#[get("/")]
fn index() -> Json<Index> {
    let calls = BTreeMap::from([
        ("POST /train", "queue a training: JSON, or text/csv with the parameters in the query string"),
        ("POST /datasets", "store a CSV for any number of trainings: text/csv, JSON, or a form with a file"),
        ("GET /dataset/{id}", "the dataset: what its columns are like, which models use it"),
        ("GET /datasets", "the datasets, newest first: limit, after, name"),
        ("DELETE /dataset/{id}", "delete a dataset; its models stay"),
        ("GET /model/{id}", "the model: status, coefficients, cross-validation"),
        ("GET /model/{id}/events", "status and progress as server-sent events"),
        ("GET /models", "the models, newest first: limit, after, status, name, dataset_id"),
        ("POST /model/{id}/cancel", "withdraw a model that has not ended"),
        ("DELETE /model/{id}", "delete a model and its data"),
        ("GET /model/{id}?format=", "a trained model as a file: onnx, python"),
        ("POST /v2/models/{id}/infer", "predictions by the Open Inference Protocol; GET /v2 and below"),
        ("POST /model/{id}/predict", "predictions for the rows of a CSV"),
        ("GET /health/live", "the process is up"),
        ("GET /health/ready", "the database is reachable and its migrations are current"),
        ("GET /metrics", "figures for Prometheus"),
    ]);
    Json(Index { service: "ridgeline", version: env!("CARGO_PKG_VERSION"), calls })
}

#[get("/health/live")]
fn live() -> Json<Value> {
    Json(json!({"status": "live"}))
}

#[get("/health/ready")]
async fn ready(pool: &State<Pool>) -> Result<Json<Value>, ApiError> {
    check(pool).await?;
    Ok(Json(json!({"status": "ready"})))
}

/// Whether requests can be answered.
///
/// # Errors
/// 503 when the database cannot be reached, or its migrations are not current.
pub(super) async fn check(pool: &Pool) -> Result<(), ApiError> {
    if pool.run(db::is_migrated).await? {
        return Ok(());
    }
    Err(ApiError::unavailable("the database's migrations are not current", anyhow::anyhow!("migrations are pending")))
}
