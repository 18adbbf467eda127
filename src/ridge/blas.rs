//! The BLAS and LAPACK calls that ndarray-linalg has no safe function for, behind functions that check the shapes.
//!
//! Symmetric matrices are row-major with the upper triangle in use; to LAPACK, which is column-major, that is the lower
//! triangle. The library is kept single-threaded: the engine's own threads use the cores, and the bits do not depend on
//! their number.
#![expect(unsafe_code, reason = "foreign functions; every function checks the lengths of its slices first")]

use cblas_sys::{CBLAS_DIAG, CBLAS_LAYOUT, CBLAS_TRANSPOSE, CBLAS_UPLO, cblas_dsyrk, cblas_dtrsv};
use lapack_sys::{dpocon_, dpotrf_, dpotri_, dpotrs_, dsyevd_, dtrtri_};
use std::collections::TryReserveError;
use std::ffi::{CStr, c_char, c_int, c_void};

unsafe extern "C" {
    fn openblas_get_corename() -> *const c_char;
    fn openblas_get_num_threads() -> c_int;
    fn openblas_set_num_threads(n: c_int);
    fn blas_memory_alloc(procpos: c_int) -> *mut c_void;
    fn blas_memory_free(buffer: *mut c_void);
}

/// To LAPACK, the row-major upper triangle is the lower one.
pub(super) const UPPER: c_char = b'L' as c_char;

/// The CPU core type whose kernels `OpenBLAS` runs, e.g. `Haswell`.
#[must_use]
pub fn core_name() -> String {
    // SAFETY: returns a pointer to a static string.
    unsafe { CStr::from_ptr(openblas_get_corename()) }.to_string_lossy().into_owned()
}

/// What the environment variable `OPENBLAS_CORETYPE` should be set to before the process is started again.
///
/// `OpenBLAS` picks its kernels by the CPU's model when it is loaded, and an older build falls back to generic ones on a
/// model it does not know: a fifth of the speed. `Some` only if it did so although the CPU has AVX2 and FMA or AVX-512, and
/// the user has not set the variable.
#[must_use]
pub fn wanted_core_type() -> Option<&'static str> {
    if std::env::var_os("OPENBLAS_CORETYPE").is_some() { None } else { better_core_type(&core_name()) }
}

/// The core type that this CPU deserves, if `core` is one without AVX2.
fn better_core_type(core: &str) -> Option<&'static str> {
    const WITH_AVX2: [&str; 7] =
        ["haswell", "zen", "excavator", "skylakex", "cooperlake", "sapphirerapids", "steamroller"];
    if WITH_AVX2.contains(&core.to_lowercase().as_str()) {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512dq") && has!("avx512bw") && has!("avx512vl") {
            return Some("SkylakeX");
        }
        if has!("avx2") && has!("fma") {
            return Some("Haswell");
        }
    }
    None
}

/// Makes `OpenBLAS` compute in the calling thread only, for the whole process.
pub fn use_one_thread() {
    // SAFETY: a setting of the library; takes any number. It wakes the library's threads, so it is not set in vain.
    unsafe {
        if openblas_get_num_threads() != 1 {
            openblas_set_num_threads(1);
        }
    }
}

/// Has `OpenBLAS` make the buffers that `n_threads` threads compute in, which it keeps.
///
/// It makes them when they are first needed, and where there is no memory for one, it tries again without end.
///
/// # Errors
/// When there is no memory for them.
pub fn reserve_buffers(n_threads: usize) -> Result<(), TryReserveError> {
    /// Their size on x86-64, and what an allocator adds; on other machines they are smaller.
    const BYTES: usize = 130 << 20;
    // All of them must be there before the library is asked, which would not come back.
    let mut room = vec![Vec::<u8>::new(); n_threads];
    room.iter_mut().try_for_each(|buffer| buffer.try_reserve_exact(BYTES))?;
    drop(room);
    // SAFETY: the library's own functions for its own memory, which its header declares; each buffer is freed once.
    unsafe {
        let buffers: Vec<_> = (0..n_threads).map(|_| blas_memory_alloc(0)).collect();
        buffers.into_iter().for_each(|buffer| blas_memory_free(buffer));
    }
    Ok(())
}

