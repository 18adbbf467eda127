//! The rows of a dataset, in chunks of whole rows.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::result::Error;
use diesel_json::Json;

use super::pages::{self, PAGE_BYTES};
use crate::db::schema::{dataset_chunks, datasets};
use crate::table::{Encoded, cell_bytes};

#[derive(Insertable)]
#[diesel(table_name = dataset_chunks)]
struct NewChunk<'a> {
    dataset_id: i32,
    position: i32,
    cells: &'a [u8],
    others: Option<&'a [u8]>,
    n_pages: i32,
}

/// Stores a chunk.
pub(super) fn insert(conn: &mut PgConnection, dataset_id: i32, position: i32, chunk: &Encoded) -> QueryResult<()> {
    let n_pages = pages::n_pages(chunk.cells().len());
    let (pages, cells) = chunk.cells().split_at(n_pages * PAGE_BYTES);
    let new = NewChunk { dataset_id, position, cells, others: chunk.others(), n_pages: n_pages as i32 };
    diesel::insert_into(dataset_chunks::table).values(&new).execute(conn)?;
    pages::insert(conn, dataset_id, position, pages)
}

/// A dataset whose rows are to be read.
#[derive(Debug)]
pub struct Stored {
    /// Its columns, in order.
    pub columns: Vec<String>,
    /// Its rows.
    pub n_rows: usize,
    /// The cells of each chunk.
    pub chunk_sizes: Vec<usize>,
}

/// Finds a dataset by its id, whoever owns it.
///
/// # Errors
/// Those of the database; [`Error::DeserializationError`] when the stored cells do not fill its rows.
pub fn find_stored(conn: &mut PgConnection, dataset_id: i32) -> QueryResult<Stored> {
    let (columns, n_rows) = datasets::table
        .find(dataset_id)
        .select((datasets::column_names, datasets::n_rows))
        .get_result::<(Json<Vec<String>>, i64)>(conn)?;
    let (columns, chunk_sizes) = (columns.0, chunk_sizes(conn, dataset_id)?);
    let n_columns = columns.len();
    let is_whole = chunk_sizes.iter().all(|n_cells| n_cells.is_multiple_of(n_columns));
    let n_stored = chunk_sizes.iter().sum::<usize>() / n_columns;
    if !is_whole || n_stored as i64 != n_rows {
        return Err(Error::DeserializationError("the chunks of a dataset do not fill its rows".into()));
    }
    Ok(Stored { columns, n_rows: n_stored, chunk_sizes })
}

/// A dataset of few rows, all of them in one chunk.
#[derive(Debug)]
pub struct FewRows {
    /// Its columns, in order.
    pub columns: Vec<String>,
    /// Its cells, row-major.
    pub cells: Encoded,
}

/// How many cells each chunk of a dataset holds, in order.
///
/// # Errors
/// Those of the database.
pub fn chunk_sizes(conn: &mut PgConnection, dataset_id: i32) -> QueryResult<Vec<usize>> {
    let sizes = dataset_chunks::table
        .filter(dataset_chunks::dataset_id.eq(dataset_id))
        .order(dataset_chunks::position)
        .select((octet_length(dataset_chunks::cells), dataset_chunks::n_pages, dataset_chunks::others.is_not_null()))
        .load::<(i32, i32, bool)>(conn)?;
    let n_cells = |(bytes, n_pages, is_packed)| n_bytes(bytes as usize, n_pages) / cell_bytes(is_packed);
    Ok(sizes.into_iter().map(n_cells).collect())
}

/// The bytes of a chunk that has so many behind its pages.
fn n_bytes(behind: usize, n_pages: i32) -> usize {
    n_pages as usize * PAGE_BYTES + behind
}

diesel::define_sql_function! {
    /// The number of bytes.
    fn octet_length(bytes: diesel::sql_types::Binary) -> diesel::sql_types::Integer;
}

/// One chunk of a dataset, whole rows, row-major.
///
/// # Errors
/// [`Error::NotFound`] when there is none, also because the dataset was deleted meanwhile.
pub fn chunk(conn: &mut PgConnection, dataset_id: i32, position: i32) -> QueryResult<Encoded> {
    let (behind, others, n_pages) = dataset_chunks::table
        .find((dataset_id, position))
        .select((dataset_chunks::cells, dataset_chunks::others, dataset_chunks::n_pages))
        .get_result::<(Vec<u8>, Option<Vec<u8>>, i32)>(conn)?;
    if n_pages == 0 {
        return Ok(Encoded::stored(behind, others));
    }
    let mut cells = Vec::with_capacity(n_bytes(behind.len(), n_pages));
    if pages::read(conn, dataset_id, position, |page| cells.extend_from_slice(page))? != n_pages as usize {
        return Err(Error::NotFound);
    }
    cells.extend(behind);
    Ok(Encoded::stored(cells, others))
}

/// The cells of one chunk.
///
/// # Errors
/// Those of [`chunk`]; [`Error::DeserializationError`] when it is damaged.
pub fn cells(conn: &mut PgConnection, dataset_id: i32, position: i32) -> QueryResult<Vec<f64>> {
    let damaged = || Error::DeserializationError("a chunk of the dataset is damaged".into());
    chunk(conn, dataset_id, position)?.decode().ok_or_else(damaged)
}
