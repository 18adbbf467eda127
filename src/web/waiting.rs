//! Replies that are held back until a model has ended, and the events of a model while it is trained.
//!
//! Who waits holds neither a thread nor a database connection, only its own.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diesel::pg::PgConnection;
use rocket::http::Status;
use rocket::request::{FromRequest, Outcome};
use rocket::response::stream::{Event, EventStream};
use rocket::{Either, Request, Route, Shutdown, State, get, routes};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::{OpenApi, ToSchema};

use super::auth::Caller;
use super::body::Room;
use super::error::{self, ApiError};
use super::ids;
use super::library::Library;
use super::models::{parse_id, unless_absent};
use super::prefer::Prefer;
use super::query;
use crate::db::Pool;
use crate::db::models;
use crate::watch::{self, Sight, Subscription, Watch};

/// How often a comment goes through a stream without events, so that neither side takes the other for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How soon a client that has lost its stream comes back.
const RETRY: Duration = Duration::from_secs(1);

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    query::knowing(&[], routes![model_events])
}

/// The same as they are described.
#[derive(OpenApi)]
#[openapi(paths(model_events))]
pub(super) struct Calls;

/// What it takes to wait, as a request guard.
pub(super) struct Patience<'r> {
    watch: &'r Watch,
    pool: &'r Pool,
    library: &'r Library,
    prefer: Prefer,
    /// What the request's body takes; nobody needs it while the reply is held back.
    room: Room<'r>,
    shutdown: Shutdown,
    held_back: &'r HeldBack,
}

/// How long the reply to a request was held back because the client preferred that: no time that the service took.
pub(super) struct HeldBack(Mutex<Duration>);

impl HeldBack {
    /// That of `request`.
    pub(super) fn of<'r>(request: &'r Request<'_>) -> &'r Self {
        request.local_cache(|| Self(Mutex::default()))
    }

    /// How long it was so far.
    pub(super) fn get(&self) -> Duration {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Patience<'r> {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let rocket = request.rocket();
        let prefer = Prefer::of(request);
        match (rocket.state::<Watch>(), rocket.state::<Pool>(), rocket.state::<Library>()) {
            (Some(watch), Some(pool), Some(library)) => {
                let (room, shutdown) = (Room::of(request), rocket.shutdown());
                let held_back = HeldBack::of(request);
                Outcome::Success(Self { watch, pool, library, prefer, room, shutdown, held_back })
            }
            _ => Outcome::Error((Status::InternalServerError, ())),
        }
    }
}

impl Patience<'_> {
    /// What the client prefers.
    pub(super) fn prefer(&self) -> Prefer {
        self.prefer
    }

    /// The document of the caller's model `id` if it ends while the client is willing to wait; `None` if it does not, or
    /// if the service is about to stop.
    ///
    /// # Errors
    /// 404 when there is no such model, or it is deleted meanwhile.
    pub(super) async fn document_of_ended(self, caller: Caller, id: i32) -> Result<Option<Arc<str>>, ApiError> {
        let Some(wait) = self.prefer.wait() else {
            return Ok(None);
        };
        if let Some(document) = self.library.kept_document(caller, id) {
            return Ok(Some(document));
        }
        self.room.give_back();
        let Subscription { mut sight, document } = self.watch.subscribe(id);
        let state = find_state(self.pool, caller, id).await?;
        if !state.status.has_ended() {
            let ended = timeout(wait, sight.wait_for(Sight::is_over));
            let mut shutdown = self.shutdown;
            let began = Instant::now();
            let has_ended = tokio::select! {
                biased;
                ended = ended => matches!(ended, Ok(Ok(_))),
                () = &mut shutdown => false,
            };
            *self.held_back.lock() += began.elapsed();
            if !has_ended {
                return Ok(None);
            }
        }
        // However many have waited for it, it is read and printed once.
        let document = document.get_or_try_init(|| self.library.document(caller, id)).await?;
        Ok(Some(Arc::clone(document)))
    }
}

async fn find_state(pool: &Pool, caller: Caller, id: i32) -> Result<watch::State, ApiError> {
    let find = move |conn: &mut PgConnection| Ok(models::find_state(conn, caller.owner(), id)?);
    pool.run(find).await.map_err(|error| unless_absent(error, id))
}

