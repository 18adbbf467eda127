//! Health for load balancers and supervisors, and the index of the calls.

use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde_json::{Value, json};

use super::error::ApiError;
use crate::db::{self, Pool};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![index, live, ready]
}

#[get("/")]
fn index() -> Json<Value> {
    Json(json!({
        "service": "ridgeline",
        "version": env!("CARGO_PKG_VERSION"),
        "calls": {
            "POST /train": "queue a training: JSON, or text/csv with the parameters in the query string",
            "GET /model/{id}": "the model: status, coefficients, cross-validation",
            "POST /model/{id}/predict": "predictions for the rows of a CSV",
            "GET /health/live": "the process is up",
            "GET /health/ready": "the database is reachable and its migrations are current",
        },
    }))
}

#[get("/health/live")]
fn live() -> Json<Value> {
    Json(json!({"status": "live"}))
}

#[get("/health/ready")]
async fn ready(pool: &State<Pool>) -> Result<Json<Value>, ApiError> {
    if pool.run(db::is_migrated).await? {
        Ok(Json(json!({"status": "ready"})))
    } else {
        Err(ApiError::unavailable(
            "the database's migrations are not current",
            anyhow::anyhow!("migrations are pending"),
        ))
    }
}
