//! The systems of the dual: sub-matrices of the rows' Gram matrix, centred for their training rows, under a penalty.

use super::{
    double_double::{Dd, exponent, scaled},
    kernel::{KernelReal, Samples},
    normal::Objective,
};

/// The centred system of some training rows.
#[derive(Clone)]
pub(super) struct DualSystem<T> {
    /// The training rows with weight.
    pub(super) rows: Vec<usize>,
    /// Roots of their weights.
    pub(super) roots: Vec<T>,
    pub(super) weight: Dd,
    /// `2^-base_shift (S K_c S + m s sᵀ)`, s = S 1 / |S 1|: the last term fills the direction that centring empties.
    /// Shape (rows, rows), the upper triangle.
    base: Vec<T>,
    pub(super) base_shift: i32,
    /// `2^-base_shift m`; 0 without intercept.
    base_fill: T,
    /// `2^-shift (S K_c S + m s sᵀ + α I)` for the α that was set last, or what a solver left of it.
    pub(super) b: Vec<T>,
    /// `S (y - μ_y)`.
    pub(super) right: Vec<T>,
    /// `2^-shift α`.
    pub(super) ridge: T,
    pub(super) shift: i32,
    /// `μ_y`.
    pub(super) target_mean: T,
    /// `Σ_j v_j K_ij / W` for all rows i, and its mean.
    kernel_means: Vec<T>,
    kernel_mean: T,
    fit_intercept: bool,
}

impl<T: KernelReal> DualSystem<T> {
    pub(super) fn new(objective: &Objective, samples: &Samples, k: &[T], is_training: impl Fn(usize) -> bool) -> Self {
        let n = samples.weights.len();
        let rows: Vec<usize> = (0..n).filter(|i| samples.weights[*i] > 0.0 && is_training(*i)).collect();
        let weights: Vec<Dd> = rows.iter().map(|i| Dd::from(samples.weights[*i])).collect();
        let weight = weights.iter().fold(Dd::ZERO, |sum, w| sum + *w);
        let roots: Vec<T> = weights.iter().map(|w| T::from_dd(w.sqrt())).collect();
        let shares: Vec<T> = weights.iter().map(|w| T::from_dd(*w / weight)).collect();
        let zero = T::from(0.0);
        let (mut kernel_means, mut kernel_mean, mut target_mean) = (vec![zero; n], zero, zero);
        if objective.fit_intercept {
            let mut all_shares = vec![zero; n];
            rows.iter().zip(&shares).for_each(|(i, share)| all_shares[*i] = *share);
            for (mean, k) in kernel_means.iter_mut().zip(k.chunks_exact(n)) {
                *mean = T::dot(k, &all_shares);
            }
            for (i, share) in rows.iter().zip(&shares) {
                kernel_mean = kernel_mean + kernel_means[*i] * *share;
                target_mean = target_mean
                    + T::from_dd(Dd::sum(samples.targets[*i], -samples.origin[samples.origin.len() - 1])) * *share;
            }
        }
        let mut system = Self {
            rows,
            roots,
            weight,
            base: Vec::new(),
            base_shift: 0,
            base_fill: zero,
            b: Vec::new(),
            right: Vec::new(),
            ridge: zero,
            shift: 0,
            target_mean,
            kernel_means,
            kernel_mean,
            fit_intercept: objective.fit_intercept,
        };
        system.right = system.rows.iter().zip(&system.roots).map(|(i, s)| system.target(samples, *i) * *s).collect();
        system.fill(k, n);
        system
    }

    fn fill(&mut self, k: &[T], n: usize) {
        let m = self.rows.len();
        let mut base = vec![T::from(0.0); m * m];
        let mut largest = 0.0_f64;
        for (i, row) in self.rows.iter().enumerate() {
            let (k, place) = (&k[row * n..(row + 1) * n], &mut base[i * m + i..(i + 1) * m]);
            for ((place, other), root) in place.iter_mut().zip(&self.rows[i..]).zip(&self.roots[i..]) {
                *place = self.centred(k, *row, *other) * self.roots[i] * *root;
            }
            largest = largest.max(place[0].dd().hi);
        }
        self.base_shift = exponent(largest).clamp(-1000, 1000);
        let factor = T::from(scaled(1.0, -self.base_shift));
        base.iter_mut().for_each(|b| *b = *b * factor);
        if self.fit_intercept {
            let trace = (0..m).fold(0.0, |sum, i| sum + base[i * m + i].dd().hi);
            let fill = Dd::from(if trace > 0.0 { trace / m as f64 } else { 1.0 });
            self.base_fill = T::from_dd(fill);
            let fill = fill / self.weight;
            for i in 0..m {
                let left = T::from_dd(fill) * self.roots[i];
                let place = &mut base[i * m + i..(i + 1) * m];
                place.iter_mut().zip(&self.roots[i..]).for_each(|(b, root)| *b = *b + left * *root);
            }
        }
        self.base = base;
    }

