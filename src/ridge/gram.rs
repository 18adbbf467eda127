//! `c += aᵀ a` for the narrow matrices that most data sets are.
//!
//! BLAS copies its operands into another order before it multiplies, which pays for wide matrices only: with 20 columns the
//! kernel here, which reads the rows where they are, is four times as fast as dsyrk, with 100 columns twice.
#![expect(
    unsafe_code,
    reason = "vector instructions; the lengths are checked first, the CPU's features before the call"
)]

use super::blas;

/// Above this many columns dsyrk is as fast.
pub(super) const WIDEST: usize = 192;

/// The columns that a row's buffer has for p values: whole vectors.
pub(super) fn padded(p: usize) -> usize {
    p.next_multiple_of(8)
}

/// `c += aᵀ a`, upper triangle, a: rows of `padded(p)` values of which those behind p may be anything,
/// c: (`padded(p)`, `padded(p)`) of which all other entries may become anything.
pub(super) fn add_gram(p: usize, a: &[f64], c: &mut [f64]) {
    let stride = padded(p);
    assert!(a.len().is_multiple_of(stride) && c.len() == stride * stride);
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") {
            // SAFETY: the CPU has the feature.
            return unsafe { avx512::add_gram(p, stride, a, c) };
        }
        if has!("avx2") && has!("fma") {
            // SAFETY: the CPU has the features.
            return unsafe { avx2::add_gram(p, stride, a, c) };
        }
    }
    blas::add_gram(a.len() / stride, p, (stride, stride), a, c);
}

/// A kernel for one kind of vectors: tiles of `ROWS` by `VECTORS * LANES` sums stay in registers while a panel of rows, which
/// stays in the first-level cache, passes by.
#[cfg(target_arch = "x86_64")]
macro_rules! gram_kernel {
    ($name:ident, $features:literal, $lanes:literal, $rows:literal, $vectors:literal,
     $zero:ident, $load:ident, $store:ident, $broadcast:ident, $fma:ident, $add:ident) => {
        mod $name {
            use std::arch::x86_64::*;

            const LANES: usize = $lanes;
            const ROWS: usize = $rows;
            const VECTORS: usize = $vectors;
            /// Doubles of a panel: 24 KiB.
            const PANEL: usize = 3 << 10;
            /// Rows of a panel at most: the rounding errors of a long row of additions may all have one sign.
            const MOST_ROWS: usize = 32;

            #[target_feature(enable = $features)]
            pub(super) fn add_gram(p: usize, stride: usize, a: &[f64], c: &mut [f64]) {
                let panel = (PANEL / stride).clamp(16, MOST_ROWS) * stride;
                for a in a.chunks(panel) {
                    for i in (0..p).step_by(ROWS) {
                        let mut j = i / LANES * LANES;
                        while j < p {
                            match (p - j).div_ceil(LANES) {
                                1 => tile::<1>(stride, a, (i, j), c),
                                2 => tile::<2>(stride, a, (i, j), c),
                                _ => tile::<VECTORS>(stride, a, (i, j), c),
                            }
                            j += VECTORS * LANES;
                        }
                    }
                }
            }

            /// The entries (i..i + ROWS, j..j + V * LANES).
            #[target_feature(enable = $features)]
            fn tile<const V: usize>(stride: usize, a: &[f64], (i, j): (usize, usize), c: &mut [f64]) {
                assert!(i + ROWS <= stride && j + V * LANES <= stride && a.len().is_multiple_of(stride));
                let mut sums = [[$zero(); V]; ROWS];
                for row in a.chunks_exact(stride) {
                    // SAFETY: the row holds `stride` values, and the assertion above keeps both ranges within them.
                    unsafe {
                        let (left, right) = (row.as_ptr().add(i), row.as_ptr().add(j));
                        let mut z = [$zero(); V];
                        for v in 0..V {
                            z[v] = $load(right.add(v * LANES));
                        }
                        for r in 0..ROWS {
                            let x = $broadcast(*left.add(r));
                            for v in 0..V {
                                sums[r][v] = $fma(x, z[v], sums[r][v]);
                            }
                        }
                    }
                }
                for (r, sums) in sums.iter().enumerate() {
                    let c = &mut c[(i + r) * stride + j..][..V * LANES];
                    for (v, sum) in sums.iter().enumerate() {
                        // SAFETY: c holds V vectors.
                        unsafe {
                            let entry = c.as_mut_ptr().add(v * LANES);
                            $store(entry, $add($load(entry), *sum));
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
gram_kernel!(
    avx512,
    "avx512f",
    8,
    8,
    3,
    _mm512_setzero_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_set1_pd,
    _mm512_fmadd_pd,
    _mm512_add_pd
);
#[cfg(target_arch = "x86_64")]
gram_kernel!(
    avx2,
    "avx2,fma",
    4,
    4,
    3,
    _mm256_setzero_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_set1_pd,
    _mm256_fmadd_pd,
    _mm256_add_pd
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_agree_with_dsyrk_for_every_width() {
        for p in (1..40).chain([95, 96, 97, 150, WIDEST, WIDEST + 1]) {
            for n in [1, 2, 7, 300] {
                let stride = padded(p);
                let mut a = vec![0.0; n * stride];
                for (i, row) in a.chunks_exact_mut(stride).enumerate() {
                    row[..p].iter_mut().enumerate().for_each(|(j, x)| *x = ((i * 31 + j * 17) % 23) as f64 - 11.0);
                    row[p..].fill(f64::NAN);
                }
                // Integers: every order of summation is exact.
                let mut expected = vec![1.0; stride * stride];
                blas::add_gram(n, p, (stride, stride), &a, &mut expected);
                let mut found = vec![vec![1.0; stride * stride]];
                add_gram(p, &a, &mut found[0]);
                #[cfg(target_arch = "x86_64")]
                if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                    found.push(vec![1.0; stride * stride]);
                    // SAFETY: the CPU has the features.
                    unsafe { avx2::add_gram(p, stride, &a, &mut found[1]) };
                }
                let upper =
                    |c: &[f64]| (0..p).flat_map(|i| c[i * stride + i..i * stride + p].to_vec()).collect::<Vec<_>>();
                assert!(found.iter().all(|found| upper(found) == upper(&expected)), "{n} rows, {p} columns");
            }
        }
    }
}
