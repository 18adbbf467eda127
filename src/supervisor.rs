//! Keeps the worker processes of `ridgeline serve` running.
//!
//! A worker that ends is started again, after a pause that grows while it keeps ending soon. Each worker holds the reading
//! end of a pipe as its standard input, and stops when the other end is closed: by [`Supervisor::stop`], or by the death of
//! this process, whatever its kind.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The pause before a worker is started again, at least and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A worker that ran this long was not ended by its start.
const HEALTHY: Duration = Duration::from_secs(30);
/// How long a worker may take to hand back its job; it promises ten seconds itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(12);

/// The worker processes, and the tasks that watch them.
pub struct Supervisor {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Supervisor {
    /// Starts `n_workers` worker processes of `program`.
    pub fn start(program: &Path, n_workers: usize) -> Self {
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for _ in 0..n_workers {
            tasks.spawn(keep_running(program.to_owned(), stop.subscribe()));
        }
        Self { stop, tasks }
    }

    /// Stops all workers and waits for them.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.tasks.join_all().await;
    }
}

async fn keep_running(program: PathBuf, mut stop: watch::Receiver<bool>) {
    let mut pause = PAUSE.0;
    while !*stop.borrow() {
        let started = Instant::now();
        match run_once(&program, &mut stop).await {
            Ok(None) => return,
            Ok(Some(status)) => log::warn!("a worker has ended ({status}); it is started again in {pause:?}"),
            Err(error) => log::error!("a worker cannot be started; next try in {pause:?}: {error:#}"),
        }
        if started.elapsed() > HEALTHY {
            pause = PAUSE.0;
        }
        tokio::select! {
            _ = sleep(pause) => {}
            _ = stop.wait_for(|&stopped| stopped) => {}
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Runs one worker process to its end; `None`: it was told to stop.
async fn run_once(program: &Path, stop: &mut watch::Receiver<bool>) -> anyhow::Result<Option<ExitStatus>> {
    let mut worker = spawn(program)?;
    let stdin = worker.stdin.take();
    tokio::select! {
        status = worker.wait() => return Ok(Some(status?)),
        _ = stop.wait_for(|&stopped| stopped) => {}
    }
    drop(stdin);
    match timeout(STOP_TIMEOUT, worker.wait()).await {
        Ok(status) => log::info!("a worker has stopped ({})", status?),
        Err(_elapsed) => {
            log::warn!("a worker did not stop in {STOP_TIMEOUT:?} and is killed");
            worker.kill().await?;
        }
    }
    Ok(None)
}

fn spawn(program: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    // A group of its own: Ctrl-C reaches the service alone, which then stops its workers in order.
    command.args(["worker", "--stop-with-stdin"]).stdin(Stdio::piped()).process_group(0);
    command.spawn().context("starting the worker process")
}
