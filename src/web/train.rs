//! `POST /train`: takes a CSV, or the number of a dataset, and parameters, checks both, and queues the job.

mod request;

use diesel::QueryResult;
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
use super::body::{Body, Cores, Csv, RequestBody};
use super::error::{self, ApiError};
use super::idempotency::{Asked, IdempotencyKey, KEY, REPLAYED, accept, find_earlier};
use super::ids;
use super::metrics::{Metrics, Purpose};
use super::models::ModelDocument;
use super::prefer::{self, Preferred};
use super::upload::{self, Uploaded};
use super::waiting::Patience;
use crate::config::Config;
use crate::db::datasets::{self, NewRows, Upload};
use crate::db::idempotency::{self, Earlier, Keyed, Made};
use crate::db::{self, Pool};
use crate::queue::{self, EnqueueError, NewJob};
use crate::training::{self, Capacity, CheckError, StoredRows};
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
    let capacity =
        Capacity { memory: config.worker_memory.map(|memory| memory.as_u64()), n_threads: config.training_threads };
    let queue = Queue { pool, caller, limit: config.queue_limit, capacity };
    let (model_id, is_replay) = match (dataset, csv) {
        (None, Some(csv)) => {
            let check = |columns: &[String]| training::check_columns(&wish.params, columns).map_err(refused);
            let csv = csv.with_digest(asked.is_some());
            let uploaded = upload::receive(csv, cores, pool, caller.owner(), check).await?;
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
            let read = move || {
                let mut request = TrainRequest::read(text)?;
                let csv = request.take_csv();
                Ok((request, csv))
            };
            let (request, csv) = super::on_blocking_thread(read).await?;
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

/// What came of the wish to queue a job.
enum Queued {
    /// It is queued as this model.
    New(i32),
    /// An earlier request of the same key has queued it.
    Earlier(Earlier),
    /// There is no room.
    Full,
}

/// Where the jobs of a caller go. A job becomes a model, unless an earlier request of the same key has made one: the number is
/// the model's, and the flag says whether that is so.
struct Queue<'a> {
    pool: &'a Pool,
    caller: Caller,
    limit: u32,
    /// What the workers may take.
    capacity: Capacity,
}

impl Queue<'_> {
    /// Queues a training on a dataset that may not exist, and may not fit.
    async fn train_stored(&self, id: i32, wish: Wish, keyed: Option<Keyed>) -> Result<(i32, bool), ApiError> {
        // What was accepted once is not checked again, and needs no room in the queue.
        if let Some(id) = find_earlier(self.pool, Made::Model, self.caller, keyed.as_ref()).await? {
            return Ok((id, true));
        }
        let (owner, capacity) = (self.caller.owner(), self.capacity);
        let absent = |error| ids::unless_absent(error, "dataset", id);
        let check = move |conn: &mut PgConnection| Ok((check_stored(conn, owner, id, &wish, capacity)?, wish));
        let (checked, wish) = self.pool.run(check).await.map_err(absent)?;
        checked.map_err(refused)?;
        self.accept(self.enqueue(wish, keyed, move |_| Ok(id)).await.map_err(absent)?)
    }

    /// Queues a training on rows that have just come in, and stores them with it.
    async fn train_new(&self, upload: Upload, wish: Wish, keyed: Option<Keyed>) -> Result<(i32, bool), ApiError> {
        let capacity = self.capacity;
        let check = move |conn: &mut PgConnection| Ok((check_new(conn, &upload, &wish, capacity)?, upload, wish));
        let (checked, upload, wish) = self.pool.run(check).await?;
        checked.map_err(refused)?;
        let owner = self.caller.owner();
        self.accept(self.enqueue(wish, keyed, move |conn| datasets::insert(conn, owner, &upload)).await?)
    }

    fn accept(&self, queued: Queued) -> Result<(i32, bool), ApiError> {
        match queued {
            Queued::New(id) => Ok((id, false)),
            Queued::Earlier(earlier) => Ok((accept(Made::Model, earlier)?, true)),
            Queued::Full => Err(ApiError::queue_full(self.limit)),
        }
    }

    /// Queues a training on the dataset that `dataset` finds or makes.
    async fn enqueue(
        &self,
        wish: Wish,
        keyed: Option<Keyed>,
        dataset: impl FnOnce(&mut PgConnection) -> QueryResult<i32> + Send + 'static,
    ) -> Result<Queued, db::Error> {
        let (owner, limit) = (self.caller.owner(), self.limit);
        let enqueue = move |conn: &mut PgConnection| {
            let queued = conn.build_transaction().run(|conn| {
                if let Some(request) = &keyed
                    && let Some(earlier) = idempotency::find_or_reserve(conn, Made::Model, owner, request)?
                {
                    return Ok(Queued::Earlier(earlier));
                }
                queue::check_room(conn, limit)?;
                let dataset_id = dataset(conn)?;
                let Wish { params, name, tags } = &wish;
                let (name, request) = (name.as_deref(), keyed.as_ref());
                queue::enqueue(conn, limit, &NewJob { owner, dataset_id, name, tags, params, request }).map(Queued::New)
            });
            match queued {
                Ok(queued) => Ok(queued),
                Err(EnqueueError::Full) => Ok(Queued::Full),
                Err(EnqueueError::Query(error)) => Err(vanished(error).into()),
            }
        };
        self.pool.run(enqueue).await
    }
}

