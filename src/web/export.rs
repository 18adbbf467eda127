//! `GET /model/N?format=`: a trained model for use elsewhere, so that nobody is locked in.

mod onnx;
mod python;

use std::sync::Arc;

use rocket::http::{ContentType, Header};
use rocket::response::content::RawJson;
use rocket::response::{self, Responder};
use rocket::{Request, Response, Route, State, get, routes};
use utoipa::ToSchema;

use super::auth::Caller;
use super::error::ApiError;
use super::library::Library;
use super::models::{parse_id, unless_absent};
use super::predict::trained;
use super::query;
use crate::db::Pool;
use crate::db::models;
use crate::table::shown;
use crate::training::FittedModel;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    query::knowing(&["format"], routes![export_model])
}

/// What a model may be asked for as. The call is described together with that for the document, which has the same path.
#[derive(Clone, Copy, ToSchema)]
#[schema(rename_all = "lowercase")]
pub(super) enum Wanted {
    /// The document.
    Json,
    /// One ONNX `LinearRegressor`.
    Onnx,
    /// A Python program without dependencies.
    Python,
}

impl Wanted {
    fn from_word(word: &str) -> Result<Self, ApiError> {
        match word {
            "json" => Ok(Self::Json),
            "onnx" => Ok(Self::Onnx),
            "python" => Ok(Self::Python),
            _ => Err(ApiError::invalid(format!("format: expected one of json, onnx, python, not {}", shown(word)))),
        }
    }
}

/// A model, and what is told of it wherever it goes.
struct Exported {
    id: i32,
    name: Option<String>,
    target: String,
    model: FittedModel,
}

/// A file to be kept under a name.
struct File {
    content_type: ContentType,
    name: String,
    bytes: Vec<u8>,
}

impl<'r> Responder<'r, 'static> for File {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        // The name holds a number and an extension: nothing to be quoted.
        let disposition = Header::new("Content-Disposition", format!("attachment; filename=\"{}\"", self.name));
        Response::build_from((self.content_type, self.bytes).respond_to(request)?).header(disposition).ok()
    }
}

/// The document as JSON, or the model as a file.
enum Format {
    Json(RawJson<Arc<str>>),
    File(Box<File>),
}

impl<'r> Responder<'r, 'static> for Format {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        match self {
            Self::Json(document) => document.respond_to(request),
            Self::File(file) => file.respond_to(request),
        }
    }
}

#[get("/model/<id>?<format>")]
async fn export_model(
    id: &str,
    format: &str,
    caller: Caller,
    pool: &State<Pool>,
    library: &State<Library>,
) -> Result<Format, ApiError> {
    let write: fn(&Exported) -> Result<File, ApiError> = match Wanted::from_word(format)? {
        Wanted::Json => return Ok(Format::Json(RawJson(library.document(caller, parse_id(id)?).await?))),
        Wanted::Onnx => |exported| {
            let bytes = onnx::write(exported).map_err(ApiError::invalid)?;
            Ok(File { content_type: ContentType::Binary, name: format!("model-{}.onnx", exported.id), bytes })
        },
        Wanted::Python => |exported| {
            let content_type = ContentType::new("text", "x-python").with_params(("charset", "utf-8"));
            let bytes = python::write(exported).into_bytes();
            Ok(File { content_type, name: format!("model_{}.py", exported.id), bytes })
        },
    };
    let id = parse_id(id)?;
    let owner = caller.owner();
    let found = pool
        .run(move |conn| Ok((models::find_predictor(conn, owner, id)?, models::find_label(conn, owner, id)?)))
        .await;
    let (predictor, label) = found.map_err(|error| unless_absent(error, id))?;
    let exported = Exported { id, name: label.name, target: label.params.0.target, model: trained(predictor, id)? };
    Ok(Format::File(Box::new(super::on_blocking_thread(move || write(&exported)).await?)))
}
