//! Datasets: posted once, for any number of trainings.

mod download;

use diesel::pg::PgConnection;
use diesel::{Connection, QueryResult};
use rocket::http::uri::Origin;
use rocket::http::{Accept, Status};
use rocket::response::content::RawJson;
use rocket::response::{self, Responder};
use rocket::serde::json::Json;
use rocket::{Request, Response, Route, State, delete, get, post, routes};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::auth::{Caller, Uploader};
use super::body::{self, Body, Cores, Csv, Form, RequestBody};
use super::connections::Lifeline;
use super::error::{self, ApiError};
use super::idempotency::{self, Asked, IdempotencyKey, REPLAYED, accept};
use super::ids;
use super::metrics::{Metrics, Purpose};
use super::models::time;
use super::page::{Page, wrong};
use super::predict::prefers_csv;
use super::query;
use super::train::check_name;
use super::upload::{self, Uploaded};
use crate::config::Config;
use crate::db::Pool;
use crate::db::datasets::{self, Dataset, Deletion, Filter, Summary, Upload, Users};
use crate::db::idempotency::{Keyed, Made, find_or_reserve, note_dataset};
use crate::table::{ColumnStatistics, shown};

use download::Download;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    let mut routes = query::knowing(&[], routes![delete_dataset]);
    routes.extend(query::knowing(&["format"], routes![get_dataset]));
    routes.extend(routes![create_dataset, list_datasets]);
    routes
}

/// The same as they are described.
#[derive(OpenApi)]
#[openapi(paths(create_dataset, get_dataset, list_datasets, delete_dataset))]
pub(super) struct Calls;

/// The JSON body, or what a form or a `text/csv` body with its query string amounts to.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct CreateDatasetRequest {
    /// The CSV: numbers below a line of column names.
    #[schema(content_media_type = "text/csv", required)]
    #[serde(skip_serializing_if = "idempotency::is_digested")]
    data: String,
    /// A name for the dataset.
    #[schema(max_length = 1000, pattern = r"^[^\u0000]*$")]
    name: Option<String>,
}

/// A dataset as clients see it.
#[derive(Serialize, ToSchema)]
struct DatasetDocument {
    dataset_id: i32,
    #[schema(required)]
    name: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    /// Whether it stays until it is deleted; otherwise it goes with the last model that uses it.
    standalone: bool,
    n_rows: i64,
    n_columns: usize,
    columns: Vec<Column>,
    /// The newest models that use it.
    #[schema(max_items = 100)]
    models: Vec<i32>,
    /// How many models use it.
    n_models: i64,
}

/// What a column is like.
#[derive(Serialize, ToSchema)]
struct Column {
    name: String,
    #[serde(flatten)]
    statistics: ColumnStatistics,
}

impl DatasetDocument {
    fn new(dataset: Dataset, users: Users) -> Self {
        let statistics = dataset.statistics.map(|statistics| statistics.0).unwrap_or_default();
        let names = dataset.column_names.0;
        Self {
            dataset_id: dataset.id,
            name: dataset.name,
            created_at: time(dataset.created_at),
            standalone: dataset.is_standalone,
            n_rows: dataset.n_rows,
            n_columns: names.len(),
            columns: names.into_iter().zip(statistics).map(|(name, statistics)| Column { name, statistics }).collect(),
            models: users.newest,
            n_models: users.count,
        }
    }
}

/// The reply to an upload: the document and where to find it.
struct Created {
    dataset_id: i32,
    /// An earlier request has made the dataset.
    is_replay: bool,
    document: RawJson<String>,
}

impl<'r> Responder<'r, 'static> for Created {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let location = format!("/dataset/{}", self.dataset_id);
        let mut response = Response::build_from((Status::Created, self.document).respond_to(request)?);
        response.raw_header("Location", location);
        if self.is_replay {
            response.raw_header(REPLAYED, "true");
        }
        response.ok()
    }
}