    /// Sets the system's penalty.
    pub(super) fn set_penalty(&mut self, objective: &Objective, penalty: f64, unit: i32) {
        self.set_penalty_for(objective, penalty, self.weight, unit);
    }

    /// Sets the penalty that training rows of another weight would have.
    pub(super) fn set_penalty_for(&mut self, objective: &Objective, penalty: f64, weight: Dd, unit: i32) {
        self.set_ridge_for(objective, penalty, weight, unit);
        let m = self.rows.len();
        if self.shift == self.base_shift {
            self.b.clone_from(&self.base);
        } else {
            let factor = self.factor_of_b();
            self.b.clear();
            self.b.extend(self.base.iter().map(|b| *b * factor));
        }
        for i in 0..m {
            self.b[i * m + i] = self.b[i * m + i] + self.ridge;
        }
    }

    /// The same without b, for one who has reduced the [base](Self::base): b is [`Self::factor_of_b`] times that and the ridge.
    pub(super) fn set_ridge(&mut self, objective: &Objective, penalty: f64, unit: i32) {
        self.set_ridge_for(objective, penalty, self.weight, unit);
    }

    fn set_ridge_for(&mut self, objective: &Objective, penalty: f64, weight: Dd, unit: i32) {
        let (alpha, e) = objective.ridge(penalty, weight);
        // Standardised features have no unit.
        let e = if objective.standardize { e } else { e - 2 * unit };
        let least = if alpha.hi > 0.0 { exponent(alpha.hi) + e } else { -1100 };
        self.shift = self.base_shift.max(least).clamp(-1000, 1000);
        self.ridge = T::from_dd(alpha.scaled(e - self.shift));
    }

    pub(super) fn base(&self) -> &[T] {
        &self.base
    }

    /// `2^(base_shift - shift)`.
    pub(super) fn factor_of_b(&self) -> T {
        T::from(scaled(1.0, self.base_shift - self.shift))
    }

    /// `y_i - μ_y`.
    pub(super) fn target(&self, samples: &Samples, row: usize) -> T {
        let origin = samples.origin[samples.origin.len() - 1];
        T::from_dd(Dd::sum(samples.targets[row], -origin)) - self.target_mean
    }

    /// `K_ij - k̄_i - k̄_j + k̄`, for row i of K.
    pub(super) fn centred(&self, k: &[T], i: usize, j: usize) -> T {
        if self.fit_intercept { k[j] - self.kernel_means[i] - self.kernel_means[j] + self.kernel_mean } else { k[j] }
    }

    pub(super) fn fit_intercept(&self) -> bool {
        self.fit_intercept
    }

    /// `2^-shift m`: with α, the eigenvalue of b for s.
    pub(super) fn fill_of_b(&self) -> T {
        self.base_fill * self.factor_of_b()
    }

    /// The largest entry of b, before it is solved, or of K in the same units: centring K adds the rounding errors of its
    /// own, larger, entries.
    pub(super) fn largest(&self, k: &[T], n: usize) -> f64 {
        let m = self.rows.len();
        (0..m).fold(self.largest_of_kernel(k, n), |a, i| a.max(self.b[i * m + i].dd().hi))
    }

    /// The largest entry of K, in the units of b.
    pub(super) fn largest_of_kernel(&self, k: &[T], n: usize) -> f64 {
        self.rows.iter().fold(0.0, |a: f64, i| a.max(k[i * n + i].dd().hi)) * scaled(1.0, -self.shift)
    }

    /// `2^-base_shift (K_c S)_ij` for a row i outside, all training rows j.
    pub(super) fn products_with(&self, k: &[T], n: usize, i: usize) -> Vec<T> {
        let factor = T::from(scaled(1.0, -self.base_shift));
        let k = &k[i * n..(i + 1) * n];
        self.rows.iter().zip(&self.roots).map(|(j, root)| self.centred(k, i, *j) * factor * *root).collect()
    }
}
