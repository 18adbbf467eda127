//! Errors as replies: the only place that knows status codes, besides the successes of the handlers.
//!
//! Every error reply is `{"error": "<a sentence>", "code": "<snake_case>"}`. The sentence is for the client; the cause of
//! what is the service's own fault goes to the log, once, here, with the request's id.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `bad_request` | the body is not what its content type says, a header is malformed, or the request is not HTTP |
//! | 401 | `unauthorized` | an API key is needed, and the request has none or one that is not known |
//! | 404 | `not_found` | no such path, model or dataset |
//! | 405 | `method_not_allowed` | the path has other methods; `Allow` lists them |
//! | 408 | `timeout` | the body stalls or crawls |
//! | 409 | `not_trained` | the model has no coefficients (yet, or for good) |
//! | 409 | `needed` | a job that has not ended needs the dataset |
//! | 409 | `has_ended` | the model has ended, and cannot be cancelled any more |
//! | 413 | `too_large` | the body exceeds its limit |
//! | 415 | `unsupported_media_type` | the body is of a type that the call does not take |
//! | 422 | `invalid` | understood but wrong: a field, a CSV cell, a parameter |
//! | 422 | `key_reused` | the `Idempotency-Key` belongs to another request |
//! | 500 | `internal` | a bug |
//! | 503 | `unavailable` | the database is away or overloaded; `Retry-After` says when to come again |
//! | 503 | `queue_full` | as many trainings as allowed are waiting; `Retry-After` as well |
//! | 503 | `too_many_uploads` | large bodies of others take all the memory that they may; `Retry-After` as well |

mod described;

use std::sync::Mutex;

use anyhow::anyhow;
use rocket::data::ByteUnit;
use rocket::http::{Header, Status};
use rocket::request::{Outcome, Request};
use rocket::response::{self, Responder};
use rocket::serde::json::Json;
use rocket::{Catcher, catch, catchers};
use serde::Serialize;
use utoipa::ToSchema;

use super::access_log::{self, RequestId};
use super::headers;
use super::routing::AllowedMethods;
use crate::db;
pub(super) use described::{
    Always, HasEnded, Invalid, Needed, NotFound, NotReady, NotTrained, OfBody, Usual, describe,
};

/// Seconds after which a client may try again what failed because the service was busy or the database away.
const RETRY_AFTER: u32 = 2;
const INTERNAL: &str = "an internal error; its cause is in the service's log under this reply's X-Request-Id";

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct ApiError {
    status: Status,
    code: &'static str,
    message: String,
    /// What the log is told and the client is not.
    cause: Option<anyhow::Error>,
    /// Whether the connection ends with the reply.
    is_last: bool,
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
pub(super) struct ErrorBody<'a> {
    /// A sentence that says what is wrong and where.
    error: &'a str,
    /// What a program may tell the error by.
    #[schema(pattern = "^[a-z]+(_[a-z]+)*$")]
    code: &'a str,
}

impl ApiError {
    fn new(status: Status, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), cause: None, is_last: false }
    }

    /// 400: the body is not what its content type says.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(Status::BadRequest, "bad_request", message)
    }

    /// 400: another reader of the same bytes might see another request. What comes behind it is not read.
    pub(super) fn ambiguous(message: impl Into<String>) -> Self {
        Self { is_last: true, ..Self::malformed(message) }
    }

    /// 401: no key, or none that is known.
    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(Status::Unauthorized, "unauthorized", message)
    }

    /// 404: there is no such thing.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Status::NotFound, "not_found", message)
    }

    /// 404: the path leads nowhere.
    pub(super) fn nothing_at(path: &str) -> Self {
        Self::not_found(format!("there is nothing at {}", shown(path)))
    }

    /// 408: the body does not arrive.
    pub(super) fn timeout(message: impl Into<String>) -> Self {
        Self { is_last: true, ..Self::new(Status::RequestTimeout, "timeout", message) }
    }

    /// 409: the model is not trained.
    pub(super) fn not_trained(message: impl Into<String>) -> Self {
        Self::new(Status::Conflict, "not_trained", message)
    }

    /// 409: the model has ended already.
    pub(super) fn has_ended(message: impl Into<String>) -> Self {
        Self::new(Status::Conflict, "has_ended", message)
    }

    /// 409: the dataset cannot be deleted yet.
    pub(super) fn needed(message: impl Into<String>) -> Self {
        Self::new(Status::Conflict, "needed", message)
    }

    /// 413: the body exceeds `limit`.
    pub(super) fn too_large(limit: ByteUnit) -> Self {
        let message = format!("the body is larger than the limit of {limit} ({} bytes)", limit.as_u64());
        Self::new(Status::PayloadTooLarge, "too_large", message)
    }

    /// 415: the call does not take a body of this type.
    pub(super) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(Status::UnsupportedMediaType, "unsupported_media_type", message)
    }

    /// 422: a field, a cell or a parameter is wrong.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Status::UnprocessableEntity, "invalid", message)
    }

    /// 422: the `Idempotency-Key` of another request.
    pub(super) fn key_reused(message: impl Into<String>) -> Self {
        Self::new(Status::UnprocessableEntity, "key_reused", message)
    }

    /// 500: our own mistake.
    pub(super) fn internal(cause: anyhow::Error) -> Self {
        Self { cause: Some(cause), ..Self::new(Status::InternalServerError, "internal", INTERNAL) }
    }

    /// 503: large bodies hold `limit` bytes already.
    pub(super) fn too_many_uploads(limit: ByteUnit) -> Self {
        let message = format!("large uploads take all of the {limit} that they may at the moment; try again soon");
        Self::new(Status::ServiceUnavailable, "too_many_uploads", message)
    }

    /// 503: `limit` jobs are waiting already.
    pub(super) fn queue_full(limit: u32) -> Self {
        let message = format!("the queue is full: {limit} trainings are waiting; try again later");
        Self::new(Status::ServiceUnavailable, "queue_full", message)
    }

    /// 503: it will pass.
    pub(super) fn unavailable(message: impl Into<String>, cause: anyhow::Error) -> Self {
        Self { cause: Some(cause), ..Self::new(Status::ServiceUnavailable, "unavailable", message) }
    }
}

