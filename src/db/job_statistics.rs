//! How many jobs there are, and what became of those before: for the metrics. Triggers of the table `models` count.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Double, Nullable};

use super::schema::job_statistics;

/// Jobs that have not ended.
#[derive(Debug, QueryableByName)]
pub struct OpenJobs {
    /// Waiting for a worker.
    #[diesel(sql_type = BigInt)]
    pub queued: i64,
    /// Held by a worker.
    #[diesel(sql_type = BigInt)]
    pub training: i64,
    /// How many seconds the next job has been waiting; `None` where none waits.
    #[diesel(sql_type = Nullable<Double>)]
    pub oldest_seconds: Option<f64>,
}

/// One bucket of the histogram of an event's durations.
#[derive(Debug, HasQuery)]
#[diesel(table_name = job_statistics)]
pub struct Bucket {
    /// `started`, `trained`, `failed`, `cancelled` or `lost`; the migration says what each is.
    pub event: String,
    /// The upper bound of the durations in this bucket, in seconds, included; infinite for the last.
    pub at_most: f64,
    /// Jobs in this bucket alone.
    pub jobs: i64,
    /// The sum of their durations.
    pub seconds: f64,
}

/// Counts the jobs that have not ended, by the indices of the queue.
///
/// # Errors
/// Those of the database.
pub fn open_jobs(conn: &mut PgConnection) -> QueryResult<OpenJobs> {
    diesel::sql_query(
        "SELECT (SELECT count(*) FROM models WHERE status = 'queued') AS queued,
                (SELECT count(*) FROM models WHERE status = 'training') AS training,
                (SELECT extract(epoch FROM clock_timestamp() - created_at)::double precision
                 FROM models WHERE status = 'queued' ORDER BY id LIMIT 1) AS oldest_seconds",
    )
    .get_result(conn)
}

/// All that has been counted, by event and upper bound. Buckets that nothing fell into are missing.
///
/// # Errors
/// Those of the database.
pub fn buckets(conn: &mut PgConnection) -> QueryResult<Vec<Bucket>> {
    Bucket::query().order((job_statistics::event, job_statistics::at_most)).load(conn)
}
