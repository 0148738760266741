//! The one list of status numbers. Blocks by cause: 1xx argument, 2xx shape and memory, 3xx device, 4xx data, 5xx collective, 9xx bug.
//! Negative: refused or failed, outputs untouched. Positive: done, with findings in the data.

/// A status: 0 done, negative refused or failed, positive done with findings. `passrl_last_error` has the sentence.
#[allow(non_camel_case_types)]
pub type passrl_status = i32;

pub const PASSRL_OK: passrl_status = 0;
/// A pointer that must not be NULL is.
pub const PASSRL_ERR_NULL: passrl_status = -100;
/// A value is outside what the argument allows.
pub const PASSRL_ERR_VALUE: passrl_status = -101;
/// `struct_size` is not one that this library can read or cuts a field in two, bytes that it does not know are set, or a field beyond it is to be set.
pub const PASSRL_ERR_STRUCT_SIZE: passrl_status = -102;
/// A key of `passrl_config_set` or a preset's name is unknown.
pub const PASSRL_ERR_UNKNOWN_NAME: passrl_status = -103;
/// Two settings, or a setting and the batch, exclude each other.
pub const PASSRL_ERR_CONFLICT: passrl_status = -104;
/// Declared in this header, not served by this version.
pub const PASSRL_ERR_NOT_YET: passrl_status = -105;
/// A shape or count does not fit.
pub const PASSRL_ERR_SHAPE: passrl_status = -200;
/// A data type is not accepted for this argument.
pub const PASSRL_ERR_DTYPE: passrl_status = -201;
/// A pointer is not naturally aligned, or a stride is not usable.
pub const PASSRL_ERR_LAYOUT: passrl_status = -202;
/// An output overlaps another output or an input that it may not.
pub const PASSRL_ERR_OVERLAP: passrl_status = -203;
/// The batch exceeds the plan's limits, or limits exceed the library's.
pub const PASSRL_ERR_LIMIT: passrl_status = -204;
/// Offsets decrease or point outside; a group index is out of range.
pub const PASSRL_ERR_OFFSETS: passrl_status = -205;
/// The workspace or a buffer is too small or misaligned.
pub const PASSRL_ERR_WORKSPACE: passrl_status = -206;
/// The buffer was made by another plan, version or is damaged.
pub const PASSRL_ERR_FINGERPRINT: passrl_status = -207;
/// No usable device or driver.
pub const PASSRL_ERR_NO_DEVICE: passrl_status = -300;
/// Memory or stream of another device than the context's.
pub const PASSRL_ERR_DEVICE: passrl_status = -301;
/// A CUDA context was carried over a fork.
pub const PASSRL_ERR_FORK: passrl_status = -302;
/// Threads or memory could not be had.
pub const PASSRL_ERR_RESOURCE: passrl_status = -303;
/// A call of the CUDA driver failed, or kernels could not be compiled.
pub const PASSRL_ERR_DRIVER: passrl_status = -304;
/// `strict`: the data has findings; nothing was written.
pub const PASSRL_ERR_DATA: passrl_status = -400;
/// A rank failed or disagreed.
pub const PASSRL_ERR_COLLECTIVE: passrl_status = -500;
/// A bug in this library; please report it.
pub const PASSRL_ERR_INTERNAL: passrl_status = -900;

/// Done; some groups have non-finite values.
pub const PASSRL_FINDING_NONFINITE: passrl_status = 400;
/// Done; values are missing (NaN) where `missing = error`.
pub const PASSRL_FINDING_MISSING: passrl_status = 401;
/// Done; the steps of some rollouts do not fit.
pub const PASSRL_FINDING_BAD_STEPS: passrl_status = 402;
/// Done; groups of one were met where `singleton = refuse`.
pub const PASSRL_FINDING_SINGLETON: passrl_status = 403;
/// Done; a group has more elements than exact sums allow.
pub const PASSRL_FINDING_TOO_LARGE: passrl_status = 404;
/// Done (CUDA); offsets, lengths or indices in device memory do not fit: see `PASSRL_FOUND_BAD_OFFSETS`.
pub const PASSRL_FINDING_BAD_OFFSETS: passrl_status = 405;