/// An event of the stream, as it is described.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are only described")]
struct ServerSentEvent {
    /// `status` or `progress`.
    event: String,
    /// Of a `status` the fields `model_id`, `status`, and `attempt`, `progress` or `error`; of a `progress` `model_id` and
    /// `progress`.
    #[schema(content_media_type = "application/json")]
    data: String,
    /// The last status, after which nothing comes.
    #[schema(nullable = false)]
    id: Option<String>,
    /// Milliseconds after which a client that has lost its stream comes back.
    #[schema(nullable = false)]
    retry: Option<u64>,
}

/// The data of an event `status`.
#[derive(Serialize)]
struct StatusEvent<'a> {
    model_id: i32,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// The data of an event `progress`.
#[derive(Serialize)]
struct ProgressEvent {
    model_id: i32,
    progress: f64,
}

/// An event `status`. One after which nothing comes has its status as its id, by which a client that comes back all the same
/// is recognised.
fn status_event(state: &watch::State) -> Event {
    let event = Event::json(&StatusEvent {
        model_id: state.id,
        status: state.status.as_str(),
        attempt: Some(state.attempt),
        progress: (state.status == models::Status::Training).then_some(state.progress),
        error: state.error.as_deref(),
    });
    let event = event.event("status");
    if state.status.has_ended() { event.id(state.status.as_str()) } else { event }
}

fn deleted_event(id: i32) -> Event {
    let data = StatusEvent { model_id: id, status: DELETED, attempt: None, progress: None, error: None };
    Event::json(&data).event("status").id(DELETED)
}

const DELETED: &str = "deleted";

/// The event that tells of the step from `last` to `next`, if it is worth one.
fn event_between(last: &watch::State, next: &watch::State) -> Option<Event> {
    if (last.status, last.attempt) != (next.status, next.attempt) {
        Some(status_event(next))
    } else if next.progress > last.progress {
        Some(Event::json(&ProgressEvent { model_id: next.id, progress: next.progress }).event("progress"))
    } else {
        None
    }
}

/// The id of the last event that a client has seen, as a request guard.
struct LastEvent<'r>(Option<&'r str>);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for LastEvent<'r> {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        Outcome::Success(Self(request.headers().get_one("Last-Event-ID")))
    }
}

/// Status and progress of a model as server-sent events
///
/// The stream begins with the current status, and ends after the last one. A browser comes back then, with the last event's
/// id; 204 tells it to stay away. The data of the events `status` and `progress` are JSON.
#[utoipa::path(
    tag = "models",
    params(
        ("id" = i32, Path, description = ids::MODEL, minimum = 1),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen.", example = "trained")
    ),
    responses(
        (status = 200, description = "The events, as they happen.", content_type = "text/event-stream", body = ServerSentEvent,
            example = json!({"event": "status", "id": "trained", "retry": 1000,
                "data": "{\"model_id\":17,\"status\":\"trained\",\"attempt\":1}"})),
        (status = 204, description = "The client has seen the last event already."),
        error::NotFound,
        error::Usual
    )
)]
#[get("/model/<id>/events")]
async fn model_events(
    id: &str,
    caller: Caller,
    last: LastEvent<'_>,
    patience: Patience<'_>,
    pool: &State<Pool>,
) -> Result<Either<EventStream![], Status>, ApiError> {
    let id = parse_id(id)?;
    let Subscription { mut sight, .. } = patience.watch.subscribe(id);
    let mut state = match find_state(pool, caller, id).await {
        Err(_gone) if last.0 == Some(DELETED) => return Ok(Either::Right(Status::NoContent)),
        state => state?,
    };
    if state.status.has_ended() && last.0 == Some(state.status.as_str()) {
        return Ok(Either::Right(Status::NoContent));
    }
    let mut shutdown = patience.shutdown;
    let events = EventStream! {
        yield status_event(&state).with_retry(RETRY);
        while !state.status.has_ended() {
            tokio::select! {
                changed = sight.changed() => if changed.is_err() { break },
                () = &mut shutdown => break,
            }
            let latest = sight.borrow_and_update().clone();
            match latest {
                Sight::Nothing => {}
                Sight::Gone => {
                    yield deleted_event(id);
                    break;
                }
                Sight::State(next) => {
                    if let Some(event) = event_between(&state, &next) {
                        state = next;
                        yield event;
                    }
                }
            }
        }
    };
    Ok(Either::Left(events.heartbeat(HEARTBEAT)))
}
