//! Who calls: an API key, or anybody while there are no keys.
//!
//! While the database has never held a key and the service listens on a loopback address, calls need none. Otherwise they
//! carry `Authorization: Bearer <key>`, and see what belongs to that key alone. That all keys were revoked opens nothing.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use diesel::pg::PgConnection;
use rocket::Request;
use rocket::request::{FromRequest, Outcome};

use super::body::RequestBody;
use super::error::{self, ApiError};
use crate::db::{self, Pool, keys};
use crate::key::{Claim, Hash};

/// How long the keys are used as they were read. Then they are read anew, beside the requests while there are any.
const FRESH: Duration = Duration::from_secs(1);
/// How long at most: so soon a revoked key is refused.
const LONGEST: Duration = Duration::from_secs(2);

/// Whoever made the request, as a request guard: 401 without a key where one is needed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    owner: Option<i32>,
}

impl Caller {
    /// The id of the caller's key, which owns what the caller makes; `None` while there are no keys.
    pub(super) fn owner(&self) -> Option<i32> {
        self.owner
    }
}

/// The same for calls with a body. A refusal must wait until the body is in: a client that is still sending would see a
/// broken connection instead.
#[derive(Debug)]
pub(super) struct Uploader(Result<Caller, ApiError>);

impl Uploader {
    /// The caller, and the body to be read.
    ///
    /// # Errors
    /// 401 as of [`Caller`], after the body was thrown away.
    pub(super) async fn admit(self, body: RequestBody<'_>) -> Result<(Caller, RequestBody<'_>), ApiError> {
        match self.0 {
            Ok(caller) => Ok((caller, body)),
            Err(error) => Err(body.refuse(error).await),
        }
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Caller {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        match caller_of(request).await {
            Ok(caller) => Outcome::Success(caller),
            Err(error) => error::refuse(request, error),
        }
    }
}

/// Whoever may see what the whole service does: anybody where this machine alone reaches it, else every holder of a key.
#[derive(Debug)]
pub(super) struct Observer;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Observer {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        if request.rocket().config().address.is_loopback() {
            return Outcome::Success(Self);
        }
        Caller::from_request(request).await.map(|_caller| Self)
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Uploader {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        Outcome::Success(Self(caller_of(request).await))
    }
}

async fn caller_of(request: &Request<'_>) -> Result<Caller, ApiError> {
    let keys = request.rocket().state::<Keys>();
    let keys = keys.ok_or_else(|| ApiError::internal(anyhow!("the API keys are not managed")))?;
    let headers: Vec<&str> = request.headers().get("Authorization").collect();
    keys.caller(&headers).await
}

/// The keys as the database has them, or had them a moment ago.
pub(super) struct Keys(Arc<Shared>);

struct Shared {
    pool: Pool,
    /// Whether the service can be reached from this machine alone.
    is_local: bool,
    latest: Mutex<Latest>,
    /// Held by whoever reads them.
    turn: tokio::sync::Mutex<()>,
}

/// What came of reading the keys.
#[derive(Default)]
struct Latest {
    snapshot: Option<Arc<Snapshot>>,
    failed_at: Option<Instant>,
}

/// The keys at one moment.
struct Snapshot {
    /// When they were asked for.
    taken_at: Instant,
    /// Whether there are any, the revoked ones counted.
    any: bool,
    live: HashMap<i32, Live>,
}

/// A key in use.
struct Live {
    hash: Hash,
    /// Whether its use is to be noted in the database.
    is_idle: AtomicBool,
}

impl Snapshot {
    fn read(conn: &mut PgConnection, taken_at: Instant) -> Result<Self, db::Error> {
        let live = keys::live(conn)?;
        let any = !live.is_empty() || keys::any(conn)?;
        let live = live.into_iter().map(|key| (key.id, Live { hash: key.hash, is_idle: key.is_idle.into() }));
        Ok(Self { taken_at, any, live: live.collect() })
    }
}

impl Keys {
    /// The keys of a service that listens on `address`.
    pub(super) fn new(pool: Pool, address: IpAddr) -> Self {
        let (latest, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Shared { pool, is_local: address.is_loopback(), latest, turn }))
    }

