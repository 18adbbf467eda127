//! The threads that a run's work is spread over.

use super::error::RidgeError;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

/// The number of threads that `asked` stands for: 0 for as many as there are cores.
#[must_use]
pub fn n_threads(asked: usize) -> usize {
    // Found once: the answer is read from the files of control groups, which takes longer than a small training's folds.
    static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, NonZero::get));
    if asked > 0 { asked } else { *CORES }
}

/// The caller's thread and helpers beside it, which wait for work from one run to the next: to start a thread takes longer
/// than some of the work.
#[derive(Debug)]
pub struct Threads {
    n: usize,
    /// Once there is work for them; `None` if the system has none to give, and the caller's thread works alone.
    helpers: OnceLock<Option<ThreadPool>>,
}

impl Threads {
    /// So many threads, as [`n_threads`] counts them.
    #[must_use]
    pub fn new(asked: usize) -> Self {
        Self { n: n_threads(asked), helpers: OnceLock::new() }
    }

    /// How many there are, with the caller's.
    #[must_use]
    pub fn number(&self) -> usize {
        self.n
    }

    fn helpers(&self) -> Option<&ThreadPool> {
        self.helpers.get_or_init(|| ThreadPoolBuilder::new().num_threads(self.n - 1).build().ok()).as_ref()
    }

    /// `task(0), .., task(n_tasks - 1)`; the order of the results is that of the tasks, and nothing else depends on the
    /// threads. `is_small` tasks are not worth a thread.
    pub(super) fn map<T: Send>(
        &self,
        n_tasks: usize,
        is_small: bool,
        task: impl Fn(usize) -> Result<T, RidgeError> + Sync,
    ) -> Result<Vec<T>, RidgeError> {
        let n_threads = self.n.min(n_tasks);
        let helpers = if is_small || n_threads < 2 { None } else { self.helpers() };
        let Some(helpers) = helpers else {
            return (0..n_tasks).map(task).collect();
        };
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::with_capacity(n_tasks));
        let work = || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n_tasks {
                    return;
                }
                let result = task(i);
                if result.is_err() {
                    next.store(n_tasks, Ordering::Relaxed);
                }
                results.lock().unwrap_or_else(PoisonError::into_inner).push((i, result));
            }
        };
        helpers.in_place_scope(|scope| {
            (1..n_threads).for_each(|_| scope.spawn(|_| work()));
            work();
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_unstable_by_key(|(i, _)| *i);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// `task()` in the caller's thread, which may spread it over the others, and meanwhile `aside()` in one of those.
    pub(super) fn beside<T>(&self, is_small: bool, aside: impl FnOnce() + Send, task: impl FnOnce() -> T) -> T {
        let helpers = if is_small || self.n < 2 { None } else { self.helpers() };
        let Some(helpers) = helpers else {
            aside();
            return task();
        };
        helpers.in_place_scope(|scope| {
            scope.spawn(|_| aside());
            task()
        })
    }
}
