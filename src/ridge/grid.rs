//! The automatic grid of penalties.

use super::{double_double::Dd, normal::Objective, params::Loss};

/// Grid points in a factor of ten.
const PER_DECADE: i32 = 4;
/// The grid reaches from `10^-7` to `10^3` times the typical curvature.
const BELOW: i32 = 7 * PER_DECADE;
/// See [`BELOW`].
const ABOVE: i32 = 3 * PER_DECADE;

/// 41 penalties `10^(q/4)`, ascending, around the curvature of the loss.
///
/// `squared` and `trace` are `Σ c_j²` and `Σ c_j` over the eigenvalues `c_j` of `Σ v_i x_i x_iᵀ` (centred with an intercept,
/// columns of unit standard deviation if standardised). Their quotient is the mean eigenvalue as the features' variance sees
/// it: the eigenvalue itself if all are equal, the largest if one dominates. At λ equal to the curvature, that direction's
/// coefficient is halved; the grid goes from no noticeable shrinkage to nearly complete. The points lie on a fixed lattice:
/// they do not depend on the target, and features ten times as large move them by a factor of exactly a hundred.
pub(super) fn automatic(objective: &Objective, weight: Dd, squared: f64, trace: f64) -> Vec<f64> {
    let curvature = match objective.loss {
        Loss::Mean => squared / trace / weight.value(),
        Loss::Sum => squared / trace,
    };
    let q = f64::from(PER_DECADE) * curvature.log10();
    // Constant features have no curvature: any penalty gives the same model.
    let q = if q.is_finite() { q.round() as i32 } else { 0 };
    let lowest = (q - BELOW).clamp(-300 * PER_DECADE, 290 * PER_DECADE);
    (lowest..=lowest + BELOW + ABOVE).map(lattice).collect()
}

/// `10^(q/4)`.
fn lattice(q: i32) -> f64 {
    const STEPS: [f64; PER_DECADE as usize] =
        [1.0, 1.778_279_410_038_922_8, 3.162_277_660_168_379_5, 5.623_413_251_903_491];
    STEPS[q.rem_euclid(PER_DECADE) as usize] * 10.0_f64.powi(q.div_euclid(PER_DECADE))
}
