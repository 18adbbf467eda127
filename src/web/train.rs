//! `POST /train`: takes a CSV, or the number of a dataset, and parameters, checks both, and queues the job.

mod request;

use diesel::pg::PgConnection;
use diesel::result::DatabaseErrorKind;
use rocket::http::Status;
use rocket::http::uri::Origin;
use rocket::response::content::RawJson;
use rocket::response::{self, Responder};
use rocket::serde::json::Json;
use rocket::{Request, Response, Route, State, post, routes};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::auth::{Caller, Uploader};
use super::body::{Body, RequestBody};
use super::error::{self, ApiError};
use super::idempotency::{IdempotencyKey, KEY, REPLAYED, accept, find_earlier};
use super::ids;
use super::metrics::{Metrics, Purpose};
use super::models::ModelDocument;
use super::prefer::{self, Preferred};
use super::waiting::Patience;
use crate::config::Config;
use crate::db::datasets::{self, Upload};
use crate::db::idempotency::{self, Earlier, Keyed, Made};
use crate::db::{self, Pool};
use crate::queue::{self, EnqueueError, NewJob};
use crate::table::{self, line_of_row};
use crate::training::{self, CheckError, Params, StoredRows};
pub(super) use request::check_name;
use request::{Source, TrainRequest, Wish, query_parameters};

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
    document: Option<String>,
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
        ("Prefer" = Option<String>, Header, description = prefer::WAIT, pattern = "^wait=[0-9]+$", example = "wait=10")
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
    patience: Patience<'_>,
) -> Result<Preferred<Accepted>, ApiError> {
    let (caller, body) = uploader.admit(body).await?;
    let (key, mut body) = key.admit(body).await?;
    let names_dataset = uri.query().is_some_and(|query| query.segments().any(|(name, _)| name == "dataset_id"));
    let body = match names_dataset && body.is_empty().await {
        true => Body::Csv(String::new()),
        false => body.read(config.train_limit, config).await?,
    };
    let n_bytes = body.n_bytes();
    let query = query_parameters(uri)?;
    let read = move || {
        let request = TrainRequest::read(body, query)?;
        let keyed = key.map(|key| request.keyed(key)).transpose()?;
        Ok((request, keyed))
    };
    let (request, keyed) = super::on_blocking_thread(read).await?;
    // What was accepted once is not checked again, and needs no room in the queue.
    let (model_id, is_replay) = match find_earlier(pool, Made::Model, caller, keyed.as_ref()).await? {
        Some(id) => (id, true),
        None => {
            let job = super::on_blocking_thread(move || Job::read(request.complete()?, keyed)).await?;
            let n_rows = job.n_new_rows();
            let (id, is_replay) = job.queue(pool, caller, config.queue_limit).await?;
            if !is_replay {
                metrics.received(Purpose::Training, n_bytes, n_rows);
            }
            (id, is_replay)
        }
    };
    let prefer = patience.prefer();
    // Queued is queued, whatever comes of the waiting.
    let document = patience.document_of_ended(caller, model_id).await.unwrap_or_else(|error| {
        log::debug!("model {model_id} could not be waited for: {error:?}");
        None
    });
    Ok(prefer.applied_to(Accepted { model_id, is_replay, document }))
}

/// A training that has passed every check that needs no database.
struct Job {
    rows: Rows,
    params: Params,
    name: Option<String>,
    /// What the client calls the request.
    keyed: Option<Keyed>,
}

/// What came of the wish to queue a job.
enum Queued {
    /// It is queued as this model.
    New(i32),
    /// A request of the same key was quicker.
    Earlier(Earlier),
    /// There is no room.
    Full,
}

/// What a job is trained on.
enum Rows {
    /// Rows to be stored with it; they fit the parameters.
    New(Box<Upload>),
    /// A dataset that may not exist, and may not fit.
    Stored(i32),
}

