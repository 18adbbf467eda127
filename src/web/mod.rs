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
mod library;
mod metrics;
mod models;
mod openapi;
mod page;
mod predict;
mod prefer;
mod query;
mod routing;
mod tags;
mod train;
mod upload;
mod waiting;

use anyhow::Context;
use rocket::{Build, Rocket};

use crate::config::Config;
use crate::db::{self, Pool};
use crate::model_cache::ModelCache;
use crate::watch::Watch;
use body::{Cores, Uploads};
use error::ApiError;
use library::Library;
use metrics::{Metrics, RequestMetrics};

/// The service, ready to be launched.
///
/// # Errors
/// When the metrics or the description of the API cannot be set up.
pub fn rocket(config: Config, pool: Pool, watch: Watch, cache: ModelCache) -> anyhow::Result<Rocket<Build>> {
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
        .manage(Library::new(pool.clone(), cache))
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

/// Bytes that are worked on in the time that it takes to move them to another thread and back, about: others wait no longer.
const SMALL: usize = 64 << 10;

/// Runs work on `n_bytes`: where it keeps no other request waiting, unless it is small.
async fn compute<T, F>(n_bytes: usize, work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
{
    if n_bytes <= SMALL { work() } else { on_blocking_thread(work).await }
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
    use rocket::{Route, get, routes};
    use serde_json::Value;

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
        let cache = ModelCache::new(config.models_limit);
        let watch = Watch::start(url, cache.clone()).unwrap();
        rocket(config, pool, watch, cache).unwrap()
    }

    #[test]
    fn a_panic_is_500_with_a_fixed_text() {
        let client = Client::tracked(assembled().mount("/", routes![panics])).unwrap();
        let response = client.get("/panic").dispatch();
        assert_eq!(response.status(), Status::InternalServerError);
        assert!(response.headers().get_one("X-Request-Id").is_some());
        let body: Value = response.into_json().unwrap();
        assert_eq!(body["code"], "internal");
        assert!(!body.to_string().contains("secret"), "{body}");
    }

    /// The requests of a collection: method, segments of the path, names of the parameters.
    fn requests(items: &Value) -> Vec<(String, Vec<String>, Vec<String>)> {
        let texts = |list: &Value, text: &dyn Fn(&Value) -> &Value| -> Vec<String> {
            let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().map(|item| text(item).as_str().unwrap().to_owned()).collect()
        };
        let of_item = |item: &Value| {
            let (request, url) = (&item["request"], &item["request"]["url"]);
            if request.is_null() {
                return requests(&item["item"]);
            }
            let (path, query) = (texts(&url["path"], &|segment| segment), texts(&url["query"], &|given| &given["key"]));
            vec![(request["method"].as_str().unwrap().to_owned(), path, query)]
        };
        items.as_array().unwrap().iter().flat_map(of_item).collect()
    }

    #[test]
    fn the_postman_collection_has_every_call() {
        let collection = include_str!("../../tests/postman/ridgeline.postman_collection.json");
        let collection: Value = serde_json::from_str(collection).unwrap();
        let requests = requests(&collection["item"]);
        let is_covered = |route: &Route| {
            let segments: Vec<&str> = route.uri.path().split('/').skip(1).collect();
            let parameters = route.uri.query().unwrap_or_default().split('&').filter(|name| !name.is_empty());
            let parameters: Vec<&str> = parameters.map(|name| name.trim_matches(['<', '>', '.'])).collect();
            requests.iter().any(|(method, path, query)| {
                let fits = |(pattern, segment): (&&str, &String)| pattern.starts_with('<') || pattern == segment;
                method == route.method.as_str()
                    && path.len() == segments.len()
                    && segments.iter().zip(path).all(fits)
                    && parameters.iter().all(|name| query.iter().any(|given| given == name))
            })
        };
        let service = assembled();
        let missing: Vec<String> = service
            .routes()
            .filter(|route| !is_covered(route))
            .map(|route| format!("{} {}", route.method, route.uri))
            .collect();
        assert!(missing.is_empty() && service.routes().count() > 20, "the collection lacks {missing:?}");
    }
}
