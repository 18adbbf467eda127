//! How a run is steered from outside, and how its work is spread over threads.

use super::error::RidgeError;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How a run is steered from outside.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    /// The number of threads to work with; 0: as many as there are cores. The result does not depend on it.
    pub n_threads: usize,
    /// Raise it, and the run ends with [`RidgeError::Stopped`] soon.
    pub stop: &'a AtomicBool,
    /// Called with the share of the work that is done, 0 to 1, never less than before.
    pub progress: &'a (dyn Fn(f64) + Sync),
}

impl std::fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("n_threads", &self.n_threads).field("stop", &self.stop).finish_non_exhaustive()
    }
}

/// The number of threads that [`Control::n_threads`] stands for.
#[must_use]
pub fn n_threads(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(1, NonZero::get) }
}

/// A run under way.
pub(super) struct Run<'a> {
    control: Control<'a>,
    n_threads: usize,
    reported: Mutex<f64>,
}

impl<'a> Run<'a> {
    pub(super) fn new(control: &Control<'a>) -> Self {
        Self { control: *control, n_threads: n_threads(control.n_threads), reported: Mutex::new(-1.0) }
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

    /// `task(0), .., task(n_tasks - 1)` on the run's threads; the order of the results is that of the tasks, and nothing
    /// else depends on the threads. `is_small` tasks are not worth a thread.
    pub(super) fn map<T: Send>(
        &self,
        n_tasks: usize,
        is_small: bool,
        task: impl Fn(usize) -> Result<T, RidgeError> + Sync,
    ) -> Result<Vec<T>, RidgeError> {
        let n_threads = self.n_threads.min(n_tasks);
        if is_small || n_threads < 2 {
            return (0..n_tasks).map(task).collect();
        }
        let next = AtomicUsize::new(0);
        let work = || {
            let mut results = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n_tasks {
                    return results;
                }
                let result = task(i);
                if result.is_err() {
                    next.store(n_tasks, Ordering::Relaxed);
                }
                results.push((i, result));
            }
        };
        let mut results = std::thread::scope(|scope| {
            let others: Vec<_> = (1..n_threads).map(|_| scope.spawn(work)).collect();
            let mut results = work();
            for other in others {
                match other.join() {
                    Ok(more) => results.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            results
        });
        results.sort_unstable_by_key(|(i, _)| *i);
        results.into_iter().map(|(_, result)| result).collect()
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
