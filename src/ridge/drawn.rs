//! Random folds of rows that are too many to list: they are drawn again, a segment at a time, whenever they are needed.

use rand::{SeedableRng, rngs::ChaCha8Rng};
use std::sync::{Mutex, PoisonError};

use super::folds::{Free, uniform_below};

/// Rows whose folds are drawn at once.
const SEGMENT: usize = 8192;
/// Numbers that are kept of all points at which drawing can begin.
const MOST_KEPT: usize = 1 << 22;
/// So many such points at most.
const MOST_POINTS: usize = 4096;
/// Parts of the rows that several threads walk through at the same time.
const LANES: usize = 64;

/// A random partition as it is drawn.
#[derive(Debug)]
pub(super) struct Drawn {
    n_rows: usize,
    n_folds: usize,
    /// The drawing as it stood at each multiple of so many rows.
    interval: usize,
    points: Vec<Drawing>,
    lanes: Vec<Mutex<Lane>>,
}

/// A drawing that has come as far as `row`.
#[derive(Debug)]
pub(super) struct Drawing {
    n_rows: usize,
    row: usize,
    random: ChaCha8Rng,
    free: Free,
}

/// What was drawn last in a part of the rows.
#[derive(Debug, Default)]
struct Lane {
    /// Two segments: where parts meet, two threads may be at work.
    segments: [Vec<u32>; 2],
    firsts: [usize; 2],
    /// The drawing behind the newer one, which is `segments[newer]`.
    drawing: Option<Drawing>,
    newer: usize,
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

    /// The source of its numbers, and what they choose from.
    pub(super) fn into_parts(self) -> (ChaCha8Rng, Free) {
        (self.random, self.free)
    }

    /// The fold of the next row.
    #[inline]
    pub(super) fn next(&mut self) -> u32 {
        let rank = uniform_below((self.n_rows - self.row) as u64, &mut self.random);
        self.row += 1;
        self.free.take(rank)
    }
}

impl Drawn {
    /// Draws once, to remember how the drawing stood at some rows.
    pub(super) fn new(n_rows: usize, n_folds: usize, seed: u64) -> Self {
        let n_points = (MOST_KEPT / n_folds).clamp(1, MOST_POINTS);
        let interval = n_rows.div_ceil(n_points).next_multiple_of(SEGMENT);
        let mut drawing = Drawing::new(n_rows, n_folds, seed);
        let mut points = Vec::with_capacity(n_points);
        for row in 0..n_rows {
            if row.is_multiple_of(interval) {
                points.push(drawing.clone());
            }
            drawing.next();
        }
        let lanes = (0..LANES).map(|_| Mutex::default()).collect();
        Self { n_rows, n_folds, interval, points, lanes }
    }

    /// The fold of a row; quick where the rows of a thread follow each other.
    pub(super) fn fold_of(&self, row: usize) -> usize {
        let lane = row / self.n_rows.div_ceil(LANES);
        let mut lane = self.lanes[lane].lock().unwrap_or_else(PoisonError::into_inner);
        let first = row / SEGMENT * SEGMENT;
        lane.segment(first, self)[row - first] as usize
    }

    /// Rows of each fold.
    pub(super) fn sizes(&self) -> Vec<usize> {
        let (n_rows, n_folds) = (self.n_rows, self.n_folds);
        (0..n_folds).map(|f| n_rows / n_folds + usize::from(f < n_rows % n_folds)).collect()
    }
}

impl Lane {
    /// The folds of the segment that begins with row `first`.
    fn segment(&mut self, first: usize, drawn: &Drawn) -> &[u32] {
        for i in [self.newer, 1 - self.newer] {
            if self.firsts[i] == first && !self.segments[i].is_empty() {
                return &self.segments[i];
            }
        }
        let mut drawing = match self.drawing.take() {
            Some(drawing) if drawing.row == first => drawing,
            _ => drawn.points[first / drawn.interval].clone(),
        };
        while drawing.row < first {
            drawing.next();
        }
        self.newer = 1 - self.newer;
        self.firsts[self.newer] = first;
        let segment = &mut self.segments[self.newer];
        segment.clear();
        segment.extend((first..drawn.n_rows.min(first + SEGMENT)).map(|_| drawing.next()));
        self.drawing = Some(drawing);
        &self.segments[self.newer]
    }
}

#[cfg(test)]
mod tests {
    use super::super::folds::Partition;
    use super::*;

    #[test]
    fn folds_that_are_drawn_again_are_the_same_in_any_order() {
        for (n_rows, n_folds) in [(100_000, 5), (70_001, 40), (20_000, 20_000 - 1)] {
            let list = Partition::random(n_rows, n_folds, 7);
            let listed: Vec<usize> = (0..n_rows).map(|row| list.fold_of(row)).collect();
            let drawn = Drawn::new(n_rows, n_folds, 7);
            let is_same = |row| drawn.fold_of(row) == listed[row];
            assert!((0..n_rows).all(is_same));
            assert!((0..n_rows).rev().step_by(997).all(is_same));
            // Two threads, each in its half.
            assert!((0..n_rows / 2).flat_map(|i| [i, n_rows / 2 + i]).all(is_same));
            assert_eq!(drawn.sizes(), list.sizes());
        }
    }
}
