//! Which column plays which part, and how a row is gathered into (features.., target).

use super::params::{Folds, Params};
use std::ops::Range;

/// The parts that the columns play.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    pub(super) target: usize,
    pub(super) weight: Option<usize>,
    /// The features as runs of adjacent columns, so that a row is gathered by a few copies.
    runs: Vec<Range<usize>>,
    pub(super) features: Vec<usize>,
}

/// Where (features.., target) lie if they are adjacent columns, in some order.
#[derive(Debug, Clone)]
pub(super) struct Adjacent {
    /// The first of the columns.
    pub(super) first: usize,
    /// How far behind it each of (features.., target) lies.
    pub(super) places: Vec<usize>,
}

impl Columns {
    pub(super) fn new(params: &Params, n_columns: usize) -> Self {
        let fold = match params.folds {
            Folds::Column(column) => Some(column),
            Folds::Random { .. } => None,
        };
        let is_feature = |c: &usize| *c != params.target && Some(*c) != params.weight && Some(*c) != fold;
        let features: Vec<usize> = (0..n_columns).filter(is_feature).collect();
        let mut runs: Vec<Range<usize>> = Vec::new();
        for &c in &features {
            match runs.last_mut() {
                Some(run) if run.end == c => run.end += 1,
                _ => runs.push(c..c + 1),
            }
        }
        Self { target: params.target, weight: params.weight, runs, features }
    }

    /// The number of features d.
    pub(super) fn n_features(&self) -> usize {
        self.features.len()
    }

    /// The row's weight; 1 if there is no weight column.
    pub(super) fn weight(&self, row: &[f64]) -> f64 {
        self.weight.map_or(1.0, |c| row[c])
    }

    /// The columns of (features.., target) as runs of adjacent ones: where a run begins among them, and its columns.
    pub(super) fn parts(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let target = self.target..self.target + 1;
        self.runs.iter().cloned().chain([target]).scan(0, |next, run| {
            let at = *next;
            *next += run.len();
            Some((at, run))
        })
    }

    /// Copies features and then target to `out`, of length d + 1.
    pub(super) fn gather(&self, row: &[f64], out: &mut [f64]) {
        for (at, run) in self.parts() {
            out[at..at + run.len()].copy_from_slice(&row[run]);
        }
    }

    /// `None` if there are other columns between features and target.
    pub(super) fn all_adjacent(&self) -> Option<Adjacent> {
        let columns = self.features.iter().chain([&self.target]);
        let first = columns.clone().copied().min()?;
        let places: Vec<usize> = columns.map(|c| c - first).collect();
        places.iter().all(|place| *place < places.len()).then_some(Adjacent { first, places })
    }

    /// Whether the features are adjacent columns.
    pub(super) fn are_adjacent(&self) -> bool {
        self.runs.len() == 1
    }

    /// The first feature's column, if the features are adjacent columns.
    pub(super) fn adjacent_from(&self) -> Option<usize> {
        match self.runs.as_slice() {
            [run] => Some(run.start),
            _ => None,
        }
    }

    /// The features as a slice of the row itself, if they are adjacent columns.
    pub(super) fn adjacent<'r>(&self, row: &'r [f64]) -> Option<&'r [f64]> {
        match self.runs.as_slice() {
            [run] => Some(&row[run.clone()]),
            _ => None,
        }
    }
}
