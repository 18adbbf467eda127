//! A CSV of training rows on its way from a request into the database.
//!
//! Its pieces are read on all cores as they arrive. What is small is held until all of it is known to be right, and stored with
//! the job. What is large is stored chunk by chunk in between, where nobody sees it before the last chunk is in; nothing is left
//! of it if that never comes. So the memory that an upload takes does not grow with its size.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::anyhow;
use diesel::pg::PgConnection;
use rocket::tokio::task::JoinHandle;

use super::body::{Cores, Csv, refused};
use super::error::ApiError;
use crate::db::datasets::{self, NewRows, Upload};
use crate::db::idempotency::Digest;
use crate::db::{self, Pool};
use crate::table::{Encoded, Header, Piece, Reader, Statistics};
use crate::training;

/// Chunks that are held before the first one is stored.
const MOST_HELD: usize = 4;
/// Chunks that are on their way to the database at once.
const MOST_UNDER_WAY: usize = 2;
/// How often the database hears that the upload goes on: a few times before it would give it up.
const RENEWAL: Duration = Duration::from_secs(30);

/// An upload that is complete and right, but not visible yet.
pub(super) struct Uploaded {
    /// To be inserted.
    pub(super) upload: Upload,
    /// The size of its CSV.
    pub(super) n_bytes: u64,
    /// The digest of its CSV, if that was asked for.
    pub(super) digest: Option<Digest>,
    /// What is stored of it until then.
    pub(super) trace: Trace,
}

/// What is stored of an upload, if anything. Dropping it drops what is stored.
pub(super) struct Trace(Option<Arriving>);

impl Trace {
    /// Hands on what came of the wish to make the upload visible: a number, and whether an earlier request has made what stands
    /// there, so that this upload is not needed. What is stored of it is dropped if it is not needed, or if that has failed.
    pub(super) async fn settle<E>(self, result: Result<(i32, bool), E>) -> Result<(i32, bool), E> {
        match (self.0, &result) {
            (Some(stored), Ok((_, false))) => stored.keep(),
            (Some(stored), _) => stored.forget().await,
            (None, _) => {}
        }
        result
    }
}

/// Reads the rows of a CSV; `check` sees the columns' names first, and tells which of them holds the rows' weights; `grow` sees
/// from time to time how many rows there are.
///
/// # Errors
/// Those of the body and of the database; 422 for the first thing that is wrong in the CSV, or that `check` or `grow` refuses.
pub(super) async fn receive(
    csv: Csv<'_>,
    cores: &Cores,
    pool: &Pool,
    owner: Option<i32>,
    check: impl FnOnce(&[String]) -> Result<Option<usize>, ApiError>,
    grow: impl Fn(&[String], usize) -> Result<(), ApiError>,
) -> Result<Uploaded, ApiError> {
    let choose = |header: &Header| {
        let reader = Reader::of_all(header).map_err(|error| refused(error.into()))?;
        let weight = check(header.names())?;
        Ok((reader.with_weights(weight), header.names().to_vec()))
    };
    let work = |(reader, _): &(Reader, Vec<String>), piece: Piece| {
        // All that the cells themselves are needed for, while they are in the cache.
        let cells = reader.read(&piece).map_err(refused)?;
        let mut statistics = Statistics::new(reader.n_columns());
        statistics.add(&cells);
        Ok((Encoded::of(&cells), statistics))
    };
    let mut reading = csv.read(cores, choose, work).await?;
    let columns = reading.reader().1.clone();
    let mut store = Store::new(pool.clone(), owner, columns);
    let received = loop {
        match reading.next().await {
            Ok(Some((cells, statistics))) => {
                store.statistics.merge(&statistics);
                if let Err(error) = store.take(cells).await.and_then(|()| grow(&store.columns, store.n_rows)) {
                    break Err(error);
                }
            }
            Ok(None) => break store.finish().await,
            Err(error) => break Err(error),
        }
    };
    match received {
        Ok((upload, stored)) => {
            Ok(Uploaded { upload, n_bytes: reading.n_bytes(), digest: reading.digest(), trace: Trace(stored) })
        }
        Err(error) => {
            store.abandon().await;
            Err(reading.refuse(error).await)
        }
    }
}

/// Where the rows go.
struct Store {
    pool: Pool,
    owner: Option<i32>,
    columns: Vec<String>,
    /// Rows that do not fill a chunk yet.
    rest: Encoded,
    cells_per_chunk: usize,
    n_rows: usize,
    statistics: Statistics,
    /// Chunks that are complete, as long as nothing is stored.
    held: Vec<Encoded>,
    stored: Option<Arriving>,
    /// Chunks on their way into the database, in order.
    under_way: VecDeque<JoinHandle<Result<(), db::Error>>>,
    n_chunks: i32,
}

impl Store {
    fn new(pool: Pool, owner: Option<i32>, columns: Vec<String>) -> Self {
        let n_columns = columns.len();
        Self {
            pool,
            owner,
            columns,
            rest: Encoded::of(&[]),
            cells_per_chunk: training::rows_per_chunk(n_columns) * n_columns,
            n_rows: 0,
            statistics: Statistics::new(n_columns),
            held: Vec::new(),
            stored: None,
            under_way: VecDeque::new(),
            n_chunks: 0,
        }
    }

