//! The CUDA backend: the kernels of kernels/ on the caller's device memory and stream. A call pushes the context, puts memsets and kernels on the stream and pops
//! the context; nothing is allocated, copied or waited for. The only place that knows cudarc.
//!
//! ```text
//!  device    a CUDA context with the kernels loaded      driver   the driver's functions, its errors in words
//!    image   which image: built in, cached, compiled     nvrtc, cache
//!  plan      a plan's constants in device memory, its calls
//!    primitives  stages on their own, on token-shaped arrays; primitives_groups: on values a rollout
//!    pieces  rollouts in pieces, put side by side before a run
//!    units   rollouts in pieces over calls or ranks
//!    ranks   a rank's run among several
//!    way     which kernels a run takes   launch  kernels by name   workspace   the layout of device memory        args, fill   what a kernel is handed
//!
//!  nccl      a collective of the caller's communicator (nccl_sys: NCCL's header as bindgen reads it)
//! ```
pub mod args;
mod cache;
mod device;
mod driver;
mod fill;
pub mod image;
mod launch;
pub mod nccl;
mod nccl_sys;
mod nvrtc;
mod pieces;
mod plan;
pub mod primitives;
pub mod primitives_groups;
mod ranks;
mod units;
mod way;
mod workspace;

pub use device::Device;
pub use plan::OnDevice;
pub use ranks::staged;
