//! Sums of squares and cross-products of a set of rows around their own mean: what a least-squares problem needs to know
//! about its rows. Sets merge without cancellation, so training sets are sums of folds and nothing is ever subtracted.

use super::{double_double::Dd, precision::Real, triangle::Triangle};

/// Weight `W = Σ v_i`, mean `μ = Σ v_i z_i / W` and centred products `M = Σ v_i (z_i - μ)(z_i - μ)ᵀ` of rows
/// z = (features.., target), of length p = d + 1.
#[derive(Debug, Clone)]
pub(super) struct Moments<T> {
    pub(super) weight: Dd,
    /// Shape (p).
    pub(super) mean: Vec<Dd>,
    /// Shape (p, p).
    pub(super) m: Triangle<T>,
}

impl<T: Real> Moments<T> {
    pub(super) fn empty(p: usize) -> Self {
        Self { weight: Dd::ZERO, mean: vec![Dd::ZERO; p], m: Triangle::filled(p, T::from(0.0)) }
    }

    pub(super) fn p(&self) -> usize {
        self.mean.len()
    }

    /// Adds rows of a weight and a mean, and, by `add_products`, their products around that mean.
    pub(super) fn add(&mut self, weight: Dd, mean: Vec<Dd>, add_products: impl FnOnce(&mut Triangle<T>)) {
        if self.mean.is_empty() {
            *self = Self::empty(mean.len());
        }
        add_products(&mut self.m);
        if self.weight.hi == 0.0 {
            (self.weight, self.mean) = (weight, mean);
            return;
        }
        let total = self.weight + weight;
        let delta: Vec<Dd> = mean.iter().zip(&self.mean).map(|(b, a)| *b - *a).collect();
        add_outer(&mut self.m, self.weight * weight / total, &delta);
        let share = weight / total;
        self.mean.iter_mut().zip(&delta).for_each(|(a, delta)| *a = *a + *delta * share);
        self.weight = total;
    }

    /// The same for z in another order: entry i is the one that was at `places[i]`.
    pub(super) fn permuted(&self, places: &[usize]) -> Self {
        if self.mean.is_empty() {
            return self.clone();
        }
        let mut m = Triangle::filled(self.p(), T::from(0.0));
        for (i, (row, a)) in m.rows_mut().zip(places).enumerate() {
            row.iter_mut().zip(&places[i..]).for_each(|(m, b)| *m = self.m.at(*a, *b));
        }
        Self { weight: self.weight, mean: places.iter().map(|place| self.mean[*place]).collect(), m }
    }

    /// The moments of the union of disjoint sets of rows:
    /// `μ = Σ_g W_g μ_g / W`, `M = Σ_g (M_g + W_g (μ_g - μ)(μ_g - μ)ᵀ)`, all terms positive semidefinite.
    pub(super) fn sum(parts: &[&Self]) -> Self {
        let parts: Vec<&Self> = parts.iter().copied().filter(|part| part.weight.hi > 0.0).collect();
        let Some((first, others)) = parts.split_first() else {
            return Self::empty(0);
        };
        let weight = parts.iter().fold(Dd::ZERO, |sum, part| sum + part.weight);
        let mut mean = first.mean.clone();
        for part in others {
            let share = part.weight / weight;
            mean.iter_mut().enumerate().for_each(|(j, mean)| *mean = *mean + (part.mean[j] - first.mean[j]) * share);
        }
        let offsets: Vec<Vec<T>> =
            parts.iter().map(|part| part.mean.iter().zip(&mean).map(|(a, b)| T::from_dd(*a - *b)).collect()).collect();
        let mut m = Triangle::filled(first.p(), T::from(0.0));
        for (i, row) in m.rows_mut().enumerate() {
            for (k, (part, offset)) in parts.iter().zip(&offsets).enumerate() {
                let scale = T::from_dd(part.weight) * offset[i];
                let products = part.m.row(i).iter().zip(&offset[i..]);
                if k == 0 {
                    row.iter_mut().zip(products).for_each(|(m, (product, offset))| *m = *product + scale * *offset);
                } else {
                    for (m, (product, offset)) in row.iter_mut().zip(products) {
                        *m = *m + (*product + scale * *offset);
                    }
                }
            }
        }
        Self { weight, mean, m }
    }

    /// The same for sets that are not needed any more, in the place of the first.
    pub(super) fn merge(parts: Vec<Self>) -> Self {
        let mut parts = parts.into_iter().filter(|part| part.weight.hi > 0.0);
        let Some(mut sum) = parts.next() else {
            return Self::empty(0);
        };
        for part in parts {
            let weight = sum.weight + part.weight;
            let delta: Vec<Dd> = part.mean.iter().zip(&sum.mean).map(|(b, a)| *b - *a).collect();
            let scale = sum.weight * part.weight / weight;
            let right: Vec<T> = delta.iter().map(|x| T::from_dd(*x)).collect();
            for (i, row) in sum.m.rows_mut().enumerate() {
                let left = T::from_dd(scale * delta[i]);
                for ((m, product), right) in row.iter_mut().zip(part.m.row(i)).zip(&right[i..]) {
                    *m = *m + (*product + left * *right);
                }
            }
            let share = part.weight / weight;
            sum.mean.iter_mut().zip(delta).for_each(|(a, delta)| *a = *a + delta * share);
            sum.weight = weight;
        }
        sum
    }

    /// The products around zero, `M + W μ μᵀ`: what a fit without intercept sees.
    pub(super) fn around_zero(&self) -> Triangle<T> {
        let mut m = self.m.clone();
        add_outer(&mut m, self.weight, &self.mean);
        m
    }
}

/// `m += a δ δᵀ`.
fn add_outer<T: Real>(m: &mut Triangle<T>, a: Dd, delta: &[Dd]) {
    let right: Vec<T> = delta.iter().map(|x| T::from_dd(*x)).collect();
    for (i, row) in m.rows_mut().enumerate() {
        let left = T::from_dd(a * delta[i]);
        row.iter_mut().zip(&right[i..]).for_each(|(m, right)| *m = *m + left * *right);
    }
}
