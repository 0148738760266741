//! The workspace of the primitives: it grows with the rollouts, the groups and the longest rollout, not with the tokens of a batch.
use super::workspace::{Carver, Part};

#[derive(Clone, Copy, Debug)]
pub struct Workspace {
    pub bytes: usize,
    /// Rollouts by group, and where each group begins.
    pub order: Part,
    pub starts: Part,
    /// Lines of the longest rollout.
    pub bits: Part,
    pub wide: [Part; 3],
    pub table: Part,
    pub line: Part,
    pub value: Part,
    pub begin: Part,
    pub end: Part,
    pub last: Part,
}

impl Workspace {
    pub fn new(rollouts: usize, groups: usize, longest: usize) -> Workspace {
        let mut c = Carver::new();
        let t = longest + 1;
        let order = c.take::<u32>(rollouts);
        let starts = c.take::<u32>(groups + 1);
        let bits = c.take::<u64>(t / 64 + 1);
        let wide = std::array::from_fn(|_| c.take::<f64>(t));
        let table = c.take::<f64>(t);
        let (line, value) = (c.take::<f32>(t), c.take::<f32>(t));
        let (begin, end, last) = (c.take::<u32>(t), c.take::<u32>(t), c.take::<u32>(t));
        Workspace { bytes: c.bytes(), order, starts, bits, wide, table, line, value, begin, end, last }
    }
}
