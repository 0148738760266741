//! The simulated driver over kernels of the fast build: that right kernels are right, and that each check finds its seeded bug.
mod api;
mod bugs;
#[path = "../common/mod.rs"]
mod common;
mod compile;
#[path = "../common/samples.rs"]
mod samples;
mod streams;

const CHECKED: bool = false;
