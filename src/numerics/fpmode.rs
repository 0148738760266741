//! The floating-point mode of the threads that compute. A host may run with flush-to-zero or another rounding direction (training
//! frameworks do), and then the same operations give other bits; so every thread that computes does it under a guard.

use std::marker::PhantomData;

/// While it lives, this thread rounds to nearest, keeps subnormals and masks all exceptions; dropped, it gives the thread back the
/// whole state that it had, the sticky exception flags included.
///
/// The compiler knows no dependence between arithmetic and the mode, and may move an operation whose operands are in registers past
/// the guard. Memory accesses stay where they are, so work that loads its operands from memory and stores its results there is safe;
/// [`with_default_mode`] gives that to any work by putting a call in between.
#[must_use = "the mode is restored when the guard is dropped"]
pub struct FpMode {
    saved: arch::State,
    /// The mode belongs to the thread: a guard dropped on another one would overwrite that one's.
    not_send: PhantomData<*mut ()>,
}

impl FpMode {
    /// Saves the thread's mode and sets the default one.
    #[inline]
    pub fn enter() -> FpMode {
        let saved = arch::save();
        // (Writing the mode takes longer than all else here.)
        if saved != arch::DEFAULT {
            arch::set_default();
        }
        FpMode { saved, not_send: PhantomData }
    }
}

impl Drop for FpMode {
    #[inline]
    fn drop(&mut self) {
        arch::restore(self.saved);
    }
}

