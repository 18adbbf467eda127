//! The memory that a run takes at least, told by its shape alone: so that what cannot end well is refused before it begins.

use super::{folds::Partition, gather, hat, normal::Objective, params::Folds, params::ValidParams, training};

/// Bytes that a run needs at once, whatever its rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// For what it computes.
    pub working: u64,
    /// For the rows themselves, which are visited too often to be read each time; 0 where they are visited a few times only.
    pub rows: u64,
}

impl Needs {
    /// Both together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.working.saturating_add(self.rows)
    }
}

impl ValidParams {
    /// What a run of so many folds needs on so many threads: a few matrices of the size of a fold's products, or where there are
    /// more features than rows, of the rows' own.
    #[must_use]
    pub fn needs(&self, n_folds: usize, n_threads: usize) -> Needs {
        let bytes = |values: u128| u64::try_from(values.saturating_mul(8)).unwrap_or(u64::MAX);
        let roles = [Some(self.params.target), self.params.weight].into_iter().flatten().count();
        let is_fold = usize::from(matches!(self.params.folds, Folds::Column(_)));
        let (n, d) = (self.n_rows, self.n_columns - roles - is_fold);
        let listed = u64::from(Partition::is_listed(n, is_fold > 0)) * 4 * n as u64;
        let [wide_n, wide_d, t] = [n, d, n_threads].map(|x| x as u128);
        let square = (wide_d + 1) * (wide_d + 1);
        if d > n {
            let rows = bytes(wide_n * self.n_columns as u128);
            return Needs { working: bytes(wide_n * wide_n * (1 + 2 * t)), rows };
        }
        let objective = Objective::new(&self.params);
        if hat::is_cheaper(&objective, n, d, n_folds) {
            return Needs { working: bytes(wide_n * (wide_d + 2) + square * (1 + t)) + listed, rows: 0 };
        }
        let parts = training::n_parts(n, d + 1, n_folds, 8) as u128;
        let sums = if n_folds <= training::FEW { 0 } else { n_folds.min(training::GROUPS) } as u128;
        // Of each fold in work, the products of its training rows and their factor.
        let working = bytes(square * (parts + sums + 2 * t));
        Needs { working: working.max(bytes(gather::LEAST_VALUES as u128)) + listed, rows: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Loss, Params};
    use super::*;

    fn needs(n_rows: usize, n_columns: usize, n_folds: usize) -> Needs {
        let folds = Folds::Random { n_folds, seed: 1 };
        let params = Params {
            target: 0,
            weight: None,
            folds,
            fit_intercept: true,
            loss: Loss::Mean,
            standardize: false,
            penalties: None,
        };
        params.check(n_rows, n_columns).unwrap().needs(n_folds, 2)
    }

    #[test]
    fn rows_beyond_number_need_no_more_than_many() {
        assert_eq!(needs(1_000_000_000, 21, 5), needs(100_000_000, 21, 5));
        assert!(needs(1_000_000_000, 21, 5).total() < 64 << 20);
        // Twice the columns, four times the memory.
        let [few, many] = [1_000, 2_000].map(|d| needs(100_000_000, d + 1, 5).total());
        assert!((3.9..4.1).contains(&(many as f64 / few as f64)), "{few} {many}");
    }

    #[test]
    fn wide_rows_and_very_many_folds_need_the_rows() {
        assert_eq!(needs(500, 10_001, 5).rows, 500 * 10_001 * 8);
        assert!(needs(1_000_000, 101, 1_000_000).working > 800_000_000);
    }
}
