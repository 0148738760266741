//! The numerics contract: what every backend shares, to the bit.
pub mod convert;
pub mod exact;
pub mod exp;
pub mod fpmode;
pub mod simd;
mod sums_avx2;
pub mod table;
pub mod wide;
