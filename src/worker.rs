//! The worker: takes jobs from the queue, one at a time, and trains them.
//!
//! Any number of workers may run, on any hosts that reach the database. When there is nothing to do a worker waits for
//! an announcement, and looks by itself every half second all the same. SIGTERM and SIGINT make it hand back what it has
//! not finished, and end; so does the end of standard input where the worker was started with `--stop-with-stdin`, which
//! is how `ridgeline serve` takes its workers along however it dies.

mod heartbeat;
mod memory;
mod notifications;

use std::borrow::Cow;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use diesel::pg::PgConnection;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::config::{Config, DatabaseUrl};
use crate::db::datasets::{FewRows, Stored};
use crate::db::{self, datasets};
use crate::queue::{self, Claimed, Job, Turn, Wanted};
use crate::ridge::{Control, RowsError, Threads, allocator, blas};
use crate::training::{self, Capacity, StoredRows, Trained, TrainingError};
use heartbeat::{Heartbeat, Heartbeats, Limits};
use notifications::Notifications;

/// How long an idle worker goes without looking at the queue.
const POLL: Duration = Duration::from_millis(500);
/// How long a worker waits between tries to reach the database.
const RETRY: Duration = Duration::from_millis(500);
/// How long a worker that was told to stop may still try to hand its job back.
const LAST_WORDS: Duration = Duration::from_secs(7);
/// When it ends at the latest, whatever it waits for: a database that does not answer, a training that does not stop.
const LAST_MOMENT: Duration = Duration::from_secs(9);
/// Longest that one statement of a worker may take: the largest reads a chunk of a dataset, or stores a model.
const STATEMENT_LIMIT: Duration = Duration::from_secs(600);
/// Longest that a worker waits for a lock.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// How long a worker that starts waits for a database that is not there yet.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a worker until it is told to stop.
///
/// # Errors
/// When signals cannot be watched, or the database cannot be reached at the start.
pub fn run(config: &Config, url: DatabaseUrl, stop_with_stdin: bool) -> anyhow::Result<()> {
    prepare_open_blas(config)?;
    allocator::keep_freed();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("signals cannot be watched")?;
    }
    if stop_with_stdin {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            // Nothing is ever written to it: reading ends when the other side is gone.
            let end = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            log::debug!("standard input has ended: {end:?}");
            stop.store(true, Ordering::Relaxed);
        });
    }
    end_in_time(Arc::clone(&stop));
    memory::go_first();
    let mut conn = db::connect_and_migrate(&url, PATIENCE, &stop)?;
    db::limit_statements(&mut conn, STATEMENT_LIMIT, LOCK_LIMIT)?;
    let limits = Limits { lease: config.lease, training: config.training_limit, memory: config.worker_memory };
    let heartbeats = Heartbeats::start(url.clone(), limits, Arc::clone(&stop))?;
    let mut worker = Worker {
        url,
        limits,
        heartbeats,
        threads: Arc::new(Threads::new(config.training_threads)),
        stop,
        conn: Some(conn),
        next: None,
        has_looked: false,
        next_token: rand::random(),
        next_rescue: Instant::now(),
    };
    log::info!("worker {} is ready", std::process::id());
    worker.work();
    log::info!("worker {} has stopped", std::process::id());
    Ok(())
}

/// Ends the process soon after `stop` is set, if it has not ended by itself. An unfinished job is left to its lease.
fn end_in_time(stop: Arc<AtomicBool>) {
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
        thread::sleep(LAST_MOMENT);
        log::warn!("worker {} could not end in order, and ends at once", std::process::id());
        std::process::exit(1)
    });
}

