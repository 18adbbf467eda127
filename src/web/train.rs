//! `POST /train`: takes a CSV, or the number of a dataset, and parameters, checks both, and queues the job.

mod queue;
mod request;

use std::sync::Arc;

use rocket::http::Status;
use rocket::http::uri::Origin;
use rocket::response::content::RawJson;
use rocket::response::{self, Responder};
use rocket::serde::json::Json;
use rocket::{Request, Response, Route, State, post, routes};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::auth::Uploader;
use super::body::{Body, Cores, Csv, RequestBody};
use super::error::{self, ApiError};
use super::idempotency::{Asked, IdempotencyKey, KEY, REPLAYED};
use super::metrics::{Metrics, Purpose};
use super::models::ModelDocument;
use super::prefer::{self, Preferred};
use super::upload::{self, Uploaded};
use super::waiting::Patience;
use crate::config::Config;
use crate::db::Pool;
use crate::training::{self, Capacity, CheckError};
use queue::Queue;
pub(super) use request::check_name;
use request::{TrainRequest, Wish, no_query};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![train]
}

/// The same as they are described.
#[derive(OpenApi)]
#[openapi(paths(train))]
pub(super) struct Calls;

/// The reply: where everything else is asked.
struct Accepted {
    model_id: i32,
    /// An earlier request has made the model.
    is_replay: bool,
    /// The document, if the client has waited for the end.
    document: Option<Arc<str>>,
}

/// The reply while the model has not ended.
#[derive(Serialize, ToSchema)]
struct ModelId {
    model_id: i32,
}

impl<'r> Responder<'r, 'static> for Accepted {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let Self { model_id, is_replay, document } = self;
        let response = match document {
            Some(document) => (Status::Ok, RawJson(document)).respond_to(request)?,
            None => (Status::Accepted, Json(ModelId { model_id })).respond_to(request)?,
        };
        let mut response = Response::build_from(response);
        response.raw_header("Location", format!("/model/{model_id}"));
        if is_replay {
            response.raw_header(REPLAYED, "true");
        }
        response.ok()
    }
}

