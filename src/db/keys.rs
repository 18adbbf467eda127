//! API keys: their names and hashes, and whose everything is.

use chrono::{DateTime, Utc};
use diesel::dsl::{exists, sql};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::Bool;

use super::clock_timestamp;
use super::schema::{api_keys, datasets, models};
use crate::key::Hash;

/// A row of `api_keys`, without the hash.
#[derive(Debug, HasQuery)]
#[diesel(table_name = api_keys)]
pub struct ApiKey {
    /// Its number, which is part of its text.
    pub id: i32,
    /// What its operator calls it.
    pub name: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last used, to the minute or so.
    pub last_used_at: Option<DateTime<Utc>>,
    /// Since when it is refused.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A key that is in use.
#[derive(Debug)]
pub struct LiveKey {
    /// Its number.
    pub id: i32,
    /// What its secret is compared with.
    pub hash: Hash,
    /// Whether no use of it was noted in the last minute.
    pub is_idle: bool,
}

/// Stores a key and returns its id; `None`: a key in use has this name.
///
/// # Errors
/// Those of the database.
pub fn insert(conn: &mut PgConnection, name: &str, hash: &Hash) -> QueryResult<Option<i32>> {
    let new = (api_keys::name.eq(name), api_keys::hash.eq(&hash[..]));
    let inserted = diesel::insert_into(api_keys::table).values(new).on_conflict_do_nothing().returning(api_keys::id);
    inserted.get_result(conn).optional()
}

/// Gives a key in use another secret and returns its id; `None`: there is no such key.
///
/// # Errors
/// Those of the database.
pub fn set_hash(conn: &mut PgConnection, name: &str, hash: &Hash) -> QueryResult<Option<i32>> {
    let key = api_keys::table.filter(api_keys::name.eq(name)).filter(api_keys::revoked_at.is_null());
    diesel::update(key).set(api_keys::hash.eq(&hash[..])).returning(api_keys::id).get_result(conn).optional()
}

/// Revokes a key for good; `false`: there is none of this name in use.
///
/// # Errors
/// Those of the database.
pub fn revoke(conn: &mut PgConnection, name: &str) -> QueryResult<bool> {
    let key = api_keys::table.filter(api_keys::name.eq(name)).filter(api_keys::revoked_at.is_null());
    Ok(diesel::update(key).set(api_keys::revoked_at.eq(clock_timestamp().nullable())).execute(conn)? == 1)
}

/// All keys, by id.
///
/// # Errors
/// Those of the database.
pub fn list(conn: &mut PgConnection) -> QueryResult<Vec<ApiKey>> {
    ApiKey::query().order(api_keys::id).load(conn)
}

/// Whether there is a key, or ever was: revoked ones count.
///
/// # Errors
/// Those of the database.
pub fn any(conn: &mut PgConnection) -> QueryResult<bool> {
    diesel::select(exists(api_keys::table.select(api_keys::id))).get_result(conn)
}

/// The keys in use.
///
/// # Errors
/// Those of the database; [`diesel::result::Error::DeserializationError`] for a hash of another length, which a CHECK of
/// the table forbids.
pub fn live(conn: &mut PgConnection) -> QueryResult<Vec<LiveKey>> {
    let is_idle = sql::<Bool>("coalesce(last_used_at < clock_timestamp() - interval '1 minute', true)");
    let rows = api_keys::table.filter(api_keys::revoked_at.is_null()).select((api_keys::id, api_keys::hash, is_idle));
    let to_key = |(id, hash, is_idle): (i32, Vec<u8>, bool)| {
        let hash = hash.try_into().map_err(|_wrong| "the hash of an API key has the wrong length");
        let hash = hash.map_err(|message| diesel::result::Error::DeserializationError(message.into()))?;
        Ok(LiveKey { id, hash, is_idle })
    };
    rows.load(conn)?.into_iter().map(to_key).collect()
}

/// Notes that a key is used now.
///
/// # Errors
/// Those of the database.
pub fn note_use(conn: &mut PgConnection, id: i32) -> QueryResult<()> {
    let now = api_keys::last_used_at.eq(clock_timestamp().nullable());
    diesel::update(api_keys::table.find(id)).set(now).execute(conn)?;
    Ok(())
}

/// Gives a key everything that was made while there were no keys; returns how many models and datasets. Call it in a
/// transaction.
///
/// # Errors
/// Those of the database.
pub fn adopt(conn: &mut PgConnection, id: i32) -> QueryResult<(usize, usize)> {
    let ownerless = models::table.filter(models::owner.is_null());
    let n_models = diesel::update(ownerless).set(models::owner.eq(id)).execute(conn)?;
    let ownerless = datasets::table.filter(datasets::owner.is_null());
    let n_datasets = diesel::update(ownerless).set(datasets::owner.eq(id)).execute(conn)?;
    Ok((n_models, n_datasets))
}

/// Whether anything was made while there were no keys, and was not adopted.
///
/// # Errors
/// Those of the database.
pub fn has_ownerless_rows(conn: &mut PgConnection) -> QueryResult<bool> {
    let in_models = exists(models::table.filter(models::owner.is_null()));
    let in_datasets = exists(datasets::table.filter(datasets::owner.is_null()));
    diesel::select(in_models.or(in_datasets)).get_result(conn)
}