/// A dimension as BLAS and LAPACK take it.
pub(super) fn int(n: usize) -> c_int {
    c_int::try_from(n).expect("dimensions fit LAPACK's 32-bit integers")
}

/// `c += aᵀ a` (dsyrk), a: (rows, p) row-major, c: (p, p), upper triangle; the strides are those of a's rows and of c's.
pub(super) fn add_gram(rows: usize, p: usize, (stride, c_stride): (usize, usize), a: &[f64], c: &mut [f64]) {
    assert!(p <= stride && a.len() >= rows * stride && p <= c_stride && c.len() >= p * c_stride);
    let (upper, transposed) = (CBLAS_UPLO::CblasUpper, CBLAS_TRANSPOSE::CblasTrans);
    // SAFETY: the slices have the lengths that the shapes say.
    unsafe {
        cblas_dsyrk(
            CBLAS_LAYOUT::CblasRowMajor,
            upper,
            transposed,
            int(p),
            int(rows),
            1.0,
            a.as_ptr(),
            int(stride),
            1.0,
            c.as_mut_ptr(),
            int(c_stride),
        );
    }
}

/// `c += a aᵀ` (dsyrk), a: (n, k) row-major, c: (n, n), upper triangle.
pub(super) fn add_outer_gram(n: usize, k: usize, a: &[f64], c: &mut [f64]) {
    assert!(a.len() >= n * k && c.len() == n * n);
    let (upper, plain) = (CBLAS_UPLO::CblasUpper, CBLAS_TRANSPOSE::CblasNoTrans);
    // SAFETY: the slices have the lengths that the shapes say.
    unsafe {
        cblas_dsyrk(
            CBLAS_LAYOUT::CblasRowMajor,
            upper,
            plain,
            int(n),
            int(k),
            1.0,
            a.as_ptr(),
            int(k),
            1.0,
            c.as_mut_ptr(),
            int(n),
        );
    }
}

/// `a = uᵀ u` in place (dpotrf); false if a is not positive definite to working precision.
#[must_use]
pub(super) fn cholesky(n: usize, a: &mut [f64]) -> bool {
    assert!(a.len() == n * n);
    let mut info = 0;
    // SAFETY: a holds n * n values.
    unsafe { dpotrf_(&UPPER, &int(n), a.as_mut_ptr(), &int(n), &mut info) };
    info == 0
}

/// Solves `uᵀ u x = b` in place for each row of b (dpotrs), b: (k, n); for a single one by dtrsv, which does not copy u.
pub(super) fn cholesky_solve(n: usize, u: &[f64], b: &mut [f64]) {
    assert!(u.len() == n * n && b.len().is_multiple_of(n));
    if b.len() == n {
        for transposed in [CBLAS_TRANSPOSE::CblasTrans, CBLAS_TRANSPOSE::CblasNoTrans] {
            let (upper, diagonal) = (CBLAS_UPLO::CblasUpper, CBLAS_DIAG::CblasNonUnit);
            let (layout, size) = (CBLAS_LAYOUT::CblasRowMajor, int(n));
            // SAFETY: u holds n * n values, b n.
            unsafe { cblas_dtrsv(layout, upper, transposed, diagonal, size, u.as_ptr(), size, b.as_mut_ptr(), 1) };
        }
        return;
    }
    let mut info = 0;
    // SAFETY: u holds n * n values, b a whole number of rows of n.
    unsafe { dpotrs_(&UPPER, &int(n), &int(b.len() / n), u.as_ptr(), &int(n), b.as_mut_ptr(), &int(n), &mut info) };
}

/// `(uᵀ u)⁻¹` in place, upper triangle (dpotri).
pub(super) fn cholesky_inverse(n: usize, u: &mut [f64]) {
    assert!(u.len() == n * n);
    let mut info = 0;
    // SAFETY: u holds n * n values.
    unsafe { dpotri_(&UPPER, &int(n), u.as_mut_ptr(), &int(n), &mut info) };
}

