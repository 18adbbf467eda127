//! Health for load balancers and supervisors.

use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::error::{self, ApiError};
use super::query;
use crate::db::{self, Pool};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    query::knowing(&[], routes![live, ready])
}

/// The same as they are described.
#[derive(OpenApi)]
#[openapi(paths(live, ready))]
pub(super) struct Calls;

/// What a health call finds.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `live` or `ready`.
    status: &'static str,
}

/// The process is up
#[utoipa::path(
    tag = "service",
    security(()),
    responses((status = 200, description = "It is.", body = Health, example = json!({"status": "live"})), error::Always)
)]
#[get("/health/live")]
fn live() -> Json<Health> {
    Json(Health { status: "live" })
}

/// The database is reachable and its migrations are current
#[utoipa::path(
    tag = "service",
    security(()),
    responses(
        (status = 200, description = "It is, and they are.", body = Health, example = json!({"status": "ready"})),
        error::NotReady
    )
)]
#[get("/health/ready")]
async fn ready(pool: &State<Pool>) -> Result<Json<Health>, ApiError> {
    check(pool).await?;
    Ok(Json(Health { status: "ready" }))
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
