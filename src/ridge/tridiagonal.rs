//! Symmetric systems `(f A + α I) x = r` for many f and α: one orthogonal reduction `A = Q T Qᵀ` to a tridiagonal T (dsytrd; Golub
//! & Van Loan 2013, section 8.3.1), after which each takes O(n²). For ridge regression: Eldén 1977, on bidiagonal matrices.
#![expect(unsafe_code, reason = "foreign functions; every function checks the lengths of its slices first")]

use super::blas::{UPPER, int};
use lapack_sys::{dormtr_, dptcon_, dpttrf_, dpttrs_, dsytrd_};
use std::ffi::c_char;

/// The blocked routines' work space, in columns; more than their block size brings nothing.
const BLOCK: usize = 64;

/// A matrix of n rows, reduced.
pub(super) struct Tridiagonal {
    diagonal: Vec<f64>,
    off_diagonal: Vec<f64>,
    /// Q, as dsytrd leaves it: Householder vectors and their factors.
    reflectors: Vec<f64>,
    factors: Vec<f64>,
}

/// Which side of a reduction vectors are brought to.
#[derive(Clone, Copy)]
pub(super) enum Side {
    /// That of T: `Qᵀ x`.
    Reduced,
    /// That of A: `Q x`.
    Original,
}

/// A solved system.
pub(super) struct Solved {
    /// `Qᵀ x`.
    pub(super) x: Vec<f64>,
    /// The 1-norm condition number of `f T + α I`, no less than the 2-norm one of `f A + α I`.
    pub(super) condition: f64,
    /// Its 1-norm, likewise.
    pub(super) norm: f64,
}

impl Tridiagonal {
    /// Reduces a, (n, n), upper triangle.
    pub(super) fn new(n: usize, a: Vec<f64>) -> Self {
        assert!(n > 0 && a.len() == n * n);
        let (diagonal, off_diagonal, factors) = (vec![0.0; n], vec![0.0; n - 1], vec![0.0; n - 1]);
        let mut reduced = Self { diagonal, off_diagonal, reflectors: a, factors };
        let (mut work, mut info) = (vec![0.0; BLOCK * n], 0);
        // SAFETY: the matrix holds n * n values, the vectors n and n - 1, the work space what is told.
        unsafe {
            dsytrd_(
                &UPPER,
                &int(n),
                reduced.reflectors.as_mut_ptr(),
                &int(n),
                reduced.diagonal.as_mut_ptr(),
                reduced.off_diagonal.as_mut_ptr(),
                reduced.factors.as_mut_ptr(),
                work.as_mut_ptr(),
                &int(work.len()),
                &mut info,
            );
        }
        reduced
    }

    /// Brings rows x, (k, n), to the other side in place (dormtr).
    pub(super) fn turn(&self, side: Side, x: &mut [f64]) {
        let n = self.diagonal.len();
        assert!(x.len().is_multiple_of(n));
        let transposed = match side {
            Side::Reduced => b'T',
            Side::Original => b'N',
        };
        let n_rows = x.len() / n;
        let (mut work, mut info) = (vec![0.0; BLOCK * (n_rows + BLOCK + 1)], 0);
        // SAFETY: the matrix is dsytrd's, x holds a whole number of rows of n values, the work space what is told.
        unsafe {
            dormtr_(
                &(b'L' as c_char),
                &UPPER,
                &(transposed as c_char),
                &int(n),
                &int(n_rows),
                self.reflectors.as_ptr(),
                &int(n),
                self.factors.as_ptr(),
                x.as_mut_ptr(),
                &int(n),
                work.as_mut_ptr(),
                &int(work.len()),
                &mut info,
            );
        }
    }

    /// Solves `(f T + α I) x = r` (dpttrf, dpttrs, dptcon); `None` if the matrix is not positive definite to working precision.
    pub(super) fn solve(&self, f: f64, alpha: f64, r: &[f64]) -> Option<Solved> {
        let n = self.diagonal.len();
        assert!(r.len() == n);
        let mut d: Vec<f64> = self.diagonal.iter().map(|d| f * d + alpha).collect();
        let mut e: Vec<f64> = self.off_diagonal.iter().map(|e| f * e).collect();
        let beside = |i: usize| e.get(i).map_or(0.0, |e| e.abs());
        let norm = (0..n).map(|i| d[i].abs() + beside(i) + beside(i.wrapping_sub(1))).fold(0.0, f64::max);
        let (mut x, mut work, mut reciprocal, mut info) = (r.to_vec(), vec![0.0; n], 0.0, 0);
        // SAFETY: the vectors hold n values, e n - 1.
        unsafe {
            dpttrf_(&int(n), d.as_mut_ptr(), e.as_mut_ptr(), &mut info);
            if info == 0 {
                dpttrs_(&int(n), &1, d.as_ptr(), e.as_ptr(), x.as_mut_ptr(), &int(n), &mut info);
                dptcon_(&int(n), d.as_ptr(), e.as_ptr(), &norm, &mut reciprocal, work.as_mut_ptr(), &mut info);
            }
        }
        (reciprocal > 0.0).then(|| Solved { x, condition: 1.0 / reciprocal, norm })
    }
}
