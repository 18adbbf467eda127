//! What a run is asked to do, and the check that makes it sound.

use super::{check, error::RidgeError, rows::Rows};

/// What to train. [`Params::check`] turns it into [`ValidParams`].
///
/// | Field | Purpose | Range |
/// |---|---|---|
/// | `target` | column to predict | a column |
/// | `weight` | column of row weights | another column; values not negative |
/// | `folds` | the partition for cross-validation | 2 to `n_rows` folds |
/// | `fit_intercept` | whether an unpenalised intercept is fitted | |
/// | `loss` | mean or sum of squared errors | |
/// | `standardize` | penalise coefficients of columns scaled to unit standard deviation | |
/// | `penalties` | the penalties λ to choose from; `None`: the automatic grid | finite, not negative |
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// Column of the target. Every column that is not target, weight or fold is a feature, in order.
    pub target: usize,
    /// Column of the row weights, if any.
    pub weight: Option<usize>,
    /// How the rows are parted into folds.
    pub folds: Folds,
    /// Whether to fit an intercept, which is never penalised.
    pub fit_intercept: bool,
    /// Whether the squared errors are averaged or summed in the objective.
    pub loss: Loss,
    /// Whether coefficients are penalised as if the columns had unit (population) standard deviation over the training rows.
    pub standardize: bool,
    /// The penalties, in the order in which they are reported. `None`: the automatic grid.
    pub penalties: Option<Vec<f64>>,
}

/// How the rows are parted into folds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folds {
    /// A uniformly random partition into `n_folds` parts whose sizes differ by at most one.
    /// `n_folds` = `n_rows` is leave-one-out: row i is fold i.
    Random {
        /// The number of folds.
        n_folds: usize,
        /// The same seed gives the same partition, in every version.
        seed: u64,
    },
    /// One fold for each distinct value of this column, in ascending order of the values.
    Column(usize),
}

/// The loss in the objective `Q(w, b) = loss + λ |w|²`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// `Σ v_i (<w, x_i> + b - y_i)² / Σ v_i`, with row weights `v_i` (1 if there are none).
    Mean,
    /// `Σ v_i (<w, x_i> + b - y_i)²`: scikit-learn's `Ridge(alpha = λ)`.
    Sum,
}

impl Params {
    /// Checks the parameters against the shape alone; cheap, reads no data.
    ///
    /// # Errors
    /// The first thing that is wrong: columns, folds, penalties, in this order.
    pub fn check(self, n_rows: usize, n_columns: usize) -> Result<ValidParams, RidgeError> {
        let fold = match self.folds {
            Folds::Column(column) => Some(column),
            Folds::Random { .. } => None,
        };
        let mut used: Vec<usize> = Vec::new();
        for column in [Some(self.target), self.weight, fold].into_iter().flatten() {
            if column >= n_columns {
                return Err(RidgeError::NoSuchColumn { column, n_columns });
            }
            if used.contains(&column) {
                return Err(RidgeError::ColumnUsedTwice { column });
            }
            used.push(column);
        }
        if used.len() == n_columns {
            return Err(RidgeError::NoFeatures);
        }
        if let Folds::Random { n_folds, .. } = self.folds {
            if n_folds < 2 {
                return Err(RidgeError::TooFewFolds { n_folds });
            }
            if n_folds > n_rows {
                return Err(RidgeError::TooFewRows { n_rows, n_folds });
            }
        } else if n_rows < 2 {
            return Err(RidgeError::TooFewRows { n_rows, n_folds: 2 });
        }
        if let Some(penalties) = &self.penalties {
            if penalties.is_empty() {
                return Err(RidgeError::NoPenalties);
            }
            if let Some(index) = penalties.iter().position(|p| !(p.is_finite() && *p >= 0.0)) {
                return Err(RidgeError::InvalidPenalty { index, value: penalties[index] });
            }
        }
        Ok(ValidParams { params: self, n_rows, n_columns })
    }
}

/// Parameters that fit rows of a known shape.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidParams {
    pub(super) params: Params,
    pub(super) n_rows: usize,
    pub(super) n_columns: usize,
}

impl ValidParams {
    /// The parameters that were checked.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Checks what can be wrong in the data, in one pass over the rows.
    ///
    /// # Errors
    /// [`RidgeError::ShapeMismatch`], [`RidgeError::NonFinite`], [`RidgeError::NegativeWeight`] (the first such cell),
    /// [`RidgeError::TooFewFoldValues`], [`RidgeError::FoldWithoutWeight`], [`RidgeError::Rows`].
    pub fn check_rows(&self, rows: &dyn Rows) -> Result<(), RidgeError> {
        check::check_rows(self, rows)
    }
}
