//! Random folds of rows that are too many to list: they are drawn again, a segment at a time, whenever they are needed.

use super::drawing::{Drawing, SEGMENT};
use std::sync::{Mutex, PoisonError};

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

impl Drawn {
    /// Draws once, to remember how the drawing stood at some rows.
    pub(super) fn new(n_rows: usize, n_folds: usize, seed: u64) -> Self {
        let n_points = (MOST_KEPT / n_folds).clamp(1, MOST_POINTS);
        let interval = n_rows.div_ceil(n_points).next_multiple_of(SEGMENT);
        let mut drawing = Drawing::new(n_rows, n_folds, seed);
        let mut points = Vec::with_capacity(n_points);
        let mut folds = Vec::new();
        while drawing.row() < n_rows {
            if drawing.row().is_multiple_of(interval) {
                points.push(drawing.clone());
            }
            drawing.draw_segment(&mut folds);
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
            Some(drawing) if drawing.row() == first => drawing,
            _ => drawn.points[first / drawn.interval].clone(),
        };
        self.newer = 1 - self.newer;
        self.firsts[self.newer] = first;
        while drawing.row() <= first {
            drawing.draw_segment(&mut self.segments[self.newer]);
        }
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
