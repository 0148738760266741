//! Bits and numbers that the backends write; the ABI's constants are held to them (`abi::constants`).
pub const GROUP_EMPTY: i32 = 1;
pub const GROUP_SINGLE: i32 = 2;
pub const GROUP_ZERO_VARIANCE: i32 = 4;
pub const GROUP_NONFINITE: i32 = 8;
pub const GROUP_BAD_STEPS: i32 = 16;
pub const GROUP_ALL_VIOLATING: i32 = 32;
pub const GROUP_BAD: i32 = 64;
pub const GROUP_MISSING: i32 = 128;
pub const GROUP_TOO_LARGE: i32 = 256;

pub const ROLLOUT_NO_SCOPE: u32 = 1;
pub const ROLLOUT_ABSENT: u32 = 2;
pub const ROLLOUT_NONFINITE: u32 = 4;
pub const ROLLOUT_MISSING: u32 = 8;
pub const ROLLOUT_BAD_STEPS: u32 = 16;
pub const ROLLOUT_FORMAT_VIOLATING: u32 = 32;
pub const ROLLOUT_IN_BAD_GROUP: u32 = 64;
pub const ROLLOUT_NO_STREAM: u32 = 128;
