//! `POST /train`: takes a CSV and parameters, checks both, and queues the job.

use rocket::http::Status;
use rocket::http::uri::Origin;
use rocket::response::{self, Responder};
use rocket::serde::json::Json;
use rocket::{Request, Response, Route, State, post, routes};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::auth::Uploader;
use super::body::{self, Body, RequestBody};
use super::error::ApiError;
use super::metrics::{Metrics, Purpose};
use crate::config::Config;
use crate::db::{Pool, datasets};
use crate::queue::{self, EnqueueError};
use crate::table::{self, Table, line_of_row};
use crate::training::{self, Loss, Params};

/// Random folds where the client says nothing.
const DEFAULT_FOLDS: usize = 5;
/// Seeds that are drawn stay below this, so that every JSON reader can hold them exactly.
const LARGEST_DRAWN_SEED: u64 = (1 << 53) - 1;
/// Longest name of a model, in bytes.
const LONGEST_NAME: usize = 1000;
/// Most penalties in one call.
const MOST_PENALTIES: usize = 10_000;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![train]
}

/// The JSON body, or the query parameters of a `text/csv` body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct TrainRequest {
    data: String,
    target: String,
    n_folds: Option<usize>,
    fit_intercept: Option<bool>,
    l2_coef: Option<Vec<f64>>,
    seed: Option<u64>,
    loss: Option<Loss>,
    standardize: Option<bool>,
    weight_column: Option<String>,
    fold_column: Option<String>,
    name: Option<String>,
}

/// The reply: the model's id, by which everything else is asked.
#[derive(Serialize)]
struct Accepted {
    model_id: i32,
}

impl<'r> Responder<'r, 'static> for Accepted {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let location = format!("/model/{}", self.model_id);
        Response::build_from((Status::Accepted, Json(self)).respond_to(request)?).raw_header("Location", location).ok()
    }
}

#[post("/train", data = "<body>")]
async fn train(
    uploader: Uploader,
    body: RequestBody<'_>,
    uri: &Origin<'_>,
    config: &State<Config>,
    pool: &State<Pool>,
    metrics: &State<Metrics>,
) -> Result<Accepted, ApiError> {
    let (caller, body) = uploader.admit(body).await?;
    let body = body.read(config.train_limit, config).await?;
    let n_bytes = body.n_bytes();
    let query = query_parameters(uri)?;
    let job = super::on_blocking_thread(move || Job::read(body, query)).await?;
    let n_rows = job.table.n_rows();
    let limit = config.queue_limit;
    let queued = pool.run(move |conn| {
        let queued = conn.build_transaction().run(|conn| {
            queue::check_room(conn, limit)?;
            let dataset_id = datasets::insert(conn, caller.owner(), &job.table)?;
            queue::enqueue(conn, limit, caller.owner(), dataset_id, job.name.as_deref(), &job.params)
        });
        match queued {
            Ok(model_id) => Ok(Some(model_id)),
            Err(EnqueueError::Full) => Ok(None),
            Err(EnqueueError::Query(error)) => Err(error.into()),
        }
    });
    let model_id = queued.await?.ok_or_else(|| ApiError::queue_full(limit))?;
    metrics.received(Purpose::Training, n_bytes, n_rows);
    Ok(Accepted { model_id })
}

/// A training that has passed every check.
struct Job {
    table: Table,
    params: Params,
    name: Option<String>,
}

impl Job {
    fn read(body: Body, query: Map<String, Value>) -> Result<Self, ApiError> {
        let request = match body {
            Body::Json(_) if !query.is_empty() => {
                return Err(ApiError::invalid(
                    "query parameters go with a text/csv body; a JSON body holds them itself",
                ));
            }
            Body::Json(text) => body::from_json(&text)?,
            Body::Csv(text) => TrainRequest::from_query(query, text)?,
        };
        let table = table::read(&request.data).map_err(|error| ApiError::invalid(format!("data: {error}")))?;
        let (csv, name, params) = request.into_params()?;
        training::check(&params, &table, |row| line_of_row(&csv, row)).map_err(ApiError::invalid)?;
        Ok(Self { table, params, name })
    }
}

