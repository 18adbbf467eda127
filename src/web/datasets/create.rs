//! `POST /datasets`: a CSV is stored.

use diesel::pg::PgConnection;
use diesel::{Connection, QueryResult};
use rocket::http::Status;
use rocket::http::uri::Origin;
use rocket::response::content::RawJson;
use rocket::response::{self, Responder};
use rocket::{Request, Response, State, post};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::auth::{Caller, Uploader};
use super::super::body::{self, Body, Cores, Csv, Form, RequestBody};
use super::super::error::{self, ApiError};
use super::super::idempotency::{self, Asked, IdempotencyKey, REPLAYED, accept};
use super::super::metrics::{Metrics, Purpose};
use super::super::train::check_name;
use super::super::upload::{self, Uploaded};
use super::super::{on_blocking_thread, query};
use super::{DatasetDocument, document};
use crate::config::Config;
use crate::db::Pool;
use crate::db::datasets::{self, Upload};
use crate::db::idempotency::{Keyed, Made, find_or_reserve, note_dataset};

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

/// The reply to an upload: the document and where to find it.
pub(super) struct Created {
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
pub(super) async fn create_dataset(
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
    let uploaded = upload::receive(csv, cores, pool, caller.owner(), |_| Ok(None), |_, _| Ok(())).await?;
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
                on_blocking_thread(move || body::from_json(&text)).await?
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
