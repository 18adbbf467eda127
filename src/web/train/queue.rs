//! The way of a job into the queue: what is checked before, and what is stored with it.

use std::borrow::Cow;

use diesel::QueryResult;
use diesel::pg::PgConnection;
use diesel::result::DatabaseErrorKind;

use super::super::auth::Caller;
use super::super::compute;
use super::super::error::ApiError;
use super::super::idempotency::{accept, find_earlier};
use super::super::ids;
use super::refused;
use super::request::Wish;
use crate::db::datasets::{self, NewRows, Upload};
use crate::db::idempotency::{self, Earlier, Keyed, Made};
use crate::db::{self, Pool};
use crate::queue::{self, EnqueueError, NewJob};
use crate::table::Encoded;
use crate::training::{self, Capacity, CheckError, StoredRows};

/// What came of the wish to queue a job.
enum Queued {
    /// It is queued as this model.
    New(i32),
    /// An earlier request of the same key has queued it.
    Earlier(Earlier),
    /// There is no room.
    Full,
}

/// What a job trains on.
enum Rows {
    /// A dataset.
    Of(i32),
    /// Rows that have just come in.
    New(Upload),
}

/// Where the jobs of a caller go. A job becomes a model, unless an earlier request of the same key has made one: the number is
/// the model's, and the flag says whether that is so.
pub(super) struct Queue<'a> {
    pub(super) pool: &'a Pool,
    pub(super) caller: Caller,
    pub(super) limit: u32,
    /// What the workers may take.
    pub(super) capacity: Capacity,
}

impl Queue<'_> {
    /// Looks for room before a large body is read, which would be sent in vain.
    ///
    /// # Errors
    /// 503 when as many jobs as allowed are waiting, unless a request of the same key is there already.
    pub(super) async fn expect_room(&self, key: Option<&str>) -> Result<(), ApiError> {
        let (owner, limit) = (self.caller.owner(), self.limit);
        // What it asks for is not known yet.
        let request = key.map(|key| Keyed { key: key.to_owned(), digest: [0; 32] });
        let look = move |conn: &mut PgConnection| match queue::check_room(conn, limit) {
            Ok(()) => Ok(true),
            Err(EnqueueError::Full) => match &request {
                Some(request) => Ok(idempotency::find(conn, Made::Model, owner, request)?.is_some()),
                None => Ok(false),
            },
            Err(EnqueueError::Query(error)) => Err(error.into()),
        };
        if self.pool.run(look).await? { Ok(()) } else { Err(ApiError::queue_full(self.limit)) }
    }

    /// Looks while rows come in whether they are too many columns, or too wide, for any worker.
    ///
    /// # Errors
    /// 422 with the memory that they would take.
    pub(super) fn expect_capacity(&self, wish: &Wish, columns: &[String], n_rows: usize) -> Result<(), ApiError> {
        training::check_growth(&wish.params, columns, n_rows, self.capacity).map_err(refused)
    }

    /// Queues a training on a dataset that may not exist, and may not fit.
    pub(super) async fn train_stored(
        &self,
        id: i32,
        wish: Wish,
        keyed: Option<Keyed>,
    ) -> Result<(i32, bool), ApiError> {
        // What was accepted once is not checked again, and needs no room in the queue.
        if let Some(id) = find_earlier(self.pool, Made::Model, self.caller, keyed.as_ref()).await? {
            return Ok((id, true));
        }
        let (owner, capacity) = (self.caller.owner(), self.capacity);
        let absent = |error| ids::unless_absent(error, "dataset", id);
        let check = move |conn: &mut PgConnection| Ok((check_stored(conn, owner, id, &wish, capacity)?, wish));
        let (checked, wish) = self.pool.run(check).await.map_err(absent)?;
        checked.map_err(refused)?;
        self.accept(self.enqueue(wish, keyed, Rows::Of(id)).await.map_err(absent)?)
    }

    /// Queues a training on rows that have just come in, and stores them with it.
    pub(super) async fn train_new(
        &self,
        upload: Upload,
        wish: Wish,
        keyed: Option<Keyed>,
    ) -> Result<(i32, bool), ApiError> {
        let (upload, wish) = self.check_new(upload, wish).await?;
        self.accept(self.enqueue(wish, keyed, Rows::New(upload)).await?)
    }

    /// Checks parameters against rows that have just come in. They are read again where they are stored already.
    async fn check_new(&self, upload: Upload, wish: Wish) -> Result<(Upload, Wish), ApiError> {
        let capacity = self.capacity;
        let (checked, upload, wish) = match upload.rows {
            NewRows::Held(_) => {
                let n_bytes = upload.n_rows * upload.columns.len() * size_of::<f64>();
                let check = move || {
                    let columns = &upload.columns;
                    let rows = held_rows(&upload.rows, columns.len());
                    let checked = training::check_rows(&wish.params, columns, &rows, capacity);
                    drop(rows);
                    Ok((checked, upload, wish))
                };
                compute(n_bytes, check).await?
            }
            NewRows::Stored(id) => {
                let check = move |conn: &mut PgConnection| {
                    let columns = &upload.columns;
                    let rows = stored_rows(conn, id, columns.len(), upload.n_rows)?;
                    let checked = own_errors_apart(training::check_rows(&wish.params, columns, &rows, capacity));
                    drop(rows);
                    Ok((checked?, upload, wish))
                };
                self.pool.run(check).await?
            }
        };
        checked.map_err(refused)?;
        Ok((upload, wish))
    }

    fn accept(&self, queued: Queued) -> Result<(i32, bool), ApiError> {
        match queued {
            Queued::New(id) => Ok((id, false)),
            Queued::Earlier(earlier) => Ok((accept(Made::Model, earlier)?, true)),
            Queued::Full => Err(ApiError::queue_full(self.limit)),
        }
    }

    /// Queues a training, with its rows where they are new.
    async fn enqueue(&self, wish: Wish, keyed: Option<Keyed>, rows: Rows) -> Result<Queued, db::Error> {
        let (owner, limit) = (self.caller.owner(), self.limit);
        let enqueue = move |conn: &mut PgConnection| {
            let Wish { params, name, tags } = &wish;
            let job = NewJob { owner, name: name.as_deref(), tags, params, request: keyed.as_ref() };
            if let Rows::New(upload) = &rows
                && let Some(id) = queue::enqueue_with_rows(conn, limit, upload, &job)?
            {
                return Ok(Queued::New(id));
            }
            let queued = conn.build_transaction().run(|conn| {
                if let Some(request) = &keyed
                    && let Some(earlier) = idempotency::find_or_reserve(conn, Made::Model, owner, request)?
                {
                    return Ok(Queued::Earlier(earlier));
                }
                queue::check_room(conn, limit)?;
                let dataset_id = match &rows {
                    Rows::Of(id) => *id,
                    Rows::New(upload) => datasets::insert(conn, owner, upload)?,
                };
                queue::enqueue(conn, limit, dataset_id, &job).map(Queued::New)
            });
            match queued {
                Ok(queued) => Ok(queued),
                Err(EnqueueError::Full) => Ok(Queued::Full),
                Err(EnqueueError::Query(error)) => Err(vanished(error).into()),
            }
        };
        self.pool.run(enqueue).await
    }
}

