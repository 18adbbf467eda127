//! Cross-validation errors by penalty and fold, and whether they keep the promised digits.

use super::{
    double_double::{exponent, scaled},
    error::RidgeError,
    report::PenaltyScore,
    simd::kernel,
};

/// The mean squared error of one fold under one penalty, in squared units of the target, and a bound for its error.
#[derive(Debug, Clone, Copy)]
pub(super) struct FoldScore {
    pub(super) mse: f64,
    /// An estimate of |computed - exact|; not finite if nothing is known.
    pub(super) error: f64,
}

impl FoldScore {
    /// No result: the factorisation failed.
    pub(super) const UNKNOWN: Self = Self { mse: f64::NAN, error: f64::INFINITY };
}

/// Unit roundoff of doubles.
pub(super) const ROUNDOFF: f64 = f64::EPSILON / 2.0;

/// The relative error of a mean MSE that is accepted from double precision: ten digits are promised, one is for safety.
pub(super) const ACCEPTED: f64 = 1e-11;

/// The errors of one penalty. There may be as many folds as rows, so that only the sum of their bounds is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct FoldScores {
    /// By fold; NaN where nothing is known.
    pub(super) mse: Vec<f64>,
    /// The sum of [`FoldScore::error`] over the folds.
    pub(super) error: f64,
}

impl FoldScores {
    /// Of folds of which nothing is known yet.
    pub(super) fn unknown(n_folds: usize) -> Self {
        Self { mse: vec![f64::NAN; n_folds], error: 0.0 }
    }

    /// Adds that of the next fold.
    pub(super) fn push(&mut self, score: FoldScore) {
        self.mse.push(score.mse);
        self.error += score.error;
    }

    /// Sets that of a fold of which nothing was known.
    pub(super) fn set(&mut self, fold: usize, score: FoldScore) {
        self.mse[fold] = score.mse;
        self.error += score.error;
    }

    /// Adds those of folds that follow.
    pub(super) fn append(&mut self, mut others: Self) {
        self.mse.append(&mut others.mse);
        self.error += others.error;
    }
}

/// Whether the mean over the folds keeps the promise. A sum over no folds, NaN or infinity does not.
pub(super) fn is_certified(scores: &FoldScores) -> bool {
    scores.error <= ACCEPTED * sum(&scores.mse, 1.0)
}

/// Mean and population standard deviation of the folds' errors; `unit`: the exponent of the target's unit.
pub(super) fn penalty_score(penalty: f64, scores: FoldScores, unit: i32) -> Result<PenaltyScore, RidgeError> {
    let mut fold_mse = scores.mse;
    if unit != 0 {
        fold_mse.iter_mut().for_each(|mse| *mse = scaled(*mse, 2 * unit));
    }
    let share = 1.0 / fold_mse.len() as f64;
    // Multiplied before they are summed: the mean of representable numbers must not overflow.
    let mean_mse = sum(&fold_mse, share);
    let largest = largest_deviation(&fold_mse, mean_mse);
    let unit = scaled(1.0, -exponent(largest).clamp(-1000, 1000));
    let std_mse = if largest > 0.0 { sum_of_squares(&fold_mse, mean_mse, unit, share).sqrt() / unit } else { 0.0 };
    // The mean is finite only if all of them are.
    if mean_mse.is_finite() && std_mse.is_finite() {
        Ok(PenaltyScore { penalty, mean_mse, std_mse, fold_mse })
    } else {
        Err(RidgeError::Overflow { what: "the mean squared error", penalty })
    }
}

kernel! {
    /// `Σ x factor`.
    fn sum(values: &[f64], factor: f64) -> f64 {
        in_lanes(values, |sum, x| sum + x * factor).iter().sum()
    }
}

kernel! {
    /// `Σ ((x - mean) factor)² share`.
    fn sum_of_squares(values: &[f64], mean: f64, factor: f64, share: f64) -> f64 {
        let square = |x: f64| (x - mean) * factor * ((x - mean) * factor);
        in_lanes(values, |sum, x| sum + square(x) * share).iter().sum()
    }
}

kernel! {
    /// The largest `|x - mean|`.
    fn largest_deviation(values: &[f64], mean: f64) -> f64 {
        in_lanes(values, |largest: f64, x| largest.max((x - mean).abs())).iter().fold(0.0, |a, b| a.max(*b))
    }
}

/// Sums that are formed beside each other: none waits for another.
const LANES: usize = 32;

/// What becomes of zeros, in lanes, as values are added: there may be as many folds as rows.
#[inline(always)]
fn in_lanes(values: &[f64], add: impl Fn(f64, f64) -> f64) -> [f64; LANES] {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for values in whole {
        lanes.iter_mut().zip(values).for_each(|(lane, x)| *lane = add(*lane, *x));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane = add(*lane, *x));
    lanes
}

/// The penalty with the lowest mean MSE; on a tie the larger one.
pub(super) fn best(scores: &[PenaltyScore]) -> usize {
    let key = |i: usize| (scores[i].mean_mse, -scores[i].penalty);
    let less = |a: &usize, b: &usize| {
        let ((a_mse, a_penalty), (b_mse, b_penalty)) = (key(*a), key(*b));
        a_mse.total_cmp(&b_mse).then(a_penalty.total_cmp(&b_penalty))
    };
    (0..scores.len()).min_by(less).unwrap_or(0)
}
