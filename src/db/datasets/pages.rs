//! The bytes of large chunks, in rows that fill a page of the database each.

use std::io::{self, Write};

use diesel::deserialize::{self, FromSqlRow};
use diesel::pg::{CopyFormat, Pg, PgConnection, PgRowByRowLoadingMode};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::row::{Field, Row};
use diesel::sql_types::Binary;

use crate::db::schema::dataset_pages;

/// The bytes of a page: whole doubles.
pub(super) const PAGE_BYTES: usize = 8120;
/// A chunk of no more bytes has no pages: it comes with its job.
const LARGEST_WITHOUT: usize = 256 << 10;
/// Bytes that are sent at once.
const MESSAGE_BYTES: usize = 64 << 10;
/// What the binary format of COPY begins with: a signature, flags, and the length of an extension.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// How many pages a chunk of so many bytes has. At least one byte is left behind them.
pub(super) fn n_pages(n_bytes: usize) -> usize {
    if n_bytes > LARGEST_WITHOUT { (n_bytes - 1) / PAGE_BYTES } else { 0 }
}

/// Stores the pages of a chunk.
pub(super) fn insert(conn: &mut PgConnection, dataset_id: i32, position: i32, pages: &[u8]) -> QueryResult<()> {
    if pages.is_empty() {
        return Ok(());
    }
    let send = |out: &mut dyn Write| send(out, dataset_id, position, pages).map_err(error_of_database);
    diesel::copy_from(dataset_pages::table)
        .from_raw_data(dataset_pages::table, send)
        .with_format(CopyFormat::Binary)
        .execute(conn)?;
    Ok(())
}

fn send(out: &mut dyn Write, dataset_id: i32, position: i32, pages: &[u8]) -> io::Result<()> {
    let mut message = Vec::with_capacity(MESSAGE_BYTES);
    message.extend(SIGNATURE);
    for (page, bytes) in (0_i32..).zip(pages.chunks(PAGE_BYTES)) {
        message.extend(4_i16.to_be_bytes());
        for number in [dataset_id, position, page] {
            message.extend(4_i32.to_be_bytes());
            message.extend(number.to_be_bytes());
        }
        message.extend((bytes.len() as i32).to_be_bytes());
        message.extend(bytes);
        if message.len() + PAGE_BYTES > MESSAGE_BYTES {
            out.write_all(&message)?;
            message.clear();
        }
    }
    message.extend((-1_i16).to_be_bytes());
    out.write_all(&message)
}

/// What Diesel has wrapped.
fn error_of_database(error: io::Error) -> Error {
    error.downcast().unwrap_or_else(|error| Error::SerializationError(error.into()))
}

/// The bytes of a page, as they come from the database.
struct Page(Vec<u8>);

impl FromSqlRow<Binary, Pg> for Page {
    fn build_from_row<'a>(row: &impl Row<'a, Pg>) -> deserialize::Result<Self> {
        let cells = row.get(0).ok_or("no cells")?;
        Ok(Self(cells.value().ok_or("no cells")?.as_bytes().to_vec()))
    }
}

/// Has `take` see the pages of a chunk in order, while the next ones are on their way, and returns how many there were.
pub(super) fn read(
    conn: &mut PgConnection,
    dataset_id: i32,
    position: i32,
    mut take: impl FnMut(&[u8]),
) -> QueryResult<usize> {
    let pages = dataset_pages::table
        .filter(dataset_pages::dataset_id.eq(dataset_id))
        .filter(dataset_pages::position.eq(position))
        .order(dataset_pages::page)
        .select(dataset_pages::cells)
        .load_iter::<Page, PgRowByRowLoadingMode>(conn)?;
    let mut n_pages = 0;
    for page in pages {
        take(&page?.0);
        n_pages += 1;
    }
    Ok(n_pages)
}
