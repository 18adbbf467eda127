//! What a worker may take, and what would be too much for it.

use super::{CheckError, Params, engine_params};
use crate::ridge::{self, Folds, Needs};

/// What a worker may take for a training.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Bytes of memory; `None`: as much as the machine gives.
    pub memory: Option<u64>,
    /// Threads; 0: as many as there are cores.
    pub n_threads: usize,
}

/// What a worker takes before it has anything to do.
const BASE_MEMORY: u64 = 32 << 20;

impl Capacity {
    /// Refuses what no worker could train.
    pub(super) fn check(self, needs: Needs, n_columns: usize, n_folds: usize) -> Result<(), CheckError> {
        let needed = needs.total().saturating_add(BASE_MEMORY);
        let Some(most) = self.memory.filter(|&most| needed > most) else { return Ok(()) };
        let gib = |bytes: u64| bytes as f64 / (1_u64 << 30) as f64;
        let shape = if needs.rows > 0 { "these few rows" } else { "these rows" };
        Err(CheckError::Refused(format!(
            "data: to train on {shape} of {n_columns} columns with {n_folds} folds takes at least {:.2} GiB of memory, but a worker \
             may take {:.2} GiB (worker_memory)",
            gib(needed),
            gib(most)
        )))
    }

    /// Bytes of rows that a worker may keep in memory beside what training them needs.
    ///
    /// # Errors
    /// When it would have to keep all rows, and there is no room: it would read them again thousands of times.
    pub fn room_for_rows(self, params: &Params, columns: &[String], n_rows: usize) -> Result<u64, CheckError> {
        let Some(most) = self.memory else { return Ok(u64::MAX) };
        let n_threads = ridge::n_threads(self.n_threads);
        // A column's folds are not counted here: no more of them than this.
        let n_folds = params.n_folds.unwrap_or(n_rows);
        let engine = engine_params(params, columns).ok().and_then(|engine| engine.check(n_rows, columns.len()).ok());
        // What is wrong with the parameters is told by the training.
        let needs = engine.map_or(Needs { working: 0, rows: 0 }, |engine| engine.needs(n_folds, n_threads));
        let left = most.saturating_sub(BASE_MEMORY).saturating_sub(needs.working);
        if needs.rows > 0 {
            return self.check(needs, columns.len(), n_folds).map(|()| left);
        }
        // Half of what is left: chunks are held a few times while they are read, and the allocator keeps some of what is freed.
        Ok(left / 2)
    }
}

/// Checks while rows come in whether those that are there, and however many follow, are more than a worker can train on.
///
/// # Errors
/// See [`CheckError`].
pub fn check_growth(params: &Params, columns: &[String], n_rows: usize, capacity: Capacity) -> Result<(), CheckError> {
    let engine = engine_params(params, columns).map_err(CheckError::Refused)?;
    // A column has two folds at least, and there are no fewer rows than folds.
    let n_folds = if let Folds::Random { n_folds, .. } = engine.folds { n_folds } else { 2 };
    let Ok(engine) = engine.check(n_rows.max(n_folds), columns.len()) else { return Ok(()) };
    let needs = engine.needs_with_more_rows(n_folds, ridge::n_threads(capacity.n_threads));
    capacity.check(needs, columns.len(), n_folds)
}

#[cfg(test)]
mod tests {
    use super::super::Loss;
    use super::*;

    #[test]
    fn rows_that_are_visited_again_and_again_are_kept_or_refused() {
        let params = Params {
            target: "x0".to_owned(),
            n_folds: Some(5),
            fit_intercept: true,
            l2_coef: None,
            seed: Some(1),
            loss: Loss::Mean,
            standardize: false,
            weight_column: None,
            fold_column: None,
        };
        let columns: Vec<String> = (0..50_000).map(|column| format!("x{column}")).collect();
        let capacity = Capacity { memory: Some(128 << 20), n_threads: 2 };
        let n_bytes = |n_rows: usize| (n_rows * columns.len() * 8) as u64;
        assert!(capacity.room_for_rows(&params, &columns, 200).unwrap() >= n_bytes(200));
        let error = capacity.room_for_rows(&params, &columns, 300).unwrap_err().to_string();
        assert!(error.contains("these few rows of 50000 columns") && error.contains("(worker_memory)"), "{error}");
        // Of many rows of few columns some are kept.
        let room = capacity.room_for_rows(&params, &columns[..10], 10_000_000).unwrap();
        assert!((1..n_bytes(10_000_000)).contains(&room), "{room}");
    }
}
