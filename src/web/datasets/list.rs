//! `GET /datasets`: the list.

use rocket::http::uri::Origin;
use rocket::serde::json::Json;
use rocket::{State, get};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::auth::Caller;
use super::super::error::{self, ApiError};
use super::super::models::time;
use super::super::page::{Page, wrong};
use crate::db::Pool;
use crate::db::datasets::{self, Filter, Summary};

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
pub(super) struct DatasetList {
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
pub(super) async fn list_datasets(
    uri: &Origin<'_>,
    caller: Caller,
    pool: &State<Pool>,
) -> Result<Json<DatasetList>, ApiError> {
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
