//! Helpers of the benches: workloads, cases, batches through the C ABI, the f64 loops that an answer must agree with before it is timed, the copy to compare with.
pub mod array;
pub mod batch;
pub mod cases;
pub mod copy;
pub mod estimators;
pub mod floor;
pub mod lengths;
pub mod machine;
pub mod reference;
pub mod row;
pub mod small;
pub mod table;
pub mod workload;
