//! Chunk boundaries alone: those of the pipeline, over layouts, forms and findings.
#[path = "primitives/rig.rs"]
mod rig;

use passrl::abi::constants::*;
use passrl::abi::primitives::*;
use passrl::abi::status::*;
use passrl::abi::structs::Growing;
use passrl::abi::types::*;
use rig::*;
use std::ptr::{null, null_mut};

/// Steps of every rollout of a place: ends (and begins) inside its extent.
struct StepsOf {
    offsets: Vec<i64>,
    ends: Vec<i32>,
    begins: Vec<i32>,
    scores: Vec<f32>,
}

fn steps_of(extents: &[usize], seed: u64) -> StepsOf {
    let mut s = StepsOf { offsets: vec![0], ends: vec![], begins: vec![], scores: vec![] };
    for (i, len) in extents.iter().enumerate() {
        let mut t = 0;
        if i % 4 != 3 {
            let mut j = seed as usize + i;
            while t < *len {
                let begin = t + j % 2;
                t = (t + 1 + (j * 7) % 6).min(*len).max(begin.min(*len));
                s.begins.push(begin.min(t) as i32);
                s.ends.push(t as i32);
                s.scores.push([0.5, 0.5, -1.0, 0.25][j * 3 % 4]);
                j += 1;
                if j % 11 == 0 {
                    break;
                }
            }
        }
        s.offsets.push(s.ends.len() as i64);
    }
    s
}

#[test]
fn chunk_boundaries_are_those_of_the_pipeline() {
    let rig = Rig::new();
    for layout in Layout::ALL {
        let place = Place::new(layout);
        let extents: Vec<usize> = match (place.row, layout) {
            (0, _) => place.cu.windows(2).map(|w| (w[1] - w[0]) as usize).collect(),
            (row, Layout::Mask) => vec![row; LENGTHS.len()],
            _ => place.lengths.iter().map(|l| *l as usize).collect(),
        };
        for case in 0..96u32 {
            let mut c = config();
            c.boundary_rule = (case & 1) as i32;
            c.merge_equal_steps = (case >> 1 & 1) as i32;
            c.bridge_scope_gaps = (case >> 2 & 1) as i32;
            let form = case / 8 % 4; // dense, dense with ends, dense with begins, scores
            c.streams[0].missing = [PASSRL_MISSING_ERROR, PASSRL_MISSING_ZERO, PASSRL_MISSING_EXCLUDE][case as usize / 32];
            c.eta = if case % 5 == 0 { 0.3 } else { 1e-8 };
            let mut coarse = data(case as u64 + 70);
            coarse.iter_mut().flatten().for_each(|x| *x = (*x / 4.0).round() / 4.0);
            // One a rollout. A NaN is a finding under `error` alone, an infinity always; K and ends are a run's all the same.
            let bad = if case % 3 == 1 { f64::INFINITY } else { f64::NAN };
            let mut steps = steps_of(&extents, case as u64);
            if case >= 16 {
                for (i, x) in coarse.iter_mut().enumerate().filter(|(_, x)| !x.is_empty()) {
                    let t = (case as usize + i) % x.len();
                    x[t] = bad;
                }
                for w in steps.offsets.windows(2).filter(|w| w[1] > w[0]) {
                    steps.scores[w[0] as usize + case as usize % (w[1] - w[0]) as usize] = bad as f32;
                }
            }
            let mut signal = place.scatter::<f32>(&coarse, f32::NAN);
            let sv = place.view(&mut signal);
            let (so, se, sb, ss) = (line(&mut steps.offsets), line(&mut steps.ends), line(&mut steps.begins), line(&mut steps.scores));
            let slots = place.slots;
            place.with_batch(|b| {
                let mut b = passrl_batch { group_size: 1, ..*b };
                if form != 3 {
                    b.signal[0] = &sv;
                } else {
                    b.step_scores = &ss;
                    b.row_tokens = place.row as i64;
                }
                if form > 0 {
                    (b.step_offsets, b.step_ends) = (&so, &se);
                    b.step_begins = if form == 2 { &sb } else { null() };
                }
                let (mut k, mut ends) = (vec![-7i32; LENGTHS.len()], vec![-7i64; slots]);
                let (mut k2, mut ends2, mut a) = (vec![-7i32; LENGTHS.len()], vec![-7i64; slots], vec![f32::NAN; slots]);
                let (kv, ev) = (line(&mut k), place.view(&mut ends));
                let got = unsafe { passrl_chunk_boundaries(rig.context, &b, &c, &kv, &ev, rig.ws(), rig.bytes(), null_mut()) };
                assert!(got >= 0 && (case >= 16 || got == PASSRL_OK), "{layout:?} case {case}: {}", last());
                let (kv, ev, av) = (line(&mut k2), place.view(&mut ends2), place.view(&mut a));
                let o = passrl_outputs { advantages: &av, num_chunks: &kv, chunk_ends: &ev, ..passrl_outputs::defaults() };
                assert_eq!(rig.pipeline_with(&c, &b, &o), got, "{layout:?} case {case}: {}", rig.said.borrow());
                assert_eq!(k, k2, "{layout:?} case {case}");
                assert_eq!(ends, ends2, "{layout:?} case {case}");
                // Dense, no gaps, adjacent: the plain rule.
                if form == 0 && case < 16 && case & 1 == 0 && place.mask.is_none() {
                    for (i, x) in coarse.iter().enumerate() {
                        let edges = x.windows(2).filter(|w| (w[1] - w[0]).abs() > c.eta).count();
                        assert_eq!(k[i] as usize, if x.is_empty() { 0 } else { edges + 1 });
                    }
                }
            });
        }
    }
}

#[test]
fn chunk_boundaries_with_findings() {
    let rig = Rig::new();
    let mut signal = vec![1.0f32, 1.0, f32::NAN, 2.0, 5.0, 5.0];
    let (mut cu, mut k, mut offsets, mut ends) = (vec![0i32, 4, 6], vec![-1i64; 2], vec![0i32, 2, 3], vec![2i32, 4, 1]);
    let (sv, cu, kv, so, se) = (line(&mut signal), line(&mut cu), line(&mut k), line(&mut offsets), line(&mut ends));
    let mut b = passrl_batch { num_rollouts: 2, cu_seqlens: &cu, ..batch() };
    b.signal[0] = &sv;
    let run =
        |b: &passrl_batch| unsafe { passrl_chunk_boundaries(rig.context, b, &config(), &kv, null(), rig.ws(), rig.bytes(), null_mut()) };
    assert_eq!(run(&b), PASSRL_FINDING_MISSING);
    assert!(last().contains("token 2 of rollout 0"), "{}", last());
    assert_eq!(k, [3, 1]);
    signal[2] = f32::INFINITY;
    assert_eq!(run(&b), PASSRL_FINDING_NONFINITE);
    assert_eq!(k, [3, 1]);
    signal[2] = 1.0;
    (b.step_offsets, b.step_ends) = (&so, &se);
    ends[0] = 3;
    ends[1] = 2;
    assert_eq!(run(&b), PASSRL_FINDING_BAD_STEPS);
    assert!(last().contains("rollout 0"), "{}", last());
    assert_eq!(k, [0, 1]);
}
