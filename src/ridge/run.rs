//! How a run is steered from outside.

use super::{error::RidgeError, threads::Threads};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How a run is steered from outside.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    /// What the work is spread over. The result does not depend on their number.
    pub threads: &'a Threads,
    /// Raise it, and the run ends with [`RidgeError::Stopped`] soon.
    pub stop: &'a AtomicBool,
    /// Called with the share of the work that is done, 0 to 1, never less than before.
    pub progress: &'a (dyn Fn(f64) + Sync),
}

impl std::fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("threads", &self.threads).field("stop", &self.stop).finish_non_exhaustive()
    }
}

/// A run under way.
pub(super) struct Run<'a> {
    control: Control<'a>,
    reported: Mutex<f64>,
}

impl<'a> Run<'a> {
    pub(super) fn new(control: &Control<'a>) -> Self {
        Self { control: *control, reported: Mutex::new(-1.0) }
    }

    /// # Errors
    /// [`RidgeError::Stopped`] if the stop flag is up.
    pub(super) fn check(&self) -> Result<(), RidgeError> {
        if self.control.stop.load(Ordering::Relaxed) { Err(RidgeError::Stopped) } else { Ok(()) }
    }

    /// Reports that the share `done` of all work is done, unless more was reported before.
    pub(super) fn report(&self, done: f64) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if done > *reported {
            *reported = done;
            (self.control.progress)(done);
        }
    }

    /// A part of the run that takes it from one share of the work to another in `n_steps` steps.
    pub(super) fn phase(&self, from: f64, to: f64, n_steps: usize) -> Phase<'_> {
        Phase { run: self, from, to, n_steps, done: AtomicUsize::new(0) }
    }

    /// See [`Threads::map`].
    pub(super) fn map<T: Send>(
        &self,
        n_tasks: usize,
        is_small: bool,
        task: impl Fn(usize) -> Result<T, RidgeError> + Sync,
    ) -> Result<Vec<T>, RidgeError> {
        self.control.threads.map(n_tasks, is_small, task)
    }

    /// See [`Threads::beside`].
    pub(super) fn beside<T>(&self, is_small: bool, aside: impl FnOnce() + Send, task: impl FnOnce() -> T) -> T {
        self.control.threads.beside(is_small, aside, task)
    }
}

/// A part of a run.
pub(super) struct Phase<'a> {
    run: &'a Run<'a>,
    from: f64,
    to: f64,
    n_steps: usize,
    done: AtomicUsize,
}

impl Phase<'_> {
    /// One more step is done.
    ///
    /// # Errors
    /// [`RidgeError::Stopped`] if the stop flag is up.
    pub(super) fn step(&self) -> Result<(), RidgeError> {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let share = (done as f64 / self.n_steps.max(1) as f64).min(1.0);
        self.run.report(self.from + (self.to - self.from) * share);
        self.run.check()
    }
}
