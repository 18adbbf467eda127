//! Datasets: posted once, for any number of trainings.

mod create;
mod download;
mod list;

use diesel::Connection;
use diesel::pg::PgConnection;
use rocket::http::uri::Origin;
use rocket::http::{Accept, Status};
use rocket::response::content::RawJson;
use rocket::response::{self, Responder};
use rocket::{Request, Route, State, delete, get, routes};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::auth::Caller;
use super::body::Cores;
use super::connections::Lifeline;
use super::error::{self, ApiError};
use super::ids;
use super::library::Library;
use super::models::time;
use super::predict::prefers_csv;
use super::query;
use crate::db::Pool;
use crate::db::datasets::{self, Dataset, Deletion, Users};
use crate::table::{ColumnStatistics, shown};

use download::Download;

/// The routes of this file and those below it.
pub(super) fn routes() -> Vec<Route> {
    let mut routes = query::knowing(&[], routes![delete_dataset]);
    routes.extend(query::knowing(&["format"], routes![get_dataset]));
    routes.extend(routes![create::create_dataset, list::list_datasets]);
    routes
}

/// The same as they are described.
#[derive(OpenApi)]
#[openapi(paths(create::create_dataset, get_dataset, list::list_datasets, delete_dataset))]
pub(super) struct Calls;

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

/// Delete a dataset; its models stay
#[utoipa::path(
    tag = "datasets",
    params(("id" = i32, Path, description = ids::DATASET, minimum = 1)),
    responses((status = 204, description = "It is gone."), error::NotFound, error::Needed, error::Usual)
)]
#[delete("/dataset/<id>")]
async fn delete_dataset(
    id: &str,
    caller: Caller,
    pool: &State<Pool>,
    library: &State<Library>,
) -> Result<Status, ApiError> {
    let id = ids::parse("dataset", id)?;
    let owner = caller.owner();
    let delete = move |conn: &mut PgConnection| Ok(conn.transaction(|conn| datasets::delete(conn, owner, id))?);
    match pool.run(delete).await.map_err(|error| ids::unless_absent(error, "dataset", id))? {
        Deletion::Done => {
            library.forget_dataset().await;
            Ok(Status::NoContent)
        }
        Deletion::NeededBy(model) => {
            Err(ApiError::needed(format!("dataset {id} cannot be deleted yet: model {model} is to be trained on it")))
        }
    }
}
