//! The worked examples of docs/formulas.md §6 with the numbers printed there.
use super::Case;
use crate::oracle::*;

#[derive(Clone, Debug)]
pub struct Worked {
    pub case: Case,
    /// Advantages of each rollout, rounded to 9 places.
    pub advantages: Vec<Vec<f64>>,
    /// Path scores and numbers of chunks where they are printed.
    pub path_scores: Option<Vec<f64>>,
    pub num_chunks: Option<Vec<usize>>,
}

fn prm(len: usize, ends: &[i64], scores: &[f32], rewards: (f32, f32, bool)) -> Rollout {
    Rollout {
        len,
        in_stats: true,
        outcome: Some(rewards.0),
        format: Some(rewards.1),
        format_ok: Some(rewards.2),
        step_ends: Some(ends.to_vec()),
        step_scores: vec![scores.to_vec()],
        ..Rollout::default()
    }
}

fn prm_batch() -> Batch {
    let a = prm(4, &[2, 4], &[1.0, -1.0], (1.0, 1.0, true));
    let b = prm(3, &[3], &[0.5], (0.0, 1.0, true));
    let mut c = prm(5, &[1, 2, 5], &[0.25, 0.25, -0.5], (0.0, 0.0, false));
    c.mask = Some(vec![true, true, false, true, true]);
    Batch { num_groups: 1, rollouts: vec![a, b, c], ..Batch::default() }
}

fn kl_batch() -> Batch {
    let kl = |signal: &[f32], outcome: f32| Rollout {
        len: signal.len(),
        in_stats: true,
        outcome: Some(outcome),
        format: Some(1.0),
        format_ok: Some(true),
        signal: vec![signal.to_vec()],
        ..Rollout::default()
    };
    Batch { num_groups: 1, rollouts: vec![kl(&[-0.5, -0.25, -0.25, -1.0], 1.0), kl(&[-0.5, -0.75, -0.75], 0.0)], ..Batch::default() }
}

fn worked(name: &'static str, batch: Batch, edit: impl FnOnce(&mut Config), advantages: &[&[f64]]) -> Worked {
    let mut cfg = Config::default();
    edit(&mut cfg);
    let advantages = advantages.iter().map(|a| a.to_vec()).collect();
    Worked { case: Case { name, cfg, batch }, advantages, path_scores: None, num_chunks: None }
}

pub fn worked_examples() -> Vec<Worked> {
    let a: &[f64] = &[1.989668793, 1.989668793, 0.224898493, 0.224898493];
    let b: &[f64] = &[0.579672813; 3];
    let mut defaults =
        worked("worked_defaults", prm_batch(), |_| {}, &[a, b, &[-4.816441028, -4.264801964, 0.0, -3.464095615, -3.464095615]]);
    defaults.path_scores = Some(vec![1.989668793, 0.579672813, -4.816441028]);
    defaults.num_chunks = Some(vec![2, 1, 3]);
    let kl = |cfg: &mut Config| cfg.kind = Kind::Kl;
    vec![
        defaults,
        worked(
            "worked_k_0",
            prm_batch(),
            |cfg| cfg.k = 0.0,
            &[
                &[3.232226490, 3.232226490, 0.224898493, 0.224898493],
                b,
                &[-10.392286845, -6.928191230, 0.0, -3.464095615, -3.464095615],
            ],
        ),
        worked(
            "worked_merge_equal_steps",
            prm_batch(),
            |cfg| cfg.merge_equal_steps = true,
            &[a, b, &[-4.264801964, -4.264801964, 0.0, -3.464095615, -3.464095615]],
        ),
        worked(
            "worked_abs_max",
            prm_batch(),
            |cfg| cfg.set_standardize_all(Standardize::AbsMax),
            &[&[2.462288827, 2.462288827, 1.0, 1.0], &[1.5; 3], &[0.0; 5]],
        ),
        worked(
            "worked_kl_mean_std",
            kl_batch(),
            kl,
            &[&[0.633453658, 0.633453658, 0.633453658, -0.833546453], &[-1.349044212; 3]],
        ),
        worked(
            "worked_kl_abs_max",
            kl_batch(),
            |cfg| {
                kl(cfg);
                cfg.set_standardize_all(Standardize::AbsMax);
            },
            &[&[1.692823568, 1.692823568, 1.692823568, 1.0], &[0.25; 3]],
        ),
    ]
}
