//! The primitives in device memory: workspace and report checked, the work put on the stream.
use super::status::PASSRL_OK;
use super::types::passrl_report;
use crate::backend::cuda::Device;
use crate::backend::cuda::primitives::{self as device, Tokens};
use crate::backend::cuda::primitives_groups::{self as device_groups, Groups};
use crate::check::{self, primitives as checked};
use crate::error::Result;
use crate::model::array::Array;
use crate::model::batch::Problem;
use crate::model::context::Memory;
use crate::model::primitives::Call;
use std::ffi::c_void;

/// A primitive on token-shaped arrays in device memory, put on the stream.
#[allow(clippy::too_many_arguments)]
pub fn on_device<const I: usize, const O: usize>(
    on: &Device,
    which: &Tokens,
    call: &Call<I, O>,
    problem: &Problem,
    outputs: [Option<Array>; 2],
    workspace: *mut c_void,
    bytes: usize,
    stream: *mut c_void,
) -> Result<i32> {
    let memory = checked::workspace(call, workspace, bytes, device::bytes(problem.rollouts, device::slots(problem)))?;
    device::tokens(on, which, problem, outputs, memory, stream).map(|()| PASSRL_OK)
}

/// A primitive on values a rollout in device memory, put on the stream. `report`: its address, or 0.
#[allow(clippy::too_many_arguments)]
pub fn groups_on_device<const I: usize, const O: usize>(
    on: &Device,
    which: &Groups,
    call: &Call<I, O>,
    problem: &Problem,
    report: *mut passrl_report,
    workspace: *mut c_void,
    bytes: usize,
    stream: *mut c_void,
) -> Result<i32> {
    let memory = checked::workspace(call, workspace, bytes, which.bytes(problem))?;
    if !report.is_null() {
        let report = Memory { data: report.cast(), bytes: size_of::<passrl_report>() };
        check::apart(&memory, "workspace", &report, "report")?;
    }
    device_groups::groups(on, which, problem, memory, stream).map(|()| PASSRL_OK)
}
