//! The heartbeat: renews a job's lease while the job is trained, carries its progress, learns that it was lost, and stops a
//! training that takes too long.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use diesel::pg::PgConnection;
use rocket::data::ByteUnit;

use super::{LAST_WORDS, connected, memory};
use crate::config::DatabaseUrl;
use crate::queue::{self, Job};

/// How soon a worker that is told to stop passes it on to the training.
const TICK: Duration = Duration::from_millis(20);
/// How long a training goes on after it was cancelled, at most, and how old its progress may be; also how soon a heartbeat
/// that failed is repeated.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long a training that has taken too long may take to stop before the process is ended.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// How long a worker may own a job, and what it may take for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Without a sign of life.
    pub(super) lease: Duration,
    /// In all.
    pub(super) training: Duration,
    /// The memory that the process may hold; `None`: as much as the machine gives.
    pub(super) memory: Option<ByteUnit>,
}

/// The thread of the heartbeats, one for all jobs: most are over before it would have been started.
pub(super) struct Heartbeats {
    url: DatabaseUrl,
    limits: Limits,
    worker_stop: Arc<AtomicBool>,
    slot: Slot,
    thread: Thread,
}

/// The heartbeat of the job that is trained, if any. Whatever it does is done with the slot locked.
type Slot = Arc<Mutex<Option<Beat>>>;

