//! The numerics contract: what every backend shares, to the bit.
pub mod convert;
pub mod fpmode;
pub mod table;
pub mod wide;