/// Starts this process again with what OpenBLAS reads when it is loaded: the kernels that the CPU deserves, where the
/// library has not found them itself, and no threads of its own, which would take memory for themselves and never work.
fn prepare_open_blas(config: &Config) -> anyhow::Result<()> {
    const THREADS: &str = "OPENBLAS_NUM_THREADS";
    let core = blas::wanted_core_type();
    if core.is_some() || std::env::var_os(THREADS).is_none_or(|threads| threads != "1") {
        let program = std::env::current_exe().context("the path of this program is unknown")?;
        let mut again = Command::new(program);
        again.args(std::env::args_os().skip(1)).env(THREADS, "1");
        again.envs(core.map(|core| ("OPENBLAS_CORETYPE", core)));
        return Err(again.exec()).context("starting the worker again with what OpenBLAS has to know");
    }
    blas::reserve_buffers(config.training_threads)
        .context("there is no memory for the threads to compute in (training_threads)")?;
    log::info!("worker {} computes with the OpenBLAS kernels for {}", std::process::id(), blas::core_name());
    Ok(())
}

/// How a job ends without a result.
enum Unfinished {
    /// For good: the sentence is for the client.
    Failed(String),
    /// So that another attempt may be made.
    Stopped,
}

struct Worker {
    url: DatabaseUrl,
    limits: Limits,
    heartbeats: Heartbeats,
    threads: Arc<Threads>,
    stop: Arc<AtomicBool>,
    /// `None` after it broke, until it is needed again.
    conn: Option<PgConnection>,
    /// The job that was taken with the end of the one before.
    next: Option<Claimed>,
    /// Whether there was none.
    has_looked: bool,
    /// By which the next job will be held.
    next_token: i64,
    /// When it looks again for jobs of lost workers.
    next_rescue: Instant,
}

impl Worker {
    /// Takes job after job until it is told to stop; a database that goes away is waited for.
    fn work(&mut self) {
        let mut notifications = None;
        while !self.is_stopped() {
            if let Err(error) = self.step(&mut notifications) {
                log::warn!("the worker cannot use the database, and tries again: {error:#}");
                self.conn = None;
                notifications = None;
                self.pause();
            }
        }
        if let Some(Claimed { job, .. }) = self.next.take() {
            match self.insist(|conn| queue::give_back(conn, &job)) {
                Ok(_kept) => log::info!("model {}: handed back before its training began", job.id),
                Err(error) => log::warn!("model {}: left to its lease: {error:#}", job.id),
            }
        }
    }

    /// Runs one job, or waits for one.
    fn step(&mut self, notifications: &mut Option<Notifications>) -> anyhow::Result<()> {
        if let Some(claimed) = self.next.take() {
            // Its lease runs: what goes wrong with the jobs of others does not keep it waiting.
            if let Err(error) = self.rescue() {
                log::warn!("the worker cannot look for the jobs of lost workers: {error:#}");
                self.conn = None;
            }
            return self.run_job(claimed);
        }
        // Listening begins before looking, so that a job announced in between is not missed.
        let notifications = match notifications {
            Some(notifications) => notifications,
            None => {
                self.has_looked = false;
                notifications.insert(Notifications::listen(&self.url)?)
            }
        };
        self.rescue()?;
        if std::mem::take(&mut self.has_looked) {
            return notifications.wait(POLL, &self.stop);
        }
        let wanted = Wanted { done: None, lease: Some(self.limits.lease), token: self.next_token };
        match queue::turn(connected(&mut self.conn, &self.url)?, wanted)?.next {
            Some(claimed) => self.run_job(claimed),
            None => notifications.wait(POLL, &self.stop),
        }
    }

    /// Puts the jobs of lost workers back, as often as it is time.
    fn rescue(&mut self) -> anyhow::Result<()> {
        if Instant::now() < self.next_rescue {
            return Ok(());
        }
        for job in queue::rescue(connected(&mut self.conn, &self.url)?, self.limits.lease)? {
            let (id, attempt, status) = (job.id, job.attempt, job.status.as_str());
            log::warn!("model {id}: its worker was lost in attempt {attempt}, the model is now {status}");
            // Nobody announces what is put back.
            self.has_looked = false;
        }
        self.next_rescue = Instant::now() + POLL;
        Ok(())
    }

