//! Some rows as columns, so that a vector holds the same column of eight rows.
#![expect(
    unsafe_code,
    reason = "vector instructions; the lengths are checked first, the CPU's features before the call"
)]

use super::simd;

/// Rows that are transposed at once.
pub(super) const ROWS: usize = 32;

/// How many rows ahead are fetched.
const AHEAD: usize = 32;

/// The columns from `first` on, as many as x has, of at most [`ROWS`] rows, `n_columns` values apart, as the rows of x.
pub(super) fn transpose(values: &[f64], n_columns: usize, first: usize, x: &mut [[f64; ROWS]]) {
    assert!(first + x.len() <= n_columns && values.len() <= ROWS * n_columns);
    #[cfg(target_arch = "x86_64")]
    let n_done = if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has the feature.
        unsafe { avx512::transpose(values, n_columns, first, x) }
    } else {
        0
    };
    #[cfg(not(target_arch = "x86_64"))]
    let n_done = 0;
    for (i, row) in values.chunks_exact(n_columns).enumerate().skip(n_done) {
        for (x, value) in x.iter_mut().zip(&row[first..]) {
            x[i] = *value;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{AHEAD, ROWS, simd::prefetch};
    use std::arch::x86_64::*;

    /// Transposes as many rows as make whole vectors, and returns their number.
    #[target_feature(enable = "avx512f")]
    pub(super) fn transpose(values: &[f64], n_columns: usize, first: usize, x: &mut [[f64; ROWS]]) -> usize {
        let n_whole = values.len() / n_columns / 8 * 8;
        for i in (0..n_whole).step_by(8) {
            prefetch(values, (i + AHEAD) * n_columns, 8 * n_columns);
            let rows = &values[i * n_columns + first..(i + 7) * n_columns + first + x.len()];
            for (j, x) in x.chunks_mut(8).enumerate() {
                let columns = eight_by_eight(&rows[8 * j..], n_columns, x.len());
                for (x, column) in x.iter_mut().zip(columns) {
                    // SAFETY: there are eight values behind i.
                    unsafe { _mm512_storeu_pd(x[i..i + 8].as_mut_ptr(), column) };
                }
            }
        }
        n_whole
    }

    /// The first `n` columns, at most eight, of eight rows; behind them zeros.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn eight_by_eight(rows: &[f64], n_columns: usize, n: usize) -> [__m512d; 8] {
        assert!(n <= 8 && rows.len() >= 7 * n_columns + n);
        let mask = ((1_u32 << n) - 1) as __mmask8;
        let mut r = [_mm512_setzero_pd(); 8];
        for (i, r) in r.iter_mut().enumerate() {
            // SAFETY: the assertion above keeps the values that the mask lets pass within the rows.
            *r = unsafe { _mm512_maskz_loadu_pd(mask, rows.as_ptr().add(i * n_columns)) };
        }
        // Pairs of rows: the even columns, then the odd ones, in quarters of a vector.
        let even = [0, 2, 4, 6].map(|i| _mm512_unpacklo_pd(r[i], r[i + 1]));
        let odd = [0, 2, 4, 6].map(|i| _mm512_unpackhi_pd(r[i], r[i + 1]));
        // The quarters of all pairs side by side.
        let gather = |[a, b, c, d]: [__m512d; 4]| {
            let (low, more_low) = (_mm512_shuffle_f64x2::<0x44>(a, b), _mm512_shuffle_f64x2::<0x44>(c, d));
            let (high, more_high) = (_mm512_shuffle_f64x2::<0xee>(a, b), _mm512_shuffle_f64x2::<0xee>(c, d));
            [
                _mm512_shuffle_f64x2::<0x88>(low, more_low),
                _mm512_shuffle_f64x2::<0xdd>(low, more_low),
                _mm512_shuffle_f64x2::<0x88>(high, more_high),
                _mm512_shuffle_f64x2::<0xdd>(high, more_high),
            ]
        };
        let ([a, c, e, g], [b, d, f, h]) = (gather(even), gather(odd));
        [a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_to_its_place_for_every_shape() {
        for (n_columns, first, d) in [(1, 0, 1), (21, 1, 20), (9, 0, 8), (10, 1, 9), (30, 3, 24), (7, 2, 5)] {
            for n_rows in [1, 7, 8, 9, 31, ROWS] {
                let values: Vec<f64> = (0..n_rows * n_columns).map(|i| i as f64).collect();
                let mut x = vec![[-1.0; ROWS]; d];
                transpose(&values, n_columns, first, &mut x);
                for (j, x) in x.iter().enumerate() {
                    for (i, x) in x.iter().enumerate() {
                        let expected = if i < n_rows { (i * n_columns + first + j) as f64 } else { -1.0 };
                        assert_eq!(*x, expected, "row {i}, column {j} of {n_rows} rows, {d} of {n_columns} columns");
                    }
                }
            }
        }
    }
}
