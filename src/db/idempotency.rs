//! Requests that are told apart by their `Idempotency-Key`: what the first of them made is found again.

use diesel::dsl::sql;
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable};
use sha2::{Digest as _, Sha256};

use super::schema::{datasets, models};

/// SHA-256 of what a request asks for.
pub type Digest = [u8; 32];

/// A request that a client may send more than once.
#[derive(Debug, Clone)]
pub struct Keyed {
    /// What the client calls it.
    pub key: String,
    /// What it asks for.
    pub digest: Digest,
}

/// What requests with a key make. Each has keys of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// `POST /train`.
    Model,
    /// `POST /datasets`.
    Dataset,
}

/// What an earlier request with the same key has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    /// The number of the model, or of the dataset.
    pub id: i32,
    /// Whether it asked for the same.
    pub is_same: bool,
}

/// What an earlier request of `owner` with the key of `request` has made, as long as that is there.
///
/// # Errors
/// Those of the database.
pub fn find(conn: &mut PgConnection, made: Made, owner: Option<i32>, request: &Keyed) -> QueryResult<Option<Earlier>> {
    // As the unique indices have it.
    let is_owners = sql::<Bool>("coalesce(owner, 0) = coalesce(").bind::<Nullable<Integer>, _>(owner).sql(", 0)");
    let found: Option<(i32, Option<Vec<u8>>)> = match made {
        Made::Model => models::table
            .filter(models::idempotency_key.eq(&request.key))
            .filter(is_owners)
            .select((models::id, models::request_digest))
            .first(conn)
            .optional()?,
        Made::Dataset => datasets::table
            .filter(datasets::idempotency_key.eq(&request.key))
            .filter(is_owners)
            .select((datasets::id, datasets::request_digest))
            .first(conn)
            .optional()?,
    };
    Ok(found.map(|(id, digest)| Earlier { id, is_same: digest.as_deref() == Some(&request.digest[..]) }))
}

/// The same, in a transaction that is about to make it: until the transaction ends, others with the same key wait here.
///
/// # Errors
/// Those of the database, also when the wait takes too long.
pub fn find_or_reserve(
    conn: &mut PgConnection,
    made: Made,
    owner: Option<i32>,
    request: &Keyed,
) -> QueryResult<Option<Earlier>> {
    sql_query("SELECT pg_advisory_xact_lock($1)")
        .bind::<BigInt, _>(lock_number(made, owner, &request.key))
        .execute(conn)?;
    find(conn, made, owner, request)
}

/// Notes that `request` has made the dataset `id`. Call it in the transaction that makes it; a model's is noted with its job.
///
/// # Errors
/// Those of the database.
pub fn note_dataset(conn: &mut PgConnection, id: i32, request: &Keyed) -> QueryResult<()> {
    let noted = (datasets::idempotency_key.eq(&request.key), datasets::request_digest.eq(&request.digest[..]));
    diesel::update(datasets::table.find(id)).set(noted).execute(conn)?;
    Ok(())
}

/// The advisory lock of a key: 64 bits of a hash, so that two keys hardly ever share one; if they do, one waits in vain.
fn lock_number(made: Made, owner: Option<i32>, key: &str) -> i64 {
    let hash = Sha256::digest(format!("{made:?} {owner:?} {key}"));
    let (first, _) = hash.as_chunks::<8>();
    first.first().copied().map_or(0, i64::from_be_bytes)
}
