//! The rows of a dataset, in chunks of whole rows.

use diesel::deserialize::{self, FromSqlRow};
use diesel::pg::{Pg, PgConnection, PgValue};
use diesel::prelude::*;
use diesel::row::{Field, Row};
use diesel::sql_types::{Binary, Nullable};
use diesel_json::Json;

use crate::db::schema::{dataset_chunks, datasets};
use crate::table;

#[derive(Insertable)]
#[diesel(table_name = dataset_chunks)]
struct NewChunk<'a> {
    dataset_id: i32,
    position: i32,
    cells: &'a [u8],
    others: Option<&'a [u8]>,
}

/// Stores a chunk.
pub(super) fn insert(conn: &mut PgConnection, dataset_id: i32, position: i32, cells: &[f64]) -> QueryResult<()> {
    let (cells, others) = encoded(cells);
    let new = NewChunk { dataset_id, position, cells: &cells, others: others.as_deref() };
    diesel::insert_into(dataset_chunks::table).values(&new).execute(conn)?;
    Ok(())
}

/// The bytes of a chunk: packed, where that makes it smaller.
pub(crate) fn encoded(cells: &[f64]) -> (Vec<u8>, Option<Vec<u8>>) {
    match table::pack(cells) {
        Some(packed) => (packed.cells, Some(packed.others)),
        None => (doubles(cells), None),
    }
}

/// The cells as they are.
fn doubles(cells: &[f64]) -> Vec<u8> {
    let mut bytes = vec![0; size_of_val(cells)];
    let (places, _) = bytes.as_chunks_mut::<8>();
    places.iter_mut().zip(cells).for_each(|(place, cell)| *place = cell.to_le_bytes());
    bytes
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
/// Those of the database; [`diesel::result::Error::DeserializationError`] when the stored cells do not fill its rows.
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
        return Err(diesel::result::Error::DeserializationError("the chunks of a dataset do not fill its rows".into()));
    }
    Ok(Stored { columns, n_rows: n_stored, chunk_sizes })
}

/// The cells of a chunk, as they come from the database.
struct Cells(Vec<f64>);

impl FromSqlRow<(Binary, Nullable<Binary>), Pg> for Cells {
    // Not by way of vectors of bytes: a chunk is large.
    fn build_from_row<'a>(row: &impl Row<'a, Pg>) -> deserialize::Result<Self> {
        let (cells, others) = (row.get(0).ok_or("no cells")?, row.get(1).ok_or("no others")?);
        let cells = cells.value().ok_or("no cells")?;
        Ok(Self(decoded(cells.as_bytes(), others.value().as_ref().map(PgValue::as_bytes))?))
    }
}

/// The cells of a chunk from its bytes.
fn decoded(cells: &[u8], others: Option<&[u8]>) -> deserialize::Result<Vec<f64>> {
    match others {
        Some(others) => Ok(table::unpack(cells, others).ok_or("a packed chunk lacks some of its cells")?),
        None => {
            // A CHECK of the table keeps the second part empty.
            let (doubles, _) = cells.as_chunks::<8>();
            Ok(doubles.iter().copied().map(f64::from_le_bytes).collect())
        }
    }
}

/// A dataset of few rows, all of them in one chunk.
#[derive(Debug)]
pub struct FewRows {
    /// Its columns, in order.
    pub columns: Vec<String>,
    /// Its cells, row-major.
    pub cells: Vec<f64>,
}

impl FewRows {
    /// From the bytes of the chunk; `None` where they are damaged.
    pub(crate) fn decoded(columns: Vec<String>, cells: &[u8], others: Option<&[u8]>) -> Option<Self> {
        Some(Self { columns, cells: decoded(cells, others).ok()? })
    }
}

/// How many cells each chunk of a dataset holds, in order.
///
/// # Errors
/// Those of the database.
pub fn chunk_sizes(conn: &mut PgConnection, dataset_id: i32) -> QueryResult<Vec<usize>> {
    let bytes = dataset_chunks::table
        .filter(dataset_chunks::dataset_id.eq(dataset_id))
        .order(dataset_chunks::position)
        .select((octet_length(dataset_chunks::cells), dataset_chunks::others.is_not_null()))
        .load::<(i32, bool)>(conn)?;
    Ok(bytes.into_iter().map(|(bytes, is_packed)| bytes as usize / if is_packed { 4 } else { 8 }).collect())
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
    let chunk =
        dataset_chunks::table.find((dataset_id, position)).select((dataset_chunks::cells, dataset_chunks::others));
    Ok(chunk.get_result::<Cells>(conn)?.0)
}
