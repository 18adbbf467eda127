//! A dataset as the CSV that it was, chunk by chunk: the same numbers, if not the same characters.

use diesel::pg::PgConnection;
use rocket::Request;
use rocket::futures::stream::{self, BoxStream, StreamExt};
use rocket::http::{ContentType, Header};
use rocket::response::stream::ByteStream;
use rocket::response::{self, Responder, Response};

use super::super::auth::Caller;
use super::super::body::Cores;
use super::super::connections::Lifeline;
use super::super::error::ApiError;
use crate::db::{self, Pool, datasets};
use crate::table::{print_header, print_rows};

/// Chunks of the dataset that are made ready at once.
const AHEAD: usize = 2;
/// Bytes that are handed on at once.
const CHUNK: usize = 64 << 10;

/// The reply.
pub(super) struct Download {
    name: String,
    body: BoxStream<'static, Vec<u8>>,
}

impl<'r> Responder<'r, 'r> for Download {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'r> {
        let disposition = Header::new("Content-Disposition", format!("attachment; filename=\"{}\"", self.name));
        let response = (ContentType::CSV, ByteStream(self.body)).respond_to(request)?;
        Response::build_from(response).header(disposition).max_chunk_size(CHUNK).ok()
    }
}

/// The caller's dataset `id`. What fails later than this breaks the connection off.
///
/// # Errors
/// Those of the database; `NotFound` when there is none.
pub(super) async fn download(
    pool: &Pool,
    cores: &Cores,
    caller: Caller,
    lifeline: Lifeline,
    id: i32,
) -> Result<Download, db::Error> {
    let find = move |conn: &mut PgConnection| {
        let shape = datasets::find_shape(conn, caller.owner(), id)?;
        Ok((shape.column_names.0, datasets::chunk_sizes(conn, id)?.len()))
    };
    let (names, n_chunks) = pool.run(find).await?;
    let (n_columns, pool, cores) = (names.len(), pool.clone(), cores.clone());
    let rows = stream::iter(0..n_chunks as i32)
        .map(move |position| rows(pool.clone(), cores.clone(), id, position, n_columns))
        .buffered(AHEAD);
    let rows = rows.scan(false, move |is_broken, rows| {
        let rows = match rows {
            Ok(rows) if !*is_broken => Some(rows),
            Ok(_) => None,
            Err(error) => {
                let reason = error.told();
                log::warn!("the download of dataset {id} is broken off: {reason}");
                // Rocket would end the reply in order: the connection must be gone before.
                lifeline.cut();
                *is_broken = true;
                None
            }
        };
        std::future::ready(rows)
    });
    let body = stream::iter([print_header(&names)]).chain(rows).boxed();
    Ok(Download { name: format!("dataset_{id}.csv"), body })
}

/// The rows of one chunk.
async fn rows(pool: Pool, cores: Cores, id: i32, position: i32, n_columns: usize) -> Result<Vec<u8>, ApiError> {
    let cells = pool.run(move |conn| Ok(datasets::cells(conn, id, position)?)).await?;
    cores.run(move || Ok(print_rows(&cells, n_columns))).await
}