    /// Who sends these `Authorization` headers.
    async fn caller(&self, headers: &[&str]) -> Result<Caller, ApiError> {
        const NEEDED: &str = "this call needs an API key: send the header Authorization: Bearer <key>";
        const UNKNOWN: &str = "the API key is not known, or was revoked";
        let snapshot = self.snapshot().await?;
        if self.0.is_local && !snapshot.any {
            return Ok(Caller { owner: None });
        }
        let [header] = headers else { return Err(ApiError::unauthorized(NEEDED)) };
        let (scheme, key) = header.split_once(' ').unwrap_or((header, ""));
        if !scheme.eq_ignore_ascii_case("Bearer") {
            return Err(ApiError::unauthorized(NEEDED));
        }
        let claim = Claim::parse(key.trim()).ok_or_else(|| ApiError::unauthorized(UNKNOWN))?;
        let live = snapshot.live.get(&claim.id).filter(|live| claim.proves(&live.hash));
        let live = live.ok_or_else(|| ApiError::unauthorized(UNKNOWN))?;
        if live.is_idle.swap(false, Ordering::Relaxed) {
            self.note_use(claim.id);
        }
        Ok(Caller { owner: Some(claim.id) })
    }

    /// The keys, not older than [`LONGEST`].
    async fn snapshot(&self) -> Result<Arc<Snapshot>, ApiError> {
        let arrived = Instant::now();
        let (latest, _) = self.0.latest();
        match latest.map(|snapshot| (arrived.saturating_duration_since(snapshot.taken_at), snapshot)) {
            Some((age, snapshot)) if age < FRESH => return Ok(snapshot),
            Some((age, snapshot)) if age < LONGEST => {
                self.read_beside();
                return Ok(snapshot);
            }
            _ => {}
        }
        let _turn = self.0.turn.lock().await;
        // Whoever had the turn before may have read them, or waited for the database in vain.
        match self.0.latest() {
            (Some(snapshot), _) if snapshot.taken_at >= arrived || snapshot.taken_at.elapsed() < FRESH => Ok(snapshot),
            (_, Some(failed_at)) if failed_at >= arrived => Err(ApiError::unavailable(
                "the database is not available at the moment; try again soon",
                anyhow!("the API keys could not be read"),
            )),
            _ => Ok(self.0.read().await?),
        }
    }

    /// Reads the keys anew while requests go on with those that there are.
    fn read_beside(&self) {
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            let Ok(_turn) = shared.turn.try_lock() else { return };
            if let Err(error) = shared.read().await {
                log::debug!("the API keys could not be read: {error}");
            }
        });
    }

    /// Notes in the database that a key is used; that it cannot be noted is no reason to refuse the request.
    fn note_use(&self, id: i32) {
        let pool = self.0.pool.clone();
        tokio::spawn(async move {
            if let Err(error) = pool.run(move |conn| Ok(keys::note_use(conn, id)?)).await {
                log::debug!("the use of the API key {id} could not be noted: {error}");
            }
        });
    }
}

impl Shared {
    fn latest(&self) -> (Option<Arc<Snapshot>>, Option<Instant>) {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        (latest.snapshot.clone(), latest.failed_at)
    }

    /// Reads the keys; call it with the turn held.
    async fn read(&self) -> Result<Arc<Snapshot>, db::Error> {
        let taken_at = Instant::now();
        let read = self.pool.run(move |conn| Snapshot::read(conn, taken_at)).await.map(Arc::new);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &read {
            Ok(snapshot) => *latest = Latest { snapshot: Some(Arc::clone(snapshot)), failed_at: None },
            Err(_) => latest.failed_at = Some(Instant::now()),
        }
        read
    }
}
