//! passrl: advantages of RL post-training behind a stable C ABI.
//!
//! ```text
//!  C / C++ / Python
//!       |  include/passrl.h
//!    abi       the only `extern "C"`: bytes -> raw structs, panics -> status
//!    check     raw structs -> typed, borrowed problem; every refusal
//!    plan      configuration + limits -> workspace, tables, partials
//!    backend   plan + problem -> work (cpu | cuda)
//!    model, numerics, error    leaves: plain types; exact sums, converters, tables; the last error
//! ```
pub mod abi;
pub mod backend;
pub mod check;
pub mod error;
pub mod model;
pub mod numerics;
pub mod plan;

/// Raised whenever any output bit for a valid input may differ (`passrl_numerics_version`).
pub const NUMERICS_VERSION: u32 = 1;
