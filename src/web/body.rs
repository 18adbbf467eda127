//! Request bodies: their type, their size, their text, and JSON with errors that name the field.

use std::time::Duration;

use rocket::data::{ByteUnit, Data};
use rocket::http::ContentType;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, copy, sink};
use tokio::time::timeout;

use super::error::ApiError;

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
    pub(super) async fn read(
        data: Data<'_>,
        content_type: Option<&ContentType>,
        limit: ByteUnit,
    ) -> Result<Self, ApiError> {
        let wrap = wrapper(content_type)?;
        let bytes = read_limited(data, limit).await?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count();
            ApiError::malformed(format!("the body is not valid UTF-8: byte {} (line {line})", valid + 1))
        })?;
        Ok(wrap(text))
    }
}

fn wrapper(content_type: Option<&ContentType>) -> Result<fn(String) -> Body, ApiError> {
    const TAKEN: &str = "the body must be of Content-Type application/json or text/csv, in UTF-8";
    let Some(content_type) = content_type else {
        return Err(ApiError::unsupported_media_type(format!("{TAKEN}, but the request names none")));
    };
    let charset = content_type.param("charset").unwrap_or("utf-8");
    let is_utf8 = ["utf-8", "utf8", "us-ascii"].iter().any(|name| charset.eq_ignore_ascii_case(name));
    if is_utf8 && content_type.is_json() {
        Ok(Body::Json)
    } else if is_utf8 && content_type.is_csv() {
        Ok(Body::Csv)
    } else {
        let given: String = content_type.to_string().chars().take(100).collect();
        Err(ApiError::unsupported_media_type(format!("{TAKEN}, but is {given:?}")))
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

/// Decodes JSON whose errors name the field: 400 where it is not JSON, 422 where it is not what `T` needs.
///
/// # Errors
/// As said.
pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    let mut decoder = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut decoder).map_err(|error| {
        let path = error.path().to_string();
        json_error(&path, error.inner())
    })?;
    decoder.end().map_err(|error| json_error(".", &error))?;
    Ok(value)
}

/// A sentence from what serde says about the field at `path`, which is `.` for the whole.
pub(super) fn json_error(path: &str, error: &serde_json::Error) -> ApiError {
    // serde quotes what it found, which may be all of a client's data.
    let said = error.to_string();
    let mut message: String = said.chars().take(200).collect();
    if message.len() < said.len() {
        message.push_str("..");
    }
    if error.is_data() {
        let at = message.rfind(" at line ").unwrap_or(message.len());
        let message = &message[..at];
        ApiError::invalid(if path == "." { message.to_owned() } else { format!("{path}: {message}") })
    } else {
        ApiError::malformed(format!("the body is not valid JSON: {message}"))
    }
}
