//! Writes a rollout's row: every chunk's value on its tokens, 0 beside them.
use super::Lane;
use crate::backend::cpu::expand::{self, Chunks};
use crate::backend::cpu::scope::Scope;
use crate::backend::cpu::worker::Worker;
use crate::model::array::Array;
use crate::model::batch::Extent;

impl Worker<'_> {
    /// Returns how many tokens were beyond the type's range.
    pub(super) fn usual_write(&mut self, lane: &Lane, to: &Array, at: &Extent, scope: &Scope, ends: &[u32], values: &[f64]) -> u64 {
        let job = self.job;
        #[cfg(target_arch = "x86_64")]
        if let Some(over) = super::lines::write(job, lane, to, at, scope, ends, values, self.usual_table, self.usual_marks) {
            return over;
        }
        // SAFETY: the rollout's slots are this thread's; the group's input has been read.
        let over = unsafe { expand::expand(job.simd(), to, at, scope, Chunks::Last(ends), values) };
        if job.config().fill_padding {
            expand::pad(to, job.problem, at);
        }
        over
    }
}
