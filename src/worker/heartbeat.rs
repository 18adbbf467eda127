//! The heartbeat: renews a job's lease while the job is trained, carries its progress, and learns that it was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::bail;
use diesel::pg::PgConnection;

use super::{LAST_WORDS, connected};
use crate::config::DatabaseUrl;
use crate::queue::{self, Job};

/// How soon a worker that is told to stop passes it on to the training.
const TICK: Duration = Duration::from_millis(20);
/// How long a training goes on after it was cancelled, at most, and how old its progress may be; also how soon a heartbeat
/// that failed is repeated.
const INTERVAL: Duration = Duration::from_millis(500);

/// The heartbeat of one job, on a thread and a connection of its own.
pub(super) struct Heartbeat {
    shared: Arc<Shared>,
    /// Dropping it ends the thread.
    end: Sender<()>,
    thread: JoinHandle<()>,
}

/// What the thread and the training tell each other.
#[derive(Default)]
struct Shared {
    /// Set when the training had better stop: the worker was told to, or the lease is lost.
    stop: AtomicBool,
    lost: AtomicBool,
    /// The bits of an `f64` from 0 to 1.
    progress: AtomicU64,
}

impl Heartbeat {
    /// Begins to renew `job`'s lease, at least three times as often as it would run out.
    pub(super) fn start(url: DatabaseUrl, job: Job, lease: Duration, worker_stop: Arc<AtomicBool>) -> Self {
        let shared = Arc::new(Shared::default());
        let (end, ended) = mpsc::channel();
        let beat = Beat { url, job, lease, worker_stop, shared: Arc::clone(&shared), conn: None };
        let thread = thread::spawn(move || beat.run(&ended));
        Self { shared, end, thread }
    }

    /// The flag on which the training has to stop.
    pub(super) fn stop(&self) -> &AtomicBool {
        &self.shared.stop
    }

    /// Says how far the training is, 0 to 1.
    pub(super) fn report(&self, progress: f64) {
        self.shared.progress.store(progress.to_bits(), Ordering::Relaxed);
    }

    /// Ends the heartbeat; whether the lease was lost meanwhile.
    pub(super) fn end(self) -> bool {
        drop(self.end);
        if self.thread.join().is_err() {
            log::error!("the heartbeat panicked");
        }
        self.shared.lost.load(Ordering::Relaxed)
    }
}

struct Beat {
    url: DatabaseUrl,
    job: Job,
    lease: Duration,
    worker_stop: Arc<AtomicBool>,
    shared: Arc<Shared>,
    /// Made when the first renewal is due: most jobs are over before.
    conn: Option<PgConnection>,
}

impl Beat {
    fn run(mut self, ended: &mpsc::Receiver<()>) {
        let interval = INTERVAL.min(self.lease / 3);
        let mut next = Instant::now() + interval;
        let mut told_to_stop = None;
        while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            if self.worker_stop.load(Ordering::Relaxed) {
                self.shared.stop.store(true, Ordering::Relaxed);
                if told_to_stop.get_or_insert_with(Instant::now).elapsed() > LAST_WORDS {
                    self.abandon();
                }
            }
            if Instant::now() < next {
                continue;
            }
            next = Instant::now() + interval;
            match self.renew() {
                Ok(true) => {}
                Ok(false) => {
                    self.shared.lost.store(true, Ordering::Relaxed);
                    self.shared.stop.store(true, Ordering::Relaxed);
                    return;
                }
                Err(error) => {
                    log::warn!("model {}: the lease could not be renewed, tries again: {error:#}", self.job.id);
                    self.conn = None;
                }
            }
        }
    }

    fn renew(&mut self) -> anyhow::Result<bool> {
        let progress = f64::from_bits(self.shared.progress.load(Ordering::Relaxed));
        let conn = connected(&mut self.conn, &self.url)?;
        Ok(queue::renew(conn, &self.job, self.lease, progress)?)
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
