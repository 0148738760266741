//! The simulated driver over kernels of the checked build.
mod common;
#[path = "both/samples.rs"]
mod samples;

const CHECKED: bool = true;