/// Checks parameters against the dataset `id` of `owner`, which is immutable as long as it is there.
fn check_stored(
    conn: &mut PgConnection,
    owner: Option<i32>,
    id: i32,
    wish: &Wish,
    capacity: Capacity,
) -> Result<Result<(), CheckError>, db::Error> {
    let shape = datasets::find_shape(conn, owner, id)?;
    let rows = stored_rows(conn, shape.id, shape.column_names.len(), shape.n_rows as usize)?;
    own_errors_apart(training::check_rows(&wish.params, &shape.column_names, &rows, capacity))
}

/// The `n_rows` rows of a dataset; `NotFound` when it was deleted meanwhile.
fn stored_rows(conn: &mut PgConnection, id: i32, n_columns: usize, n_rows: usize) -> QueryResult<StoredRows<'_>> {
    let sizes = datasets::chunk_sizes(conn, id)?;
    if sizes.iter().sum::<usize>() != n_rows * n_columns {
        return Err(diesel::result::Error::NotFound);
    }
    let read = move |chunk| Ok(Cow::Owned(datasets::chunk(conn, id, chunk as i32).map_err(db::Error::from)?));
    Ok(StoredRows::new(n_columns, &sizes, read))
}

/// The rows of so many columns that are held; none where they are stored.
fn held_rows(rows: &NewRows, n_columns: usize) -> StoredRows<'_> {
    let chunks: &[Encoded] = if let NewRows::Held(chunks) = rows { chunks } else { &[] };
    let sizes: Vec<usize> = chunks.iter().map(Encoded::n_cells).collect();
    StoredRows::new(n_columns, &sizes, |chunk| Ok(Cow::Borrowed(&chunks[chunk])))
}

/// That the database failed is not what the client did wrong.
fn own_errors_apart(checked: Result<(), CheckError>) -> Result<Result<(), CheckError>, db::Error> {
    match checked {
        Err(CheckError::Rows(error)) => match error.downcast::<db::Error>() {
            Ok(error) => Err(*error),
            Err(error) => Ok(Err(CheckError::Rows(error))),
        },
        checked => Ok(checked),
    }
}

/// The foreign key is what tells that a dataset was deleted between the check and now.
fn vanished(error: diesel::result::Error) -> diesel::result::Error {
    match error {
        diesel::result::Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _) => {
            diesel::result::Error::NotFound
        }
        error => error,
    }
}
