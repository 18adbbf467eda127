//! Loops compiled for the vectors of newer CPUs.

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

pub(super) use kernel;