/// Store a CSV for any number of trainings: text/csv, JSON, or a form with a file
///
/// The query string is that of a `text/csv` body alone; other bodies hold the name themselves.
#[utoipa::path(
    tag = "datasets",
    params(
        ("name" = Option<String>, Query, description = "A name for the dataset.", max_length = 1000, pattern = r"^[^\u0000]*$"),
        ("Idempotency-Key" = Option<String>, Header, description = idempotency::KEY, example = "\"8e03978e-40d5-43e8-bc93\"",
            pattern = r#"^([!#-+\-.-:<-\[\]-~]{1,255}|"([ !#-\[\]-~]|\\["\\]){1,255}")$"#)
    ),
    request_body(content(
        (String = "text/csv", example = "a,b,c\n1.0,0.0,2.0\n2.5,1.0,-1.0\n"),
        (CreateDatasetRequest = "application/json", example = json!({"data": "a,b,c\n1.0,0.0,2.0\n2.5,1.0,-1.0\n", "name": "cars"})),
        (Form = "multipart/form-data")
    )),
    responses(
        (status = 201, description = "The dataset, stored.", body = DatasetDocument, headers(
            ("Location" = String, description = "Where the dataset is."),
            ("Idempotent-Replayed" = String, description = "`true` where an earlier request of the same key has done the work.")
        ), links(
            ("dataset" = (operation_id = "get_dataset", parameters(("id" = "$response.body#/dataset_id")))),
            ("delete" = (operation_id = "delete_dataset", parameters(("id" = "$response.body#/dataset_id"))))
        )),
        error::OfBody,
        error::Usual
    )
)]
#[post("/datasets", data = "<body>")]
#[expect(clippy::too_many_arguments, reason = "a handler takes what its reply depends on")]
async fn create_dataset(
    uploader: Uploader,
    key: IdempotencyKey,
    body: RequestBody<'_>,
    uri: &Origin<'_>,
    config: &State<Config>,
    pool: &State<Pool>,
    metrics: &State<Metrics>,
    cores: &State<Cores>,
) -> Result<Created, ApiError> {
    let (caller, body) = uploader.admit(body.or_form()).await?;
    let (key, body) = key.admit(body).await?;
    let (request, csv) = read(body, uri, config).await?;
    let asked = match check_name(request.name.as_deref()) {
        Ok(()) => key.map(|key| Asked::new(key, &request)).transpose(),
        Err(error) => Err(error),
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return Err(csv.refuse(error).await),
    };
    let csv = csv.with_digest(asked.is_some());
    let uploaded = upload::receive(csv, cores, pool, caller.owner(), |_| Ok(None)).await?;
    let Uploaded { upload, n_bytes, digest, trace } = uploaded;
    if upload.n_rows == 0 {
        return Err(ApiError::invalid("data: the CSV has no rows below its header"));
    }
    let upload = Upload { name: request.name, is_standalone: true, ..upload };
    let keyed = asked.zip(digest).map(|(asked, digest)| asked.with_csv(&digest));
    let n_rows = upload.n_rows;
    let (dataset_id, is_replay) = trace.settle(store(pool, caller, upload, keyed).await).await?;
    if !is_replay {
        metrics.received(Purpose::Training, n_bytes, n_rows);
    }
    Ok(Created { dataset_id, is_replay, document: document(pool, caller, dataset_id).await? })
}

/// What a request asks for, and its CSV.
async fn read<'r>(
    body: RequestBody<'r>,
    uri: &Origin<'_>,
    config: &Config,
) -> Result<(CreateDatasetRequest, Csv<'r>), ApiError> {
    let mut request = if body.is_form() {
        let form = body.read_form(config.train_limit, config).await?;
        no_query(uri, "a form")?;
        form_request(form)?
    } else {
        match body.read(config.train_limit, config.stream_limit, config).await? {
            Body::Json(text) => {
                no_query(uri, "a JSON body")?;
                super::on_blocking_thread(move || body::from_json(&text)).await?
            }
            Body::Csv(csv) => {
                return match query_name(uri) {
                    Ok(name) => Ok((CreateDatasetRequest { data: String::new(), name }, csv)),
                    Err(error) => Err(csv.refuse(error).await),
                };
            }
        }
    };
    let csv = Csv::of_text(std::mem::take(&mut request.data));
    Ok((request, csv))
}

