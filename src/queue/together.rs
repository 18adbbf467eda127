//! A training that enters the queue together with its rows, where they are few: one statement and one commit.

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{BigInt, Binary, Bool, Integer, Jsonb, Nullable, Text};
use diesel_json::Json;

use super::prepared::prepared;
use super::{MOST_AT_ONCE, NewJob};
use crate::db::datasets::{NewRows, Upload};
use crate::table::ColumnStatistics;
use crate::training::Params;

/// Stores a dataset and queues a training on it, as [`insert`](crate::db::datasets::insert) and [`enqueue`](super::enqueue) do, if its rows are one
/// chunk, the client has no name for the request, and so much room is left that nobody has to wait; `None`: nothing was done.
///
/// # Errors
/// Those of the database.
pub fn enqueue_with_rows(
    conn: &mut PgConnection,
    limit: u32,
    upload: &Upload,
    job: &NewJob<'_>,
) -> QueryResult<Option<i32>> {
    let NewRows::Held(chunks) = &upload.rows else { return Ok(None) };
    let ([chunk], None) = (&chunks[..], job.request) else { return Ok(None) };
    let statement = Statement {
        owner: job.owner,
        dataset_name: upload.name.as_deref(),
        is_standalone: upload.is_standalone,
        columns: Json(&upload.columns),
        n_rows: upload.n_rows as i64,
        statistics: Json(upload.statistics.columns()),
        cells: chunk.cells(),
        others: chunk.others(),
        most_waiting: (i64::from(limit) - MOST_AT_ONCE).max(0),
        name: job.name,
        tags: Json(job.tags),
        params: Json(job.params),
    };
    statement.get_result(conn).optional()
}

struct Statement<'a> {
    owner: Option<i32>,
    dataset_name: Option<&'a str>,
    is_standalone: bool,
    columns: Json<&'a [String]>,
    n_rows: i64,
    statistics: Json<&'a [ColumnStatistics]>,
    cells: &'a [u8],
    others: Option<&'a [u8]>,
    most_waiting: i64,
    name: Option<&'a str>,
    tags: Json<&'a [String]>,
    params: Json<&'a Params>,
}

prepared!(Statement, Integer);

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "WITH dataset AS (
                 INSERT INTO datasets (owner, name, is_standalone, column_names, n_rows, statistics)
                 SELECT ",
        );
        out.push_bind_param::<Nullable<Integer>, _>(&self.owner)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Text>, _>(&self.dataset_name)?;
        out.push_sql(", ");
        out.push_bind_param::<Bool, _>(&self.is_standalone)?;
        out.push_sql(", ");
        out.push_bind_param::<Jsonb, _>(&self.columns)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.n_rows)?;
        out.push_sql(", ");
        out.push_bind_param::<Jsonb, _>(&self.statistics)?;
        out.push_sql(" WHERE (SELECT count(*) FROM (SELECT FROM models WHERE status = 'queued' LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.most_waiting)?;
        out.push_sql(") AS waiting) < ");
        out.push_bind_param::<BigInt, _>(&self.most_waiting)?;
        out.push_sql(
            " RETURNING id
             ), chunk AS (
                 INSERT INTO dataset_chunks (dataset_id, position, cells, others)
                 SELECT id, 0, ",
        );
        out.push_bind_param::<Binary, _>(&self.cells)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Binary>, _>(&self.others)?;
        out.push_sql(
            " FROM dataset
             ), model AS (
                 INSERT INTO models (dataset_id, owner, name, tags, params)
                 SELECT id, ",
        );
        out.push_bind_param::<Nullable<Integer>, _>(&self.owner)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Text>, _>(&self.name)?;
        out.push_sql(", ");
        out.push_bind_param::<Jsonb, _>(&self.tags)?;
        out.push_sql(", ");
        out.push_bind_param::<Jsonb, _>(&self.params)?;
        out.push_sql(" FROM dataset RETURNING id) SELECT id FROM model, pg_notify(");
        out.push_bind_param::<Text, _>(super::CHANNEL)?;
        out.push_sql(", '')");
        Ok(())
    }
}