/// Checks parameters against rows that have just come in; `conn` reads them where they are stored already.
fn check_new(
    conn: &mut PgConnection,
    upload: &Upload,
    wish: &Wish,
    capacity: Capacity,
) -> Result<Result<(), CheckError>, db::Error> {
    let columns = &upload.columns;
    match &upload.rows {
        NewRows::Held(chunks) => {
            Ok(training::check_rows(&wish.params, columns, &held_rows(chunks, columns.len()), capacity))
        }
        NewRows::Stored(id) => {
            let rows = stored_rows(conn, *id, columns.len(), upload.n_rows)?;
            own_errors_apart(training::check_rows(&wish.params, columns, &rows, capacity))
        }
    }
}

/// Checks parameters against the dataset `id` of `owner`, which is immutable as long as it is there.
fn check_stored(
    conn: &mut PgConnection,
    owner: Option<i32>,
    id: i32,
    wish: &Wish,
    capacity: Capacity,
) -> Result<Result<(), CheckError>, db::Error> {
    let shape = datasets::find_shape(conn, owner, id)?;
    let rows = stored_rows(conn, shape.id, shape.column_names.len(), shape.n_rows as usize)?;
    own_errors_apart(training::check_rows(&wish.params, &shape.column_names, &rows, capacity))
}

/// The `n_rows` rows of a dataset; `NotFound` when it was deleted meanwhile.
fn stored_rows(conn: &mut PgConnection, id: i32, n_columns: usize, n_rows: usize) -> QueryResult<StoredRows<'_>> {
    let sizes = datasets::chunk_sizes(conn, id)?;
    if sizes.iter().sum::<usize>() != n_rows * n_columns {
        return Err(diesel::result::Error::NotFound);
    }
    let read = move |chunk| Ok(datasets::chunk(conn, id, chunk as i32).map_err(db::Error::from)?);
    Ok(StoredRows::new(n_columns, &sizes, read))
}

/// The rows of chunks that are held.
fn held_rows(chunks: &[Vec<f64>], n_columns: usize) -> StoredRows<'_> {
    let sizes: Vec<usize> = chunks.iter().map(Vec::len).collect();
    StoredRows::new(n_columns, &sizes, |chunk| Ok(chunks[chunk].clone()))
}

/// That the database failed is not what the client did wrong.
fn own_errors_apart(checked: Result<(), CheckError>) -> Result<Result<(), CheckError>, db::Error> {
    match checked {
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