    /// Runs a job to its end. With its result it takes the next one, if it is not told to stop.
    ///
    /// # Errors
    /// When the database fails for good. The job is not lost by that: its lease runs out.
    fn run_job(&mut self, claimed: Claimed) -> anyhow::Result<()> {
        let Claimed { job, rows } = claimed;
        self.next_token = rand::random();
        let is_small = rows.is_some();
        let (id, started) = (job.id, Instant::now());
        let heartbeat = self.heartbeats.of(&job);
        let mut outcome = self.train(&job, rows, &heartbeat);
        let lease_lost = heartbeat.end();
        let mut kept = false;
        if !lease_lost && let Ok(Ok(trained)) = &outcome {
            let (stop, lease, token) = (Arc::clone(&self.stop), self.limits.lease, self.next_token);
            let lease = || (!stop.load(Ordering::Relaxed)).then_some(lease);
            match self.insist(|conn| queue::turn(conn, Wanted { done: Some((&job, trained)), lease: lease(), token })) {
                Ok(turn) => {
                    Turn { kept, next: self.next } = turn;
                    self.has_looked = self.next.is_none();
                }
                Err(error) => outcome = refused_for_good(&job, error, "the result cannot be stored").map(Err),
            }
        }
        match &outcome {
            _ if lease_lost => {}
            Ok(Err(Unfinished::Stopped)) => kept = self.insist(|conn| queue::give_back(conn, &job))?,
            Ok(Err(Unfinished::Failed(reason))) => kept = self.insist(|conn| queue::fail(conn, &job, reason))?,
            Ok(Ok(_)) | Err(_) => {}
        }
        let seconds = started.elapsed().as_secs_f64();
        match outcome? {
            _ if !kept => log::warn!("model {id}: the lease was lost after {seconds:.3} s, the result is dropped"),
            Err(Unfinished::Stopped) => log::info!("model {id}: handed back unfinished after {seconds:.3} s"),
            Err(Unfinished::Failed(reason)) => log::warn!("model {id}: failed after {seconds:.3} s: {reason}"),
            Ok(trained) => {
                let (rows, features) = (trained.metrics.n_rows, trained.metrics.n_features);
                let best = trained.best.param_value;
                log::info!("model {id}: trained in {seconds:.3} s, {rows} rows, {features} features, l2_coef {best:?}");
            }
        }
        // What a small one has taken, the next takes again.
        if !is_small || self.next.is_none() {
            allocator::give_back();
        }
        Ok(())
    }

    /// Trains on the rows, which are read as the training needs them. A panic ends in a failed model, not in a dead worker.
    fn train(
        &mut self,
        job: &Job,
        rows: Option<FewRows>,
        heartbeat: &Heartbeat,
    ) -> anyhow::Result<Result<Trained, Unfinished>> {
        let unreadable = |error| refused_for_good(job, error, "the rows cannot be read").map(Err);
        let (found, mut cells) = match rows {
            Some(FewRows { columns, cells }) => {
                let (n_rows, chunk_sizes) = (cells.n_cells() / columns.len(), vec![cells.n_cells()]);
                (Stored { columns, n_rows, chunk_sizes }, Some(cells))
            }
            None => match self.insist(|conn| datasets::find_stored(conn, job.dataset_id)) {
                Ok(found) => (found, None),
                Err(error) => return unreadable(error),
            },
        };
        let (id, attempt, rows, columns) = (job.id, job.attempt, found.n_rows, found.columns.len());
        log::info!("model {id}: training starts, attempt {attempt}, {rows} rows, {columns} columns");
        let (threads, stop) = (Arc::clone(&self.threads), heartbeat.stop());
        let n_threads = threads.number();
        let capacity = Capacity { memory: self.limits.memory.map(|memory| memory.as_u64()), n_threads };
        let room = match capacity.room_for_rows(&job.params, &found.columns, rows) {
            Ok(room) => room,
            Err(error) => return Ok(Err(Unfinished::Failed(error.to_string()))),
        };
        let control = Control { threads: &threads, stop, progress: &|done| heartbeat.report(done) };
        let read = |chunk: usize| {
            // Passes that take no notice of the flag themselves end here.
            if stop.load(Ordering::Relaxed) {
                return Err("the training is to stop".into());
            }
            if let Some(cells) = cells.take() {
                return Ok(Cow::Owned(cells));
            }
            let cells = self.insist_unless(stop, |conn| datasets::chunk(conn, job.dataset_id, chunk as i32));
            // The kind of the error tells what becomes of the job.
            cells
                .map(Cow::Owned)
                .map_err(|error| error.downcast::<db::Error>().map_or_else(RowsError::from, RowsError::from))
        };
        let stored = StoredRows::new(columns, &found.chunk_sizes, read).keeping(n_threads, room);
        let outcome = catch_unwind(AssertUnwindSafe(|| training::fit(&job.params, &found.columns, &stored, &control)));
        drop(stored);
        Ok(match outcome {
            Ok(Ok(trained)) => Ok(trained),
            Ok(Err(TrainingError::Refused(reason))) => Err(Unfinished::Failed(reason)),
            Ok(Err(TrainingError::Rows(error))) if !stop.load(Ordering::Relaxed) => {
                return unreadable(
                    error.downcast::<db::Error>().map_or_else(|error| anyhow!(error), |error| (*error).into()),
                );
            }
            Ok(Err(TrainingError::Rows(_) | TrainingError::Stopped)) => {
                Err(heartbeat.overdue().map_or(Unfinished::Stopped, Unfinished::Failed))
            }
            // The panic hook has logged the cause.
            Err(_panic) => Err(Unfinished::Failed(
                "an internal error ended the training; the worker's log has its cause".to_owned(),
            )),
        })
    }

