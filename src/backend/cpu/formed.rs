//! Signals that cannot be read in vectors where they lie (differences of log-probabilities, numbers of another type, strides): formed once, and kept while
//! their group is in work.
use super::signal;
use super::worker::Worker;
use crate::model::batch::Extent;
use crate::plan::workspace::TOGETHER;

/// Rollouts whose signals are kept, and where each begins.
pub struct Formed<'a> {
    values: &'a mut [f32],
    of: [(usize, usize); TOGETHER],
    count: usize,
    used: usize,
}

impl<'a> Formed<'a> {
    pub fn new(values: &'a mut [f32]) -> Formed<'a> {
        Formed { values, of: [(0, 0); TOGETHER], count: 0, used: 0 }
    }

    pub fn clear(&mut self) {
        (self.count, self.used) = (0, 0);
    }

    /// Where the signal of rollout i begins, if it is there.
    fn begin(&self, i: usize) -> Option<usize> {
        self.of[..self.count].iter().find(|(of, _)| *of == i).map(|(_, begin)| *begin)
    }

    /// Room for the `len` tokens of rollout i; `None`: there is none.
    fn room(&mut self, i: usize, len: usize) -> Option<usize> {
        let begin = self.used;
        if self.count == TOGETHER || begin + len > self.values.len() {
            return None;
        }
        (self.of[self.count], self.count, self.used) = ((i, begin), self.count + 1, (begin + len).next_multiple_of(16));
        Some(begin)
    }
}

impl Worker<'_> {
    /// The first process signal of rollout i, which has been prepared, side by side; `None`: there is no room for it beside those that are kept. Uses f, d and v.
    pub fn formed(&mut self, i: usize, at: &Extent) -> Option<*mut f32> {
        let (job, c) = (self.job, self.job.config());
        let begin = match self.formed.begin(i) {
            Some(begin) => return Some(self.formed.values[begin..].as_mut_ptr()),
            None => self.formed.room(i, at.len)?,
        };
        // Of tokens before and after the scope it is not asked.
        let kept = job.rollout(i);
        let (first, end) = (kept.first as usize, kept.end as usize);
        let own = at.part(first, end);
        let to = &mut self.formed.values[begin + first..begin + end];
        let mut wide = [&mut *self.f, &mut *self.d, &mut *self.v];
        let place = to.as_ptr();
        let found = signal::load(job.simd(), job.problem, &own, 0, c.streams[0].missing, c.opd_lambda, to, &mut wide);
        if found.as_ptr() != place {
            // A line of one token lies side by side whatever its stride.
            let (from, len) = (found.as_ptr(), found.len());
            // SAFETY: the caller's memory, which is none of this thread's scratch.
            self.formed.values[begin + first..begin + first + len].copy_from_slice(unsafe { std::slice::from_raw_parts(from, len) });
        }
        Some(self.formed.values[begin..].as_mut_ptr())
    }
}
