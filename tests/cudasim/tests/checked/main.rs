//! The simulated driver over kernels of the checked build: bounds to the byte, races, uninitialised reads, traffic counts.
mod bugs;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/samples.rs"]
mod samples;
mod traffic;

const CHECKED: bool = true;
