//! Request bodies: their type, their encoding, their size and pace, and their text.

mod bounded;
mod csv;
mod field;
mod form;
mod json;
mod stream;
mod uploads;
mod whole;

use std::convert::Infallible;
use std::sync::Arc;

use rocket::Request;
use rocket::data::{ByteUnit, Data, FromData, Outcome};
use rocket::http::ContentType;

use super::connections::has_been_given_up;
use super::error::ApiError;
use crate::config::Config;
use crate::table;
pub(super) use bounded::AtMost;
pub(super) use csv::{Cores, Csv, Reading, refused};
use field::Field;
pub(super) use form::Form;
pub(super) use json::{from_json, json_error};
pub(super) use stream::BodyStream;
use stream::{Coding, Pace};
use uploads::{Held, SMALL};
pub(super) use uploads::{Room, Uploads, release};
pub(super) use whole::{whole, wholes};

/// Memory that is asked for before the first byte, at most.
const FIRST_ROOM: u64 = 1 << 20;
/// As much of a body as Rocket reads of every request, in search of a form's `_method`.
const PEEKED: usize = "_method=delete".len();

/// A body by the type that its header names.
#[expect(clippy::large_enum_variant, reason = "there is one for a request")]
pub(super) enum Body<'r> {
    /// The text of `application/json`.
    Json(String),
    /// `text/csv`, not read yet.
    Csv(Csv<'r>),
}

/// The types of bodies that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `application/json`.
    Json,
    /// `text/csv`.
    Csv,
}

/// A body that has not been read yet, with what the headers say of it.
pub(super) struct RequestBody<'r> {
    data: Data<'r>,
    content_type: Option<&'r ContentType>,
    /// All codings that it has gone through, separated by commas.
    coding: String,
    /// Its size on the way, as announced.
    length: u64,
    held: &'r Held,
    /// What became of its first bytes.
    start: Start,
    /// What is wrong with the way that it is sent.
    framing: Result<(), ApiError>,
    /// The types that the call takes.
    taken: &'static str,
}

/// What became of the first bytes of a body, which Rocket reads before anybody asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// They are there.
    Read,
    /// They did not come in time.
    Late,
    /// The body broke off among them. Rocket drops that error, and what follows looks like an ordinary end.
    Broken,
}

impl Start {
    async fn of(request: &Request<'_>, data: &mut Data<'_>) -> Self {
        let was_complete = data.peek_complete();
        if has_been_given_up(request) {
            Self::Late
        } else if !was_complete && data.peek(PEEKED).await.len() < PEEKED {
            // Neither all that Rocket looks for nor the end: reading ended in an error.
            Self::Broken
        } else {
            Self::Read
        }
    }
}

#[rocket::async_trait]
impl<'r> FromData<'r> for RequestBody<'r> {
    type Error = Infallible;

    async fn from_data(request: &'r Request<'_>, mut data: Data<'r>) -> Outcome<'r, Self> {
        let headers = request.headers();
        Outcome::Success(Self {
            start: Start::of(request, &mut data).await,
            framing: check_framing(request),
            data,
            content_type: request.content_type(),
            coding: headers.get("Content-Encoding").collect::<Vec<_>>().join(","),
            length: headers.get_one("Content-Length").and_then(|length| length.parse().ok()).unwrap_or(0),
            held: Held::of(request),
            taken: "application/json or text/csv",
        })
    }
}

