//! What there is to call: the description of the API in OpenAPI, and the index of the calls, both from the annotations of
//! the handlers and of what they take and give.

use std::collections::BTreeMap;

use anyhow::Context;
use rocket::response::content::RawJson;
use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use super::{datasets, docs, error, health, inference, metrics, models, predict, query, train, waiting};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    query::knowing(&[], routes![index, openapi])
}

/// All calls.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ridgeline",
        description = "Trains ridge regression, picks the L2 penalty by k-fold cross-validation, and predicts.\n\n\
            Every error is `{\"error\": \"a sentence\", \"code\": \"snake_case\"}`. Every reply carries an `X-Request-Id`, under \
            which the service's log speaks of the request. A GET may be asked for as HEAD. Bodies may be sent with \
            `Content-Encoding: gzip`. While the service has no API keys, calls need none."
    ),
    tags(
        (name = "models", description = "Training, models and predictions."),
        (name = "datasets", description = "CSVs that are posted once, for any number of trainings."),
        (name = "inference", description = "The Open Inference Protocol, version 2: what clients of KServe and Triton speak."),
        (name = "service", description = "The service itself.")
    ),
    paths(index, openapi),
    components(schemas(error::ErrorBody<'static>)),
    security(("key" = [])),
    modifiers(&Shared)
)]
struct Calls;

/// What the calls have in common.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        error::describe(components);
        let key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key, as `ridgeline key add` prints it."))
            .build();
        components.add_security_scheme("key", SecurityScheme::Http(key));
    }
}

/// The description of all calls.
///
/// # Errors
/// When it cannot be printed.
fn document() -> serde_json::Result<Value> {
    let mut document = Calls::openapi();
    for calls in [
        train::Calls::openapi(),
        models::Calls::openapi(),
        predict::Calls::openapi(),
        waiting::Calls::openapi(),
        datasets::Calls::openapi(),
        inference::Calls::openapi(),
        health::Calls::openapi(),
        metrics::Calls::openapi(),
        docs::Calls::openapi(),
    ] {
        document.merge(calls);
    }
    let mut document = serde_json::to_value(document)?;
    refine(&mut document);
    Ok(document)
}

/// Says what the annotations cannot.
fn refine(document: &mut Value) {
    // A parameter that is not given is left out: a query string and a header have no null.
    if let Some(paths) = document["paths"].as_object_mut() {
        let operations = paths.values_mut().filter_map(Value::as_object_mut).flat_map(|item| item.values_mut());
        let lists = operations.filter_map(|operation| operation.get_mut("parameters")?.as_array_mut());
        for parameter in lists.flatten() {
            let is_set = parameter["name"] == "tags";
            let schema = &mut parameter["schema"];
            if let Some([kind, null]) = schema["type"].as_array().map(Vec::as_slice)
                && null == "null"
            {
                schema["type"] = kind.clone();
            }
            if is_set {
                schema["uniqueItems"] = json!(true);
            }
        }
    }
    let schemas = &mut document["components"]["schemas"];
    schemas["Form"]["additionalProperties"] = json!(false);
    // Exactly one of them.
    let rows = ["data", "dataset_id"]
        .map(|field| json!({"required": [field], "properties": {field: {"not": {"type": "null"}}}}));
    schemas["TrainRequest"]["oneOf"] = json!(rows);
    schemas["TrainRequest"]["properties"]["tags"]["uniqueItems"] = json!(true);
}

/// The description, ready to be sent.
pub(super) struct Description {
    json: String,
    calls: BTreeMap<String, String>,
}

impl Description {
    /// Puts it together.
    ///
    /// # Errors
    /// When it cannot be printed.
    pub(super) fn new() -> anyhow::Result<Self> {
        let document = document().context("the description of the API cannot be printed")?;
        Ok(Self { json: document.to_string(), calls: summaries(&document) })
    }
}

/// What each call is for, by method and path.
fn summaries(document: &Value) -> BTreeMap<String, String> {
    let paths = document["paths"].as_object().into_iter().flatten();
    // The files of the page are nobody's to call.
    let calls = paths.filter(|(path, _)| !path.starts_with("/docs/")).flat_map(|(path, item)| {
        let operations = item.as_object().into_iter().flatten();
        operations.map(move |(method, operation)| {
            let summary = operation["summary"].as_str().unwrap_or_default();
            (format!("{} {path}", method.to_uppercase()), summary.to_owned())
        })
    });
    calls.collect()
}

/// What there is to call.
#[derive(Serialize, ToSchema)]
struct Index<'a> {
    service: &'static str,
    version: &'static str,
    /// What each call is for, by method and path.
    calls: &'a BTreeMap<String, String>,
}

/// An index of the calls
#[utoipa::path(
    tag = "service",
    security(()),
    responses((status = 200, description = "The calls.", body = Index<'static>), error::Always)
)]
#[get("/")]
fn index(description: &State<Description>) -> Json<Index<'_>> {
    Json(Index { service: "ridgeline", version: env!("CARGO_PKG_VERSION"), calls: &description.inner().calls })
}

/// This description, OpenAPI 3.1
#[utoipa::path(
    tag = "service",
    security(()),
    responses((status = 200, description = "The document.", body = Object), error::Always)
)]
#[get("/openapi.json")]
fn openapi(description: &State<Description>) -> RawJson<&str> {
    RawJson(&description.inner().json)
}

#[cfg(test)]
mod tests;
