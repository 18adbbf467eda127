//! The two precisions that moments come in.

use super::{
    blas,
    block::{Block, GrowingMoments, centre},
    dd_loops,
    double_double::Dd,
    error::RidgeError,
    gather::{self, Source},
    gram,
    moments::Moments,
    run::Phase,
};
use std::ops::{Add, Mul, Range, Sub};

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
    /// In double precision the difference of the means is seen to as well: see [`GrowingMoments::add_block`].
    fn take_block(block: &mut Block, shift: &[f64], moments: &mut GrowingMoments<Self>) -> (Dd, Vec<Dd>);
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
    fn take_block(block: &mut Block, shift: &[f64], moments: &mut GrowingMoments<Self>) -> (Dd, Vec<Dd>) {
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
        blas::add_gram(n_rows, p, (block.stride, p), &block.hi[..n_rows * block.stride], &mut moments.square);
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
    fn take_block(block: &mut Block, shift: &[f64], moments: &mut GrowingMoments<Self>) -> (Dd, Vec<Dd>) {
        let (p, m) = (block.p, &mut moments.square);
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
            let scale = moments.weight * weight / (moments.weight + weight);
            for (i, row) in moments.square.chunks_exact_mut(p).enumerate() {
                let left = scale * delta[i];
                row[i..].iter_mut().zip(&delta[i..]).for_each(|(m, right)| *m = *m + left * *right);
            }
        }
        (weight, mean)
    }
}
