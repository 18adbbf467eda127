//! A CSV that is read piece by piece, from a body as it arrives or from a text that is there.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::super::error::ApiError;
use super::super::{SMALL, compute};
use super::field::{Field, Next};
use super::{BodyStream, Held};
use crate::db;
use crate::db::idempotency::Digest;
use crate::table::{Header, Piece, Pieces, ReadError};

/// What a body takes of the room for uploads while it is read piece by piece, however large it is.
const MOST_HELD: u64 = 64 << 20;
/// Bytes of a text that are copied into pieces at once.
const CHUNK: usize = 1 << 20;

/// The cores, which all requests share for reading CSV: each piece waits for its turn.
#[derive(Debug, Clone)]
pub(in crate::web) struct Cores {
    turns: Arc<Semaphore>,
    n: usize,
}

impl Cores {
    /// Those of the machine.
    pub(in crate::web) fn new() -> Self {
        let n = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { turns: Arc::new(Semaphore::new(n)), n }
    }

    /// Does some work on a thread that may block, when it is its turn.
    pub(in crate::web) async fn run<T, F>(self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, ApiError> + Send + 'static,
    {
        let turn = self.turns.acquire_owned().await.map_err(|closed| ApiError::internal(closed.into()))?;
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|panic| ApiError::from(db::Error::Panicked(panic)))?
    }
}

/// The pieces of a CSV.
pub(in crate::web) struct Csv<'r> {
    source: Source<'r>,
    pieces: Option<Pieces>,
    n_bytes: u64,
    digest: Option<Sha256>,
}

enum Source<'r> {
    /// A body, with the account of what is held of it and its size as announced.
    Body { stream: BodyStream<'r>, held: &'r Held, announced: u64 },
    /// A text in a body of JSON.
    Field(Field<'r>),
    /// A text that came in another body, and how much of it has been read.
    Text { text: String, at: usize },
}

impl<'r> Csv<'r> {
    /// The CSV that a body is.
    pub(super) fn of_body(stream: BodyStream<'r>, held: &'r Held, announced: u64) -> Self {
        Self::of(Source::Body { stream, held, announced })
    }

    /// The CSV inside a body of JSON that has not arrived yet.
    pub(super) fn of_field(field: Field<'r>) -> Self {
        Self::of(Source::Field(field))
    }

    /// The CSV that came inside another body.
    pub(in crate::web) fn of_text(text: String) -> Self {
        Self::of(Source::Text { text, at: 0 })
    }

    fn of(source: Source<'r>) -> Self {
        Self { source, pieces: Some(Pieces::default()), n_bytes: 0, digest: None }
    }

    /// The same, with its digest if that is needed.
    pub(in crate::web) fn with_digest(self, is_needed: bool) -> Self {
        Self { digest: is_needed.then(Sha256::new), ..self }
    }

    /// Its bytes, as far as they have been read.
    pub(in crate::web) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Piece>, ApiError> {
        while let Some(pieces) = &mut self.pieces {
            if let Some(piece) = pieces.next_piece().map_err(|error| refused(error.into()))? {
                return Ok(Some(piece));
            }
            let n_read = match &mut self.source {
                Source::Body { stream, held, announced } => match stream.next().await? {
                    Some(chunk) => {
                        let received = self.n_bytes + chunk.len() as u64;
                        held.reserve(received.min(MOST_HELD), (*announced).min(MOST_HELD))?;
                        self.digest.iter_mut().for_each(|digest| digest.update(&chunk));
                        pieces.push(&chunk);
                        chunk.len()
                    }
                    None => 0,
                },
                Source::Field(field) => match field.next().await? {
                    Next::Chunk(chunk) => {
                        self.digest.iter_mut().for_each(|digest| digest.update(&chunk));
                        pieces.push(&chunk);
                        chunk.len()
                    }
                    Next::Text(text) => {
                        self.source = Source::Text { text, at: 0 };
                        continue;
                    }
                    Next::End => 0,
                },
                Source::Text { text, at } => {
                    let chunk = &text.as_bytes()[*at..text.len().min(*at + CHUNK)];
                    self.digest.iter_mut().for_each(|digest| digest.update(chunk));
                    pieces.push(chunk);
                    *at += chunk.len();
                    chunk.len()
                }
            };
            self.n_bytes += n_read as u64;
            if n_read == 0 {
                return Ok(self.pieces.take().and_then(Pieces::last));
            }
        }
        Ok(None)
    }

    /// Reads what is left of the body, within reason, and hands back `error`: a client that is still sending would not see the
    /// reply.
    pub(in crate::web) async fn refuse(mut self, error: ApiError) -> ApiError {
        match &mut self.source {
            Source::Body { stream, .. } => stream.refuse(error).await,
            Source::Field(field) => field.refuse(error).await,
            Source::Text { .. } => error,
        }
    }

