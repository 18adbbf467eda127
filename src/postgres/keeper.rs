//! Keeps a private server running: one that ends without having been told to is started again.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::PrivatePostgres;

/// How often is looked whether the server still runs.
const TICK: Duration = Duration::from_millis(50);
/// The pause before the server is started again, at least and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A server that ran this long was not ended by its start.
const HEALTHY: Duration = Duration::from_secs(30);

/// A private server that is started again whenever it ends by itself, after a pause that grows while it keeps ending soon.
/// Dropping it stops the server and waits until it has ended.
#[derive(Debug)]
#[must_use = "the server stops when this is dropped"]
pub struct KeptPostgres {
    /// Nothing is sent: dropping it ends the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl KeptPostgres {
    /// Keeps a server that runs.
    ///
    /// # Errors
    /// When there is no thread to be had; the server stops.
    pub fn new(server: PrivatePostgres) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("postgres".to_owned()).spawn(move || keep(server, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for KeptPostgres {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that keeps the private PostgreSQL running has panicked");
        }
    }
}

fn keep(mut server: PrivatePostgres, stopped: &Receiver<()>) {
    let mut pause = PAUSE.0;
    let mut started = Instant::now();
    let mut is_ready = true;
    while is_to_go_on(stopped, TICK) {
        let how = match server.ended() {
            Ok(None) => {
                if !is_ready && server.is_ready().unwrap_or(false) {
                    is_ready = true;
                    log::info!("the private PostgreSQL takes connections again");
                }
                continue;
            }
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        if started.elapsed() > HEALTHY {
            pause = PAUSE.0;
        }
        let said = server.last_words();
        log::error!(
            "the private PostgreSQL has ended ({how}); it is started again in {pause:?}; it said last:\n{said}"
        );
        if !is_to_go_on(stopped, pause) {
            return;
        }
        pause = (pause * 2).min(PAUSE.1);
        (started, is_ready) = (Instant::now(), false);
        if let Err(error) = server.start_again() {
            log::error!("the private PostgreSQL cannot be started: {:#}", anyhow::Error::from(error));
        }
    }
}

/// Waits; `false` as soon as the server is to be stopped.
fn is_to_go_on(stopped: &Receiver<()>, pause: Duration) -> bool {
    stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
}
