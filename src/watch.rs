//! Watches models for whoever waits for them, and for what is kept of them: one thread and one connection of a process,
//! however many wait.
//!
//! PostgreSQL announces every change of a model's status and progress (the migrations' triggers see to it). The thread looks
//! at the announced rows that somebody waits for, hands on what it sees, and forgets what was kept of them. Announcements are
//! hints: after connecting, and every second, it looks at all rows that are waited for, so that a lost one costs a second and
//! nothing else.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anyhow::Context;
use diesel::RunQueryDsl;
use diesel::pg::PgConnection;
use tokio::sync::{OnceCell, watch};

use crate::config::DatabaseUrl;
pub use crate::db::models::State;
use crate::db::{self, models};
use crate::model_cache::ModelCache;
use crate::pace::Pace;

/// The channel on which the triggers announce models.
const CHANNEL: &str = "ridgeline_models";
/// How often the connection is looked at while somebody waits, or uses what is kept, at least. That reads what has arrived and
/// does not ask the server.
const TICK: Duration = Duration::from_millis(2);
/// How often while nobody does.
const IDLE: Duration = Duration::from_millis(200);
/// How often all rows that are waited for are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long after a look what is kept is believed: many ticks, as the thread may have to wait for a core.
const BELIEVED: Duration = Duration::from_millis(20);
/// How long after the database's last answer at most.
const BELIEVED_UNANSWERED: Duration = Duration::from_secs(2);
/// How long after a commit every process has heard of it, or believes nothing: as long, and what an announcement takes.
pub const HEARD: Duration = Duration::from_millis(40);
/// How long the thread waits between tries to reach the database.
const RETRY: Duration = Duration::from_millis(500);
/// Longest that a look may take.
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);

/// What is known of a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Sight {
    /// Nothing has happened since somebody began to wait.
    Nothing,
    /// Its latest state.
    State(State),
    /// It was deleted.
    Gone,
}

impl Sight {
    /// Whether nothing more will happen to it.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::State(state) => state.status.has_ended(),
            Self::Gone => true,
        }
    }
}

/// What somebody who waits for a model holds.
#[derive(Debug)]
pub struct Subscription {
    /// What happens to it from now on.
    pub sight: watch::Receiver<Sight>,
    /// Its document once it has ended: made once for all who wait.
    pub document: Arc<OnceCell<Arc<str>>>,
}

/// The watch of one process. Cloning shares it; its thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waited_for: Mutex<HashMap<i32, Entry>>,
    pace: Mutex<Pace>,
    cache: ModelCache,
    thread: Thread,
}

/// A model that somebody waits for, or did a moment ago.
#[derive(Debug)]
struct Entry {
    sight: watch::Sender<Sight>,
    document: Arc<OnceCell<Arc<str>>>,
}

impl Watch {
    /// Starts the thread, which also keeps `cache` true.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(url: DatabaseUrl, cache: ModelCache) -> anyhow::Result<Self> {
        let (sender, receiver) = std::sync::mpsc::channel::<Weak<Shared>>();
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(move || {
            if let Ok(shared) = receiver.recv() {
                run(&shared, &url);
            }
        });
        let thread = thread.context("starting the thread that watches models")?.thread().clone();
        cache.set_watcher(thread.clone());
        let shared =
            Arc::new(Shared { waited_for: Mutex::default(), pace: Mutex::new(Pace::new(TICK)), cache, thread });
        // The thread is there: nothing but this ends it.
        let _waits_for_it = sender.send(Arc::downgrade(&shared));
        Ok(Self(shared))
    }

    /// Begins to wait for the model `id`. Look at the model after this and not before, so that nothing is missed.
    pub fn subscribe(&self, id: i32) -> Subscription {
        let mut waited_for = self.0.waited_for();
        let entry = waited_for
            .entry(id)
            .or_insert_with(|| Entry { sight: watch::Sender::new(Sight::Nothing), document: Arc::default() });
        let subscription = Subscription { sight: entry.sight.subscribe(), document: Arc::clone(&entry.document) };
        drop(waited_for);
        self.0.pace().quicken();
        self.0.thread.unpark();
        subscription
    }
}