/// Queue a training: JSON, or text/csv with the parameters in the query string
///
/// The reply comes as soon as data and job are committed; with `Prefer: wait` not before the model has ended, or the time is
/// over. Of a JSON body the parameters are fields, and the query string is empty. With `dataset_id` in the query string
/// the request has no body.
#[utoipa::path(
    tag = "models",
    params(
        TrainRequest,
        ("Idempotency-Key" = Option<String>, Header, description = KEY, example = "\"8e03978e-40d5-43e8-bc93\"",
            pattern = r#"^([!#-+\-.-:<-\[\]-~]{1,255}|"([ !#-\[\]-~]|\\["\\]){1,255}")$"#),
        ("Prefer" = Option<String>, Header, description = prefer::WAIT, example = "wait=10")
    ),
    request_body(content(
        (TrainRequest = "application/json", example = json!({
            "data": "a,b,c\n1.0,0.0,2.0\n2.5,1.0,-1.0\n3.0,4.0,0.5\n0.5,-2.0,1.5\n", "target": "a", "n_folds": 4,
            "fit_intercept": true, "l2_coef": [1.0, 10.0, 100.0]
        })),
        (String = "text/csv", example = "a,b,c\n1.0,0.0,2.0\n2.5,1.0,-1.0\n3.0,4.0,0.5\n0.5,-2.0,1.5\n")
    )),
    responses(
        (status = 200, description = "The model has ended while the client has waited.", body = ModelDocument, headers(
            ("Location" = String, description = "Where the model is."),
            ("Preference-Applied" = String, description = "How long the reply might have been held back."),
            ("Idempotent-Replayed" = String, description = "`true` where an earlier request of the same key has done the work.")
        ), links(
            ("model" = (operation_id = "get_model", parameters(("id" = "$response.body#/model_id")))),
            ("predict" = (operation_id = "predict", parameters(("id" = "$response.body#/model_id"))))
        )),
        (status = 202, description = "Data and job are committed.", body = ModelId, headers(
            ("Location" = String, description = "Where the model is."),
            ("Preference-Applied" = String, description = "How long the reply might have been held back."),
            ("Idempotent-Replayed" = String, description = "`true` where an earlier request of the same key has done the work.")
        ), links(
            ("model" = (operation_id = "get_model", parameters(("id" = "$response.body#/model_id")))),
            ("events" = (operation_id = "model_events", parameters(("id" = "$response.body#/model_id")))),
            ("cancel" = (operation_id = "cancel_model", parameters(("id" = "$response.body#/model_id")))),
            ("delete" = (operation_id = "delete_model", parameters(("id" = "$response.body#/model_id"))))
        )),
        error::NotFound,
        error::OfBody,
        error::Usual
    )
)]
#[post("/train", data = "<body>")]
#[expect(clippy::too_many_arguments, reason = "a handler takes what its reply depends on")]
async fn train(
    uploader: Uploader,
    key: IdempotencyKey,
    body: RequestBody<'_>,
    uri: &Origin<'_>,
    config: &State<Config>,
    pool: &State<Pool>,
    metrics: &State<Metrics>,
    cores: &State<Cores>,
    patience: Patience<'_>,
) -> Result<Preferred<Accepted>, ApiError> {
    let (caller, body) = uploader.admit(body).await?;
    let (key, mut body) = key.admit(body).await?;
    let capacity =
        Capacity { memory: config.worker_memory.map(|memory| memory.as_u64()), n_threads: config.training_threads };
    let queue = Queue { pool, caller, limit: config.queue_limit, capacity };
    if body.may_be_large()
        && let Err(error) = queue.expect_room(key.as_deref()).await
    {
        return Err(body.refuse(error).await);
    }
    let names_dataset = uri.query().is_some_and(|query| query.segments().any(|(name, _)| name == "dataset_id"));
    let body = match names_dataset && body.is_empty().await {
        true => None,
        false => Some(body.read(config.train_limit, config.stream_limit, config).await?),
    };
    let (request, csv) = read(body, uri).await?;
    let Order { asked, dataset, wish } = match Order::of(request, csv.is_some(), key) {
        Ok(order) => order,
        Err(error) => return Err(refuse(csv, error).await),
    };
    let (model_id, is_replay) = match (dataset, csv) {
        (None, Some(csv)) => {
            let check = |columns: &[String]| training::check_columns(&wish.params, columns).map_err(refused);
            let csv = csv.with_digest(asked.is_some());
            let grow = |columns: &[String], n_rows| queue.expect_capacity(&wish, columns, n_rows);
            let uploaded = upload::receive(csv, cores, pool, caller.owner(), check, grow).await?;
            let Uploaded { upload, n_bytes, digest, trace } = uploaded;
            let keyed = asked.zip(digest).map(|(asked, digest)| asked.with_csv(&digest));
            let n_rows = upload.n_rows;
            let (id, is_replay) = trace.settle(queue.train_new(upload, wish, keyed).await).await?;
            if !is_replay {
                metrics.received(Purpose::Training, n_bytes, n_rows);
            }
            (id, is_replay)
        }
        (dataset, _) => queue.train_stored(dataset.unwrap_or_default(), wish, asked.map(Asked::without_csv)).await?,
    };
    let prefer = patience.prefer();
    // Queued is queued, whatever comes of the waiting.
    let document = patience.document_of_ended(caller, model_id).await.unwrap_or_else(|error| {
        log::debug!("model {model_id} could not be waited for: {error:?}");
        None
    });
    Ok(prefer.applied_to(Accepted { model_id, is_replay, document }))
}

/// What a request asks for, and the CSV that it brings, unless it names a dataset instead.
async fn read<'r>(body: Option<Body<'r>>, uri: &Origin<'_>) -> Result<(TrainRequest, Option<Csv<'r>>), ApiError> {
    match body {
        Some(Body::Json(text)) => {
            no_query(uri)?;
            let n_bytes = text.len();
            let read = move || {
                let mut request = TrainRequest::read(text)?;
                let csv = request.take_csv();
                Ok((request, csv))
            };
            let (request, csv) = super::compute(n_bytes, read).await?;
            Ok((request, csv.map(Csv::of_text)))
        }
        Some(Body::Csv(csv)) => match TrainRequest::of_query(uri) {
            Ok(request) => Ok((request, Some(csv))),
            Err(error) => Err(csv.refuse(error).await),
        },
        None => Ok((TrainRequest::of_query(uri)?, None)),
    }
}

/// Hands back `error` when the client has sent its CSV.
async fn refuse(csv: Option<Csv<'_>>, error: ApiError) -> ApiError {
    match csv {
        Some(csv) => csv.refuse(error).await,
        None => error,
    }
}

/// A request that is right as far as can be said without its rows.
struct Order {
    /// What the client calls the request.
    asked: Option<Asked>,
    /// `None`: the rows come along.
    dataset: Option<i32>,
    wish: Wish,
}

impl Order {
    fn of(request: TrainRequest, has_csv: bool, key: Option<String>) -> Result<Self, ApiError> {
        let asked = key.map(|key| Asked::new(key, &request)).transpose()?;
        Ok(Self { asked, dataset: request.dataset(has_csv)?, wish: request.complete()? })
    }
}

fn refused(error: CheckError) -> ApiError {
    match error {
        CheckError::Refused(sentence) => ApiError::invalid(sentence),
        CheckError::Rows(_) => ApiError::internal(error.into()),
    }
}
