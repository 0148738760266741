//! What a primitive is called with, checked: the layout and the arrays in the order of its arguments.
use super::array::Array;
use super::batch::Problem;

#[derive(Clone, Copy, Debug)]
pub struct Call<const I: usize, const O: usize> {
    /// Layout, scope, groups, and the streams or steps where the primitive reads any.
    pub problem: Problem,
    /// Tokens of the longest rollout; 0 where tokens are not looked at.
    pub longest: usize,
    pub inputs: [Option<Array>; I],
    pub outputs: [Option<Array>; O],
}

/// What a primitive found in the data: how many rollouts (groups) it concerns, and the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub count: i64,
    pub first: Option<First>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    pub what: What,
    /// Argument that the value came from.
    pub argument: &'static str,
    pub rollout: usize,
    /// Offset of the value in its rollout.
    pub token: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    NonFinite,
    Missing,
    BadSteps,
}

impl Found {
    pub fn note(&mut self, what: What, argument: &'static str, rollout: usize, token: Option<usize>) {
        self.count += 1;
        self.first.get_or_insert(First { what, argument, rollout, token });
    }
}
