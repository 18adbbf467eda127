//! The partition of the rows into folds.

use super::{
    drawing::{Drawing, SEGMENT},
    drawn::Drawn,
    error::RidgeError,
    params::{Folds, ValidParams},
    rows::{Rows, for_each_row},
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// To which fold each row belongs.
#[derive(Debug)]
pub(super) struct Partition {
    kind: Kind,
    n_rows: usize,
    n_folds: usize,
}

#[derive(Debug)]
enum Kind {
    /// Leave-one-out: row i is fold i.
    ByRow,
    /// 4 bytes a row.
    Listed(Listed),
    /// A few megabytes however many rows there are.
    Drawn(Box<Drawn>),
}

/// The folds of all rows; random ones are drawn in the order of the rows by whoever asks first, so that the threads of the first
/// pass do it between them.
#[derive(Debug)]
struct Listed {
    folds: Vec<AtomicU32>,
    drawing: Option<Box<Mutex<Drawing>>>,
}

/// The fold of a row that is not drawn yet.
const UNDRAWN: u32 = u32::MAX;

impl Listed {
    #[inline]
    fn fold_of(&self, row: usize) -> usize {
        match self.folds[row].load(Ordering::Relaxed) {
            UNDRAWN => self.draw(row),
            fold => fold as usize,
        }
    }

    /// Draws as far as this row.
    #[cold]
    fn draw(&self, row: usize) -> usize {
        let drawing = self.drawing.iter().map(|drawing| drawing.lock().unwrap_or_else(PoisonError::into_inner));
        for mut drawing in drawing {
            let mut folds = Vec::with_capacity(SEGMENT);
            while drawing.row() <= row {
                let places = &self.folds[drawing.row()..];
                drawing.draw_segment(&mut folds);
                places.iter().zip(&folds).for_each(|(place, fold)| place.store(*fold, Ordering::Relaxed));
            }
        }
        self.folds[row].load(Ordering::Relaxed) as usize
    }
}

impl Partition {
    /// Reads the partition, or prepares to draw it.
    pub(super) fn new(params: &ValidParams, rows: &dyn Rows) -> Result<Self, RidgeError> {
        let n_rows = rows.n_rows();
        match params.params.folds {
            Folds::Random { n_folds, .. } if n_folds == n_rows => Ok(Self { kind: Kind::ByRow, n_rows, n_folds }),
            Folds::Random { n_folds, seed } if !Self::is_listed(n_rows, false) => {
                let kind = Kind::Drawn(Box::new(Drawn::new(n_rows, n_folds, seed)));
                Ok(Self { kind, n_rows, n_folds })
            }
            Folds::Random { n_folds, seed } => Ok(Self::random(n_rows, n_folds, seed)),
            Folds::Column(column) => Self::from_column(rows, column),
        }
    }

    /// Whether the folds of so many rows are listed; those of a column always are.
    pub(super) fn is_listed(n_rows: usize, is_column: bool) -> bool {
        /// Lists of up to 64 MiB.
        const MOST_LISTED: usize = 1 << 24;
        is_column || n_rows <= MOST_LISTED
    }

    /// What [`Drawing`] draws, as a list.
    pub(super) fn random(n_rows: usize, n_folds: usize, seed: u64) -> Self {
        let folds = (0..n_rows).map(|_| AtomicU32::new(UNDRAWN)).collect();
        let drawing = Some(Box::new(Mutex::new(Drawing::new(n_rows, n_folds, seed))));
        Self { kind: Kind::Listed(Listed { folds, drawing }), n_rows, n_folds }
    }

    /// One pass: the folds are numbered as they appear, and then in the order of their values.
    fn from_column(rows: &dyn Rows, column: usize) -> Result<Self, RidgeError> {
        let (mut numbers, mut values) = (HashMap::new(), Vec::new());
        let mut fold_of_row: Vec<u32> = Vec::with_capacity(rows.n_rows());
        for block in 0..rows.n_blocks() {
            for_each_row(rows, block, |_, row| {
                // Adding zero makes -0.0 and 0.0 the same fold.
                let value = row[column] + 0.0;
                fold_of_row.push(*numbers.entry(value.to_bits()).or_insert_with(|| {
                    values.push(value);
                    values.len() as u32 - 1
                }));
            })?;
        }
        if values.len() < 2 {
            return Err(RidgeError::TooFewFoldValues { n_folds: values.len() });
        }
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_unstable_by(|a, b| values[*a].total_cmp(&values[*b]));
        let mut places = vec![0; values.len()];
        (0..).zip(order).for_each(|(place, number)| places[number] = place);
        let folds = fold_of_row.into_iter().map(|fold| AtomicU32::new(places[fold as usize])).collect();
        let kind = Kind::Listed(Listed { folds, drawing: None });
        Ok(Self { kind, n_rows: rows.n_rows(), n_folds: values.len() })
    }

    pub(super) fn n_folds(&self) -> usize {
        self.n_folds
    }

    /// Whether row i is fold i.
    pub(super) fn is_by_row(&self) -> bool {
        matches!(self.kind, Kind::ByRow)
    }

    #[inline]
    pub(super) fn fold_of(&self, row: usize) -> usize {
        match &self.kind {
            Kind::Listed(listed) => listed.fold_of(row),
            Kind::Drawn(drawn) => drawn.fold_of(row),
            Kind::ByRow => row,
        }
    }

    /// Rows of each fold.
    pub(super) fn sizes(&self) -> Vec<usize> {
        if let Kind::Drawn(drawn) = &self.kind {
            return drawn.sizes();
        }
        let mut sizes = vec![0; self.n_folds];
        (0..self.n_rows).for_each(|i| sizes[self.fold_of(i)] += 1);
        sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(partition: &Partition) -> Vec<usize> {
        (0..partition.n_rows).map(|row| partition.fold_of(row)).collect()
    }

    #[test]
    fn the_folds_do_not_depend_on_who_asks_first() {
        let in_order = listed(&Partition::random(100_000, 5, 7));
        let partition = Partition::random(100_000, 5, 7);
        std::thread::scope(|scope| {
            for part in 0..4 {
                let (partition, in_order) = (&partition, &in_order);
                scope.spawn(move || {
                    (0..100_000)
                        .skip(part)
                        .step_by(4)
                        .rev()
                        .for_each(|i| assert_eq!(partition.fold_of(i), in_order[i]));
                });
            }
        });
    }

    #[test]
    fn random_folds_differ_in_size_by_at_most_one() {
        for (n_rows, n_folds) in [(2, 2), (7, 3), (10, 10), (100, 7), (64, 63), (1000, 999)] {
            let partition = Partition::random(n_rows, n_folds, 1);
            let mut sizes = partition.sizes();
            assert_eq!(sizes.iter().sum::<usize>(), n_rows);
            sizes.sort_unstable();
            assert!(sizes[n_folds - 1] - sizes[0] <= 1, "{n_rows} rows, {n_folds} folds: {sizes:?}");
        }
    }

    #[test]
    fn every_partition_of_four_rows_in_two_folds_is_equally_likely() {
        let mut count = std::collections::BTreeMap::new();
        for seed in 0..6000 {
            *count.entry(listed(&Partition::random(4, 2, seed))).or_insert(0) += 1;
        }
        // Six partitions, 1000 expected of each; the standard deviation is 29.
        assert_eq!(count.len(), 6);
        assert!(count.values().all(|c| (850..1150).contains(c)), "{count:?}");
    }

    #[test]
    fn a_seed_means_the_same_partition_for_ever() {
        assert_eq!(listed(&Partition::random(12, 3, 42)), SEED_42);
    }

    /// As drawn by the first release.
    const SEED_42: [usize; 12] = [1, 0, 1, 1, 2, 0, 1, 0, 2, 2, 2, 0];
}
