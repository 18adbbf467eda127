//! How rows are drawn into folds at random.

use rand::{Rng, SeedableRng, rngs::ChaCha8Rng};

/// Rows whose folds are drawn at once: their ranks stay in the first-level cache.
pub(super) const SEGMENT: usize = 4096;

/// A drawing that has come as far as `row`.
#[derive(Debug)]
pub(super) struct Drawing {
    n_rows: usize,
    row: usize,
    random: ChaCha8Rng,
    free: Free,
}

impl Clone for Drawing {
    fn clone(&self) -> Self {
        let mut random = ChaCha8Rng::from_seed(self.random.get_seed());
        random.set_word_pos(self.random.get_word_pos());
        Self { n_rows: self.n_rows, row: self.row, random, free: self.free.clone() }
    }
}

impl Drawing {
    /// Sequential sampling without replacement: row i goes to fold f with probability (free places of f) / (free places),
    /// which makes every partition with these sizes equally likely and needs no permutation of the rows (the urn scheme of
    /// Fan, Muller & Rezucha 1962; Knuth, TAOCP 2, 3.4.2, for more than two urns). The first `n_rows % n_folds` folds have
    /// one row more.
    pub(super) fn new(n_rows: usize, n_folds: usize, seed: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Self { n_rows, row: 0, random: ChaCha8Rng::from_seed(key), free: Free::new(n_rows, n_folds) }
    }

    /// The row that is next.
    pub(super) fn row(&self) -> usize {
        self.row
    }

    /// Draws the folds of the next segment, or of as many rows as there are left.
    pub(super) fn draw_segment(&mut self, folds: &mut Vec<u32>) {
        let (n_rows, random) = (self.n_rows, &mut self.random);
        let rows = self.row..n_rows.min(self.row + SEGMENT);
        self.row = rows.end;
        let ranks = rows.map(|row| uniform_below((n_rows - row) as u64, random));
        folds.clear();
        match &mut self.free {
            Free::Few(free) => {
                // Ranks first, then in their place the folds that they mean.
                folds.extend(ranks.map(|rank| rank as u32));
                free.take_all(folds);
            }
            Free::Many(free) => folds.extend(ranks.map(|rank| free.take(rank) as u32)),
        }
    }
}

/// The free places of the folds while they are drawn.
#[derive(Debug, Clone)]
enum Free {
    Few(FewCounts),
    Many(FenwickTree),
}

impl Free {
    /// All places: `n_rows` of them, shared out evenly.
    fn new(n_rows: usize, n_folds: usize) -> Self {
        let sizes: Vec<u64> =
            (0..n_folds).map(|f| (n_rows / n_folds + usize::from(f < n_rows % n_folds)) as u64).collect();
        if n_folds <= FewCounts::MOST && u32::try_from(n_rows).is_ok() {
            Self::Few(FewCounts::new(&sizes))
        } else {
            Self::Many(FenwickTree::new(&sizes))
        }
    }
}

/// A uniform integer in `0..bound` (Lemire 2019, "Fast random integer generation in an interval").
fn uniform_below(bound: u64, random: &mut impl Rng) -> u64 {
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
struct FewCounts([u32; Self::MOST]);

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
struct FenwickTree(Vec<u64>);

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
}
