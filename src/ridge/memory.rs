//! The memory that a run takes at least, told by its shape alone: so that what cannot end well is refused before it begins.

use super::{folds::Partition, gather, hat, kernel, normal::Objective, params::Folds, params::ValidParams, training};

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
        let shape = Shape::of(self, n_folds, n_threads);
        if shape.n_features > shape.n_rows {
            shape.wide()
        } else if hat::is_cheaper(&Objective::new(&self.params), shape.n_rows, shape.n_features, n_folds) {
            shape.sorted()
        } else {
            shape.tall()
        }
    }

    /// The same, where more rows may follow: what it needs at least, however many there will be.
    #[must_use]
    pub fn needs_with_more_rows(&self, n_folds: usize, n_threads: usize) -> Needs {
        let now = self.needs(n_folds, n_threads);
        let shape = Shape::of(self, n_folds, n_threads);
        // Each way to train takes more for more rows; so what comes next is least where it begins.
        let at_last = Shape { n_rows: shape.n_rows.max(shape.n_features), is_listed: false, ..shape };
        let later = if at_last.n_rows > 0 { [at_last.sorted(), at_last.tall()] } else { [now; 2] };
        later.into_iter().fold(now, |least, needs| if needs.total() < least.total() { needs } else { least })
    }
}

/// What the needs depend on.
#[derive(Debug, Clone, Copy)]
struct Shape {
    n_rows: usize,
    n_columns: usize,
    n_features: usize,
    n_folds: usize,
    n_threads: usize,
    /// Whether the folds of the rows are listed.
    is_listed: bool,
}

impl Shape {
    fn of(params: &ValidParams, n_folds: usize, n_threads: usize) -> Self {
        let (n_rows, n_columns) = (params.n_rows, params.n_columns);
        let is_fold = matches!(params.params.folds, Folds::Column(_));
        let n_features = n_columns - 1 - usize::from(params.params.weight.is_some()) - usize::from(is_fold);
        Self { n_rows, n_columns, n_features, n_folds, n_threads, is_listed: Partition::is_listed(n_rows, is_fold) }
    }

    /// More features than rows: all happens among the rows, of which each group of columns has its own products.
    fn wide(self) -> Needs {
        let n = self.n_rows as u128;
        let n_matrices = (1 + 2 * self.n_threads).max(kernel::n_groups(self.n_rows, self.n_features));
        Needs { working: bytes(n * n * n_matrices as u128), rows: bytes(n * self.n_columns as u128) }
    }

    /// Very many folds: the rows again, in the order of their folds.
    fn sorted(self) -> Needs {
        let (n, d) = (self.n_rows as u128, self.n_features as u128);
        let working = bytes(n * (d + 2) + self.square() * (1 + self.n_threads as u128));
        Needs { working: working.saturating_add(self.list()), rows: 0 }
    }

    /// The sums of products of each fold; and of each fold in work, those of its training rows and their factor.
    fn tall(self) -> Needs {
        let parts = training::n_parts(self.n_rows, self.n_features + 1, self.n_folds, 8);
        let sums = if self.n_folds <= training::FEW { 0 } else { self.n_folds.min(training::GROUPS) };
        let working = bytes(self.square() * (parts + sums + 2 * self.n_threads) as u128);
        Needs { working: working.max(bytes(gather::LEAST_VALUES as u128)).saturating_add(self.list()), rows: 0 }
    }

    /// The values of a matrix of products.
    fn square(self) -> u128 {
        let p = self.n_features as u128 + 1;
        p * p
    }

    /// The bytes of the list of the rows' folds.
    fn list(self) -> u64 {
        if self.is_listed { 4 * self.n_rows as u64 } else { 0 }
    }
}

/// Bytes of so many values.
fn bytes(n_values: u128) -> u64 {
    u64::try_from(n_values.saturating_mul(8)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{Params, tests::params};
    use super::*;

    fn checked(n_rows: usize, n_columns: usize, n_folds: usize) -> ValidParams {
        let params = Params { penalties: None, ..params(Folds::Random { n_folds, seed: 1 }, &[]) };
        params.check(n_rows, n_columns).unwrap()
    }

    fn needs(n_rows: usize, n_columns: usize, n_folds: usize) -> Needs {
        checked(n_rows, n_columns, n_folds).needs(n_folds, 2)
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

    #[test]
    fn what_is_needed_at_least_is_never_more_than_what_is_needed_in_the_end() {
        let ends = [10_usize, 300, 3_000, 30_000, 300_000, 20_000_000];
        for n_columns in [3, 101, 2_001, 20_001] {
            for n_folds in [2, 5, 10, 200, 3_000] {
                let ends = ends.iter().filter(|&&n_rows| n_rows >= n_folds);
                let at_least = |n_rows| checked(n_rows, n_columns, n_folds).needs_with_more_rows(n_folds, 2).total();
                for (i, &n_rows) in ends.clone().enumerate() {
                    for &end in ends.clone().skip(i) {
                        let needed = needs(end, n_columns, n_folds).total();
                        assert!(at_least(n_rows) <= needed, "{n_rows} of {end} rows, {n_columns}, {n_folds}");
                    }
                }
            }
        }
        // Rows that are too many for one way are not too few for the other.
        assert!(needs(30_000, 20_001, 5).total() > 10 << 30);
        assert!(checked(8_000, 20_001, 5).needs_with_more_rows(5, 2).total() > 2 << 30);
    }
}
