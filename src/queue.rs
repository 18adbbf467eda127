//! The queue: the state machine of a model from `queued` to its end, and the only place with its SQL.
//!
//! The table `models` is the queue, first in, first out by id. A worker takes a job by a *lease*: a random token, and a
//! time until which the worker is believed to be alive, renewed by heartbeats. A job whose lease has run out goes back
//! into the queue, and a result is kept only from the worker whose token still stands in the row. So no accepted job is
//! lost, each runs at least once, and exactly one result is kept. The database's clock is the only clock.
//!
//! Ids are taken before the commit, so of two requests that are accepted at the same moment the later one may be claimed
//! first.

mod prepared;
mod together;
mod turn;

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Double, Integer, Text};
use diesel_json::Json;

use crate::db::clock_timestamp;
use crate::db::idempotency::Keyed;
use crate::db::models::{self as rows, Status};
use crate::db::schema::models;
use crate::training::Params;
pub use together::enqueue_with_rows;
pub use turn::{Claimed, Turn, Wanted, turn};

/// The channel on which a new job is announced. The announcement is a hint: workers look by themselves as well.
pub const CHANNEL: &str = "ridgeline_jobs";
/// So many workers may be lost over one job before it is given up: the job may be what kills them.
pub const MAX_ATTEMPTS: i32 = 3;

/// A job that a worker has claimed.
#[derive(Debug, Clone)]
pub struct Job {
    /// The model's id.
    pub id: i32,
    /// The rows to train on.
    pub dataset_id: i32,
    /// What the client asked for.
    pub params: Params,
    /// How many workers have taken it, this one counted.
    pub attempt: i32,
    /// The lease's token.
    pub lease_token: i64,
}

/// What became of a job whose lease had run out.
#[derive(Debug, QueryableByName)]
pub struct Rescued {
    /// The model's id.
    #[diesel(sql_type = Integer)]
    pub id: i32,
    /// How many workers have been lost over it.
    #[diesel(sql_type = Integer)]
    pub attempt: i32,
    /// [`Status::Queued`], or [`Status::Failed`] after [`MAX_ATTEMPTS`].
    #[diesel(sql_type = Text)]
    pub status: Status,
}

/// A job on its way into the queue.
#[derive(Debug)]
pub struct NewJob<'a> {
    /// The API key that it belongs to; `None` while there are none.
    pub owner: Option<i32>,
    /// What the client calls it.
    pub name: Option<&'a str>,
    /// The words by which the client finds it again.
    pub tags: &'a [String],
    /// What the client asks for.
    pub params: &'a Params,
    /// What the client calls the request.
    pub request: Option<&'a Keyed>,
}

/// Why a job was not queued.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// As many jobs as allowed are waiting.
    #[error("the queue is full")]
    Full,
    /// The database's own reason.
    #[error("the job could not be stored")]
    Query(#[from] diesel::result::Error),
}

/// Fails when `limit` jobs are waiting already: for whoever would store much before [`enqueue`] finds it out.
///
/// # Errors
/// See [`EnqueueError`].
pub fn check_room(conn: &mut PgConnection, limit: u32) -> Result<(), EnqueueError> {
    if has_room(conn, limit.into())? { Ok(()) } else { Err(EnqueueError::Full) }
}

/// Whether fewer than `limit` jobs are waiting; counts no further than that.
fn has_room(conn: &mut PgConnection, limit: i64) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Answer {
        #[diesel(sql_type = diesel::sql_types::Bool)]
        has_room: bool,
    }
    let query = "SELECT count(*) < $1 AS has_room
                 FROM (SELECT FROM models WHERE status = 'queued' LIMIT $1) AS waiting";
    Ok(sql_query(query).bind::<BigInt, _>(limit).get_result::<Answer>(conn)?.has_room)
}

/// More jobs than can be between their count and their commit at once: as long as so much room is left, nobody waits.
const MOST_AT_ONCE: i64 = 1000;
/// The advisory lock that lets one transaction at a time take the last places of the queue: "queue" in ASCII.
const ROOM_LOCK: i64 = 0x71_75_65_75_65;

/// Queues a training on a dataset and announces it, if fewer than `limit` are waiting; the announcement goes out with the transaction's
/// commit. Returns the model's id. Call it last in a transaction: where the queue is nearly full, others wait for the commit,
/// so that two of them never take the same place.
///
/// Jobs that come back from a lost worker are queued all the same: `limit` is for new ones.
///
/// # Errors
/// See [`EnqueueError`].
pub fn enqueue(conn: &mut PgConnection, limit: u32, dataset_id: i32, job: &NewJob<'_>) -> Result<i32, EnqueueError> {
    let limit = i64::from(limit);
    if !has_room(conn, (limit - MOST_AT_ONCE).max(0))? {
        sql_query("SELECT pg_advisory_xact_lock($1)").bind::<BigInt, _>(ROOM_LOCK).execute(conn)?;
        if !has_room(conn, limit)? {
            return Err(EnqueueError::Full);
        }
    }
    let new = (
        models::owner.eq(job.owner),
        models::dataset_id.eq(dataset_id),
        models::name.eq(job.name),
        models::tags.eq(Json(job.tags)),
        models::params.eq(Json(job.params)),
        models::idempotency_key.eq(job.request.map(|request| &request.key)),
        models::request_digest.eq(job.request.map(|request| &request.digest[..])),
    );
    let id = diesel::insert_into(models::table).values(new).returning(models::id).get_result(conn)?;
    announce(conn)?;
    Ok(id)
}