/// Stores a dataset for the caller, unless a request of the same key has done so. Returns its id, and whether one has.
async fn store(pool: &Pool, caller: Caller, upload: Upload, keyed: Option<Keyed>) -> Result<(i32, bool), ApiError> {
    let owner = caller.owner();
    let store = move |conn: &mut PgConnection| {
        let stored = conn.transaction(|conn| {
            if let Some(request) = &keyed
                && let Some(earlier) = find_or_reserve(conn, Made::Dataset, owner, request)?
            {
                return Ok(Err(earlier));
            }
            let id = datasets::insert(conn, owner, &upload)?;
            keyed.as_ref().map_or(Ok(()), |request| note_dataset(conn, id, request))?;
            QueryResult::Ok(Ok(id))
        });
        Ok(stored?)
    };
    match pool.run(store).await? {
        Ok(id) => Ok((id, false)),
        Err(earlier) => Ok((accept(Made::Dataset, earlier)?, true)),
    }
}

fn form_request(form: Form) -> Result<CreateDatasetRequest, ApiError> {
    let data = form.csv.ok_or_else(|| ApiError::invalid("missing field `file`: the form must hold a CSV file"))?;
    // A browser sends a field that was left empty.
    Ok(CreateDatasetRequest { data, name: form.name.filter(|name| !name.is_empty()) })
}

/// The name in the query string of a `text/csv` body.
fn query_name(uri: &Origin<'_>) -> Result<Option<String>, ApiError> {
    let parameters = query::known_parameters(uri, &["name"])?;
    Ok(parameters.first().map(|(_, value)| (*value).to_owned()))
}

fn no_query(uri: &Origin<'_>, body: &str) -> Result<(), ApiError> {
    match uri.query() {
        Some(query) if !query.is_empty() => {
            Err(ApiError::invalid(format!("query parameters go with a text/csv body; {body} holds the name itself")))
        }
        _ => Ok(()),
    }
}

/// What a dataset may be asked for as.
#[derive(Clone, Copy, ToSchema)]
#[schema(rename_all = "lowercase")]
enum Wanted {
    /// The document.
    Json,
    /// The rows.
    Csv,
}

impl Wanted {
    fn from_word(word: &str) -> Result<Self, ApiError> {
        match word {
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            _ => Err(ApiError::invalid(format!("format: expected one of json, csv, not {}", shown(word)))),
        }
    }
}

/// The document as JSON, or the rows as CSV.
enum Format {
    Json(RawJson<String>),
    Csv(Download),
}

impl<'r> Responder<'r, 'r> for Format {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'r> {
        match self {
            Self::Json(document) => document.respond_to(request),
            Self::Csv(download) => download.respond_to(request),
        }
    }
}

/// The dataset: what its columns are like, which models use it; or its rows
#[utoipa::path(
    tag = "datasets",
    params(
        ("id" = i32, Path, description = ids::DATASET, minimum = 1),
        ("format" = inline(Option<Wanted>), Query, description = "The document, or the rows as CSV; `Accept` tells where it is left out.")
    ),
    responses(
        (status = 200, description = "The dataset, or its rows: the same numbers.", content(
            (DatasetDocument = "application/json"),
            (String = "text/csv", example = "a,b,c\n1.0,0.0,2.0\n2.5,1.0,-1.0\n")
        )),
        error::NotFound,
        error::Invalid,
        error::Usual
    )
)]
#[get("/dataset/<id>")]
async fn get_dataset(
    id: &str,
    uri: &Origin<'_>,
    caller: Caller,
    accept: Option<&Accept>,
    lifeline: Lifeline,
    pool: &State<Pool>,
    cores: &State<Cores>,
) -> Result<Format, ApiError> {
    let id = ids::parse("dataset", id)?;
    let parameters = query::parameters(uri)?;
    let wanted = match parameters.iter().find(|(name, _)| *name == "format") {
        Some((_, word)) => Wanted::from_word(word)?,
        None if accept.is_some_and(prefers_csv) => Wanted::Csv,
        None => Wanted::Json,
    };
    if let Wanted::Json = wanted {
        return document(pool, caller, id).await.map(Format::Json);
    }
    let download = download::download(pool, cores, caller, lifeline, id).await;
    download.map(Format::Csv).map_err(|error| ids::unless_absent(error, "dataset", id))
}

