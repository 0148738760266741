//! passrl: advantages of RL post-training behind a stable C ABI.
//!
//! ```text
//!  C / C++ / Python
//!       |  include/passrl.h
//!    abi       the only `extern "C"`; bytes -> raw structs, panics -> status
//!    check     raw structs -> typed, borrowed problem; every refusal
//!    plan      configuration + limits -> stages, workspace, partials
//!    backend   plan + problem -> work (cpu | cuda)
//!    numerics, model, error    leaves: exact sums, converters, tables; plain types; the last error
//! ```
pub mod numerics;
