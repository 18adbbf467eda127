//! The inner loops of double-double arithmetic: products of vectors and matrices.

use super::double_double::{Dd, two_product, two_sum};
use super::simd::kernel;

kernel! {
    /// `<x, w>` in doubled precision, w as high and low parts (Ogita, Rump & Oishi 2005, Dot2, in eight lanes).
    fn dot(x: &[f64], w_hi: &[f64], w_lo: &[f64]) -> Dd {
        let (w_hi, w_lo) = (&w_hi[..x.len()], &w_lo[..x.len()]);
        let ((x, x_rest), (h, h_rest), (l, l_rest)) = (x.as_chunks::<8>(), w_hi.as_chunks::<8>(), w_lo.as_chunks::<8>());
        let (mut sums, mut rests) = ([0.0; 8], [0.0; 8]);
        for ((x, h), l) in x.iter().zip(h).zip(l) {
            for k in 0..8 {
                let (p, e) = two_product(x[k], h[k]);
                let (sum, t) = two_sum(sums[k], p);
                sums[k] = sum;
                rests[k] += t + (e + x[k] * l[k]);
            }
        }
        // The lanes are added in an order that would have the compiler tear the vectors of the loop above apart.
        let (mut s, mut c) = std::hint::black_box((sums, rests));
        for (k, ((x, h), l)) in x_rest.iter().zip(h_rest).zip(l_rest).enumerate() {
            let (p, e) = two_product(*x, *h);
            let (sum, t) = two_sum(s[k], p);
            s[k] = sum;
            c[k] += t + (e + x * l);
        }
        for half in [4, 2, 1] {
            for k in 0..half {
                let (sum, t) = two_sum(s[k], s[k + half]);
                s[k] = sum;
                c[k] += c[k + half] + t;
            }
        }
        Dd::sum(s[0], c[0])
    }
}

kernel! {
    /// `g += a x` in doubled precision, g as high and low parts that need not be normalised.
    fn add_scaled(a: Dd, x: &[f64], g_hi: &mut [f64], g_lo: &mut [f64]) {
        for ((x, h), l) in x.iter().zip(g_hi).zip(g_lo) {
            let (p, e) = two_product(*x, a.hi);
            let (sum, t) = two_sum(*h, p);
            *h = sum;
            *l += t + (e + *x * a.lo);
        }
    }
}

kernel! {
    /// `g += a x` in doubles.
    fn add_rounded(a: f64, x: &[f64], g: &mut [f64]) {
        for (x, g) in x.iter().zip(g) {
            *g += a * x;
        }
    }
}

kernel! {
    /// `y -= a x`.
    fn subtract_scaled(a: Dd, x: &[Dd], y: &mut [Dd]) {
        for (x, y) in x.iter().zip(y) {
            *y = *y - a * *x;
        }
    }
}

kernel! {
    /// `m += leftᵀ right` on the upper triangle, for two row-major (rows, p) matrices as high and low parts.
    fn add_gram(p: usize, left: (&[f64], &[f64]), right: (&[f64], &[f64]), m: &mut [Dd]) {
        for i in 0..p {
            let mut j = i;
            while j + 8 <= p {
                gram_tile::<8>(p, i, j, left, right, m);
                j += 8;
            }
            while j < p {
                gram_tile::<1>(p, i, j, left, right, m);
                j += 1;
            }
        }
    }
}

/// The entries (i, j..j + L) of [`add_gram`].
#[inline(always)]
fn gram_tile<const L: usize>(
    p: usize,
    i: usize,
    j: usize,
    left: (&[f64], &[f64]),
    right: (&[f64], &[f64]),
    m: &mut [Dd],
) {
    let (mut s, mut c) = ([0.0; L], [0.0; L]);
    let rows = left.0.chunks_exact(p).zip(left.1.chunks_exact(p));
    let others = right.0.chunks_exact(p).zip(right.1.chunks_exact(p));
    for ((a, a_lo), (b, b_lo)) in rows.zip(others) {
        let (a, a_lo) = (a[i], a_lo[i]);
        let (b, b_lo) = (&b[j..j + L], &b_lo[j..j + L]);
        for k in 0..L {
            let (product, e) = two_product(a, b[k]);
            let (sum, t) = two_sum(s[k], product);
            s[k] = sum;
            c[k] += t + (e + (a * b_lo[k] + a_lo * b[k]));
        }
    }
    for k in 0..L {
        let entry = &mut m[i * p + j + k];
        *entry = *entry + Dd::sum(s[k], c[k]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_keeps_what_cancels_in_doubles() {
        // 1e20 + 1 - 1e20 in every residue class of the lanes.
        for pad in 0..17 {
            let mut x = vec![0.0; pad];
            x.extend([1e20, 1.0, -1e20]);
            let one = vec![1.0; x.len()];
            let zero = vec![0.0; x.len()];
            assert_eq!(dot(&x, &one, &zero), Dd::from(1.0));
        }
    }
}
