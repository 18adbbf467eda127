//! The rows of a dataset, in chunks of whole rows.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel_json::Json;

use crate::db::schema::{dataset_chunks, datasets};
use crate::table::Table;

#[derive(Insertable)]
#[diesel(table_name = dataset_chunks)]
struct NewChunk<'a> {
    dataset_id: i32,
    position: i32,
    cells: &'a [u8],
}

/// Stores a chunk.
pub(super) fn insert(conn: &mut PgConnection, dataset_id: i32, position: i32, cells: &[f64]) -> QueryResult<()> {
    let cells: Vec<u8> = cells.iter().flat_map(|cell| cell.to_le_bytes()).collect();
    let new = NewChunk { dataset_id, position, cells: &cells };
    diesel::insert_into(dataset_chunks::table).values(&new).execute(conn)?;
    Ok(())
}

/// Reads a dataset as it was stored, to the last bit.
///
/// # Errors
/// Those of the database; [`diesel::result::Error::DeserializationError`] when the stored cells do not fill whole rows.
pub fn load(conn: &mut PgConnection, dataset_id: i32) -> QueryResult<Table> {
    let (columns, n_rows) = datasets::table
        .find(dataset_id)
        .select((datasets::column_names, datasets::n_rows))
        .get_result::<(Json<Vec<String>>, i64)>(conn)?;
    let mut cells = Vec::with_capacity(n_rows as usize * columns.len());
    let chunks = dataset_chunks::table
        .filter(dataset_chunks::dataset_id.eq(dataset_id))
        .order(dataset_chunks::position)
        .select(dataset_chunks::cells)
        .load_iter::<Vec<u8>, diesel::pg::PgRowByRowLoadingMode>(conn)?;
    for chunk in chunks {
        cells.extend(doubles(&chunk?));
    }
    Table::new(columns.0, cells).filter(|table| table.n_rows() as i64 == n_rows).ok_or_else(|| {
        diesel::result::Error::DeserializationError("the chunks of a dataset do not fill its rows".into())
    })
}

/// The cells of a chunk.
fn doubles(bytes: &[u8]) -> impl Iterator<Item = f64> {
    // A CHECK of the table keeps the second part empty.
    let (doubles, _) = bytes.as_chunks::<8>();
    doubles.iter().copied().map(f64::from_le_bytes)
}

/// How many cells each chunk of a dataset holds, in order.
///
/// # Errors
/// Those of the database.
pub fn chunk_sizes(conn: &mut PgConnection, dataset_id: i32) -> QueryResult<Vec<usize>> {
    let bytes = dataset_chunks::table
        .filter(dataset_chunks::dataset_id.eq(dataset_id))
        .order(dataset_chunks::position)
        .select(octet_length(dataset_chunks::cells))
        .load::<i32>(conn)?;
    Ok(bytes.into_iter().map(|bytes| bytes as usize / 8).collect())
}

diesel::define_sql_function! {
    /// The number of bytes.
    fn octet_length(bytes: diesel::sql_types::Binary) -> diesel::sql_types::Integer;
}

/// The cells of one chunk of a dataset, whole rows, row-major.
///
/// # Errors
/// [`diesel::result::Error::NotFound`] when there is none, also because the dataset was deleted meanwhile.
pub fn chunk(conn: &mut PgConnection, dataset_id: i32, position: i32) -> QueryResult<Vec<f64>> {
    let chunk = dataset_chunks::table.find((dataset_id, position)).select(dataset_chunks::cells);
    Ok(doubles(&chunk.get_result::<Vec<u8>>(conn)?).collect())
}
