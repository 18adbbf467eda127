//! Predictions for the rows of a CSV, piece by piece on all cores.

use std::sync::Arc;
use std::time::Duration;

use rocket::futures::Stream;
use rocket::futures::stream::{self, BoxStream, StreamExt};
use rocket::http::ContentType;
use rocket::response::stream::ByteStream;
use rocket::response::{self, Responder};
use rocket::{Request, Response};

use super::super::body::{Cores, Csv, Reading, refused};
use super::super::connections::Lifeline;
use super::super::error::ApiError;
use super::super::metrics::{Metrics, Purpose};
use super::evaluate;
use crate::table::{Header, Piece, Reader};
use crate::training::FittedModel;

/// Bytes of predictions that are held before the reply begins: mistakes so far have a status and a sentence of their own, and
/// clients that read nothing before they have sent everything are not stuck.
const MOST_HELD: usize = 32 << 20;
/// Bytes that are handed on at once.
const CHUNK: usize = 64 << 10;
/// How long the last words of a reply that is broken off have to get through.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The reply: of a size that is known, or as it comes into being.
pub(super) enum Predicted<'r> {
    Whole(ContentType, Vec<u8>),
    Growing(BoxStream<'r, Vec<u8>>),
}

impl<'r> Responder<'r, 'r> for Predicted<'r> {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'r> {
        let response = match self {
            Self::Whole(content_type, body) => (content_type, body).respond_to(request)?,
            Self::Growing(body) => (ContentType::CSV, ByteStream(body)).respond_to(request)?,
        };
        Response::build_from(response).max_chunk_size(CHUNK).ok()
    }
}

/// A model, and what it needs of a CSV.
type Predictor = (Reader, Arc<FittedModel>);

fn predictor(header: &Header, model: Arc<FittedModel>) -> Result<Predictor, ApiError> {
    Ok((Reader::of(header, &model.features).map_err(|error| refused(error.into()))?, model))
}

fn predict((reader, model): &Predictor, piece: &Piece) -> Result<Vec<f64>, ApiError> {
    let cells = reader.read(piece).map_err(refused)?;
    evaluate(model, &cells, |row| format!("data: line {}", piece.line_of_row(row).unwrap_or_default()))
}

/// The predictions as a list, printed on all cores as well.
///
/// # Errors
/// Those of the body; 422 for the first thing that is wrong.
pub(super) async fn as_json<'r>(
    csv: Csv<'r>,
    model: Arc<FittedModel>,
    cores: &Cores,
    metrics: &Metrics,
) -> Result<Predicted<'r>, ApiError> {
    let choose = |header: &Header| predictor(header, model);
    let work = |predictor: &Predictor, piece: Piece| predict(predictor, &piece).map(|result| print(&result, b','));
    let mut reading = csv.read(cores, choose, work).await?;
    let mut list = br#"{"result":["#.to_vec();
    let mut n_rows = 0;
    loop {
        match reading.next().await {
            Ok(Some((text, n))) => {
                n_rows += n;
                list.extend_from_slice(&text);
            }
            Ok(None) => break,
            Err(error) => return Err(reading.refuse(error).await),
        }
    }
    list.pop_if(|last| *last == b',');
    list.extend_from_slice(b"]}");
    metrics.received(Purpose::Prediction, reading.n_bytes(), n_rows);
    Ok(Predicted::Whole(ContentType::JSON, list))
}

/// The predictions as a CSV, which is sent while more of it is made once it is large.
///
/// # Errors
/// Those of the body; 422 for the first thing that is wrong before the reply begins. What is wrong later breaks it off.
pub(super) async fn as_csv<'r>(
    csv: Csv<'r>,
    model: Arc<FittedModel>,
    cores: &Cores,
    metrics: Metrics,
    lifeline: Lifeline,
) -> Result<Predicted<'r>, ApiError> {
    let choose = |header: &Header| predictor(header, model);
    let work = |predictor: &Predictor, piece: Piece| predict(predictor, &piece).map(|result| print(&result, b'\n'));
    let mut reading = csv.read(cores, choose, work).await?;
    let mut held = b"prediction\n".to_vec();
    let mut n_rows = 0;
    loop {
        match reading.next().await {
            Ok(Some((text, n))) => {
                n_rows += n;
                held.extend_from_slice(&text);
            }
            Ok(None) => {
                metrics.received(Purpose::Prediction, reading.n_bytes(), n_rows);
                return Ok(Predicted::Whole(ContentType::CSV, held));
            }
            Err(error) => return Err(reading.refuse(error).await),
        }
        if held.len() > MOST_HELD {
            let rest = Rest { reading, metrics, lifeline, n_rows };
            return Ok(Predicted::Growing(stream::iter([held]).chain(rest.texts()).boxed()));
        }
    }
}

/// What is still to come.
struct Rest<R> {
    reading: R,
    metrics: Metrics,
    lifeline: Lifeline,
    n_rows: usize,
}

impl<'r, W, F> Rest<Reading<'r, W, (Vec<u8>, usize), F>>
where
    W: Send + Sync + 'static,
    F: Fn(&W, Piece) -> Result<(Vec<u8>, usize), ApiError> + Send + Copy + 'static,
{
    /// The rest of the reply. The last words of one that is broken off are a line that begins with `error:`.
    fn texts(self) -> impl Stream<Item = Vec<u8>> + Send + use<'r, W, F> {
        let start: Option<Result<Self, Lifeline>> = Some(Ok(self));
        stream::unfold(start, |state| async move {
            match state? {
                Ok(mut rest) => match rest.reading.next().await {
                    Ok(Some((text, n_rows))) => {
                        rest.n_rows += n_rows;
                        Some((text, Some(Ok(rest))))
                    }
                    Ok(None) => {
                        rest.metrics.received(Purpose::Prediction, rest.reading.n_bytes(), rest.n_rows);
                        None
                    }
                    Err(error) => {
                        let last_words = format!("error: {}\n", error.told()).into_bytes();
                        Some((last_words, Some(Err(rest.lifeline))))
                    }
                },
                Err(lifeline) => {
                    // Rocket would end the reply in order: the connection must be gone before.
                    tokio::time::sleep(LAST_WORDS).await;
                    lifeline.cut();
                    None
                }
            }
        })
    }
}

/// The numbers with `separator` behind each; the shortest decimals that read back as the same doubles. And how many there are.
fn print(predictions: &[f64], separator: u8) -> (Vec<u8>, usize) {
    let mut text = Vec::with_capacity(predictions.len() * 20);
    let mut number = zmij::Buffer::new();
    for value in predictions {
        text.extend_from_slice(number.format_finite(*value).as_bytes());
        text.push(separator);
    }
    (text, predictions.len())
}
