//! What an API process keeps of trained models, which never change: coefficients and documents, so that neither a prediction
//! nor a look at the document needs a query after the first.
//!
//! Another process may delete a model, or the dataset that its document names. PostgreSQL announces that, and the thread of
//! [`crate::watch`] hears it. What is kept is believed as long as that thread has looked a moment ago and the database has
//! answered it lately; otherwise the row is read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rocket::data::ByteUnit;

use crate::training::FittedModel;

/// How long the announcements are listened to closely after the last use of what is kept.
const WATCHED: Duration = Duration::from_secs(10);
/// Bytes that an entry takes beside its value, about.
const ENTRY_BYTES: usize = 200;
/// Bytes of a usual entry, by which the cache's table is laid out; it may hold more and fewer.
const USUAL_BYTES: u64 = 8 << 10;

/// The cache of one process. Cloning shares it.
#[derive(Debug, Clone)]
pub struct ModelCache {
    /// What predictions need.
    pub predictors: Kept<FittedModel>,
    /// The documents as they are sent.
    pub documents: Kept<str>,
    trust: Arc<Trust>,
}

impl ModelCache {
    /// An empty cache that holds at most `most`, one half of it coefficients, the other documents.
    pub fn new(most: ByteUnit) -> Self {
        let trust = Arc::<Trust>::default();
        Self { predictors: Kept::new(most / 2, &trust), documents: Kept::new(most / 2, &trust), trust }
    }

    /// Forgets what is kept of the model `id`: it was deleted, or has changed.
    pub fn forget(&self, id: i32) {
        self.predictors.forget(id);
        self.documents.forget(id);
    }

    /// Forgets everything: announcements may have been missed.
    pub(crate) fn forget_all(&self) {
        self.predictors.forget_all();
        self.forget_documents();
    }

    /// Forgets all documents: a dataset that some of them name was deleted.
    pub fn forget_documents(&self) {
        self.documents.forget_all();
    }

    /// Names the thread that listens, so that it can be woken.
    pub(crate) fn set_watcher(&self, thread: Thread) {
        let _set_once = self.trust.watcher.set(thread);
    }

    /// Whether somebody uses what is kept, so that the announcements have to be listened to closely.
    pub(crate) fn is_used(&self) -> bool {
        self.trust.times().last_use.is_some_and(|at| at.elapsed() < WATCHED)
    }

    /// Believes what is kept until then; `None`: no longer.
    pub(crate) fn believe_until(&self, until: Option<Instant>) {
        self.trust.times().until = until;
    }
}

/// Until when what is kept is believed, and who has to know that somebody uses it.
#[derive(Debug, Default)]
struct Trust {
    times: Mutex<Times>,
    watcher: OnceLock<Thread>,
}

#[derive(Debug, Default)]
struct Times {
    until: Option<Instant>,
    last_use: Option<Instant>,
}

impl Trust {
    fn times(&self) -> MutexGuard<'_, Times> {
        lock(&self.times)
    }

    /// Whether what is kept is believed now. If not, the thread that listens is woken.
    fn holds(&self) -> bool {
        let now = Instant::now();
        let mut times = self.times();
        times.last_use = Some(now);
        let holds = times.until.is_some_and(|until| now < until);
        if !holds && let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
        holds
    }
}

/// What can be kept.
pub trait Size {
    /// Bytes, about.
    fn n_bytes(&self) -> usize;
}

impl Size for str {
    fn n_bytes(&self) -> usize {
        self.len()
    }
}

impl Size for FittedModel {
    fn n_bytes(&self) -> usize {
        let names: usize = self.features.iter().map(|name| size_of::<String>() + name.len()).sum();
        names + size_of_val(self.coef.as_slice())
    }
}

/// Values of one kind by the id of their model. Those that were not used for long make room for others.
#[derive(Debug)]
pub struct Kept<T: Size + ?Sized> {
    shelf: Arc<Shelf<T>>,
    trust: Arc<Trust>,
}

#[derive(Debug)]
struct Shelf<T: Size + ?Sized> {
    entries: Cache<i32, Entry<T>, ByBytes>,
    /// For each model whose row is being read, the place of whoever reads it.
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    taken: HashMap<i32, u64>,
    n_given: u64,
}

/// A value, and whose it is: for others it does not exist.
#[derive(Debug)]
struct Entry<T: ?Sized> {
    owner: Option<i32>,
    value: Arc<T>,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl<T: Size + ?Sized> Weighter<i32, Entry<T>> for ByBytes {
    fn weight(&self, _id: &i32, entry: &Entry<T>) -> u64 {
        (ENTRY_BYTES + entry.value.n_bytes()) as u64
    }
}

impl<T: Size + ?Sized> Kept<T> {
    fn new(most: ByteUnit, trust: &Arc<Trust>) -> Self {
        let most = most.as_u64();
        let entries = Cache::with_weighter((most / USUAL_BYTES) as usize, most, ByBytes);
        Self { shelf: Arc::new(Shelf { entries, places: Mutex::default() }), trust: Arc::clone(trust) }
    }

    /// What is kept of the model `id` of `owner`, or the place for it. Take the place before reading the row.
    ///
    /// # Errors
    /// The place, where nothing is kept, or is not believed.
    pub fn find(&self, owner: Option<i32>, id: i32) -> Result<Arc<T>, Place<T>> {
        if self.trust.holds()
            && let Some(entry) = self.shelf.entries.get(&id)
            && entry.owner == owner
        {
            return Ok(entry.value);
        }
        let mut places = lock(&self.shelf.places);
        places.n_given += 1;
        let number = places.n_given;
        places.taken.insert(id, number);
        Err(Place { shelf: Arc::clone(&self.shelf), owner, id, number })
    }

    fn forget(&self, id: i32) {
        let mut places = lock(&self.shelf.places);
        places.taken.remove(&id);
        self.shelf.entries.remove(&id);
    }

    fn forget_all(&self) {
        let mut places = lock(&self.shelf.places);
        places.taken.clear();
        self.shelf.entries.clear();
    }
}

/// The right to keep what is being read now. It is lost when the row is announced to have changed meanwhile.
#[derive(Debug)]
pub struct Place<T: Size + ?Sized> {
    shelf: Arc<Shelf<T>>,
    owner: Option<i32>,
    id: i32,
    number: u64,
}

impl<T: Size + ?Sized> Place<T> {
    /// Keeps what was read.
    pub fn keep(self, value: Arc<T>) {
        let places = lock(&self.shelf.places);
        if places.taken.get(&self.id) == Some(&self.number) {
            self.shelf.entries.insert(self.id, Entry { owner: self.owner, value });
        }
        drop(places);
    }
}

impl<T: Size + ?Sized> Drop for Place<T> {
    fn drop(&mut self) {
        let mut places = lock(&self.shelf.places);
        if places.taken.get(&self.id) == Some(&self.number) {
            places.taken.remove(&self.id);
        }
    }
}

impl<T: ?Sized> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self { owner: self.owner, value: Arc::clone(&self.value) }
    }
}

impl<T: Size + ?Sized> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self { shelf: Arc::clone(&self.shelf), trust: Arc::clone(&self.trust) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