impl Heartbeats {
    /// Starts the thread, which lives as long as the process.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(url: DatabaseUrl, limits: Limits, worker_stop: Arc<AtomicBool>) -> anyhow::Result<Self> {
        let slot = Slot::default();
        let beats = Arc::clone(&slot);
        let thread = thread::Builder::new().name("heartbeat".to_owned()).spawn(move || run(&beats));
        let thread = thread.context("starting the thread of the heartbeats")?.thread().clone();
        Ok(Self { url, limits, worker_stop, slot, thread })
    }

    /// Begins to renew `job`'s lease, at least three times as often as it would run out.
    pub(super) fn of(&self, job: &Job) -> Heartbeat {
        let shared = Arc::new(Shared::default());
        let began = Instant::now();
        let interval = INTERVAL.min(self.limits.lease / 3);
        *lock(&self.slot) = Some(Beat {
            url: self.url.clone(),
            job: job.clone(),
            limits: self.limits,
            worker_stop: Arc::clone(&self.worker_stop),
            shared: Arc::clone(&shared),
            conn: None,
            began,
            interval,
            next: began + interval,
            told_to_stop: None,
        });
        self.thread.unpark();
        Heartbeat { shared, limits: self.limits, slot: Arc::clone(&self.slot) }
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<Beat>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(slot: &Slot) {
    loop {
        let is_idle = lock(slot).is_none();
        if is_idle {
            thread::park();
        }
        thread::sleep(TICK);
        let mut beat = lock(slot);
        if let Some(beat) = beat.as_mut()
            && catch_unwind(AssertUnwindSafe(|| beat.tick())).is_err()
        {
            log::error!("the heartbeat panicked, and goes on");
            beat.conn = None;
        }
        drop(beat);
    }
}

/// The heartbeat of one job.
pub(super) struct Heartbeat {
    shared: Arc<Shared>,
    limits: Limits,
    slot: Slot,
}

/// What the thread and the training tell each other.
#[derive(Default)]
struct Shared {
    /// Set when the training had better stop: the worker was told to, or the lease is lost.
    stop: AtomicBool,
    lost: AtomicBool,
    /// Set when the training has taken longer than it may.
    overdue: AtomicBool,
    /// The bits of an `f64` from 0 to 1.
    progress: AtomicU64,
}

impl Heartbeat {
    /// The flag on which the training has to stop.
    pub(super) fn stop(&self) -> &AtomicBool {
        &self.shared.stop
    }

    /// Why the training has to be given up for good, if it has taken longer than it may.
    pub(super) fn overdue(&self) -> Option<String> {
        self.shared.overdue.load(Ordering::Relaxed).then(|| overdue_message(self.limits.training))
    }

    /// Says how far the training is, 0 to 1.
    pub(super) fn report(&self, progress: f64) {
        self.shared.progress.store(progress.to_bits(), Ordering::Relaxed);
    }

    /// Ends the heartbeat, after what it is doing just now; whether the lease was lost meanwhile.
    pub(super) fn end(self) -> bool {
        *lock(&self.slot) = None;
        self.shared.lost.load(Ordering::Relaxed)
    }
}

struct Beat {
    url: DatabaseUrl,
    job: Job,
    limits: Limits,
    worker_stop: Arc<AtomicBool>,
    shared: Arc<Shared>,
    /// Made when the first renewal is due: most jobs are over before.
    conn: Option<PgConnection>,
    began: Instant,
    /// How often the lease is renewed, and when it is next.
    interval: Duration,
    next: Instant,
    told_to_stop: Option<Instant>,
}

impl Beat {
    fn tick(&mut self) {
        if self.shared.lost.load(Ordering::Relaxed) {
            return;
        }
        if self.worker_stop.load(Ordering::Relaxed) {
            self.shared.stop.store(true, Ordering::Relaxed);
            if self.told_to_stop.get_or_insert_with(Instant::now).elapsed() > LAST_WORDS {
                self.abandon();
            }
        }
        if let Some(most) = self.limits.memory {
            self.check_memory(most);
        }
        let late = self.began.elapsed().saturating_sub(self.limits.training);
        if late > Duration::ZERO {
            self.shared.overdue.store(true, Ordering::Relaxed);
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        if Instant::now() < self.next {
            return;
        }
        if late > STOP_LIMIT {
            self.fail_overdue();
        }
        self.next = Instant::now() + self.interval;
        match self.renew() {
            Ok(true) => {}
            Ok(false) => {
                self.shared.lost.store(true, Ordering::Relaxed);
                self.shared.stop.store(true, Ordering::Relaxed);
            }
            Err(error) => {
                log::warn!("model {}: the lease could not be renewed, tries again: {error:#}", self.job.id);
                self.conn = None;
            }
        }
    }

    fn renew(&mut self) -> anyhow::Result<bool> {
        let progress = f64::from_bits(self.shared.progress.load(Ordering::Relaxed));
        let conn = connected(&mut self.conn, &self.url)?;
        Ok(queue::renew(conn, &self.job, self.limits.lease, progress)?)
    }

    /// Fails the job and ends the process: the training has not seen the stop flag in time. Returns if the database does not
    /// answer: the job must not be left to its lease, because another worker would do no better.
    fn fail_overdue(&mut self) {
        let reason = overdue_message(self.limits.training);
        let failed = connected(&mut self.conn, &self.url).and_then(|conn| Ok(queue::fail(conn, &self.job, &reason)?));
        match failed {
            Ok(_kept) => {
                log::warn!("model {}: failed: {reason}; the training did not stop, the worker ends", self.job.id);
                end_at_once()
            }
            Err(error) => {
                log::warn!("model {}: {reason}, but that could not be stored, tries again: {error:#}", self.job.id);
                self.conn = None;
            }
        }
    }

    /// Fails the job and ends the process if it holds more than `most`: no further attempt would need less.
    fn check_memory(&mut self, most: ByteUnit) {
        let held = match memory::in_use() {
            Ok(held) if held <= most => return,
            Ok(held) => held,
            Err(error) => return log::warn!("the limit worker_memory cannot be checked: {error:#}"),
        };
        let id = self.job.id;
        log::error!("model {id}: the worker holds {held}, more than worker_memory allows ({most}), and ends at once");
        let reason = format!("training needs more memory than a worker may take, which is {most} (worker_memory)");
        let failed = connected(&mut self.conn, &self.url).and_then(|conn| Ok(queue::fail(conn, &self.job, &reason)?));
        if let Err(error) = failed {
            log::warn!("model {id}: left to its lease: {error:#}");
        }
        end_at_once()
    }

    /// Hands the job back and ends the process: the training has not seen the stop flag in time, and nobody waits longer.
    fn abandon(&mut self) -> ! {
        let given_back =
            connected(&mut self.conn, &self.url).and_then(|conn| match queue::give_back(conn, &self.job)? {
                true => Ok(()),
                false => bail!("the lease was lost"),
            });
        match given_back {
            Ok(()) => log::info!("model {}: handed back unfinished, the worker ends at once", self.job.id),
            Err(error) => log::warn!("model {}: left to its lease, the worker ends at once: {error:#}", self.job.id),
        }
        std::process::exit(0)
    }
}

/// Ends the process although it is computing: to exit in order would take the memory away under the threads that do.
fn end_at_once() -> ! {
    let refused = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    log::error!("the worker cannot kill itself: {refused:?}");
    std::process::abort()
}

fn overdue_message(limit: Duration) -> String {
    format!("the training took longer than {} s, the limit that training_limit_seconds sets", limit.as_secs())
}