/// `u⁻¹` in place, upper triangle (dtrtri).
pub(super) fn triangular_inverse(n: usize, u: &mut [f64]) {
    assert!(u.len() == n * n);
    let mut info = 0;
    // SAFETY: u holds n * n values.
    unsafe { dtrtri_(&UPPER, &(b'N' as c_char), &int(n), u.as_mut_ptr(), &int(n), &mut info) };
}

/// An estimate of the reciprocal of the 1-norm condition number of `uᵀ u`, whose 1-norm is `norm` (dpocon).
pub(super) fn reciprocal_condition(n: usize, u: &[f64], norm: f64) -> f64 {
    assert!(u.len() == n * n);
    let (mut info, mut rcond) = (0, 0.0);
    let (mut work, mut integers) = (vec![0.0; 3 * n], vec![0; n]);
    // SAFETY: u holds n * n values, the work spaces 3 n and n.
    unsafe {
        dpocon_(
            &UPPER,
            &int(n),
            u.as_ptr(),
            &int(n),
            &norm,
            &mut rcond,
            work.as_mut_ptr(),
            integers.as_mut_ptr(),
            &mut info,
        )
    };
    rcond
}

/// The eigenvalues of a symmetric matrix, ascending (dsyevd without vectors: dsytrd and dsterf); `None` if dsterf gives up.
pub(super) fn eigenvalues(n: usize, mut a: Vec<f64>) -> Option<Vec<f64>> {
    // Work space for the blocked reduction; more than its block size of 32 brings nothing.
    dsyevd(b'N', n, &mut a, (2 + 64) * n + 1, 1)
}

/// The eigenvalues of a symmetric matrix, ascending, and in place of it its eigenvectors, one in each row (dsyevd); `None` if
/// the routine gives up.
pub(super) fn eigen(n: usize, a: &mut [f64]) -> Option<Vec<f64>> {
    dsyevd(b'V', n, a, 1 + 6 * n + 2 * n * n, 3 + 5 * n)
}

/// LAPACK's dsyevd with work spaces of these lengths; the eigenvalues, `None` if it gives up.
fn dsyevd(job: u8, n: usize, a: &mut [f64], n_work: usize, n_integers: usize) -> Option<Vec<f64>> {
    assert!(a.len() == n * n);
    let (mut values, mut info) = (vec![0.0; n], 0);
    let (mut work, mut integers) = (vec![0.0; n_work], vec![0; n_integers]);
    // SAFETY: a holds n * n values, values n, and the work spaces have the lengths that are told.
    unsafe {
        dsyevd_(
            &(job as c_char),
            &UPPER,
            &int(n),
            a.as_mut_ptr(),
            &int(n),
            values.as_mut_ptr(),
            work.as_mut_ptr(),
            &int(n_work),
            integers.as_mut_ptr(),
            &int(n_integers),
            &mut info,
        );
    }
    (info == 0).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generic_core_is_replaced_on_a_cpu_that_deserves_better() {
        assert_eq!(better_core_type("Haswell"), None);
        assert_eq!(better_core_type("SkylakeX"), None);
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            assert!(better_core_type("Prescott").is_some());
        }
    }

    #[test]
    fn the_factor_of_a_small_matrix_solves_and_inverts() {
        // a = [[4, 2], [., 3]]: det 8, a⁻¹ = [[3, -2], [-2, 4]] / 8.
        let mut u = vec![4.0, 2.0, 0.0, 3.0];
        assert!(cholesky(2, &mut u));
        let mut b = vec![1.0, 0.0, 8.0, 8.0];
        cholesky_solve(2, &u, &mut b);
        for (found, expected) in b.iter().zip([0.375, -0.25, 1.0, 2.0]) {
            assert!((found - expected).abs() <= 1e-15);
        }
        cholesky_inverse(2, &mut u);
        assert!((u[1] + 0.25).abs() <= 1e-15);
        assert!(!cholesky(2, &mut [1.0, 2.0, 0.0, 1.0]));
    }
}
