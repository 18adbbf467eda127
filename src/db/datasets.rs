//! Datasets: the rows that clients post, stored once and never changed.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel_json::Json;

use super::schema::{dataset_chunks, datasets};
use crate::table::Table;

/// Bytes of cells in one chunk, about: a chunk holds whole rows, and at least one.
const CHUNK_BYTES: usize = 4 << 20;

#[derive(Insertable)]
#[diesel(table_name = datasets)]
struct NewDataset<'a> {
    owner: Option<i32>,
    column_names: Json<&'a [String]>,
    n_rows: i64,
}

#[derive(Insertable)]
#[diesel(table_name = dataset_chunks)]
struct NewChunk<'a> {
    dataset_id: i32,
    position: i32,
    cells: &'a [u8],
}

/// Stores `table` for `owner` and returns the dataset's id. Call it in a transaction: a dataset without its rows must not be seen.
///
/// # Errors
/// Those of the database.
pub fn insert(conn: &mut PgConnection, owner: Option<i32>, table: &Table) -> QueryResult<i32> {
    let new = NewDataset { owner, column_names: Json(table.columns()), n_rows: table.n_rows() as i64 };
    let dataset_id = diesel::insert_into(datasets::table).values(&new).returning(datasets::id).get_result(conn)?;
    let cells_per_chunk = (CHUNK_BYTES / 8 / table.n_columns()).max(1) * table.n_columns();
    for (position, chunk) in (0..).zip(table.cells().chunks(cells_per_chunk)) {
        let cells: Vec<u8> = chunk.iter().flat_map(|cell| cell.to_le_bytes()).collect();
        let new = NewChunk { dataset_id, position, cells: &cells };
        diesel::insert_into(dataset_chunks::table).values(&new).execute(conn)?;
    }
    Ok(dataset_id)
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
        let chunk = chunk?;
        // A CHECK of the table keeps the second part empty.
        let (doubles, _) = chunk.as_chunks::<8>();
        cells.extend(doubles.iter().copied().map(f64::from_le_bytes));
    }
    Table::new(columns.0, cells).filter(|table| table.n_rows() as i64 == n_rows).ok_or_else(|| {
        diesel::result::Error::DeserializationError("the chunks of a dataset do not fill its rows".into())
    })
}
