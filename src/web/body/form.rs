//! `multipart/form-data` bodies: a CSV file and its name, from a browser or `curl -F`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use multer::{Field, Multipart};
use rocket::data::ByteUnit;
use rocket::futures::stream;
use tokio::task::yield_now;
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::{BodyStream, Held, RequestBody, to_text};
use crate::config::Config;
use crate::table::shown;

/// What a form holds.
#[derive(Debug, Default, ToSchema)]
pub(in crate::web) struct Form {
    /// The CSV, in a field `file` or `data`.
    #[schema(rename = "file", value_type = String, required, format = Binary, content_media_type = "text/csv")]
    pub(in crate::web) csv: Option<String>,
    /// A name for what is in it.
    #[schema(max_length = 1000, pattern = r"^[^\u0000]*$")]
    pub(in crate::web) name: Option<String>,
}

/// Longest field besides the file; how long a name may be is told by whoever takes it.
const LONGEST_FIELD: usize = 64 << 10;
/// Longest head of a part, and of what stands before the first one. multer holds all of it, and looks through it again with
/// every chunk.
const LONGEST_HEAD: usize = 64 << 10;

impl RequestBody<'_> {
    /// The same where the call takes forms as well.
    pub(in crate::web) fn or_form(self) -> Self {
        Self { taken: "application/json, text/csv or multipart/form-data", ..self }
    }

    /// Whether the headers announce a form.
    pub(in crate::web) fn is_form(&self) -> bool {
        self.content_type.is_some_and(|content_type| content_type.is_form_data())
    }

    /// Reads a form; of the body no more is held than its fields.
    ///
    /// # Errors
    /// Those of [`Self::read`]; 503 when large bodies take too much memory already; 400 when it is
    /// not a form or not UTF-8; 422 when a field is unknown, given twice or too long.
    pub(in crate::web) async fn read_form(self, limit: ByteUnit, config: &Config) -> Result<Form, ApiError> {
        let (held, length) = (self.held, self.length);
        let boundary = self.content_type.and_then(|content_type| content_type.param("boundary"));
        let boundary = boundary.map(|boundary| boundary.trim_matches('"').to_owned());
        let boundary = boundary.filter(|boundary| !boundary.is_empty());
        let boundary = boundary.ok_or_else(|| ApiError::malformed("the multipart/form-data lacks its boundary"));
        let (boundary, mut stream) = self.open(limit, config, boundary).await?;
        let read = match held.reserve(0, length) {
            Ok(()) => read_fields(&mut stream, held, length, boundary).await,
            Err(error) => Err(error),
        };
        match read {
            Ok(form) => Ok(form),
            Err(error) => Err(stream.refuse(error).await),
        }
    }
}

/// The fields of a form, from the chunks of a body as multer takes them. What ends them early waits in `failure`.
async fn read_fields(body: &mut BodyStream<'_>, held: &Held, length: u64, boundary: String) -> Result<Form, ApiError> {
    let failure = Arc::new(Mutex::new(None));
    // What has arrived of a head that is not complete.
    let head = Arc::new(AtomicUsize::new(0));
    let chunks = stream::unfold((body, 0), |(body, received)| {
        let (failure, head) = (Arc::clone(&failure), Arc::clone(&head));
        async move {
            // multer takes all chunks that there are before it looks at them; so it looks at each.
            yield_now().await;
            let next = if head.load(Ordering::Relaxed) > LONGEST_HEAD {
                let message = format!("the head of a part of the form is longer than {LONGEST_HEAD} bytes");
                Err(ApiError::malformed(message))
            } else {
                body.next().await
            };
            let next = match next {
                Ok(None) => return None,
                Ok(Some(chunk)) => {
                    head.fetch_add(chunk.len(), Ordering::Relaxed);
                    let received = received + chunk.len() as u64;
                    held.reserve(received, length).map(|()| (chunk, received))
                }
                Err(error) => Err(error),
            };
            match next {
                Ok((chunk, received)) => Some((Ok(chunk), (body, received))),
                Err(error) => {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Some((Err(std::io::Error::other("the body ended early")), (body, received)))
                }
            }
        }
    });
    let mut parts = Multipart::new(chunks, boundary);
    let mut form = Form::default();
    let said = |error: multer::Error| match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(failure) => failure,
        None => ApiError::malformed(format!("the body is not the multipart/form-data that it says: {error}")),
    };
    loop {
        head.store(0, Ordering::Relaxed);
        let Some(field) = parts.next_field().await.map_err(&said)? else { return Ok(form) };
        let name = field.name().unwrap_or_default().to_owned();
        let (place, most) = match name.as_str() {
            "file" | "data" => (&mut form.csv, usize::MAX),
            "name" => (&mut form.name, LONGEST_FIELD),
            _ => {
                let name = shown(&name);
                return Err(ApiError::invalid(format!("unknown field {name} of the form; known are file and name")));
            }
        };
        if place.is_some() {
            return Err(ApiError::invalid(format!("{name}: given twice in the form")));
        }
        *place = Some(text(field, &name, most, &head, &said).await?);
    }
}

/// The text of a field.
async fn text(
    mut field: Field<'_>,
    name: &str,
    most: usize,
    head: &AtomicUsize,
    said: impl Fn(multer::Error) -> ApiError,
) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(&said)? {
        // It was no head.
        head.store(0, Ordering::Relaxed);
        if bytes.len() + chunk.len() > most {
            return Err(ApiError::invalid(format!("{name}: the field is longer than {most} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    to_text(bytes, &format!("the field {name}"))
}