    /// Takes the next rows.
    async fn take(&mut self, cells: Encoded) -> Result<(), ApiError> {
        self.n_rows += cells.n_cells() / self.columns.len();
        if self.rest.n_cells() == 0 {
            self.rest = cells;
        } else {
            let damaged = || ApiError::internal(anyhow!("the cells of an upload are damaged"));
            self.rest.append(cells).ok_or_else(damaged)?;
        }
        while self.rest.n_cells() > self.cells_per_chunk {
            let rest = self.rest.split_off(self.cells_per_chunk);
            let chunk = std::mem::replace(&mut self.rest, rest);
            self.take_chunk(chunk).await?;
        }
        Ok(())
    }

    async fn take_chunk(&mut self, chunk: Encoded) -> Result<(), ApiError> {
        if self.stored.is_none() && self.held.len() < MOST_HELD {
            self.held.push(chunk);
            return Ok(());
        }
        let dataset_id = match &self.stored {
            Some(stored) => stored.dataset_id,
            None => {
                let (owner, columns) = (self.owner, self.columns.clone());
                let dataset_id = self.pool.run(move |conn| Ok(datasets::begin(conn, owner, &columns)?)).await?;
                self.stored = Some(Arriving::new(self.pool.clone(), dataset_id));
                dataset_id
            }
        };
        for chunk in std::mem::take(&mut self.held).into_iter().chain([chunk]) {
            self.store(dataset_id, chunk).await?;
        }
        Ok(())
    }

    /// Begins to store a chunk, once there is room for it on the way.
    async fn store(&mut self, dataset_id: i32, chunk: Encoded) -> Result<(), ApiError> {
        if self.under_way.len() >= MOST_UNDER_WAY {
            self.await_chunk().await?;
        }
        let (pool, position) = (self.pool.clone(), self.n_chunks);
        self.n_chunks += 1;
        self.under_way.push_back(tokio::spawn(async move {
            let store = move |conn: &mut PgConnection| Ok(datasets::insert_chunk(conn, dataset_id, position, &chunk)?);
            pool.run(store).await
        }));
        Ok(())
    }

    async fn await_chunk(&mut self) -> Result<(), ApiError> {
        if let Some(chunk) = self.under_way.pop_front() {
            chunk.await.map_err(|panic| ApiError::internal(panic.into()))??;
        }
        Ok(())
    }

    /// Drops what is stored.
    async fn abandon(mut self) {
        while let Some(chunk) = self.under_way.pop_front() {
            // Whatever comes of it, it is to be dropped.
            let _chunk = chunk.await;
        }
        if let Some(stored) = self.stored.take() {
            stored.forget().await;
        }
    }

    /// All rows are there.
    async fn finish(&mut self) -> Result<(Upload, Option<Arriving>), ApiError> {
        let rest = std::mem::replace(&mut self.rest, Encoded::of(&[]));
        if let Some(stored) = &self.stored {
            let dataset_id = stored.dataset_id;
            self.store(dataset_id, rest).await?;
            while !self.under_way.is_empty() {
                self.await_chunk().await?;
            }
        } else {
            self.held.push(rest);
        }
        let stored = self.stored.take();
        let rows = match &stored {
            Some(stored) => NewRows::Stored(stored.dataset_id),
            None => NewRows::Held(std::mem::take(&mut self.held)),
        };
        let (columns, statistics) = (std::mem::take(&mut self.columns), self.statistics.clone());
        let upload = Upload { columns, n_rows: self.n_rows, statistics, name: None, is_standalone: false, rows };
        Ok((upload, stored))
    }
}

/// A dataset that is stored while it arrives. Unless it is kept, it is dropped with this.
struct Arriving {
    pool: Pool,
    dataset_id: i32,
    is_settled: bool,
    renewal: JoinHandle<()>,
}

impl Arriving {
    fn new(pool: Pool, dataset_id: i32) -> Self {
        let shared = pool.clone();
        let renewal = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEWAL).await;
                if let Err(error) = shared.run(move |conn| Ok(datasets::renew(conn, dataset_id)?)).await {
                    log::warn!("an upload could not be renewed: {:#}", anyhow::Error::from(error));
                }
            }
        });
        Self { pool, dataset_id, is_settled: false, renewal }
    }

    /// It is complete.
    fn keep(mut self) {
        self.is_settled = true;
    }

    /// It will not be complete.
    async fn forget(mut self) {
        self.is_settled = true;
        forget(self.pool.clone(), self.dataset_id).await;
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.renewal.abort();
        if !self.is_settled {
            // The request was dropped: nobody is left to wait for it.
            tokio::spawn(forget(self.pool.clone(), self.dataset_id));
        }
    }
}

/// Drops what is stored of an upload. If that fails, it is done by those who look for abandoned uploads.
async fn forget(pool: Pool, dataset_id: i32) {
    if let Err(error) = pool.run(move |conn| Ok(datasets::forget(conn, dataset_id)?)).await {
        log::warn!("what was stored of an upload could not be dropped yet: {:#}", anyhow::Error::from(error));
    }
}