impl Job {
    fn read(wish: Wish, keyed: Option<Keyed>) -> Result<Self, ApiError> {
        let Wish { source, params, name } = wish;
        let rows = match source {
            Source::Dataset(id) => Rows::Stored(id),
            Source::Csv(csv) => {
                let table = table::read(&csv).map_err(|error| ApiError::invalid(format!("data: {error}")))?;
                training::check(&params, &table, |row| line_of_row(&csv, row)).map_err(refused)?;
                let statistics = table.statistics();
                Rows::New(Box::new(Upload { table, statistics, name: None, is_standalone: false }))
            }
        };
        Ok(Self { rows, params, name, keyed })
    }

    /// How many rows it brings along.
    fn n_new_rows(&self) -> usize {
        if let Rows::New(upload) = &self.rows { upload.table.n_rows() } else { 0 }
    }

    /// Queues it for the caller, unless a request of the same key has done so. Returns the model's id, and whether one has.
    async fn queue(self, pool: &Pool, caller: Caller, limit: u32) -> Result<(i32, bool), ApiError> {
        let owner = caller.owner();
        let stored = if let Rows::Stored(id) = self.rows { Some(id) } else { None };
        let params = self.params.clone();
        if let Some(id) = stored {
            let checked = pool.run(move |conn| check_stored(conn, owner, id, &params)).await;
            checked.map_err(|error| ids::unless_absent(error, "dataset", id))?.map_err(refused)?;
        }
        let queued = pool.run(move |conn| {
            let queued = conn.build_transaction().run(|conn| {
                if let Some(request) = &self.keyed
                    && let Some(earlier) = idempotency::find_or_reserve(conn, Made::Model, owner, request)?
                {
                    return Ok(Queued::Earlier(earlier));
                }
                queue::check_room(conn, limit)?;
                let dataset_id = match &self.rows {
                    Rows::New(upload) => datasets::insert(conn, owner, upload)?,
                    Rows::Stored(id) => *id,
                };
                let (name, params, request) = (self.name.as_deref(), &self.params, self.keyed.as_ref());
                queue::enqueue(conn, limit, &NewJob { owner, dataset_id, name, params, request }).map(Queued::New)
            });
            match queued {
                Ok(queued) => Ok(queued),
                Err(EnqueueError::Full) => Ok(Queued::Full),
                Err(EnqueueError::Query(error)) => Err(vanished(error).into()),
            }
        });
        let queued = queued.await.map_err(|error| match stored {
            Some(id) => ids::unless_absent(error, "dataset", id),
            None => error.into(),
        });
        match queued? {
            Queued::New(id) => Ok((id, false)),
            Queued::Earlier(earlier) => Ok((accept(Made::Model, earlier)?, true)),
            Queued::Full => Err(ApiError::queue_full(limit)),
        }
    }
}

/// Checks parameters against the dataset `id` of `owner`, which is immutable as long as it is there.
fn check_stored(
    conn: &mut PgConnection,
    owner: Option<i32>,
    id: i32,
    params: &Params,
) -> Result<Result<(), CheckError>, db::Error> {
    let shape = datasets::find_shape(conn, owner, id)?;
    let rows = StoredRows::new(conn, &shape)?;
    match training::check_stored(params, &shape.column_names, &rows) {
        Err(CheckError::Rows(error)) => match error.downcast::<db::Error>() {
            Ok(error) => Err(*error),
            Err(error) => Ok(Err(CheckError::Rows(error))),
        },
        checked => Ok(checked),
    }
}

/// The foreign key is what tells that a dataset was deleted between the check and now.
fn vanished(error: diesel::result::Error) -> diesel::result::Error {
    match error {
        diesel::result::Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _) => {
            diesel::result::Error::NotFound
        }
        error => error,
    }
}

fn refused(error: CheckError) -> ApiError {
    match error {
        CheckError::Refused(sentence) => ApiError::invalid(sentence),
        CheckError::Rows(_) => ApiError::internal(error.into()),
    }
}
