//! Runtime dispatch. A kernel is written once, in plain Rust, and compiled for each instruction set; without contraction or reassociation
//! every copy gives the same bits.

/// Instruction sets that the CPU backend dispatches over, each with all of those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Simd {
    Baseline,
    Avx2,
    /// AVX-512 F, BW, DQ and VL. The scans and sums of a value a token have code of their own for it; all else is AVX2's, which waits for memory, not for lanes.
    Avx512,
}

impl Simd {
    /// The best that this processor has.
    pub fn best() -> Simd {
        #[cfg(target_arch = "x86_64")]
        // The bit counts came before AVX2 on every processor; kernels that use them say so.
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("popcnt") && std::arch::is_x86_feature_detected!("bmi1") {
            let wide = std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512dq")
                && std::arch::is_x86_feature_detected!("avx512vl");
            return if wide { Simd::Avx512 } else { Simd::Avx2 };
        }
        Simd::Baseline
    }
    pub fn name(self) -> &'static str {
        match self {
            Simd::Baseline => "baseline",
            Simd::Avx2 => "avx2",
            Simd::Avx512 => "avx512",
        }
    }
}

/// `dispatch! { pub fn name(a: A, ...) -> R { body } }` defines `name(simd, a, ...)`.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(simd: $crate::numerics::simd::Simd, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            #[allow(clippy::too_many_arguments)]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }
            match simd {
                // SAFETY: these are only made where the processor has AVX2.
                #[cfg(target_arch = "x86_64")]
                $crate::numerics::simd::Simd::Avx2 | $crate::numerics::simd::Simd::Avx512 => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use dispatch;