    /// Reads the header and has `work` done for each piece below it, on all cores, by what `choose` makes of the header.
    ///
    /// # Errors
    /// Those of the body; what is wrong with the header; what `choose` refuses.
    pub(in crate::web) async fn read<W, T, F>(
        mut self,
        cores: &Cores,
        choose: impl FnOnce(&Header) -> Result<W, ApiError>,
        work: F,
    ) -> Result<Reading<'r, W, T, F>, ApiError>
    where
        W: Send + Sync + 'static,
        T: Send + 'static,
        F: Fn(&W, Piece) -> Result<T, ApiError> + Send + Copy + 'static,
    {
        match self.read_header().await.and_then(|(header, rest)| Ok((choose(&header)?, rest))) {
            Ok((reader, rest)) => {
                let most = cores.n + 1;
                let cores = cores.clone();
                let mut reading =
                    Reading { csv: self, cores, reader: Arc::new(reader), work, under_way: VecDeque::new(), most };
                reading.start(rest);
                Ok(reading)
            }
            Err(error) => Err(self.refuse(error).await),
        }
    }

    /// The header, and what comes with it.
    async fn read_header(&mut self) -> Result<(Header, Piece), ApiError> {
        while let Some(mut piece) = self.next().await? {
            let n_bytes = piece.n_bytes();
            let take = move || Ok((Header::take(&mut piece).map_err(refused)?, piece));
            if let (Some(header), piece) = compute(n_bytes, take).await? {
                return Ok((header, piece));
            }
        }
        Err(refused(crate::table::CsvError::Empty.into()))
    }
}

/// A CSV that is being read on all cores.
pub(in crate::web) struct Reading<'r, W, T, F> {
    csv: Csv<'r>,
    cores: Cores,
    reader: Arc<W>,
    work: F,
    /// In the order of the pieces.
    under_way: VecDeque<Work<T>>,
    /// So many pieces are held at once.
    most: usize,
}

impl<W, T, F> Reading<'_, W, T, F>
where
    W: Send + Sync + 'static,
    T: Send + 'static,
    F: Fn(&W, Piece) -> Result<T, ApiError> + Send + Copy + 'static,
{
    /// What came of the next piece, in the order of the text; `None` at the end.
    ///
    /// # Errors
    /// Those of the body, and of the work. Nothing comes after an error; [`Self::refuse`] has yet to read what is left.
    pub(in crate::web) async fn next(&mut self) -> Result<Option<T>, ApiError> {
        while self.under_way.len() < self.most {
            match self.csv.next().await {
                Ok(Some(piece)) => self.start(piece),
                Ok(None) => break,
                // What is wrong with all of it comes first, or else what is wrong in front.
                Err(error) if matches!(&self.csv.source, Source::Field(field) if field.is_judged()) => {
                    return Err(error);
                }
                Err(error) => {
                    while let Some(work) = self.under_way.pop_front() {
                        work.done().await?;
                    }
                    return Err(error);
                }
            }
        }
        match self.under_way.pop_front() {
            Some(work) => work.done().await.map(Some),
            None => Ok(None),
        }
    }

    /// Its bytes, as far as they have been read.
    pub(in crate::web) fn n_bytes(&self) -> u64 {
        self.csv.n_bytes()
    }

    /// The digest of all that has been read, if it was asked for.
    pub(in crate::web) fn digest(&mut self) -> Option<Digest> {
        self.csv.digest.take().map(|digest| digest.finalize().into())
    }

    /// What was made of the header.
    pub(in crate::web) fn reader(&self) -> &W {
        &self.reader
    }

    /// Gives up; see [`Csv::refuse`].
    pub(in crate::web) async fn refuse(self, error: ApiError) -> ApiError {
        self.csv.refuse(error).await
    }

    fn start(&mut self, piece: Piece) {
        let (reader, work) = (Arc::clone(&self.reader), self.work);
        self.under_way.push_back(if piece.n_bytes() <= SMALL {
            Work::Done(work(&reader, piece))
        } else {
            Work::UnderWay(tokio::spawn(self.cores.clone().run(move || work(&reader, piece))))
        });
    }
}

/// The work on a piece; that on a small one is done on the spot.
enum Work<T> {
    Done(Result<T, ApiError>),
    UnderWay(JoinHandle<Result<T, ApiError>>),
}

impl<T> Work<T> {
    async fn done(self) -> Result<T, ApiError> {
        match self {
            Self::Done(result) => result,
            Self::UnderWay(work) => work.await.map_err(|panic| ApiError::from(db::Error::Panicked(panic)))?,
        }
    }
}

/// What is wrong with a CSV, as a reply.
pub(in crate::web) fn refused(error: ReadError) -> ApiError {
    match error {
        ReadError::Csv(error) => ApiError::invalid(format!("data: {error}")),
        ReadError::NotUtf8 { .. } => ApiError::malformed(format!("the body is {error}")),
    }
}