/// Runs `work` under the default mode; also when it panics, the caller's mode comes back.
pub fn with_default_mode<R>(work: impl FnOnce() -> R) -> R {
    /// Not inlined, so that no operation of `work` can be moved out of the guard's life.
    #[inline(never)]
    fn call<R>(work: impl FnOnce() -> R) -> R {
        work()
    }
    let _mode = FpMode::enter();
    call(work)
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod arch {
    use std::arch::asm;

    pub type State = u32;

    /// Nearest even, all six exceptions masked, FTZ and DAZ off, no flag raised.
    pub const DEFAULT: State = 0x1f80;

    #[inline]
    pub fn save() -> State {
        let mut mxcsr = 0u32;
        // SAFETY: stmxcsr writes the four bytes at the address, which are `mxcsr`; nothing else changes.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags)) };
        mxcsr
    }

    #[inline]
    pub fn set_default() {
        restore(DEFAULT);
    }

    #[inline]
    pub fn restore(mxcsr: State) {
        // SAFETY: ldmxcsr reads four bytes, which are `mxcsr`; the value is the default or came from stmxcsr, so no reserved bit is
        // set. Without `nomem` the compiler keeps memory accesses on their side; `preserves_flags` would promise the sticky flags too.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack)) };
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod arch {
    use std::arch::asm;

    /// FPCR (the mode) and FPSR (the sticky flags).
    pub type State = (u64, u64);

    /// All zero: nearest even, FZ, FZ16, FIZ and AH off, no default NaN, no trap, no flag raised.
    pub const DEFAULT: State = (0, 0);

    #[inline]
    pub fn save() -> State {
        let (fpcr, fpsr): (u64, u64);
        // SAFETY: reads two registers of the thread.
        unsafe { asm!("mrs {}, fpcr", "mrs {}, fpsr", out(reg) fpcr, out(reg) fpsr, options(nostack)) };
        (fpcr, fpsr)
    }

    #[inline]
    pub fn set_default() {
        restore(DEFAULT);
    }

    #[inline]
    pub fn restore((fpcr, fpsr): State) {
        // SAFETY: writes what was read before, or zeros, to two registers of the thread. Without `nomem` the compiler keeps memory
        // accesses on their side; `preserves_flags` would promise that FPSR stays.
        unsafe { asm!("msr fpcr, {}", "msr fpsr, {}", in(reg) fpcr, in(reg) fpsr, options(nostack)) };
    }
}

/// No way to read the mode is known here (Miri has no assembly, and only the default mode), so the default one is assumed.
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod arch {
    pub type State = ();

    pub const DEFAULT: State = ();

    #[inline]
    pub fn save() -> State {}

    #[inline]
    pub fn set_default() {}

    #[inline]
    pub fn restore((): State) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_stays_on_its_thread() {
        // Sync and Send both come from the marker; there is no stable negative bound, so the type system's answer is probed.
        trait Probe {
            const SEND: bool = false;
        }
        impl<T> Probe for T {}
        struct Wrap<T>(PhantomData<T>);
        #[allow(dead_code)]
        impl<T: Send> Wrap<T> {
            const SEND: bool = true;
        }
        const { assert!(!Wrap::<FpMode>::SEND) };
        const { assert!(Wrap::<u32>::SEND) };
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    mod x86_64 {
        use super::super::*;
        use std::arch::asm;
        use std::hint::black_box;

        const FTZ: u32 = 1 << 15;
        const DAZ: u32 = 1 << 6;
        const ROUND_UP: u32 = 0b10 << 13;
        const ALL_MASKED: u32 = 0x1f80;
        const INEXACT_FLAG: u32 = 1 << 5;

        /// Puts the thread's mode back even when an assertion fails, so that one failure does not upset the harness.
        struct Caller(u32);

        impl Caller {
            fn with(mxcsr: u32) -> Caller {
                let before = Caller(arch::save());
                arch::restore(mxcsr);
                before
            }
        }

        impl Drop for Caller {
            fn drop(&mut self) {
                arch::restore(self.0);
            }
        }

        /// The product under the mode in force; as instructions, because compiled arithmetic may assume the default mode.
        fn product_here(x: f64, y: f64) -> f64 {
            let mut z = x;
            // SAFETY: one multiplication on registers; the exceptions are masked.
            unsafe { asm!("mulsd {}, {}", inout(xmm_reg) z, in(xmm_reg) y) };
            z
        }

        /// What the default mode gives: an inexact quotient rounded down, one rounded up, a subnormal product and operand.
        fn assert_default_arithmetic() {
            assert_eq!(black_box(1.0f64) / black_box(3.0), f64::from_bits(0x3fd5_5555_5555_5555));
            assert_eq!(black_box(2.0f64) / black_box(-3.0), f64::from_bits(0xbfe5_5555_5555_5555));
            let tiny = black_box(f64::MIN_POSITIVE);
            assert_eq!((tiny * black_box(0.5)).to_bits(), 1 << 51);
            assert_eq!(black_box(f64::from_bits(1)) * black_box(2f64.powi(52)), tiny);
            assert_eq!((black_box(f64::from_bits(1 << 28)) as f32).to_bits(), 0);
            assert_eq!((black_box(1e-40f64) as f32).to_bits(), 71_362);
        }

        #[test]
        fn default_inside_and_the_callers_mode_after() {
            for mode in [FTZ, DAZ, FTZ | DAZ, ROUND_UP, FTZ | DAZ | ROUND_UP, 0] {
                // With and without a sticky flag of the caller's.
                for flags in [0, INEXACT_FLAG, 1] {
                    let caller = ALL_MASKED | mode | flags;
                    let _test = Caller::with(caller);
                    {
                        let _mode = FpMode::enter();
                        assert_eq!(arch::save(), ALL_MASKED);
                        assert_default_arithmetic();
                    }
                    assert_eq!(arch::save(), caller);
                    with_default_mode(assert_default_arithmetic);
                    assert_eq!(arch::save(), caller);
                }
            }
        }

        /// The modes used above do change results: otherwise the test before this one would show nothing.
        #[test]
        fn the_callers_mode_matters() {
            let tiny = black_box(f64::MIN_POSITIVE);
            let _test = Caller::with(ALL_MASKED | FTZ);
            assert_eq!(product_here(tiny, 0.5).to_bits(), 0);
            arch::restore(ALL_MASKED | DAZ);
            assert_eq!(product_here(f64::from_bits(1), 2f64.powi(52)).to_bits(), 0);
            arch::restore(ALL_MASKED | ROUND_UP);
            assert_eq!(product_here(1.1, 1.1), 1.2100000000000004);
            {
                let _mode = FpMode::enter();
                assert_eq!(product_here(1.1, 1.1), 1.2100000000000002);
            }
            assert_eq!(product_here(1.1, 1.1), 1.2100000000000004);
        }

        #[test]
        fn a_caller_with_unmasked_exceptions_gets_them_back() {
            let divide_unmasked = ALL_MASKED & !(1 << 9);
            let _test = Caller::with(divide_unmasked);
            with_default_mode(|| assert!((black_box(1.0f64) / black_box(0.0)).is_infinite()));
            assert_eq!(arch::save(), divide_unmasked);
        }

        #[test]
        fn guards_nest() {
            let caller = ALL_MASKED | FTZ;
            let _test = Caller::with(caller);
            let outer = FpMode::enter();
            let inner = FpMode::enter();
            drop(inner);
            assert_eq!(arch::save(), ALL_MASKED);
            drop(outer);
            assert_eq!(arch::save(), caller);
        }

        #[test]
        fn a_panic_restores_the_mode() {
            let caller = ALL_MASKED | ROUND_UP;
            let _test = Caller::with(caller);
            let result = std::panic::catch_unwind(|| with_default_mode(|| panic!("expected by the test")));
            assert!(result.is_err());
            assert_eq!(arch::save(), caller);
        }
    }
}
