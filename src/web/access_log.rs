//! An id for every request, in its reply and in the log, and a line in the log for every reply.

use std::fmt;
use std::time::{Duration, Instant};

use rocket::fairing::{Fairing, Info, Kind};
use rocket::http::{Header, Method};
use rocket::{Data, Request, Response};

/// The header that carries the id, both ways.
pub(super) const HEADER: &str = "X-Request-Id";

/// The id of a request: the client's own, if it sent a decent one, else sixteen random hexadecimal digits.
#[derive(Debug, Clone)]
pub(super) struct RequestId(String);

impl RequestId {
    /// The id of `request`, drawn when first asked for.
    pub(super) fn of<'r>(request: &'r Request<'_>) -> &'r Self {
        request.local_cache(|| {
            let given = request.headers().get_one(HEADER).filter(|id| is_decent(id));
            Self(given.map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned))
        })
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether an id from outside can stand in a log line and in a header as it is.
fn is_decent(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Sets the `X-Request-Id` of replies and writes the access log.
pub(super) struct AccessLog;

/// When a request's head was read, and its method, which fairings change.
pub(super) struct Arrival(Instant, Method);

impl Arrival {
    /// That of `request`.
    pub(super) fn of<'r>(request: &'r Request<'_>) -> &'r Self {
        request.local_cache(|| Self(Instant::now(), request.method()))
    }

    /// The method that the client chose.
    pub(super) fn method(&self) -> Method {
        self.1
    }

    /// How long ago it was.
    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[rocket::async_trait]
impl Fairing for AccessLog {
    fn info(&self) -> Info {
        Info { name: "access log", kind: Kind::Request | Kind::Response }
    }

    async fn on_request(&self, request: &mut Request<'_>, _: &mut Data<'_>) {
        Arrival::of(request);
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, response: &mut Response<'r>) {
        let id = RequestId::of(request);
        response.set_header(Header::new(HEADER, id.to_string()));
        let path: String = request.uri().path().as_str().chars().take(200).collect();
        let arrival = Arrival::of(request);
        let milliseconds = arrival.elapsed().as_secs_f64() * 1e3;
        let (method, status) = (arrival.method(), response.status().code);
        log::info!("request {id}: {method} {path} {status} in {milliseconds:.1} ms");
    }
}
