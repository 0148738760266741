//! The simulated driver over kernels of the fast build: that right kernels are right, and that each check finds its seeded bug.
mod common;
#[path = "both/samples.rs"]
mod samples;

const CHECKED: bool = false;
