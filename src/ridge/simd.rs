//! Loops compiled for the vectors of newer CPUs, and memory that suits them.

use std::ops::{Deref, DerefMut};

/// Doubles that begin where a cache line does, so that no vector of a row of whole vectors lies in two.
#[derive(Debug)]
pub(super) struct Aligned {
    values: Vec<f64>,
    start: usize,
    length: usize,
}

impl Aligned {
    pub(super) fn zeros(length: usize) -> Self {
        let values = vec![0.0; length + 7];
        let start = values.as_ptr().align_offset(64).min(7);
        Self { values, start, length }
    }
}

impl Deref for Aligned {
    type Target = [f64];
    fn deref(&self) -> &[f64] {
        &self.values[self.start..self.start + self.length]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f64] {
        &mut self.values[self.start..self.start + self.length]
    }
}

/// Asks for `n` values from index `from` on, which may lie behind the end, to be in the cache when they are needed: rows that take
/// longer to compute with than to load are otherwise waited for, one short row after another.
#[inline(always)]
pub(super) fn prefetch(values: &[f64], from: usize, n: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (from..from + n).step_by(8) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "a hint, which reads nothing, whatever the address")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(line).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, from, n);
}

/// Defines a kernel three times, for CPUs with AVX-512, for those with fused multiply-add and AVX2 and for others, and
/// chooses when it is called. All give the same bits: what is fused is written so, and the compiler fuses nothing else.
macro_rules! kernel {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)? $body:block) => {
        $(#[$doc])*
        pub(super) fn $name($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $out)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")]
                fn wide($($arg: $type),*) $(-> $out)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn fused($($arg: $type),*) $(-> $out)? { body($($arg),*) }
                use std::arch::is_x86_feature_detected as has;
                if has!("avx512f") && has!("avx512dq") && has!("avx512vl") && has!("avx2") && has!("fma") {
                    #[expect(unsafe_code, reason = "the CPU has the features that the function was compiled for")]
                    return unsafe { wide($($arg),*) };
                }
                if has!("avx2") && has!("fma") {
                    #[expect(unsafe_code, reason = "the CPU has the features that the function was compiled for")]
                    return unsafe { fused($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}

pub(super) use kernel;