impl TrainRequest {
    /// The parameters that a query string holds; they are the fields of the JSON body.
    fn from_query(mut query: Map<String, Value>, csv: String) -> Result<Self, ApiError> {
        // Left out of the decoding, because an error might quote it.
        if query.insert("data".to_owned(), Value::String(String::new())).is_some() {
            return Err(ApiError::invalid("data: the CSV is the body, and cannot be a query parameter as well"));
        }
        let mut request: Self = serde_path_to_error::deserialize(Value::Object(query))
            .map_err(|error| body::json_error(&error.path().to_string(), error.inner()))?;
        request.data = csv;
        Ok(request)
    }

    /// The CSV, the name, and the parameters with the defaults filled in.
    fn into_params(self) -> Result<(String, Option<String>, Params), ApiError> {
        if self.fold_column.is_some() && (self.n_folds.is_some() || self.seed.is_some()) {
            return Err(ApiError::invalid(
                "fold_column: the column is the folds, so n_folds and seed cannot be given too",
            ));
        }
        if self.l2_coef.as_ref().is_some_and(|penalties| penalties.len() > MOST_PENALTIES) {
            return Err(ApiError::invalid(format!("l2_coef: at most {MOST_PENALTIES} penalties can be tried at once")));
        }
        if self.name.as_ref().is_some_and(|name| name.len() > LONGEST_NAME || name.contains('\0')) {
            return Err(ApiError::invalid(format!("name: at most {LONGEST_NAME} bytes, and no NUL character")));
        }
        let draws = self.fold_column.is_none();
        let params = Params {
            target: self.target,
            n_folds: draws.then_some(self.n_folds.unwrap_or(DEFAULT_FOLDS)),
            fit_intercept: self.fit_intercept.unwrap_or(true),
            l2_coef: self.l2_coef,
            seed: draws.then(|| self.seed.unwrap_or_else(|| rand::random_range(0..=LARGEST_DRAWN_SEED))),
            loss: self.loss.unwrap_or(Loss::Mean),
            standardize: self.standardize.unwrap_or(false),
            weight_column: self.weight_column,
            fold_column: self.fold_column,
        };
        Ok((self.data, self.name, params))
    }
}

/// The query string as the JSON that it stands for, so that one decoder and its messages serve both.
fn query_parameters(uri: &Origin<'_>) -> Result<Map<String, Value>, ApiError> {
    let mut parameters = Map::new();
    for (name, value) in uri.query().into_iter().flat_map(|query| query.segments()) {
        let value = match name {
            _ if value.contains(char::REPLACEMENT_CHARACTER) => {
                return Err(ApiError::invalid(format!("{}: the query string is not valid UTF-8", table::shown(name))));
            }
            "l2_coef" => value.split(',').map(|number| number_or_text(number.trim())).collect(),
            "n_folds" | "seed" => serde_json::from_str(value).unwrap_or_else(|_not_json| Value::from(value)),
            // Python writes True.
            "fit_intercept" | "standardize" if value.eq_ignore_ascii_case("true") => Value::Bool(true),
            "fit_intercept" | "standardize" if value.eq_ignore_ascii_case("false") => Value::Bool(false),
            _ => Value::from(value),
        };
        if parameters.insert(name.to_owned(), value).is_some() {
            return Err(ApiError::invalid(format!("{}: given twice in the query string", table::shown(name))));
        }
    }
    Ok(parameters)
}

/// A finite number, or else the text, for the decoder to refuse.
fn number_or_text(text: &str) -> Value {
    let number = text.parse().ok().and_then(Number::from_f64);
    number.map_or_else(|| Value::from(text), Value::Number)
}
