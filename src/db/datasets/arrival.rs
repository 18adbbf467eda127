//! Datasets on their way into the database: at once where they are held in memory, else chunk by chunk while they arrive.
//!
//! A dataset that is stored while it arrives is in the table from its first chunk on, but not to be seen: no transaction has to
//! stay open for as long as a client sends, and no connection. Its last chunk makes it complete. The process that receives it
//! says now and then that it is still there; what has not been heard of for two minutes is
//! dropped by whichever service looks first.

use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{Nullable, Timestamptz};
use diesel_json::Json;

use super::chunks;
use crate::db::clock_timestamp;
use crate::db::schema::datasets;
use crate::table::{ColumnStatistics, Encoded, Statistics};

/// Until when a dataset that is arriving is kept if its receiver gives no further sign of life.
const LEASE: &str = "clock_timestamp() + interval '2 minutes'";

/// A dataset that has arrived.
#[derive(Debug)]
pub struct Upload {
    /// Its columns, in order.
    pub columns: Vec<String>,
    /// The number of its rows.
    pub n_rows: usize,
    /// What its columns are like.
    pub statistics: Statistics,
    /// What the client calls it.
    pub name: Option<String>,
    /// Whether it stays without a model that uses it.
    pub is_standalone: bool,
    /// The rows.
    pub rows: NewRows,
}

/// The rows of a dataset that has arrived.
#[derive(Debug)]
pub enum NewRows {
    /// Chunks of whole rows.
    Held(Vec<Encoded>),
    /// They are stored already, as the chunks of this dataset, which is to be made complete.
    Stored(i32),
}

#[derive(Insertable)]
#[diesel(table_name = datasets)]
struct NewDataset<'a> {
    owner: Option<i32>,
    name: Option<&'a str>,
    is_standalone: bool,
    column_names: Json<&'a [String]>,
    n_rows: i64,
    statistics: Json<&'a [ColumnStatistics]>,
}

/// Stores a dataset of `owner`, or makes one complete, and returns its id. Call it in a transaction: a dataset without its rows
/// must not be seen.
///
/// # Errors
/// Those of the database; a serialization failure when the rows that were stored have been dropped meanwhile.
pub fn insert(conn: &mut PgConnection, owner: Option<i32>, upload: &Upload) -> QueryResult<i32> {
    let new = NewDataset {
        owner,
        name: upload.name.as_deref(),
        is_standalone: upload.is_standalone,
        column_names: Json(&upload.columns),
        n_rows: upload.n_rows as i64,
        statistics: Json(upload.statistics.columns()),
    };
    match &upload.rows {
        NewRows::Held(rows) => {
            let insert = diesel::insert_into(datasets::table).values(&new).returning(datasets::id);
            let dataset_id = insert.get_result(conn)?;
            for (position, chunk) in (0..).zip(rows) {
                chunks::insert(conn, dataset_id, position, chunk)?;
            }
            Ok(dataset_id)
        }
        NewRows::Stored(dataset_id) => {
            let complete = diesel::update(arriving(*dataset_id)).set((
                datasets::owner.eq(new.owner),
                datasets::name.eq(new.name),
                datasets::is_standalone.eq(new.is_standalone),
                datasets::n_rows.eq(new.n_rows),
                datasets::statistics.eq(new.statistics),
                datasets::created_at.eq(diesel::dsl::now),
                datasets::arriving_until.eq(None::<DateTime<Utc>>),
            ));
            match complete.execute(conn)? {
                0 => Err(dropped()),
                _ => Ok(*dataset_id),
            }
        }
    }
}

/// The dataset `id`, as long as it is arriving.
#[diesel::dsl::auto_type(no_type_alias)]
fn arriving(id: i32) -> _ {
    datasets::table.filter(datasets::id.eq(id)).filter(datasets::arriving_until.is_not_null())
}

/// The receiver was silent for so long that what it had stored is gone: the client has to begin again.
fn dropped() -> Error {
    let message = "the rows of an upload were dropped before it was complete".to_owned();
    Error::DatabaseError(DatabaseErrorKind::SerializationFailure, Box::new(message))
}

/// Begins to store a dataset of `owner` that is arriving, and returns its id.
///
/// # Errors
/// Those of the database.
pub fn begin(conn: &mut PgConnection, owner: Option<i32>, columns: &[String]) -> QueryResult<i32> {
    let new = (
        datasets::owner.eq(owner),
        datasets::column_names.eq(Json(columns)),
        datasets::n_rows.eq(0),
        datasets::is_standalone.eq(false),
        datasets::arriving_until.eq(sql::<Nullable<Timestamptz>>(LEASE)),
    );
    diesel::insert_into(datasets::table).values(new).returning(datasets::id).get_result(conn)
}

/// Stores a chunk of a dataset that is arriving. It is safe from a crash only once the dataset is complete.
///
/// # Errors
/// Those of the database; a serialization failure when the dataset was dropped meanwhile.
pub fn insert_chunk(conn: &mut PgConnection, dataset_id: i32, position: i32, chunk: &Encoded) -> QueryResult<()> {
    let insert = |conn: &mut PgConnection| {
        // What comes later waits until everything before it is on the disk.
        conn.batch_execute("SET LOCAL synchronous_commit = off")?;
        chunks::insert(conn, dataset_id, position, chunk)
    };
    conn.transaction(insert).map_err(|error| match error {
        Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _) => dropped(),
        error => error,
    })
}

/// Says that a dataset is still arriving.
///
/// # Errors
/// Those of the database.
pub fn renew(conn: &mut PgConnection, dataset_id: i32) -> QueryResult<()> {
    diesel::update(arriving(dataset_id))
        .set(datasets::arriving_until.eq(sql::<Nullable<Timestamptz>>(LEASE)))
        .execute(conn)?;
    Ok(())
}

/// Drops a dataset that does not arrive any more.
///
/// # Errors
/// Those of the database.
pub fn forget(conn: &mut PgConnection, dataset_id: i32) -> QueryResult<()> {
    diesel::delete(arriving(dataset_id)).execute(conn)?;
    Ok(())
}

/// Drops the datasets whose receivers have not been heard of for too long, and returns how many.
///
/// # Errors
/// Those of the database.
pub fn drop_abandoned(conn: &mut PgConnection) -> QueryResult<usize> {
    let is_abandoned = datasets::arriving_until.lt(clock_timestamp().nullable());
    diesel::delete(datasets::table.filter(is_abandoned)).execute(conn)
}