/// The document of the caller's dataset `id`.
async fn document(pool: &Pool, caller: Caller, id: i32) -> Result<RawJson<String>, ApiError> {
    let query = move |conn: &mut PgConnection| {
        Ok(DatasetDocument::new(datasets::find(conn, caller.owner(), id)?, datasets::users(conn, id)?))
    };
    let document = pool.run(query).await.map_err(|error| ids::unless_absent(error, "dataset", id))?;
    // A hundred thousand columns take their time to print.
    let print = move || serde_json::to_string(&document).map_err(|error| ApiError::internal(error.into()));
    Ok(RawJson(super::on_blocking_thread(print).await?))
}

/// A dataset as a list shows it.
#[derive(Serialize, ToSchema)]
struct DatasetSummary {
    dataset_id: i32,
    #[schema(required)]
    name: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    standalone: bool,
    n_rows: i64,
    n_columns: i32,
}

/// A page of the list, the newest first.
#[derive(Serialize, ToSchema)]
struct DatasetList {
    datasets: Vec<DatasetSummary>,
    /// The `after` of the next page.
    #[schema(required)]
    next: Option<i32>,
}

/// The datasets, newest first: limit, after, name
#[utoipa::path(
    tag = "datasets",
    params(Page, ("name" = Option<String>, Query, description = "Those of this name.", pattern = r"^[^\u0000]*$")),
    responses((status = 200, description = "A page of the list.", body = DatasetList), error::Invalid, error::Usual)
)]
#[get("/datasets")]
async fn list_datasets(uri: &Origin<'_>, caller: Caller, pool: &State<Pool>) -> Result<Json<DatasetList>, ApiError> {
    let mut filter = Filter { owner: caller.owner(), ..Filter::default() };
    let page = Page::read(uri, "name", |name, value| match name {
        "name" if value.contains('\0') => Err(wrong(name, value, "a name without NUL characters")),
        "name" => {
            filter.name = Some(value.to_owned());
            Ok(true)
        }
        _ => Ok(false),
    })?;
    filter.before = page.before;
    // One more than asked for tells whether there is a next page.
    let mut found = pool.run(move |conn| Ok(datasets::list(conn, &filter, page.limit + 1)?)).await?;
    let next = page.cut(&mut found, |dataset| dataset.id);
    let summary = |dataset: Summary| DatasetSummary {
        dataset_id: dataset.id,
        name: dataset.name,
        created_at: time(dataset.created_at),
        standalone: dataset.is_standalone,
        n_rows: dataset.n_rows,
        n_columns: dataset.n_columns,
    };
    Ok(Json(DatasetList { datasets: found.into_iter().map(summary).collect(), next }))
}

/// Delete a dataset; its models stay
#[utoipa::path(
    tag = "datasets",
    params(("id" = i32, Path, description = ids::DATASET, minimum = 1)),
    responses((status = 204, description = "It is gone."), error::NotFound, error::Needed, error::Usual)
)]
#[delete("/dataset/<id>")]
async fn delete_dataset(id: &str, caller: Caller, pool: &State<Pool>) -> Result<Status, ApiError> {
    let id = ids::parse("dataset", id)?;
    let owner = caller.owner();
    let delete = move |conn: &mut PgConnection| Ok(conn.transaction(|conn| datasets::delete(conn, owner, id))?);
    match pool.run(delete).await.map_err(|error| ids::unless_absent(error, "dataset", id))? {
        Deletion::Done => Ok(Status::NoContent),
        Deletion::NeededBy(model) => {
            Err(ApiError::needed(format!("dataset {id} cannot be deleted yet: model {model} is to be trained on it")))
        }
    }
}
