//! The partition of the rows into folds.

use super::{
    drawn::{Drawing, Drawn},
    error::RidgeError,
    params::{Folds, ValidParams},
    rows::{Rows, for_each_row},
};
use rand::Rng;
use std::collections::HashMap;

/// To which fold each row belongs: 4 bytes a row, nothing for leave-one-out, and a few megabytes however many rows there are
/// where these are drawn at random.
#[derive(Debug)]
pub(super) struct Partition {
    fold_of_row: Option<Vec<u32>>,
    /// Where there is no list. `None`: leave-one-out, row i is fold i.
    drawn: Option<Box<Drawn>>,
    n_rows: usize,
    n_folds: usize,
}

impl Partition {
    /// Draws or reads the partition.
    pub(super) fn new(params: &ValidParams, rows: &dyn Rows) -> Result<Self, RidgeError> {
        let n_rows = rows.n_rows();
        match params.params.folds {
            Folds::Random { n_folds, .. } if n_folds == n_rows => {
                Ok(Self { fold_of_row: None, drawn: None, n_rows, n_folds })
            }
            Folds::Random { n_folds, seed } if !Self::is_listed(n_rows, false) => {
                let drawn = Some(Box::new(Drawn::new(n_rows, n_folds, seed)));
                Ok(Self { fold_of_row: None, drawn, n_rows, n_folds })
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

    /// What [`Drawing`] draws, as a list, in a loop that knows how the free places are counted.
    pub(super) fn random(n_rows: usize, n_folds: usize, seed: u64) -> Self {
        let (mut random, free) = Drawing::new(n_rows, n_folds, seed).into_parts();
        let mut rank = |row: usize| uniform_below((n_rows - row) as u64, &mut random);
        let fold_of_row = match free {
            Free::Few(mut free) => {
                // Ranks first, then in their place the folds that they mean.
                let mut folds: Vec<u32> = Vec::with_capacity(n_rows);
                for first in (0..n_rows).step_by(RANKS_AT_ONCE) {
                    folds.extend((first..(first + RANKS_AT_ONCE).min(n_rows)).map(|row| rank(row) as u32));
                    free.take_all(&mut folds[first..]);
                }
                folds
            }
            Free::Many(mut free) => (0..n_rows).map(|row| free.take(rank(row)) as u32).collect(),
        };
        Self { fold_of_row: Some(fold_of_row), drawn: None, n_rows, n_folds }
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
        fold_of_row.iter_mut().for_each(|fold| *fold = places[*fold as usize]);
        Ok(Self { fold_of_row: Some(fold_of_row), drawn: None, n_rows: rows.n_rows(), n_folds: values.len() })
    }

    pub(super) fn n_folds(&self) -> usize {
        self.n_folds
    }

    /// Whether row i is fold i.
    pub(super) fn is_by_row(&self) -> bool {
        self.fold_of_row.is_none() && self.drawn.is_none()
    }

    #[inline]
    pub(super) fn fold_of(&self, row: usize) -> usize {
        match (&self.fold_of_row, &self.drawn) {
            (Some(folds), _) => folds[row] as usize,
            (None, Some(drawn)) => drawn.fold_of(row),
            (None, None) => row,
        }
    }

    /// Rows of each fold.
    pub(super) fn sizes(&self) -> Vec<usize> {
        if let Some(drawn) = &self.drawn {
            return drawn.sizes();
        }
        let mut sizes = vec![0; self.n_folds];
        (0..self.n_rows).for_each(|i| sizes[self.fold_of(i)] += 1);
        sizes
    }
}

/// The free places of the folds while they are drawn.
#[derive(Debug, Clone)]
pub(super) enum Free {
    Few(FewCounts),
    Many(FenwickTree),
}

impl Free {
    /// All places: `n_rows` of them, shared out evenly.
    pub(super) fn new(n_rows: usize, n_folds: usize) -> Self {
        let sizes: Vec<u64> =
            (0..n_folds).map(|f| (n_rows / n_folds + usize::from(f < n_rows % n_folds)) as u64).collect();
        if n_folds <= FewCounts::MOST && u32::try_from(n_rows).is_ok() {
            Self::Few(FewCounts::new(&sizes))
        } else {
            Self::Many(FenwickTree::new(&sizes))
        }
    }

    /// The fold that has place `rank` of those that are free; takes it.
    #[inline]
    pub(super) fn take(&mut self, rank: u64) -> u32 {
        match self {
            Self::Few(free) => free.take(rank as u32),
            Self::Many(free) => free.take(rank) as u32,
        }
    }
}

/// A uniform integer in `0..bound` (Lemire 2019, "Fast random integer generation in an interval").
pub(super) fn uniform_below(bound: u64, random: &mut impl Rng) -> u64 {
    loop {
        let product = u128::from(random.next_u64()) * u128::from(bound);
        // The division is rarely needed: the threshold is below the bound.
        if product as u64 >= bound || product as u64 >= bound.wrapping_neg() % bound {
            return (product >> 64) as u64;
        }
    }
}

/// Prefix sums of up to 16 counts under decrements: no branch depends on them, so that they are compared all at once.
#[derive(Debug, Clone)]
pub(super) struct FewCounts([u32; Self::MOST]);

impl FewCounts {
    const MOST: usize = 16;

    fn new(counts: &[u64]) -> Self {
        let mut prefix = [u32::MAX; Self::MOST];
        let mut sum = 0;
        for (prefix, count) in prefix.iter_mut().zip(counts) {
            sum += *count as u32;
            *prefix = sum;
        }
        Self(prefix)
    }

    /// As [`FenwickTree::take`]. The next call waits for a comparison and an addition only.
    #[inline(always)]
    fn take(&mut self, rank: u32) -> u32 {
        let mut at = 0;
        for prefix in &mut self.0 {
            let is_behind = u32::from(*prefix > rank);
            *prefix -= is_behind;
            at += 1 - is_behind;
        }
        at
    }

    /// [`Self::take`] for each of some ranks, in their place.
    fn take_all(&mut self, ranks: &mut [u32]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512f") {
            #[expect(unsafe_code, reason = "the CPU has the feature")]
            return unsafe { take_all_at_once(&mut self.0, ranks) };
        }
        ranks.iter_mut().for_each(|rank| *rank = self.take(*rank));
    }
}

/// As many ranks as stay in the first-level cache.
const RANKS_AT_ONCE: usize = 2048;

/// [`FewCounts::take_all`], with all prefix sums in one vector.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,popcnt")]
fn take_all_at_once(prefix: &mut [u32; FewCounts::MOST], ranks: &mut [u32]) {
    use std::arch::x86_64::*;
    #[expect(unsafe_code, reason = "the array is as long as a vector")]
    let mut sums = unsafe { _mm512_loadu_si512(prefix.as_ptr().cast()) };
    for rank in ranks {
        let is_behind = _mm512_cmpgt_epu32_mask(sums, _mm512_set1_epi32(*rank as i32));
        sums = _mm512_mask_sub_epi32(sums, is_behind, sums, _mm512_set1_epi32(1));
        *rank = is_behind.count_zeros();
    }
    #[expect(unsafe_code, reason = "the array is as long as a vector")]
    unsafe {
        _mm512_storeu_si512(prefix.as_mut_ptr().cast(), sums);
    }
}

/// Prefix sums of counts under decrements, in O(log k) each (Fenwick 1994).
#[derive(Debug, Clone)]
pub(super) struct FenwickTree(Vec<u64>);

impl FenwickTree {
    fn new(counts: &[u64]) -> Self {
        let mut tree = vec![0; counts.len() + 1];
        for (i, count) in counts.iter().enumerate() {
            tree[i + 1] += count;
            let parent = (i + 1) + ((i + 1) & (i + 1).wrapping_neg());
            if parent < tree.len() {
                tree[parent] += tree[i + 1];
            }
        }
        Self(tree)
    }

    /// The index f whose counts cover place `rank` (prefix before f <= rank < prefix with f); takes one from it.
    fn take(&mut self, mut rank: u64) -> usize {
        let mut at = 0;
        let mut step = (self.0.len() - 1).next_power_of_two();
        while step > 0 {
            if at + step < self.0.len() && self.0[at + step] <= rank {
                at += step;
                rank -= self.0[at];
            } else if at + step < self.0.len() {
                self.0[at + step] -= 1;
            }
            step /= 2;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            *count.entry(Partition::random(4, 2, seed).fold_of_row).or_insert(0) += 1;
        }
        // Six partitions, 1000 expected of each; the standard deviation is 29.
        assert_eq!(count.len(), 6);
        assert!(count.values().all(|c| (850..1150).contains(c)), "{count:?}");
    }

    #[test]
    fn few_and_many_counts_are_taken_alike() {
        let counts = [3, 1, 4, 1, 5, 9, 2, 6];
        let (mut few, mut many) = (FewCounts::new(&counts), FenwickTree::new(&counts));
        let n: u64 = counts.iter().sum();
        for left in (1..=n).rev() {
            let rank = (left * 7919) % left.max(2) % left;
            let (one_by_one, mut at_once) = (few.clone().take(rank as u32), [rank as u32]);
            few.take_all(&mut at_once);
            assert_eq!([one_by_one], at_once);
            assert_eq!(one_by_one as usize, many.take(rank));
        }
    }

    #[test]
    fn a_seed_means_the_same_partition_for_ever() {
        let partition = Partition::random(12, 3, 42);
        assert_eq!(partition.fold_of_row.as_deref(), Some(SEED_42));
    }

    /// As drawn by the first release.
    const SEED_42: &[u32] = &[1, 0, 1, 1, 2, 0, 1, 0, 2, 2, 2, 0];
}