fn announce(conn: &mut PgConnection) -> QueryResult<()> {
    sql_query("SELECT pg_notify($1, '')").bind::<Text, _>(CHANNEL).execute(conn)?;
    Ok(())
}

/// Renews the lease and reports progress. `false`: the lease is lost (the job was cancelled, or given to another worker),
/// and the worker had better stop.
///
/// # Errors
/// Those of the database.
pub fn renew(conn: &mut PgConnection, job: &Job, lease: Duration, progress: f64) -> QueryResult<bool> {
    let renewed = sql_query(
        "UPDATE models SET lease_until = clock_timestamp() + $3 * interval '1 second', progress = $4
         WHERE id = $1 AND status = 'training' AND lease_token = $2",
    )
    .bind::<Integer, _>(job.id)
    .bind::<BigInt, _>(job.lease_token)
    .bind::<Double, _>(lease.as_secs_f64())
    .bind::<Double, _>(progress.clamp(0.0, 1.0))
    .execute(conn)?;
    Ok(renewed == 1)
}

/// Ends a job without a result, for a reason that the client is told; `false`: the lease was lost.
///
/// # Errors
/// Those of the database.
pub fn fail(conn: &mut PgConnection, job: &Job, reason: &str) -> QueryResult<bool> {
    let updated = diesel::update(models::table.filter(held_by(job)))
        .set((
            models::status.eq(Status::Failed),
            models::finished_at.eq(clock_timestamp().nullable()),
            models::error.eq(reason),
            no_lease(),
        ))
        .execute(conn)?;
    Ok(updated == 1)
}

/// Withdraws a job of `owner` that has not ended; `false`: it has, or does not exist. A worker that trains it learns of it
/// by its next heartbeat.
///
/// # Errors
/// Those of the database.
pub fn cancel(conn: &mut PgConnection, owner: Option<i32>, id: i32) -> QueryResult<bool> {
    let is_open = models::status.eq_any([Status::Queued, Status::Training]);
    let open = models::table.filter(rows::owned_by(owner, id)).filter(is_open);
    let updated = diesel::update(open)
        .set((models::status.eq(Status::Cancelled), models::finished_at.eq(clock_timestamp().nullable()), no_lease()))
        .execute(conn)?;
    Ok(updated == 1)
}

/// Puts an unfinished job back, as if it had never been taken. `false`: the lease was lost already.
///
/// # Errors
/// Those of the database.
pub fn give_back(conn: &mut PgConnection, job: &Job) -> QueryResult<bool> {
    let updated = diesel::update(models::table.filter(held_by(job)))
        .set((
            models::status.eq(Status::Queued),
            models::attempt.eq(models::attempt - 1),
            models::progress.eq(0.0),
            models::started_at.eq(None::<DateTime<Utc>>),
            no_lease(),
        ))
        .execute(conn)?;
    announce(conn)?;
    Ok(updated == 1)
}

/// The row of a job, as long as its lease stands.
#[diesel::dsl::auto_type(no_type_alias)]
fn held_by(job: &Job) -> _ {
    let id: i32 = job.id;
    let training: Status = Status::Training;
    let token: i64 = job.lease_token;
    models::id.eq(id).and(models::status.eq(training)).and(models::lease_token.eq(token))
}

#[diesel::dsl::auto_type(no_type_alias)]
fn no_lease() -> _ {
    let token: Option<i64> = None;
    let until: Option<DateTime<Utc>> = None;
    (models::lease_token.eq(token), models::lease_until.eq(until))
}

/// Puts the jobs of lost workers back into the queue, or gives them up after [`MAX_ATTEMPTS`].
///
/// After a start of the database every worker is given the time of a lease, `lease`, to renew its own: nobody could while
/// the database was away.
///
/// # Errors
/// Those of the database.
pub fn rescue(conn: &mut PgConnection, lease: Duration) -> QueryResult<Vec<Rescued>> {
    sql_query(
        "UPDATE models
         SET status = CASE WHEN attempt < $1 THEN 'queued' ELSE 'failed' END,
             error = CASE WHEN attempt < $1 THEN NULL ELSE
                 'worker lost: ' || attempt || ' workers ended without a result while they trained this model; '
                 || 'the usual cause is that it needs more memory than they have' END,
             finished_at = CASE WHEN attempt < $1 THEN NULL ELSE clock_timestamp() END,
             started_at = CASE WHEN attempt < $1 THEN NULL ELSE started_at END,
             progress = 0, lease_token = NULL, lease_until = NULL
         WHERE pg_postmaster_start_time() + $2 * interval '1 second' < clock_timestamp()
             AND id IN (SELECT id FROM models
                        WHERE status = 'training' AND lease_until < clock_timestamp() FOR UPDATE SKIP LOCKED)
         RETURNING id, attempt, status",
    )
    .bind::<Integer, _>(MAX_ATTEMPTS)
    .bind::<Double, _>(lease.as_secs_f64())
    .get_results(conn)
}

/// How many jobs, whosever they are, will be claimed up to and including this one: 1 is the next.
///
/// # Errors
/// Those of the database.
pub fn position(conn: &mut PgConnection, id: i32) -> QueryResult<i64> {
    let ahead = models::table.filter(models::status.eq(Status::Queued)).filter(models::id.lt(id));
    Ok(1 + ahead.count().get_result::<i64>(conn)?)
}
