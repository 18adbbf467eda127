//! Double-double arithmetic: numbers of 106 bits as unevaluated sums of two doubles (Dekker 1971; Hida, Li & Bailey 2001).

use std::ops::{Add, Div, Mul, Neg, Sub};

/// `hi + lo` with `|lo| <= ulp(hi) / 2`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Dd {
    pub(super) hi: f64,
    pub(super) lo: f64,
}

/// `a + b` as a rounded sum and its error, exactly (Knuth's two-sum).
#[inline(always)]
pub(super) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let t = s - a;
    (s, (a - (s - t)) + (b - t))
}

/// `a + b` as a rounded sum and its error, exactly if `|a| >= |b|` (Dekker).
#[inline(always)]
fn quick_two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    (s, b - (s - a))
}

/// `a b` as a rounded product and its error, exactly.
#[inline(always)]
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let p = a * b;
    (p, a.mul_add(b, -p))
}

impl Dd {
    pub(super) const ZERO: Self = Self { hi: 0.0, lo: 0.0 };

    /// `a + b` exactly.
    #[inline(always)]
    pub(super) fn sum(a: f64, b: f64) -> Self {
        let (hi, lo) = two_sum(a, b);
        Self { hi, lo }
    }

    #[inline(always)]
    fn quick(hi: f64, lo: f64) -> Self {
        let (hi, lo) = quick_two_sum(hi, lo);
        Self { hi, lo }
    }

    /// The nearest double.
    #[inline(always)]
    pub(super) fn value(self) -> f64 {
        self.hi + self.lo
    }

    /// The square root of a number that is not negative (Karp's trick: one Newton step on `1 / sqrt`).
    pub(super) fn sqrt(self) -> Self {
        if self.hi <= 0.0 {
            return Self::ZERO;
        }
        let root = Self::from(self.hi.sqrt());
        root + Self::from((self - root * root).hi / (2.0 * root.hi))
    }

    /// `self 2^e`, exactly unless the result leaves the range of doubles.
    pub(super) fn scaled(self, e: i32) -> Self {
        Self { hi: scaled(self.hi, e), lo: scaled(self.lo, e) }
    }
}

impl From<f64> for Dd {
    #[inline(always)]
    fn from(hi: f64) -> Self {
        Self { hi, lo: 0.0 }
    }
}

impl Neg for Dd {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self { hi: -self.hi, lo: -self.lo }
    }
}

impl Add for Dd {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let (s, e) = two_sum(self.hi, other.hi);
        let (t, f) = two_sum(self.lo, other.lo);
        let (s, e) = quick_two_sum(s, e + t);
        Self::quick(s, e + f)
    }
}

impl Sub for Dd {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Mul for Dd {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        let (p, e) = two_product(self.hi, other.hi);
        Self::quick(p, e + (self.hi * other.lo + self.lo * other.hi))
    }
}

impl Div for Dd {
    type Output = Self;
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // Long division: two quotient digits and a rounding third.
        let q = self.hi / other.hi;
        let r = self - other * Self::from(q);
        let q2 = r.hi / other.hi;
        let r = r - other * Self::from(q2);
        Self::quick(q, q2) + Self::from(r.hi / other.hi)
    }
}

/// `x 2^e`, exactly unless the result leaves the range of normal doubles.
pub(super) fn scaled(x: f64, e: i32) -> f64 {
    let power = |e: i32| f64::from_bits(((e + 1023) as u64) << 52);
    let (mut x, mut e) = (x, e.clamp(-4000, 4000));
    while e > 1000 {
        x *= power(1000);
        e -= 1000;
    }
    while e < -1000 {
        x *= power(-1000);
        e += 1000;
    }
    x * power(e)
}

/// The e with `2^e <= |x| < 2^(e+1)`; -1100 for zero.
pub(super) fn exponent(x: f64) -> i32 {
    let biased = |x: f64| ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    if x == 0.0 {
        -1100
    } else if x.is_subnormal() {
        biased(x * 2.0_f64.powi(100)) - 100
    } else {
        biased(x)
    }
}

/// Defines a kernel twice, for CPUs with fused multiply-add and AVX2 and for others, and chooses when it is called.
/// Both give the same bits: the products' errors are exact either way and nothing else is fused.
macro_rules! kernel {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)? $body:block) => {
        $(#[$doc])*
        pub(super) fn $name($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $out)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn fused($($arg: $type),*) $(-> $out)? { body($($arg),*) }
                if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                    #[expect(unsafe_code, reason = "the CPU has the features that the function was compiled for")]
                    return unsafe { fused($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}

kernel! {
    /// `<x, w>` in doubled precision, w as high and low parts (Ogita, Rump & Oishi 2005, Dot2, in eight lanes).
    fn dot(x: &[f64], w_hi: &[f64], w_lo: &[f64]) -> Dd {
        let (w_hi, w_lo) = (&w_hi[..x.len()], &w_lo[..x.len()]);
        let (mut s, mut c) = ([0.0; 8], [0.0; 8]);
        let n = x.len() / 8 * 8;
        for ((x, h), l) in x[..n].chunks_exact(8).zip(w_hi.chunks_exact(8)).zip(w_lo.chunks_exact(8)) {
            for k in 0..8 {
                let (p, e) = two_product(x[k], h[k]);
                let (sum, t) = two_sum(s[k], p);
                s[k] = sum;
                c[k] += t + (e + x[k] * l[k]);
            }
        }
        for k in n..x.len() {
            let (p, e) = two_product(x[k], w_hi[k]);
            let (sum, t) = two_sum(s[k - n], p);
            s[k - n] = sum;
            c[k - n] += t + (e + x[k] * w_lo[k]);
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
    fn two_thirds_times_three_is_two_to_31_digits() {
        let x = Dd::from(2.0) / Dd::from(3.0);
        let error = x * Dd::from(3.0) - Dd::from(2.0);
        assert!(error.hi.abs() <= 1e-31);
    }

    #[test]
    fn the_square_of_a_root_is_the_number() {
        for x in [2.0, 3.0, 1e-150, 7e200] {
            let root = Dd::from(x).sqrt();
            let error = (root * root - Dd::from(x)).hi / x;
            assert!(error.abs() <= 1e-30, "{x}: {error}");
        }
    }

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

    #[test]
    fn exponents_and_powers_of_two_fit_together_over_the_whole_range() {
        for x in [1.0, 1.5, 3e-320, 5e-324, 1e300, 0.1] {
            let e = exponent(x);
            let mantissa = scaled(x, -e);
            assert!((1.0..2.0).contains(&mantissa), "{x}");
            assert!(scaled(mantissa, e).to_bits() == x.to_bits(), "{x}");
        }
    }
}