    /// Repeats a query until the database answers, connecting anew where that helps.
    fn insist<T>(&mut self, query: impl Fn(&mut PgConnection) -> diesel::QueryResult<T>) -> anyhow::Result<T> {
        self.insist_unless(&AtomicBool::new(false), query)
    }

    /// The same, but only while `stop` is not set: nobody waits for the answer any more.
    fn insist_unless<T>(
        &mut self,
        stop: &AtomicBool,
        query: impl Fn(&mut PgConnection) -> diesel::QueryResult<T>,
    ) -> anyhow::Result<T> {
        let mut told_to_stop = None;
        loop {
            let error = match connected(&mut self.conn, &self.url) {
                Ok(conn) => match query(conn).map_err(db::Error::from) {
                    Ok(value) => return Ok(value),
                    Err(error) if !error.is_transient() => return Err(error.into()),
                    Err(error) => error.into(),
                },
                Err(error) => error,
            };
            let is_late = self.is_stopped() && told_to_stop.get_or_insert_with(Instant::now).elapsed() > LAST_WORDS;
            if is_late || stop.load(Ordering::Relaxed) {
                return Err(error);
            }
            log::warn!("the worker lost the database, and tries again: {error:#}");
            self.conn = None;
            self.pause();
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits before the next try to reach the database; shorter once it was told to stop.
    fn pause(&self) {
        thread::sleep(if self.is_stopped() { RETRY / 5 } else { RETRY });
    }
}

/// What becomes of a job that the database refuses to go on with, in this attempt and in every further one: it fails.
///
/// # Errors
/// `error` itself when it is not the database's final word.
fn refused_for_good(job: &Job, error: anyhow::Error, what: &str) -> anyhow::Result<Unfinished> {
    if error.downcast_ref::<db::Error>().is_none_or(db::Error::is_transient) {
        return Err(error);
    }
    // Only who deletes the model of a job takes its rows away, and that is nobody's mistake.
    let is_deleted = matches!(error.downcast_ref(), Some(db::Error::Query(diesel::result::Error::NotFound)));
    let level = if is_deleted { log::Level::Warn } else { log::Level::Error };
    log::log!(level, "model {}: {what}: {error:#}", job.id);
    Ok(Unfinished::Failed(format!("{what}; the worker's log has the cause")))
}

/// The worker's connection, made anew where it broke.
fn connected<'a>(conn: &'a mut Option<PgConnection>, url: &DatabaseUrl) -> anyhow::Result<&'a mut PgConnection> {
    match conn {
        Some(conn) => Ok(conn),
        None => {
            let conn = conn.insert(db::connect(url)?);
            db::limit_statements(conn, STATEMENT_LIMIT, LOCK_LIMIT)?;
            Ok(conn)
        }
    }
}
