//! Sums of squares and cross-products of a set of rows around their own mean: what a least-squares problem needs to know
//! about its rows. Sets merge without cancellation, so training sets are sums of folds and nothing is ever subtracted.

use super::blas;
use super::dd_loops;
use super::double_double::{Dd, two_sum};
use super::simd::kernel;
use super::{
    error::RidgeError,
    gather::{self, Source},
    gram,
    run::Phase,
};
use std::ops::{Add, Mul, Range, Sub};

/// A row block on its way into moments: z = (features.., target) of some rows, less a shift, as high and low parts.
#[derive(Debug, Clone)]
pub(super) struct Block {
    p: usize,
    /// Room for `capacity` rows of `stride` values and for one more; those behind p are zero.
    hi: Vec<f64>,
    /// Empty in double precision.
    lo: Vec<f64>,
    stride: usize,
    capacity: usize,
    /// The weights of the rows that are there.
    pub(super) weights: Vec<f64>,
}

/// The two precisions that moments come in.
pub(super) trait Real:
    Copy + Send + Sync + 'static + From<f64> + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self>
{
    /// Whether rows keep their low parts.
    const IS_DOUBLED: bool;
    /// How far apart the rows of a block lie.
    fn stride(p: usize) -> usize;
    fn from_dd(x: Dd) -> Self;
    fn dd(self) -> Dd;
    /// The moments of some blocks of the source's rows by cells.
    fn chunk_moments(
        source: &Source<'_>,
        blocks: Range<usize>,
        n_cells: usize,
        cell_of: &impl Fn(usize) -> Option<usize>,
        phase: &Phase<'_>,
    ) -> Result<Vec<Moments<Self>>, RidgeError> {
        gather::chunk_moments(source, blocks, n_cells, cell_of, phase)
    }
    /// Centres the block around its mean, adds its products to the moments', and returns (weight, mean).
    /// In double precision the difference of the means is seen to as well: see [`Moments::add_block`].
    fn take_block(block: &mut Block, shift: &[f64], moments: &mut Moments<Self>) -> (Dd, Vec<Dd>);
}

impl Real for f64 {
    const IS_DOUBLED: bool = false;
    fn stride(p: usize) -> usize {
        // Whole cache lines.
        p.next_multiple_of(8)
    }
    fn from_dd(x: Dd) -> Self {
        x.value()
    }
    fn dd(self) -> Dd {
        Dd::from(self)
    }
    fn chunk_moments(
        source: &Source<'_>,
        blocks: Range<usize>,
        n_cells: usize,
        cell_of: &impl Fn(usize) -> Option<usize>,
        phase: &Phase<'_>,
    ) -> Result<Vec<Moments<Self>>, RidgeError> {
        if source.p() < gram::WIDEST {
            gather::narrow_chunk_moments(source, blocks, n_cells, cell_of, phase)
        } else {
            gather::chunk_moments(source, blocks, n_cells, cell_of, phase)
        }
    }
    fn take_block(block: &mut Block, shift: &[f64], moments: &mut Moments<Self>) -> (Dd, Vec<Dd>) {
        let (weight, mean) = block.mean();
        let (p, mut n_rows) = (block.p, block.weights.len());
        centre(&mean, &block.weights, &mut block.hi[..n_rows * block.stride]);
        let mean: Vec<Dd> = mean[..p].iter().zip(shift).map(|(mean, shift)| Dd::sum(*shift, *mean)).collect();
        if moments.weight.hi > 0.0 {
            // The difference of the means as one more row: a pass over the products is spared.
            let root = (moments.weight * weight / (moments.weight + weight)).value().sqrt();
            let row = &mut block.hi[n_rows * block.stride..][..p];
            for (z, (b, a)) in row.iter_mut().zip(mean.iter().zip(&moments.mean)) {
                *z = root * (*b - *a).value();
            }
            n_rows += 1;
        }
        blas::add_gram(n_rows, p, (block.stride, p), &block.hi[..n_rows * block.stride], &mut moments.m);
        (weight, mean)
    }
}

