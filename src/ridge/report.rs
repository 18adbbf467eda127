//! What a run finds out.

use std::fmt;

/// The chosen model and the cross-validation table. Every number is finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// b; 0 if none was fitted.
    pub intercept: f64,
    /// w, one per feature, in feature order, in the columns' own units.
    pub coef: Vec<f64>,
    /// Index into `cv` of the chosen penalty: lowest mean MSE, on a tie the larger penalty.
    pub best: usize,
    /// One entry per penalty, in the order given, or ascending for the automatic grid.
    pub cv: Vec<PenaltyScore>,
    /// 1 - SSE / SST over all rows (weighted); `None` when the target is constant.
    pub r2: Option<f64>,
    /// Root of the (weighted) mean squared error over all rows.
    pub rmse: f64,
    /// Trace of the hat matrix of the final fit, intercept counted.
    pub effective_dof: f64,
    /// `s_max / s_min` of the features, centred if an intercept is fitted and each column scaled to unit norm.
    /// `None`: they are linearly dependent to working precision.
    pub condition_number: Option<f64>,
    /// The number of folds.
    pub n_folds: usize,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

/// The cross-validation errors of one penalty.
#[derive(Debug, Clone, PartialEq)]
pub struct PenaltyScore {
    /// λ.
    pub penalty: f64,
    /// Plain mean of `fold_mse`.
    pub mean_mse: f64,
    /// Population standard deviation of `fold_mse`.
    pub std_mse: f64,
    /// The (weighted) mean squared error of each fold's rows under the fit to all other rows.
    pub fold_mse: Vec<f64>,
}

/// Something about the result that deserves a look. Columns are indices into the rows' columns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// The smallest of several penalties won: a still smaller one may be better.
    BestPenaltyAtLowerEdge {
        /// The penalty.
        penalty: f64,
    },
    /// The largest of several penalties won: a still larger one may be better.
    BestPenaltyAtUpperEdge {
        /// The penalty.
        penalty: f64,
    },
    /// These features have the same value in all rows (without an intercept: zero); their coefficient is 0.
    ConstantColumns {
        /// The columns.
        columns: Vec<usize>,
    },
    /// The target has the same value in all rows.
    ConstantTarget,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BestPenaltyAtLowerEdge { penalty } => {
                write!(f, "the best penalty {penalty} is the smallest one given: a smaller one may be better")
            }
            Self::BestPenaltyAtUpperEdge { penalty } => {
                write!(f, "the best penalty {penalty} is the largest one given: a larger one may be better")
            }
            Self::ConstantColumns { columns } => {
                write!(f, "{} columns hold the same value in every row and get the coefficient 0", columns.len())
            }
            Self::ConstantTarget => write!(f, "the target has the same value in every row"),
        }
    }
}
