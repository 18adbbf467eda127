//! `GET /models`: the list.

use rocket::http::uri::Origin;
use rocket::serde::json::Json;
use rocket::{State, get};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::auth::Caller;
use super::super::error::{self, ApiError};
use super::super::page::{Page, wrong};
use super::super::{ids, tags};
use super::time;
use crate::db::Pool;
use crate::db::models::{self, Filter, Status};
use crate::training::Best;

/// A model as a list shows it.
#[derive(Serialize, ToSchema)]
struct ModelSummary {
    model_id: i32,
    #[schema(value_type = Status)]
    status: &'static str,
    #[schema(required)]
    name: Option<String>,
    /// Words to find it by.
    tags: Vec<String>,
    /// What it is trained on, as long as that is there.
    #[schema(required)]
    dataset_id: Option<i32>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(required, format = DateTime)]
    finished_at: Option<String>,
    #[schema(required)]
    best: Option<Best>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A page of the list, the newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelList {
    models: Vec<ModelSummary>,
    /// The `after` of the next page.
    #[schema(required)]
    next: Option<i32>,
}

/// The models, newest first: limit, after, status, name, tag, `dataset_id`
#[utoipa::path(
    tag = "models",
    params(
        Page,
        ("status" = inline(Option<Status>), Query, description = "Those in this state."),
        ("name" = Option<String>, Query, description = "Those of this name.", pattern = r"^[^\u0000]*$"),
        ("tag" = Option<Vec<tags::Tag>>, Query, description = "Those with all of these tags.", style = Form,
            explode = false, min_items = 1),
        ("dataset_id" = Option<i32>, Query, description = "Those that are trained on this dataset.", minimum = 1)
    ),
    responses((status = 200, description = "A page of the list.", body = ModelList), error::Invalid, error::Usual)
)]
#[get("/models")]
pub(super) async fn list_models(
    uri: &Origin<'_>,
    caller: Caller,
    pool: &State<Pool>,
) -> Result<Json<ModelList>, ApiError> {
    let (page, filter) = parse_filter(uri)?;
    let filter = Filter { owner: caller.owner(), ..filter };
    // One more than asked for tells whether there is a next page.
    let mut found = pool.run(move |conn| Ok(models::list(conn, &filter, page.limit + 1)?)).await?;
    let next = page.cut(&mut found, |model| model.id);
    let summary = |model: models::Summary| ModelSummary {
        model_id: model.id,
        status: model.status.as_str(),
        name: model.name,
        tags: model.tags.0,
        dataset_id: model.dataset_id,
        created_at: time(model.created_at),
        finished_at: model.finished_at.map(time),
        best: model.best.map(|best| best.0),
        error: model.error,
    };
    Ok(Json(ModelList { models: found.into_iter().map(summary).collect(), next }))
}

/// What the query string of a list asks for.
fn parse_filter(uri: &Origin<'_>) -> Result<(Page, Filter), ApiError> {
    let mut filter = Filter::default();
    let page = Page::read(uri, "status, name, tag, dataset_id", |name, value| {
        match name {
            "status" => {
                let words = Status::ALL.map(Status::as_str).join(", ");
                let status = Status::from_word(value);
                filter.status = Some(status.ok_or_else(|| wrong(name, value, format!("one of {words}")))?);
            }
            "name" if value.contains('\0') => return Err(wrong(name, value, "a name without NUL characters")),
            "name" => filter.name = Some(value.to_owned()),
            "tag" => {
                // Several, separated by commas, must all be there.
                let tags = value.split(',').map(str::trim);
                if let Some(bad) = tags.clone().find(|tag| !tags::is_decent(tag)) {
                    return Err(wrong(name, bad, tags::EXPECTED));
                }
                filter.tags = tags.map(str::to_owned).collect();
            }
            "dataset_id" => {
                let id = ids::number(value).ok_or_else(|| wrong(name, value, "the number of a dataset"))?;
                filter.dataset_id = Some(id);
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    filter.before = page.before;
    Ok((page, filter))
}