impl ApiError {
    /// Logs the cause of an error that is no reply any more, because the reply has begun already, and returns the sentence.
    pub(super) fn told(self) -> String {
        if let Some(cause) = &self.cause {
            log::warn!("a reply is broken off: {} because {cause:#}", self.code);
        }
        self.message
    }
}

/// What a request guard refused with, until the catcher takes it.
struct Refusal(Mutex<Option<ApiError>>);

impl Refusal {
    fn of<'r>(request: &'r Request<'_>) -> &'r Self {
        request.local_cache(|| Self(Mutex::new(None)))
    }
}

/// The outcome of a request guard that refuses: Rocket hands only the status on, so the catcher finds the rest here.
pub(super) fn refuse<T>(request: &Request<'_>, error: ApiError) -> Outcome<T, ()> {
    let status = error.status;
    keep(request, error);
    Outcome::Error((status, ()))
}

/// Keeps an error for the catcher, to be the reply to a request that no route takes.
pub(super) fn keep(request: &Request<'_>, error: ApiError) {
    if let Ok(mut refusal) = Refusal::of(request).0.lock() {
        *refusal = Some(error);
    }
}

/// A failed query is our mistake, unless the database is away; a row that was not found has its meaning from the caller.
impl From<db::Error> for ApiError {
    fn from(error: db::Error) -> Self {
        if error.is_transient() {
            Self::unavailable("the database is not available at the moment; try again soon", error.into())
        } else {
            Self::internal(error.into())
        }
    }
}

impl<'r> Responder<'r, 'static> for ApiError {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        if let Some(cause) = &self.cause {
            let level = if self.status == Status::ServiceUnavailable { log::Level::Warn } else { log::Level::Error };
            log::log!(level, "request {}: {} because {cause:#}", RequestId::of(request), self.status.code);
        }
        let body = Json(ErrorBody { error: &self.message, code: self.code });
        let mut response = (self.status, body).respond_to(request)?;
        // The fairings do not see the requests that Rocket cannot even read.
        headers::protect(&mut response);
        response.set_header(Header::new(access_log::HEADER, RequestId::of(request).to_string()));
        if self.status == Status::ServiceUnavailable {
            response.set_header(Header::new("Retry-After", RETRY_AFTER.to_string()));
        }
        if self.is_last {
            response.set_header(Header::new("Connection", "close"));
        }
        if self.status == Status::UnsupportedMediaType {
            response.set_header(Header::new("Accept-Encoding", "gzip"));
        }
        if self.status == Status::Unauthorized {
            response.set_header(Header::new("WWW-Authenticate", "Bearer realm=\"ridgeline\""));
        }
        if self.status == Status::MethodNotAllowed {
            response.set_header(Header::new("Allow", AllowedMethods::of(request).to_string()));
        }
        Ok(response)
    }
}

/// Everything that Rocket answers by itself: no route, a panic in a handler, a request that it cannot read.
pub(super) fn catchers() -> Vec<Catcher> {
    catchers![answer]
}

#[catch(default)]
fn answer(status: Status, request: &Request<'_>) -> ApiError {
    if let Some(error) = Refusal::of(request).0.lock().ok().and_then(|mut refusal| refusal.take()) {
        return error;
    }
    let path = request.uri().path();
    match status.code {
        404 if AllowedMethods::of(request).lack(request) => {
            let message = format!("{} does not take {}", shown(path.as_str()), request.method());
            ApiError::new(Status::MethodNotAllowed, "method_not_allowed", message)
        }
        // Rocket does not know the method, and has not looked at the path.
        400 if request.route().is_none() && AllowedMethods::of(request).any() => {
            let message = format!("{} does not take this method", shown(path.as_str()));
            ApiError::new(Status::MethodNotAllowed, "method_not_allowed", message)
        }
        404 => ApiError::nothing_at(path.as_str()),
        400..500 => {
            let reason = status.reason().unwrap_or("Bad Request").to_lowercase();
            let message = format!("the request cannot be understood: {reason}");
            ApiError { is_last: true, ..ApiError::new(status, "bad_request", message) }
        }
        503 => ApiError::unavailable("the service is not available at the moment", anyhow!("Rocket answered 503")),
        code => ApiError::internal(anyhow!("Rocket answered {code}; a panic has its own line in the log")),
    }
}

/// A path for a message, cut where a client sends a very long one.
fn shown(path: &str) -> String {
    path.chars().take(100).collect()
}
