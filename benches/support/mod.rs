//! Helpers of the benches: workloads, the call, the f64 loop that an answer must agree with before it is timed, the copy to compare with.
pub mod call;
pub mod copy;
pub mod reference;
pub mod table;
pub mod workload;
