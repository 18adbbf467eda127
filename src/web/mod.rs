//! The HTTP API: routes by resource, requests and replies, errors.
//!
//! Handlers never block: queries run through [`Pool::run`], long computations on a thread that may block.

mod access_log;
mod auth;
mod body;
pub(crate) mod connections;
mod datasets;
mod docs;
mod error;
mod export;
mod headers;
mod health;
mod idempotency;
mod ids;
mod inference;
mod metrics;
mod models;
mod openapi;
mod page;
mod predict;
mod prefer;
mod query;
mod routing;
mod train;
mod upload;
mod waiting;

use anyhow::Context;
use rocket::{Build, Rocket};

use crate::config::Config;
use crate::db::{self, Pool};
use crate::watch::Watch;
use body::{Cores, Uploads};
use error::ApiError;
use metrics::{Metrics, RequestMetrics};

/// The service, ready to be launched.
///
/// # Errors
/// When the metrics or the description of the API cannot be set up.
pub fn rocket(config: Config, pool: Pool, watch: Watch) -> anyhow::Result<Rocket<Build>> {
    let metrics = Metrics::new().context("the metrics cannot be set up")?;
    let description = openapi::Description::new()?;
    let keys = auth::Keys::new(pool.clone(), config.rocket.address);
    let shield = headers::shield(config.rocket.tls_enabled());
    let rocket = rocket::custom(config.rocket.clone())
        .manage(Uploads::new(config.uploads_limit))
        .manage(Cores::new())
        .manage(keys)
        .attach(connections::Connections::new(&config))
        .manage(config)
        .manage(pool)
        .manage(watch)
        .manage(metrics.clone())
        .manage(description)
        .manage(docs::SwaggerUi::default())
        .attach(routing::OneMethod)
        .attach(shield)
        .attach(headers::SecurityHeaders)
        .attach(access_log::AccessLog)
        .attach(routing::Unambiguous)
        .attach(body::release())
        .attach(RequestMetrics(metrics))
        .register("/", error::catchers())
        .mount("/", openapi::routes())
        .mount("/", docs::routes())
        .mount("/", health::routes())
        .mount("/", train::routes())
        .mount("/", datasets::routes())
        .mount("/", models::routes())
        .mount("/", predict::routes())
        .mount("/", export::routes())
        .mount("/", inference::routes())
        .mount("/", waiting::routes())
        .mount("/", metrics::routes());
    Ok(rocket)
}

/// Runs what takes long where it keeps no other request waiting.
async fn on_blocking_thread<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(|panic| ApiError::from(db::Error::Panicked(panic)))?
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rocket::figment::Figment;
    use rocket::http::Status;
    use rocket::local::blocking::Client;
    use rocket::{get, routes};

    use super::*;
    use crate::config::DatabaseUrl;

    #[get("/panic")]
    fn panics() {
        panic!("a secret of the house");
    }

    /// The service as it is launched, without a database.
    pub(super) fn assembled() -> Rocket<Build> {
        let config = Config::from_sources(Figment::new()).unwrap();
        let url = DatabaseUrl::parse("postgres:///unused").unwrap();
        let pool = Pool::new(&url, 1, Duration::from_millis(1));
        let watch = Watch::start(url).unwrap();
        rocket(config, pool, watch).unwrap()
    }

    #[test]
    fn a_panic_is_500_with_a_fixed_text() {
        let client = Client::tracked(assembled().mount("/", routes![panics])).unwrap();
        let response = client.get("/panic").dispatch();
        assert_eq!(response.status(), Status::InternalServerError);
        assert!(response.headers().get_one("X-Request-Id").is_some());
        let body: serde_json::Value = response.into_json().unwrap();
        assert_eq!(body["code"], "internal");
        assert!(!body.to_string().contains("secret"), "{body}");
    }
}
