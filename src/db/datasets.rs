//! Datasets: the rows that clients post, stored once and never changed.

mod arrival;
mod chunks;
mod pages;

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Double, Integer};
use diesel_json::Json;

use super::begins_like;
use super::models::Status;
use super::schema::{datasets, models};
use crate::table::{ColumnStatistics, Statistics};
pub use arrival::{NewRows, Upload, begin, drop_abandoned, forget, insert, insert_chunk, renew};
pub use chunks::{FewRows, Stored, cells, chunk, chunk_sizes, find_stored};

/// Most models that a dataset lists as its users.
const MOST_USERS: i64 = 100;

/// A row of `datasets` as a client sees it.
#[derive(Debug, HasQuery)]
#[diesel(table_name = datasets)]
pub struct Dataset {
    /// Its number.
    pub id: i32,
    /// What the client called it.
    pub name: Option<String>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// Whether it stays without a model that uses it.
    pub is_standalone: bool,
    /// Its columns, in order.
    pub column_names: Json<Vec<String>>,
    /// Its rows.
    pub n_rows: i64,
    /// What the columns are like, in order; [`find`] sees to it that they are there.
    pub statistics: Option<Json<Vec<ColumnStatistics>>>,
}

/// What a list says of a dataset.
#[derive(Debug, HasQuery)]
#[diesel(table_name = datasets)]
pub struct Summary {
    /// Its number.
    pub id: i32,
    /// What the client called it.
    pub name: Option<String>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// Whether it stays without a model that uses it.
    pub is_standalone: bool,
    /// Its rows.
    pub n_rows: i64,
    /// Its columns.
    #[diesel(select_expression = jsonb_array_length(datasets::column_names))]
    pub n_columns: i32,
}

diesel::define_sql_function! {
    /// The number of elements of a JSON array.
    fn jsonb_array_length(array: diesel::sql_types::Jsonb) -> diesel::sql_types::Integer;
}

/// The shape of a dataset: what must be known of it to train on it.
#[derive(Debug, HasQuery)]
#[diesel(table_name = datasets)]
pub struct Shape {
    /// Its number.
    pub id: i32,
    /// Its columns, in order.
    pub column_names: Json<Vec<String>>,
    /// Its rows.
    pub n_rows: i64,
}

/// The models that are trained on a dataset, or were.
#[derive(Debug)]
pub struct Users {
    /// How many there are.
    pub count: i64,
    /// The newest of them, a hundred at most.
    pub newest: Vec<i32>,
}

/// What came of the wish to delete a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone; the models that were trained on it stay.
    Done,
    /// This model is queued or training, and needs it.
    NeededBy(i32),
}

/// The dataset `id`, if it belongs to `owner` and is complete.
#[diesel::dsl::auto_type(no_type_alias)]
fn owned_by(owner: Option<i32>, id: i32) -> _ {
    datasets::id.eq(id).and(datasets::owner.is_not_distinct_from(owner)).and(datasets::arriving_until.is_null())
}

/// Finds a dataset of `owner` by its id. One that is older than the statistics is described now, once.
///
/// # Errors
/// [`diesel::result::Error::NotFound`] when there is none.
pub fn find(conn: &mut PgConnection, owner: Option<i32>, id: i32) -> QueryResult<Dataset> {
    let mut found: Dataset = Dataset::query().filter(owned_by(owner, id)).first(conn)?;
    if found.statistics.is_none() {
        let mut statistics = Statistics::new(found.column_names.len());
        for position in 0..chunk_sizes(conn, id)?.len() {
            statistics.add(&cells(conn, id, position as i32)?);
        }
        let columns = statistics.columns().to_vec();
        diesel::update(datasets::table.find(id)).set(datasets::statistics.eq(Json(&columns))).execute(conn)?;
        found.statistics = Some(Json(columns));
    }
    Ok(found)
}

/// Finds the shape of a dataset of `owner`.
///
/// # Errors
/// [`diesel::result::Error::NotFound`] when there is none.
pub fn find_shape(conn: &mut PgConnection, owner: Option<i32>, id: i32) -> QueryResult<Shape> {
    Shape::query().filter(owned_by(owner, id)).first(conn)
}