impl Shared {
    fn waited_for(&self) -> MutexGuard<'_, HashMap<i32, Entry>> {
        self.waited_for.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(shared: &Weak<Shared>, url: &DatabaseUrl) {
    let mut listener = None;
    let mut is_failing = false;
    while let Some(shared) = shared.upgrade() {
        let is_idle = shared.waited_for().is_empty() && !shared.cache.is_used();
        let believed = listen_and_look(&shared, url, &mut listener);
        let mut pause = if is_idle { IDLE } else { shared.pace().pause() };
        if let Err(error) = &believed {
            // Once is enough for a database that is away for an hour.
            let level = if is_failing { log::Level::Debug } else { log::Level::Warn };
            log::log!(level, "models cannot be watched, tries again: {error:#}");
            listener = None;
            pause = RETRY;
        }
        is_failing = believed.is_err();
        shared.cache.believe_until(believed.ok().filter(|_| !is_idle));
        drop(shared);
        thread::park_timeout(pause);
    }
}

/// A connection that listens, and when all that is waited for is to be looked at.
struct Listener {
    conn: PgConnection,
    /// When the database has answered last.
    answered: Instant,
    next_look: Instant,
}

impl Listener {
    fn connect(url: &DatabaseUrl) -> anyhow::Result<Self> {
        let mut conn = db::connect(url)?;
        db::limit_statements(&mut conn, STATEMENT_LIMIT, STATEMENT_LIMIT)?;
        diesel::sql_query(format!("LISTEN {CHANNEL}")).execute(&mut conn)?;
        let now = Instant::now();
        Ok(Self { conn, answered: now, next_look: now })
    }
}

/// Takes in what was announced; until when what is kept may be believed.
fn listen_and_look(shared: &Shared, url: &DatabaseUrl, listener: &mut Option<Listener>) -> anyhow::Result<Instant> {
    let listener = match listener {
        Some(listener) => listener,
        None => {
            let listener = listener.insert(Listener::connect(url)?);
            // What was announced before is not known.
            shared.cache.forget_all();
            listener
        }
    };
    let now = Instant::now();
    let mut announced = HashSet::new();
    for notification in listener.conn.notifications_iter() {
        announced.extend(notification?.payload.parse::<i32>());
    }
    announced.iter().for_each(|&id| shared.cache.forget(id));
    let is_due = listener.next_look <= now;
    let ids: Vec<i32> = {
        let mut waited_for = shared.waited_for();
        if is_due {
            listener.next_look = now + LOOK;
            waited_for.retain(|_, entry| entry.sight.receiver_count() > 0);
            waited_for.keys().copied().collect()
        } else {
            announced.into_iter().filter(|id| waited_for.contains_key(id)).collect()
        }
    };
    if !is_due && !ids.is_empty() {
        shared.pace().quicken();
    }
    if !ids.is_empty() || (is_due && shared.cache.is_used()) {
        hand_on(shared, &mut listener.conn, ids)?;
        listener.answered = now;
    }
    Ok((now + BELIEVED).min(listener.answered + BELIEVED_UNANSWERED))
}

/// Looks at the models `ids`, and tells whoever waits for them.
fn hand_on(shared: &Shared, conn: &mut PgConnection, ids: Vec<i32>) -> anyhow::Result<()> {
    let mut states: HashMap<i32, State> =
        models::states(conn, &ids)?.into_iter().map(|state| (state.id, state)).collect();
    let waited_for = shared.waited_for();
    for id in ids {
        if let Some(entry) = waited_for.get(&id) {
            let sight = states.remove(&id).map_or(Sight::Gone, Sight::State);
            entry.sight.send_if_modified(|latest| {
                let is_news = *latest != sight;
                *latest = sight;
                is_news
            });
        }
    }
    Ok(())
}
