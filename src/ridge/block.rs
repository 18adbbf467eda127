//! Rows on their way into moments, in blocks that are worth multiplying.

use super::{
    double_double::{Dd, two_sum},
    moments::Moments,
    precision::Real,
    simd::kernel,
    triangle::Triangle,
};

/// A row block on its way into moments: z = (features.., target) of some rows, less a shift, as high and low parts.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) p: usize,
    /// Room for `capacity` rows of `stride` values and for one more; those behind p are zero.
    pub(super) hi: Vec<f64>,
    /// Empty in double precision.
    pub(super) lo: Vec<f64>,
    pub(super) stride: usize,
    capacity: usize,
    /// The weights of the rows that are there.
    pub(super) weights: Vec<f64>,
}

impl Block {
    pub(super) fn new<T: Real>(p: usize, capacity: usize) -> Self {
        let stride = T::stride(p);
        let low = if T::IS_DOUBLED { capacity * stride } else { 0 };
        Self { p, hi: vec![0.0; (capacity + 1) * stride], lo: vec![0.0; low], stride, capacity, weights: Vec::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.weights.len() == self.capacity
    }

    /// Sets the values from `at` on of the row that is next, less a shift.
    #[inline]
    pub(super) fn set(&mut self, at: usize, values: &[f64], shift: &[f64]) {
        let start = self.weights.len() * self.stride + at;
        let row = &mut self.hi[start..start + values.len()];
        row.iter_mut().zip(values).zip(shift).for_each(|((z, x), shift)| *z = x - shift);
    }

    /// Sets the row that is next, less a shift, without loss.
    pub(super) fn set_exactly(&mut self, values: &[f64], shift: &[f64]) {
        let start = self.weights.len() * self.stride;
        for (j, (x, shift)) in values.iter().zip(shift).enumerate() {
            (self.hi[start + j], self.lo[start + j]) = two_sum(*x, -shift);
        }
    }

    /// Weight and weighted mean in double precision; as many values as a row has room for.
    pub(super) fn mean(&self) -> (Dd, Vec<f64>) {
        let mut sum = vec![0.0; self.stride];
        let weight = self.weights.iter().fold(Dd::ZERO, |sum, w| sum + Dd::from(*w));
        add_rows(&self.hi, &self.weights, &mut sum);
        let total = weight.value();
        sum.iter_mut().for_each(|s| *s /= total);
        (weight, sum)
    }
}

kernel! {
    /// `sum += Σ w_i z_i` over rows z.
    fn add_rows(rows: &[f64], weights: &[f64], sum: &mut [f64]) {
        for (z, w) in rows.chunks_exact(sum.len()).zip(weights) {
            if *w == 1.0 {
                sum.iter_mut().zip(z).for_each(|(sum, z)| *sum += z);
            } else {
                sum.iter_mut().zip(z).for_each(|(sum, z)| *sum += w * z);
            }
        }
    }
}

kernel! {
    /// `z_i = w_i^(1/2) (z_i - mean)` for rows z.
    fn centre(mean: &[f64], weights: &[f64], rows: &mut [f64]) {
        for (z, w) in rows.chunks_exact_mut(mean.len()).zip(weights) {
            z.iter_mut().zip(mean).for_each(|(z, mean)| *z -= mean);
            if *w != 1.0 {
                let root = w.sqrt();
                z.iter_mut().for_each(|z| *z *= root);
            }
        }
    }
}

/// [`Moments`] that blocks are added to: BLAS wants the products as a whole square.
#[derive(Debug, Clone)]
pub(super) struct GrowingMoments<T> {
    pub(super) weight: Dd,
    pub(super) mean: Vec<Dd>,
    /// Shape (p, p), row-major, the upper triangle.
    pub(super) square: Vec<T>,
}

impl<T: Real> GrowingMoments<T> {
    /// Of no rows yet.
    pub(super) fn new(p: usize) -> Self {
        Self { weight: Dd::ZERO, mean: vec![Dd::ZERO; p], square: vec![T::from(0.0); p * p] }
    }

    /// Adds the rows of a block, given less `shift`, and empties it.
    pub(super) fn add_block(&mut self, block: &mut Block, shift: &[f64]) {
        if block.weights.is_empty() {
            return;
        }
        // Chan, Golub & LeVeque 1979: M = M_a + M_b + (W_a W_b / W) δ δᵀ, δ = μ_b - μ_a.
        let (weight, mean) = T::take_block(block, shift, self);
        let total = self.weight + weight;
        if self.weight.hi > 0.0 {
            let share = weight / total;
            self.mean.iter_mut().zip(&mean).for_each(|(a, b)| *a = *a + (*b - *a) * share);
        } else {
            self.mean = mean;
        }
        self.weight = total;
        block.weights.clear();
    }

    pub(super) fn finish(self) -> Moments<T> {
        Moments { weight: self.weight, m: Triangle::of_square(self.mean.len(), self.square), mean: self.mean }
    }
}
