//! A body as it arrives: decoded, in chunks, not larger and not slower than allowed.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::write::MultiGzDecoder;
use rocket::data::{ByteUnit, Data, DataStream};
use tokio::io::AsyncReadExt;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::super::error::ApiError;

/// Most bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// Most compressed bytes that are read at once: they may become a thousand times as many.
const COMPRESSED_CHUNK: usize = 8 << 10;
/// Compressed bytes that are decoded at once, and what may come out before other requests have their turn on the thread.
const DECODED_AT_ONCE: usize = 512;
const TURN: usize = 256 << 10;
/// How long, and how much at least, the rest of a body that is refused is read and thrown away, so that the client sees the
/// reply and not a broken connection.
const DRAIN: Duration = Duration::from_secs(10);
/// A client that sends nothing for so long is waiting for the reply, and not still sending.
const SILENCE: Duration = Duration::from_secs(2);
pub(super) const DRAINED: ByteUnit = ByteUnit::Mebibyte(64);

/// How a body is encoded on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// As it is.
    Identity,
    /// gzip, one member or more.
    Gzip,
}

/// How slowly a body may arrive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Longest time without a byte.
    pub(super) stall: Duration,
    /// Bytes a second that it must bring on average, after a start of `stall`.
    pub(super) rate: ByteUnit,
}

/// The chunks of a body. Only one chunk is held at a time, however large the body is.
pub(in crate::web) struct BodyStream<'r> {
    raw: DataStream<'r>,
    /// `None`: the body is taken as it is.
    gunzip: Option<MultiGzDecoder<Decoded>>,
    limit: ByteUnit,
    pace: Pace,
    began: Instant,
    /// Bytes that have arrived, and those that have come out of them.
    received: u64,
    decoded: u64,
    ended: bool,
}

impl<'r> BodyStream<'r> {
    /// The body `data`, of which no more than `limit` bytes are taken, neither as they arrive nor decoded.
    pub(super) fn new(data: Data<'r>, coding: Coding, limit: ByteUnit, pace: Pace) -> Self {
        let gunzip = (coding == Coding::Gzip)
            .then(|| MultiGzDecoder::new(Decoded { bytes: Vec::new(), room: limit.as_u64(), is_over: false }));
        // More than is taken: the rest of a body that is too large is read as well, and thrown away.
        let raw = data.open(limit + limit.max(DRAINED));
        Self { raw, gunzip, limit, pace, began: Instant::now(), received: 0, decoded: 0, ended: false }
    }

    /// The next decoded bytes, at least one; `None` at the end.
    ///
    /// # Errors
    /// 413 when the body exceeds its limit, 408 when it stalls or crawls, 400 when it breaks off or is not gzip. Nothing
    /// comes after an error.
    pub(in crate::web) async fn next(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        while !self.ended {
            let chunk = self.read().await?;
            let chunk = match self.decode(chunk).await {
                Ok(chunk) => chunk,
                Err(error) => return Err(self.refuse(error).await),
            };
            self.decoded += chunk.len() as u64;
            if self.received.max(self.decoded) > self.limit.as_u64() {
                return Err(self.refuse(ApiError::too_large(self.limit)).await);
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// Reads what is left, within reason, and hands back `error`: a client that is still sending would not see the reply.
    /// Nothing is left of one that has ended, or that does not arrive any more.
    pub(in crate::web) async fn refuse(&mut self, error: ApiError) -> ApiError {
        if !std::mem::replace(&mut self.ended, true) {
            drain(&mut self.raw).await;
        }
        error
    }

    /// The next bytes as they arrive; none at the end.
    async fn read(&mut self) -> Result<Vec<u8>, ApiError> {
        let Pace { stall, rate } = self.pace;
        let most = if self.gunzip.is_some() { COMPRESSED_CHUNK } else { CHUNK };
        let mut chunk = Vec::with_capacity(most);
        let due = self.began + stall + Duration::from_secs_f64(self.received as f64 / rate.as_u64() as f64);
        let left = due.saturating_duration_since(Instant::now());
        let read = timeout(stall.min(left), self.raw.read_buf(&mut chunk)).await;
        self.ended = !matches!(read, Ok(Ok(1..)));
        match read {
            Ok(Ok(n)) => {
                self.received += n as u64;
                Ok(chunk)
            }
            Ok(Err(error)) => {
                log::debug!("a body broke off: {error}");
                Err(broken())
            }
            Err(_elapsed) => {
                let (received, stall) = (self.received, stall.as_secs());
                Err(ApiError::timeout(format!(
                    "the body stalled after {received} bytes: it must not pause for {stall} s, and must bring {rate} a second"
                )))
            }
        }
    }

    /// What comes out of `chunk`, and at the end out of all that went before.
    async fn decode(&mut self, chunk: Vec<u8>) -> Result<Vec<u8>, ApiError> {
        let Some(gunzip) = &mut self.gunzip else {
            return Ok(chunk);
        };
        let mut result = Ok(());
        let mut turn = TURN;
        for bytes in chunk.chunks(DECODED_AT_ONCE) {
            result = gunzip.write_all(bytes);
            if result.is_err() {
                break;
            }
            let n_decoded = gunzip.get_ref().bytes.len();
            if n_decoded >= turn {
                turn = n_decoded + TURN;
                yield_now().await;
            }
        }
        if self.ended {
            result = gunzip.try_finish();
        }
        let decoded = gunzip.get_mut();
        if decoded.is_over {
            return Err(ApiError::too_large(self.limit));
        }
        let bytes = std::mem::take(&mut decoded.bytes);
        result.map(|()| bytes).map_err(|error| {
            ApiError::malformed(format!(
                "the body is not the gzip that its Content-Encoding says, or broken off: {error}"
            ))
        })
    }
}

/// 400: the client ended before its body did.
pub(super) fn broken() -> ApiError {
    ApiError::malformed("the body broke off before its end")
}

/// Reads a body that nobody wants, as far as it comes in time.
pub(super) async fn drain(raw: &mut DataStream<'_>) {
    let rest = async {
        let mut chunk = Vec::with_capacity(CHUNK);
        // Silence, an error and the end are all the same: the reply can go.
        while let Ok(Ok(1..)) = timeout(SILENCE, raw.read_buf(&mut chunk)).await {
            chunk.clear();
        }
    };
    let _cut_off = timeout(DRAIN, rest).await;
}

/// Takes what the decoder writes, up to a limit.
struct Decoded {
    bytes: Vec<u8>,
    room: u64,
    is_over: bool,
}

impl Write for Decoded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.room.checked_sub(bytes.len() as u64) {
            Some(room) => self.room = room,
            None => {
                self.is_over = true;
                return Err(std::io::ErrorKind::FileTooLarge.into());
            }
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