/// Which models use a dataset.
///
/// # Errors
/// Those of the database.
pub fn users(conn: &mut PgConnection, id: i32) -> QueryResult<Users> {
    let users = models::table.filter(models::dataset_id.eq(id));
    let newest = users.select(models::id).order(models::id.desc()).limit(MOST_USERS).load(conn)?;
    Ok(Users { count: users.count().get_result(conn)?, newest })
}

/// Which datasets a list shows.
#[derive(Debug, Default)]
pub struct Filter {
    /// Those of this key; `None`: those that were made while there were no keys.
    pub owner: Option<i32>,
    /// Those numbered below this.
    pub before: Option<i32>,
    /// Those of this name.
    pub name: Option<String>,
}

/// The newest datasets that pass `filter`, `most` at most.
///
/// # Errors
/// Those of the database.
pub fn list(conn: &mut PgConnection, filter: &Filter, most: i64) -> QueryResult<Vec<Summary>> {
    let complete = Summary::query().filter(datasets::arriving_until.is_null());
    let mut query = complete.order(datasets::id.desc()).limit(most).into_boxed();
    // Not the comparison of `owned_by`, which no index serves.
    query = match filter.owner {
        Some(owner) => query.filter(datasets::owner.eq(owner)),
        None => query.filter(datasets::owner.is_null()),
    };
    if let Some(before) = filter.before {
        query = query.filter(datasets::id.lt(before));
    }
    if let Some(name) = &filter.name {
        query = query.filter(datasets::name.eq(name)).filter(begins_like(name));
    }
    query.load(conn)
}

/// Keeps trainings on a dataset from being queued until the transaction ends; those that were queued before are seen by the
/// statements after this one. Whoever also changes models locks their dataset first. Returns whether it is standalone.
///
/// # Errors
/// [`diesel::result::Error::NotFound`] when there is no such dataset.
pub(super) fn lock(conn: &mut PgConnection, owner: Option<i32>, id: i32) -> QueryResult<bool> {
    datasets::table.filter(owned_by(owner, id)).select(datasets::is_standalone).for_update().get_result(conn)
}

/// Deletes a dataset of `owner` unless a job needs it. Call it in a transaction.
///
/// # Errors
/// [`diesel::result::Error::NotFound`] when there is none.
pub fn delete(conn: &mut PgConnection, owner: Option<i32>, id: i32) -> QueryResult<Deletion> {
    lock(conn, owner, id)?;
    let open = models::status.eq_any([Status::Queued, Status::Training]);
    let jobs = models::table.filter(models::dataset_id.eq(id)).filter(open);
    if let Some(job) = jobs.select(models::id).order(models::id).first(conn).optional()? {
        return Ok(Deletion::NeededBy(job));
    }
    diesel::delete(datasets::table.find(id)).execute(conn)?;
    Ok(Deletion::Done)
}

/// Deletes the datasets whose jobs have all ended `age` ago or before, `most` at most, and returns how many. Those that no
/// model uses have had no job, and stay. Call it in a transaction.
///
/// # Errors
/// Those of the database.
pub fn drop_unneeded(conn: &mut PgConnection, age: Duration, most: i64) -> QueryResult<usize> {
    #[derive(QueryableByName)]
    struct Locked {
        #[diesel(sql_type = Integer)]
        id: i32,
    }
    let due = "EXISTS (SELECT FROM models WHERE dataset_id = datasets.id)
               AND NOT EXISTS (SELECT FROM models WHERE dataset_id = datasets.id AND (finished_at IS NULL
                   OR finished_at > clock_timestamp() - $1 * interval '1 second'))";
    // What another service has locked is its to drop, or is about to get a job.
    let lock = format!("SELECT id FROM datasets WHERE {due} ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED");
    let locked: Vec<Locked> =
        sql_query(lock).bind::<Double, _>(age.as_secs_f64()).bind::<BigInt, _>(most).load(conn)?;
    let ids: Vec<i32> = locked.iter().map(|locked| locked.id).collect();
    // Asked again under the lock: a job may have come between the look and the lock.
    let delete = format!("DELETE FROM datasets WHERE id = ANY($2) AND {due}");
    sql_query(delete).bind::<Double, _>(age.as_secs_f64()).bind::<Array<Integer>, _>(ids).execute(conn)
}
