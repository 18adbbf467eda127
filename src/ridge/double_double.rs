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
pub(super) fn two_product(a: f64, b: f64) -> (f64, f64) {
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
    fn exponents_and_powers_of_two_fit_together_over_the_whole_range() {
        for x in [1.0, 1.5, 3e-320, 5e-324, 1e300, 0.1] {
            let e = exponent(x);
            let mantissa = scaled(x, -e);
            assert!((1.0..2.0).contains(&mantissa), "{x}");
            assert!(scaled(mantissa, e).to_bits() == x.to_bits(), "{x}");
        }
    }
}
