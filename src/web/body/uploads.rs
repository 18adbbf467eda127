//! The memory that request bodies may take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocket::Request;
use rocket::data::ByteUnit;
use rocket::fairing::{AdHoc, Fairing};

use super::super::error::ApiError;

/// Bodies up to this size are not counted, so that small requests get through however many large ones there are.
pub(super) const SMALL: u64 = 64 << 10;
/// What a body that is announced to be large takes before it has arrived.
const AHEAD: u64 = 16 << 20;

/// What all large bodies together hold, and may hold.
#[derive(Debug)]
pub(in crate::web) struct Uploads {
    limit: ByteUnit,
    held: AtomicU64,
}

impl Uploads {
    /// Room for `limit` bytes, to be managed by Rocket.
    pub(in crate::web) fn new(limit: ByteUnit) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicU64::new(0) })
    }

    /// The bytes that are held at the moment, and the most that may be.
    pub(in crate::web) fn usage(&self) -> (u64, u64) {
        (self.held.load(Ordering::Relaxed), self.limit.as_u64())
    }
}

/// Has each request give back what it held when its reply is made: a client that has the reply may send the next body.
pub(in crate::web) fn release() -> impl Fairing {
    AdHoc::on_response("uploads", |request, _| Box::pin(async move { Held::of(request).release() }))
}

/// What the body of one request holds, and what was made of it.
pub(super) struct Held {
    uploads: Option<Arc<Uploads>>,
    bytes: AtomicU64,
}

impl Held {
    /// The account of `request`, empty when first asked for.
    pub(super) fn of<'r>(request: &'r Request<'_>) -> &'r Self {
        request.local_cache(|| {
            let uploads = request.rocket().state::<Arc<Uploads>>();
            Self { uploads: uploads.cloned(), bytes: AtomicU64::new(0) }
        })
    }

    /// Takes the room for a body of which `received` bytes have arrived, and for the rest of the `announced` ones: at first
    /// [`AHEAD`] of it, then as much again as has arrived. Without any advance all large bodies that arrive at once would run
    /// out of room half-way; with all of it a client could take the room by mere words.
    ///
    /// # Errors
    /// 503 when others hold too much.
    pub(super) fn reserve(&self, received: u64, announced: u64) -> Result<(), ApiError> {
        self.grow_to(received.max(announced.min(AHEAD.max(2 * received))))
    }

    fn grow_to(&self, size: u64) -> Result<(), ApiError> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let (Some(uploads), true) = (&self.uploads, size > SMALL && size > bytes) else {
            return Ok(());
        };
        let more = size - bytes;
        let with_more = |held: u64| held.checked_add(more).filter(|&held| held <= uploads.limit.as_u64());
        match uploads.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_more) {
            Ok(_before) => {
                self.bytes.store(size, Ordering::Relaxed);
                Ok(())
            }
            Err(_held) => Err(ApiError::too_many_uploads(uploads.limit)),
        }
    }

    fn release(&self) {
        if let Some(uploads) = &self.uploads {
            uploads.held.fetch_sub(self.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

impl Drop for Held {
    /// A request that is given up has no reply.
    fn drop(&mut self) {
        self.release();
    }
}

/// The room that the body of a request takes, for whoever is done with the body long before the reply.
pub(in crate::web) struct Room<'r>(&'r Held);

impl<'r> Room<'r> {
    /// The room of `request`.
    pub(in crate::web) fn of(request: &'r Request<'_>) -> Self {
        Self(Held::of(request))
    }

    /// Gives it to others.
    pub(in crate::web) fn give_back(&self) {
        self.0.release();
    }
}
