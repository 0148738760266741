//! The numerics contract: what every backend shares, to the bit.
