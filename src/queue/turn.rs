//! A worker's turn with the queue: the result of one job goes in and the next job comes out, with its rows where they are few, by
//! one statement and one commit.

use std::time::Duration;

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{BigInt, Binary, Bool, Double, Integer, Jsonb, Nullable, Text};
use diesel_json::Json;

use super::Job;
use super::prepared::prepared;
use crate::db::datasets::FewRows;
use crate::table::Encoded;
use crate::training::{Best, FittedModel, Metrics, Params, PenaltyScore, Trained};

/// What came of a turn.
#[derive(Debug)]
pub struct Turn {
    /// Whether the result is kept; it is not where its lease does not stand any more.
    pub kept: bool,
    /// The job that was oldest in the queue.
    pub next: Option<Claimed>,
}

/// A job that has just been claimed.
#[derive(Debug)]
pub struct Claimed {
    /// What is to be done.
    pub job: Job,
    /// The rows to train on, if they are so few that they come along.
    pub rows: Option<FewRows>,
}

/// What is to be done in a turn.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The result to be kept, if its lease still stands.
    pub done: Option<(&'a Job, &'a Trained)>,
    /// For how long the oldest queued job is to be taken; `None`: none is.
    pub lease: Option<Duration>,
    /// The token of that lease: a random number, the same until a job was taken.
    pub token: i64,
}

/// Keeps a result and takes a job. It is one short statement, so that no transaction stays open while training.
///
/// # Errors
/// Those of the database; nothing has been kept or taken then, unless the connection broke at the commit. Whoever tries again
/// takes what it had taken.
pub fn turn(conn: &mut PgConnection, Wanted { done, lease, token }: Wanted<'_>) -> QueryResult<Turn> {
    let (job, trained) = done.unzip();
    let statement = Statement {
        id: job.map(|job| job.id),
        lease_token: job.map(|job| job.lease_token),
        model: trained.map(|trained| Json(&trained.model)),
        cv_results: trained.map(|trained| Json(&trained.cv_results)),
        best: trained.map(|trained| Json(&trained.best)),
        metrics: trained.map(|trained| Json(&trained.metrics)),
        warnings: trained.map(|trained| Json(&trained.warnings)),
        next_token: lease.map(|_| token),
        lease: lease.map(|lease| lease.as_secs_f64()),
    };
    let (kept, _set, job, rows, others) = statement.get_result::<Row>(conn)?;
    let next = job.map(|(id, dataset_id, params, attempt, lease_token)| Claimed {
        job: Job { id, dataset_id, params: params.0, attempt, lease_token },
        rows: rows.map(|(columns, cells)| FewRows { columns: columns.0, cells: Encoded::stored(cells, others) }),
    });
    Ok(Turn { kept, next })
}

struct Statement<'a> {
    id: Option<i32>,
    lease_token: Option<i64>,
    model: Option<Json<&'a FittedModel>>,
    cv_results: Option<Json<&'a Vec<PenaltyScore>>>,
    best: Option<Json<&'a Best>>,
    metrics: Option<Json<&'a Metrics>>,
    warnings: Option<Json<&'a Vec<String>>>,
    next_token: Option<i64>,
    /// Seconds; `None`: nothing is to be taken.
    lease: Option<f64>,
}

type Row = (
    bool,
    Option<String>,
    Option<(i32, i32, Json<Params>, i32, i64)>,
    Option<(Json<Vec<String>>, Vec<u8>)>,
    Option<Vec<u8>>,
);

prepared!(
    Statement,
    (
        Bool,
        Nullable<Text>,
        Nullable<(Integer, Integer, Jsonb, Integer, BigInt)>,
        Nullable<(Jsonb, Binary)>,
        Nullable<Binary>,
    )
);

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "WITH done AS (
                 UPDATE models
                 SET status = 'trained', progress = 1, finished_at = clock_timestamp(), lease_token = NULL, lease_until = NULL,
                     model = ",
        );
        out.push_bind_param::<Nullable<Jsonb>, _>(&self.model)?;
        out.push_sql(", cv_results = ");
        out.push_bind_param::<Nullable<Jsonb>, _>(&self.cv_results)?;
        out.push_sql(", best = ");
        out.push_bind_param::<Nullable<Jsonb>, _>(&self.best)?;
        out.push_sql(", metrics = ");
        out.push_bind_param::<Nullable<Jsonb>, _>(&self.metrics)?;
        out.push_sql(", warnings = ");
        out.push_bind_param::<Nullable<Jsonb>, _>(&self.warnings)?;
        out.push_sql(" WHERE id = ");
        out.push_bind_param::<Nullable<Integer>, _>(&self.id)?;
        out.push_sql(" AND status = 'training' AND lease_token = ");
        out.push_bind_param::<Nullable<BigInt>, _>(&self.lease_token)?;
        // The result comes first: who waits for its row, which a client may be about to delete, holds no other job meanwhile.
        out.push_sql(
            " RETURNING id
             ), next AS (
                 UPDATE models
                 SET status = 'training', attempt = attempt + (status = 'queued')::integer, progress = 0,
                     started_at = clock_timestamp(), lease_token = ",
        );
        out.push_bind_param::<Nullable<BigInt>, _>(&self.next_token)?;
        out.push_sql(", lease_until = clock_timestamp() + ");
        out.push_bind_param::<Nullable<Double>, _>(&self.lease)?;
        // What was taken with this token before was taken by a statement whose answer was lost.
        out.push_sql(
            " * interval '1 second'
                 WHERE (SELECT count(*) FROM done) >= 0 AND id = coalesce(
                     (SELECT id FROM models WHERE status = 'training' AND lease_token = ",
        );
        out.push_bind_param::<Nullable<BigInt>, _>(&self.next_token)?;
        out.push_sql(" FOR UPDATE), (SELECT id FROM models WHERE status = 'queued' AND ");
        out.push_bind_param::<Nullable<Double>, _>(&self.lease)?;
        // A commit that only takes a job need not wait for the disk: what is lost with the server's memory leaves the job in the
        // queue, and nobody was told more than that it is being trained. The result's commit waits, and makes both durable.
        out.push_sql(
            " IS NOT NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED))
                 RETURNING id, dataset_id, params, attempt, lease_token
             )
             SELECT EXISTS (SELECT FROM done), CASE WHEN ",
        );
        out.push_bind_param::<Nullable<Integer>, _>(&self.id)?;
        out.push_sql(
            " IS NULL THEN set_config('synchronous_commit', 'off', true) END,
                 next.id, next.dataset_id, next.params, next.attempt, next.lease_token, column_names, cells, others
             FROM (SELECT) AS always LEFT JOIN next ON true
             LEFT JOIN (datasets JOIN dataset_chunks ON dataset_chunks.dataset_id = datasets.id AND position = 0)
                 ON datasets.id = next.dataset_id AND octet_length(cells) <= 262144
                 AND octet_length(cells) =
                     n_rows * jsonb_array_length(column_names) * CASE WHEN others IS NULL THEN 8 ELSE 4 END",
        );
        Ok(())
    }
}
