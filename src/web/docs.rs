//! `GET /docs`: the description of the API as a page for people, who may also try the calls there.
//!
//! It is Swagger UI, which is part of the program: nothing comes from elsewhere, and a browser is told to take nothing from
//! elsewhere.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use anyhow::Context;
use rocket::http::{ContentType, Header};
use rocket::response::content::RawHtml;
use rocket::response::{self, Responder};
use rocket::{Request, Response, Route, State, get, routes};
use tokio::sync::OnceCell;
use utoipa::{OpenApi, ToSchema};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

use super::error::{self, ApiError};
use super::query;
use crate::table::shown;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    query::knowing(&[], routes![docs, docs_file])
}

/// The same as they are described.
#[derive(OpenApi)]
#[openapi(paths(docs, docs_file))]
pub(super) struct Calls;

/// What the page may do: run and show what comes from here, ask the service, and show the pictures that Swagger UI's style
/// sheet holds.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// How long a browser may keep the files of the page.
const KEPT: &str = "public, max-age=3600";

const PAGE: &str = include_str!("docs/page.html");
/// Starts Swagger UI: a page that may run no script of its own needs a file for it.
const START: (&str, &str) = ("start.js", include_str!("docs/start.js"));
/// What the page needs of Swagger UI.
const FILES: [&str; 2] = ["swagger-ui.css", "swagger-ui-bundle.js"];

/// The files of Swagger UI by their names, unpacked when they are first asked for.
#[derive(Default)]
pub(super) struct SwaggerUi(OnceCell<HashMap<&'static str, Vec<u8>>>);

impl SwaggerUi {
    async fn file(&self, name: &str) -> Result<Option<&[u8]>, ApiError> {
        let unpacked = self.0.get_or_try_init(|| super::on_blocking_thread(|| unpack().map_err(ApiError::internal)));
        Ok(unpacked.await?.get(name).map(Vec::as_slice))
    }
}

fn unpack() -> anyhow::Result<HashMap<&'static str, Vec<u8>>> {
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED)).context("Swagger UI's archive")?;
    let folder = archive.file_names().flatten().find_map(|name| Some(name.strip_suffix(FILES[0])?.to_owned()));
    let folder = folder.context("Swagger UI's archive lacks its style sheet")?;
    let read = |name: &'static str| {
        let mut bytes = Vec::new();
        archive.by_name(&format!("{folder}{name}"))?.read_to_end(&mut bytes)?;
        anyhow::Ok((name, bytes))
    };
    FILES.into_iter().map(read).collect()
}

/// A page that may run what comes from here.
struct Page(&'static str);

impl<'r> Responder<'r, 'static> for Page {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let policy = Header::new("Content-Security-Policy", POLICY);
        Response::build_from(RawHtml(self.0).respond_to(request)?).header(policy).ok()
    }
}

/// The names of the files, as they are described.
#[derive(ToSchema)]
#[expect(dead_code, reason = "they are only described")]
enum Name {
    #[schema(rename = "start.js")]
    Start,
    #[schema(rename = "swagger-ui.css")]
    Style,
    #[schema(rename = "swagger-ui-bundle.js")]
    Bundle,
}

/// A file of the page.
struct File<'s> {
    content_type: ContentType,
    bytes: &'s [u8],
}

impl<'r, 's: 'r> Responder<'r, 's> for File<'s> {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'s> {
        let kept = Header::new("Cache-Control", KEPT);
        Response::build_from((self.content_type, self.bytes).respond_to(request)?).header(kept).ok()
    }
}

/// This description as a page, where calls can be tried
#[utoipa::path(
    tag = "service",
    security(()),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), error::Always)
)]
#[get("/docs")]
fn docs() -> Page {
    Page(PAGE)
}

/// A file of the page
#[utoipa::path(
    tag = "service",
    security(()),
    params(("file" = inline(Name), Path, description = "The file's name.")),
    responses(
        (status = 200, description = "The file.", content((String = "text/css"), (String = "text/javascript"))),
        error::NotFound,
        error::Always
    )
)]
#[get("/docs/<file>")]
async fn docs_file<'s>(file: &str, swagger_ui: &'s State<SwaggerUi>) -> Result<File<'s>, ApiError> {
    let bytes = match file == START.0 {
        true => Some(START.1.as_bytes()),
        false => swagger_ui.file(file).await?,
    };
    let bytes = bytes.ok_or_else(|| ApiError::not_found(format!("the page has no file {}", shown(file))))?;
    let content_type = if file.ends_with(".css") { ContentType::CSS } else { ContentType::JavaScript };
    Ok(File { content_type, bytes })
}
