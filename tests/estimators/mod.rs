//! Plain f64 loops that the tests of the estimators share, and the ways in which they place a batch.
#![allow(dead_code)]
use crate::harness::{Got, How};
use crate::oracle::Rollout;
use passrl::abi::constants::*;
use passrl::abi::types::passrl_config;

/// A row's operator, as far as these tests go.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub center: i32,
    pub scale: i32,
    pub passthrough: bool,
}

pub const ROWS: [(i32, i32); 7] = [
    (PASSRL_CENTER_GROUP, PASSRL_SCALE_GROUP),
    (PASSRL_CENTER_GROUP, PASSRL_SCALE_NONE),
    (PASSRL_CENTER_LEAVE_ONE_OUT, PASSRL_SCALE_NONE),
    (PASSRL_CENTER_LEAVE_ONE_OUT, PASSRL_SCALE_LEAVE_ONE_OUT),
    (PASSRL_CENTER_GROUP, PASSRL_SCALE_LEAVE_ONE_OUT),
    (PASSRL_CENTER_NONE, PASSRL_SCALE_ABS_MAX),
    (PASSRL_CENTER_NONE, PASSRL_SCALE_NONE),
];

impl Row {
    pub fn set(&self, config: &mut passrl_config, row: usize) {
        let to = &mut config.streams[row];
        (to.center, to.scale) = (self.center, self.scale);
        to.singleton = if self.passthrough { PASSRL_SINGLETON_PASSTHROUGH } else { PASSRL_SINGLETON_ZERO };
        to.missing = PASSRL_MISSING_EXCLUDE;
    }

    /// N(x; set), sample deviation, 1e-6 beside it. `own`: where x itself is in the set.
    pub fn normal(&self, x: f64, set: &[f64], own: Option<usize>) -> f64 {
        let bare = self.center == PASSRL_CENTER_NONE && matches!(self.scale, PASSRL_SCALE_NONE | PASSRL_SCALE_ABS_MAX);
        if set.is_empty() {
            return 0.0;
        }
        if set.len() == 1 && !bare {
            return if self.passthrough { x } else { 0.0 };
        }
        let others: Vec<f64> = set.iter().enumerate().filter(|(i, _)| Some(*i) != own).map(|(_, x)| *x).collect();
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        let deviation = |of: &[f64]| {
            let equal = of.iter().all(|x| *x == of[0]);
            let m = mean(of);
            if equal { None } else { Some((of.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / (of.len() as f64 - 1.0)).sqrt() + 1e-6) }
        };
        let center = match self.center {
            PASSRL_CENTER_GROUP => mean(set),
            PASSRL_CENTER_LEAVE_ONE_OUT => mean(&others),
            _ => 0.0,
        };
        let largest = set.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        match self.scale {
            PASSRL_SCALE_GROUP => deviation(set).map_or(0.0, |d| (x - center) / d),
            PASSRL_SCALE_LEAVE_ONE_OUT if others.len() < 2 => 0.0,
            PASSRL_SCALE_LEAVE_ONE_OUT => deviation(&others).map_or(0.0, |d| (x - center) / d),
            PASSRL_SCALE_ABS_MAX => if largest == 0.0 { 0.0 } else { (x - center) / largest },
            _ => x - center,
        }
    }
}

/// In-scope tokens of each step, by the caller's numbers; a step whose first stream is missing has none.
pub fn tokens_of_steps(r: &Rollout) -> Vec<Vec<usize>> {
    let ends = r.step_ends.clone().unwrap_or_default();
    (0..ends.len())
        .map(|j| {
            let begin = r.step_begins.as_ref().map_or(if j == 0 { 0 } else { ends[j - 1] }, |b| b[j]);
            let end = if r.step_begins.is_none() && j + 1 == ends.len() { r.len as i64 } else { ends[j] };
            let missing = r.step_scores.first().is_some_and(|s| s[j].is_nan());
            (begin as usize..end as usize).filter(|t| !missing && r.mask.as_ref().is_none_or(|m| m[*t])).collect()
        })
        .collect()
}

pub fn close(name: &str, got: &Got, wanted: &[Vec<f64>]) {
    let largest = wanted.iter().flatten().fold(1.0f64, |m, a| m.max(a.abs()));
    for (i, (got, wanted)) in got.advantages.iter().zip(wanted).enumerate() {
        for (t, (a, w)) in got.iter().zip(wanted).enumerate() {
            assert!((a - w).abs() <= 1e-6 * largest, "{name}: rollout {i} token {t}: {a:e}, by the loop {w:e}");
        }
    }
    assert_eq!(got.status, 0, "{name}: {}", got.message);
    assert!(got.padding_is_zero, "{name}");
}

pub fn hows() -> [How; 4] {
    let plain = How::default();
    [
        plain,
        How { threads: 3, simd: PASSRL_SIMD_BASELINE, ..plain },
        How { padded: true, spare: 3, wide_offsets: true, dirt: 0x5a, ..plain },
        How { padded: true, pad_left: true, threads: 2, mask: PASSRL_F32, ..plain },
    ]
}
