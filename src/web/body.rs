//! Request bodies: their type, their size, their text, and JSON with errors that name the field.

use std::convert::Infallible;
use std::time::Duration;

use rocket::Request;
use rocket::data::{ByteUnit, Data};
use rocket::http::ContentType;
use rocket::request::{FromRequest, Outcome};
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::io::{AsyncReadExt, copy, sink};
use tokio::time::timeout;

use super::error::ApiError;
use crate::table;

/// The text of a body, by the type that its header names.
#[derive(Debug)]
pub(super) enum Body {
    /// `application/json`.
    Json(String),
    /// `text/csv`.
    Csv(String),
}

/// How long the rest of a body that is too large is read and thrown away, so that the client sees the reply and not a
/// broken connection.
const DRAIN: Duration = Duration::from_secs(10);

impl Body {
    /// Reads the whole body.
    ///
    /// # Errors
    /// 415 when it is neither JSON nor CSV, 413 when it exceeds `limit`, 400 when it is not UTF-8 or breaks off.
    pub(super) async fn read(data: Data<'_>, format: Format<'_>, limit: ByteUnit) -> Result<Self, ApiError> {
        let wrap = format.wrapper()?;
        let bytes = read_limited(data, limit).await?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count();
            ApiError::malformed(format!("the body is not valid UTF-8: byte {} (line {line})", valid + 1))
        })?;
        Ok(wrap(text))
    }
}

/// What the headers of a request say of its body.
pub(super) struct Format<'r> {
    content_type: Option<&'r ContentType>,
    encoding: Option<&'r str>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Format<'r> {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        let encoding = request.headers().get_one("Content-Encoding");
        Outcome::Success(Self { content_type: request.content_type(), encoding })
    }
}

impl Format<'_> {
    /// What makes a [`Body`] of a text in this format.
    fn wrapper(&self) -> Result<fn(String) -> Body, ApiError> {
        const TAKEN: &str = "the body must be of Content-Type application/json or text/csv, in UTF-8";
        if let Some(encoding) = self.encoding.filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            let message = format!("the body's Content-Encoding {} is not supported", table::shown(encoding));
            return Err(ApiError::unsupported_media_type(message));
        }
        let Some(content_type) = self.content_type else {
            return Err(ApiError::unsupported_media_type(format!("{TAKEN}, but the request names none")));
        };
        let charset = content_type.param("charset").unwrap_or("utf-8");
        let is_utf8 = ["utf-8", "utf8", "us-ascii"].iter().any(|name| charset.eq_ignore_ascii_case(name));
        if is_utf8 && content_type.is_json() {
            Ok(Body::Json)
        } else if is_utf8 && content_type.is_csv() {
            Ok(Body::Csv)
        } else {
            let given = table::shown(&content_type.to_string());
            Err(ApiError::unsupported_media_type(format!("{TAKEN}, but is {given}")))
        }
    }
}

async fn read_limited(data: Data<'_>, limit: ByteUnit) -> Result<Vec<u8>, ApiError> {
    let mut stream = data.open(limit + limit);
    let mut bytes = Vec::new();
    if let Err(error) = (&mut stream).take(limit.as_u64() + 1).read_to_end(&mut bytes).await {
        log::debug!("a body broke off: {error}");
        return Err(ApiError::malformed("the body broke off before its end"));
    }
    if bytes.len() as u64 > limit.as_u64() {
        drop(bytes);
        // Whether the rest arrives or not, the reply is the same.
        let _rest = timeout(DRAIN, copy(&mut stream, &mut sink())).await;
        return Err(ApiError::too_large(limit));
    }
    Ok(bytes)
}

/// Decodes a JSON object; errors name the field: 400 where it is not JSON, 422 where it is not what `T` needs.
///
/// # Errors
/// As said.
pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    // serde would take a list of the fields' values as well.
    if text.trim_start().starts_with('[') {
        let _list: IgnoredAny = serde_json::from_str(text).map_err(|error| json_error(".", &error))?;
        return Err(ApiError::invalid("the body must be a JSON object"));
    }
    let mut decoder = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut decoder)
        .map_err(|error| json_error(&error.path().to_string(), error.inner()))?;
    decoder.end().map_err(|error| json_error(".", &error))?;
    Ok(value)
}

/// serde's names of types, and ours.
const TYPE_NAMES: [(&str, &str); 5] = [
    ("expected usize", "expected a whole number"),
    ("expected u64", "expected a whole number"),
    ("expected i64", "expected a whole number"),
    ("expected f64", "expected a number"),
    ("expected a sequence", "expected a list"),
];

/// A sentence from what serde says about the field at `path`, which is `.` for the whole.
pub(super) fn json_error(path: &str, error: &serde_json::Error) -> ApiError {
    // serde quotes what it found, which may be all of a client's data: both ends say what matters.
    let short = shorten(&error.to_string());
    let message = TYPE_NAMES.iter().fold(short, |said, (theirs, ours)| said.replace(theirs, ours));
    let path = shorten(path);
    if error.is_data() || message.starts_with("number out of range") {
        let at = message.rfind(" at line ").unwrap_or(message.len());
        let message = &message[..at];
        ApiError::invalid(if path == "." { message.to_owned() } else { format!("{path}: {message}") })
    } else {
        ApiError::malformed(format!("the body is not valid JSON: {message}"))
    }
}

/// A long text without its middle.
fn shorten(text: &str) -> String {
    const END: usize = 100;
    if text.len() <= 2 * END {
        return text.to_owned();
    }
    let (head, tail) = (text.floor_char_boundary(END), text.ceil_char_boundary(text.len() - END));
    format!("{} .. {}", &text[..head], &text[tail..])
}