impl<'r> RequestBody<'r> {
    /// Reads a JSON body of at most `limit` bytes as text; a CSV of at most `csv_limit` bytes is left to be read as it arrives.
    ///
    /// # Errors
    /// 415 when it is neither, or encoded in an unknown way; 413 when it is announced to exceed its limit; those of
    /// [`BodyStream::next`]; 503 when large bodies take too much memory already; 400 when it is not UTF-8.
    pub(super) async fn read(
        self,
        limit: ByteUnit,
        csv_limit: ByteUnit,
        config: &Config,
    ) -> Result<Body<'r>, ApiError> {
        let (held, length) = (self.held, self.length);
        let format = self.format();
        let limit = if let Ok(Format::Csv) = format { csv_limit } else { limit };
        match self.open(limit, config, format).await? {
            (Format::Json, stream) => Ok(Body::Json(to_text(collect(stream, held, length).await?, "the body")?)),
            (Format::Csv, stream) => Ok(Body::Csv(Csv::of_body(stream, held, length))),
        }
    }

    /// A CSV of at most `csv_limit` bytes, or one in the field `data` of a JSON body of at most `limit` bytes that `decode`
    /// decodes; both are left to be read as they arrive, JSON that `is_whole` once all of it is known to be right.
    ///
    /// # Errors
    /// Those of [`Self::read`] that are known before the first byte; the others come as the CSV is read.
    pub(super) async fn read_csv(
        self,
        limit: ByteUnit,
        csv_limit: ByteUnit,
        config: &Config,
        is_whole: bool,
        decode: impl Fn(&str) -> Result<String, ApiError> + Send + Sync + 'static,
    ) -> Result<Csv<'r>, ApiError> {
        let (held, length) = (self.held, self.length);
        let format = self.format();
        let limit = if let Ok(Format::Csv) = format { csv_limit } else { limit };
        match self.open(limit, config, format).await? {
            (Format::Json, stream) => Ok(Csv::of_field(Field::new(stream, held, length, is_whole, Arc::new(decode)))),
            (Format::Csv, stream) => Ok(Csv::of_body(stream, held, length)),
        }
    }

    /// Reads the whole body as it is: JSON, or JSON with bytes behind it, or of a type that the client does not name.
    ///
    /// # Errors
    /// Those of [`Self::read`], 415 for any other type.
    pub(super) async fn read_bytes(self, limit: ByteUnit, config: &Config) -> Result<Vec<u8>, ApiError> {
        let checked = match self.content_type {
            None => Ok(()),
            Some(given) if given.is_json() || given.is_binary() => Ok(()),
            Some(given) => {
                let given = table::shown(&given.to_string());
                Err(ApiError::unsupported_media_type(format!(
                    "the body must be of Content-Type application/json or application/octet-stream, but is {given}"
                )))
            }
        };
        let (held, length) = (self.held, self.length);
        let ((), stream) = self.open(limit, config, checked).await?;
        collect(stream, held, length).await
    }

    /// The bytes as they arrive, after a look at all that is to be known before the first one.
    async fn open<T>(
        self,
        limit: ByteUnit,
        config: &Config,
        format: Result<T, ApiError>,
    ) -> Result<(T, BodyStream<'r>), ApiError> {
        let pace = Pace { stall: config.body_stall, rate: config.body_rate };
        let coding = self.coding();
        let is_too_large = self.length > limit.as_u64();
        match self.start {
            Start::Read => {}
            Start::Late => return Err(ApiError::timeout("the body stalled before its first bytes")),
            Start::Broken => return Err(stream::broken()),
        }
        let mut stream = BodyStream::new(self.data, *coding.as_ref().unwrap_or(&Coding::Identity), limit, pace);
        match (self.framing, coding, format) {
            (Ok(()), Ok(_), Ok(format)) if !is_too_large => Ok((format, stream)),
            (Ok(()), Ok(_), Ok(_)) => Err(stream.refuse(ApiError::too_large(limit)).await),
            (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => Err(stream.refuse(error).await),
        }
    }

    /// Reads what there is, within reason, and hands back `error`: a client that is still sending would not see the reply.
    pub(super) async fn refuse(self, error: ApiError) -> ApiError {
        stream::drain(&mut self.data.open(stream::DRAINED)).await;
        error
    }

    /// Whether it is large, or its size is not known.
    pub(super) fn may_be_large(&self) -> bool {
        self.length > SMALL || (self.length == 0 && !self.data.peek_complete())
    }

    /// Whether there is nothing in it, and nothing was to be.
    pub(super) async fn is_empty(&mut self) -> bool {
        self.start == Start::Read && self.data.peek(1).await.is_empty()
    }

    fn format(&self) -> Result<Format, ApiError> {
        let taken = format!("the body must be of Content-Type {}, in UTF-8", self.taken);
        let Some(content_type) = self.content_type else {
            return Err(ApiError::unsupported_media_type(format!("{taken}, but the request names none")));
        };
        let charset = content_type.param("charset").unwrap_or("utf-8");
        let is_utf8 = ["utf-8", "utf8", "us-ascii"].iter().any(|name| charset.eq_ignore_ascii_case(name));
        if is_utf8 && content_type.is_json() {
            Ok(Format::Json)
        } else if is_utf8 && content_type.is_csv() {
            Ok(Format::Csv)
        } else {
            let given = table::shown(&content_type.to_string());
            Err(ApiError::unsupported_media_type(format!("{taken}, but is {given}")))
        }
    }

    fn coding(&self) -> Result<Coding, ApiError> {
        match self.coding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Coding::Identity),
            "gzip" | "x-gzip" => Ok(Coding::Gzip),
            _ => Err(ApiError::unsupported_media_type(format!(
                "the body's Content-Encoding {} is not supported; gzip is",
                table::shown(&self.coding)
            ))),
        }
    }
}

/// Refuses what the HTTP library lets through: a body that went through a transfer coding that it does not undo.
///
/// # Errors
/// 400 that names the coding.
fn check_framing(request: &Request<'_>) -> Result<(), ApiError> {
    let codings: Vec<&str> = request.headers().get("Transfer-Encoding").collect();
    let coding = codings.join(", ");
    if coding.is_empty() || coding.eq_ignore_ascii_case("chunked") {
        return Ok(());
    }
    let coding = table::shown(&coding);
    Err(ApiError::ambiguous(format!("the body's Transfer-Encoding must be chunked and nothing else, but is {coding}")))
}

/// The text that the bytes of `what` are.
///
/// # Errors
/// 400 that says where they are not UTF-8.
fn to_text(bytes: Vec<u8>, what: &str) -> Result<String, ApiError> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count();
        ApiError::malformed(format!("{what} is not valid UTF-8: byte {} (line {line})", valid + 1))
    })
}

/// All bytes of a body, `length` of them as announced.
async fn collect(mut stream: BodyStream<'_>, held: &Held, length: u64) -> Result<Vec<u8>, ApiError> {
    if let Err(error) = held.reserve(0, length) {
        return Err(stream.refuse(error).await);
    }
    let mut bytes = Vec::with_capacity(length.min(FIRST_ROOM) as usize);
    while let Some(chunk) = stream.next().await? {
        if let Err(error) = held.reserve((bytes.len() + chunk.len()) as u64, length) {
            drop(bytes);
            return Err(stream.refuse(error).await);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