impl Real for Dd {
    const IS_DOUBLED: bool = true;
    fn stride(p: usize) -> usize {
        p
    }
    fn from_dd(x: Dd) -> Self {
        x
    }
    fn dd(self) -> Dd {
        self
    }
    fn take_block(block: &mut Block, shift: &[f64], moments: &mut Moments<Self>) -> (Dd, Vec<Dd>) {
        let (p, m) = (block.p, &mut moments.m);
        let (weight, mean) = block.mean();
        let n_values = block.weights.len() * p;
        let (block_hi, block_lo) = (&mut block.hi[..n_values], &mut block.lo[..n_values]);
        // The rounded mean is a double, so z - mean is good to 106 bits; what the mean lacks is added below.
        let mut rest = vec![Dd::ZERO; p];
        for ((hi, lo), w) in block_hi.chunks_exact_mut(p).zip(block_lo.chunks_exact_mut(p)).zip(&block.weights) {
            for j in 0..p {
                let z = Dd { hi: hi[j], lo: lo[j] } - Dd::from(mean[j]);
                (hi[j], lo[j]) = (z.hi, z.lo);
                rest[j] = rest[j] + z * Dd::from(*w);
            }
        }
        if block.weights.iter().all(|w| *w == 1.0) {
            let z = (&*block_hi, &*block_lo);
            dd_loops::add_gram(p, z, z, m);
        } else {
            let (mut hi, mut lo) = (block_hi.to_vec(), block_lo.to_vec());
            for ((hi, lo), w) in hi.chunks_exact_mut(p).zip(lo.chunks_exact_mut(p)).zip(&block.weights) {
                for (hi, lo) in hi.iter_mut().zip(lo) {
                    let z = Dd { hi: *hi, lo: *lo } * Dd::from(*w);
                    (*hi, *lo) = (z.hi, z.lo);
                }
            }
            dd_loops::add_gram(p, (&hi, &lo), (block_hi, block_lo), m);
        }
        let mean = mean.iter().zip(rest).map(|(mean, rest)| Dd::from(*mean) + rest / weight);
        let mean: Vec<Dd> = mean.zip(shift).map(|(mean, shift)| Dd::from(*shift) + mean).collect();
        if moments.weight.hi > 0.0 {
            let delta: Vec<Dd> = mean.iter().zip(&moments.mean).map(|(b, a)| *b - *a).collect();
            add_outer(&mut moments.m, moments.weight * weight / (moments.weight + weight), &delta);
        }
        (weight, mean)
    }
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
    fn mean(&self) -> (Dd, Vec<f64>) {
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

/// Weight `W = Σ v_i`, mean `μ = Σ v_i z_i / W` and centred products `M = Σ v_i (z_i - μ)(z_i - μ)ᵀ` of rows
/// z = (features.., target), of length p = d + 1.
#[derive(Debug, Clone)]
pub(super) struct Moments<T> {
    pub(super) weight: Dd,
    /// Shape (p).
    pub(super) mean: Vec<Dd>,
    /// Shape (p, p), row-major, the upper triangle.
    pub(super) m: Vec<T>,
}

impl<T: Real> Moments<T> {
    pub(super) fn empty(p: usize) -> Self {
        Self { weight: Dd::ZERO, mean: vec![Dd::ZERO; p], m: vec![T::from(0.0); p * p] }
    }

    pub(super) fn p(&self) -> usize {
        self.mean.len()
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

    /// Adds rows of a weight and a mean, and, by `add_products`, their products around that mean.
    pub(super) fn add(&mut self, weight: Dd, mean: Vec<Dd>, add_products: impl FnOnce(&mut [T])) {
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
        let p = self.p();
        let mut m = vec![T::from(0.0); p * p];
        for (i, &a) in places.iter().enumerate() {
            for (j, &b) in places.iter().enumerate().skip(i) {
                m[i * p + j] = self.m[a.min(b) * p + a.max(b)];
            }
        }
        Self { weight: self.weight, mean: places.iter().map(|place| self.mean[*place]).collect(), m }
    }

    /// The moments of the union of disjoint sets of rows:
    /// `μ = Σ_g W_g μ_g / W`, `M = Σ_g (M_g + W_g (μ_g - μ)(μ_g - μ)ᵀ)`, all terms positive semidefinite.
    pub(super) fn sum(parts: &[&Self]) -> Self {
        let mut sum = Self::empty(0);
        sum.set_sum(parts);
        sum
    }

    /// Becomes [`Moments::sum`] of other sets.
    pub(super) fn set_sum(&mut self, parts: &[&Self]) {
        let parts: Vec<&Self> = parts.iter().copied().filter(|part| part.weight.hi > 0.0).collect();
        let Some((first, others)) = parts.split_first() else {
            *self = Self::empty(0);
            return;
        };
        let p = first.p();
        let weight = parts.iter().fold(Dd::ZERO, |sum, part| sum + part.weight);
        let mut mean = first.mean.clone();
        for part in others {
            let share = part.weight / weight;
            mean.iter_mut().enumerate().for_each(|(j, mean)| *mean = *mean + (part.mean[j] - first.mean[j]) * share);
        }
        let offsets: Vec<Vec<T>> =
            parts.iter().map(|part| part.mean.iter().zip(&mean).map(|(a, b)| T::from_dd(*a - *b)).collect()).collect();
        self.m.resize(p * p, T::from(0.0));
        for i in 0..p {
            let row = &mut self.m[i * p + i..(i + 1) * p];
            for (k, (part, offset)) in parts.iter().zip(&offsets).enumerate() {
                let scale = T::from_dd(part.weight) * offset[i];
                let products = part.m[i * p + i..(i + 1) * p].iter().zip(&offset[i..]);
                if k == 0 {
                    row.iter_mut().zip(products).for_each(|(m, (product, offset))| *m = *product + scale * *offset);
                } else {
                    for (m, (product, offset)) in row.iter_mut().zip(products) {
                        *m = *m + (*product + scale * *offset);
                    }
                }
            }
        }
        (self.weight, self.mean) = (weight, mean);
    }

    /// The same for sets that are not needed any more, in the place of the first.
    pub(super) fn merge(parts: Vec<Self>) -> Self {
        let mut parts = parts.into_iter().filter(|part| part.weight.hi > 0.0);
        let Some(mut sum) = parts.next() else {
            return Self::empty(0);
        };
        for part in parts {
            let (weight, p) = (sum.weight + part.weight, sum.p());
            let delta: Vec<Dd> = part.mean.iter().zip(&sum.mean).map(|(b, a)| *b - *a).collect();
            let scale = sum.weight * part.weight / weight;
            let right: Vec<T> = delta.iter().map(|x| T::from_dd(*x)).collect();
            for i in 0..p {
                let left = T::from_dd(scale * delta[i]);
                let row = i * p + i..(i + 1) * p;
                for ((m, product), right) in sum.m[row.clone()].iter_mut().zip(&part.m[row]).zip(&right[i..]) {
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
    pub(super) fn around_zero(&self) -> Vec<T> {
        let mut m = self.m.clone();
        add_outer(&mut m, self.weight, &self.mean);
        m
    }
}

/// `m += a δ δᵀ` on the upper triangle.
fn add_outer<T: Real>(m: &mut [T], a: Dd, delta: &[Dd]) {
    let p = delta.len();
    let right: Vec<T> = delta.iter().map(|x| T::from_dd(*x)).collect();
    for i in 0..p {
        let left = T::from_dd(a * delta[i]);
        for (m, right) in m[i * p + i..(i + 1) * p].iter_mut().zip(&right[i..]) {
            *m = *m + left * *right;
        }
    }
}
