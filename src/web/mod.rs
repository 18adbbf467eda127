//! The HTTP API: routes by resource, requests and replies, errors.
//!
//! Handlers never block: queries run through [`Pool::run`], long computations on a thread that may block.

mod access_log;
mod body;
mod error;
mod health;
mod models;
mod predict;
mod routing;
mod train;

use rocket::{Build, Rocket};

use crate::config::Config;
use crate::db::{self, Pool};
use error::ApiError;

/// The service, ready to be launched.
pub fn rocket(config: Config, pool: Pool) -> Rocket<Build> {
    rocket::custom(&config.rocket)
        .manage(config)
        .manage(pool)
        .attach(access_log::AccessLog)
        .register("/", error::catchers())
        .mount("/", health::routes())
        .mount("/", train::routes())
        .mount("/", models::routes())
        .mount("/", predict::routes())
}

/// Runs what takes long where it keeps no other request waiting.
async fn on_blocking_thread<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(|panic| ApiError::from(db::Error::Panicked(panic)))?
}
