//! Real graded rollouts, whole, through the C ABI: 250 tool-using agent trajectories with tool output between the steps, against the oracle.
//! The data stays beside the project (`../shared/data`); for a clone without it the project's own sample stands in, and the test says so.

use harness::{Floats, How, run};
use oracle::{Batch, Config, Rollout};
use std::path::Path;
use testkit::{harness, oracle};

fn read(path: &Path) -> Batch {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let rollouts: Vec<Rollout> = text
        .lines()
        .map(|line| {
            let object: serde_json::Value = serde_json::from_str(line).expect("an object a line");
            let number = |key: &str| object[key].as_f64().unwrap_or_else(|| panic!("{key} in {line}"));
            let list = |key: &str| object[key].as_array().map(|a| a.iter().map(|x| x.as_f64().expect("a number")).collect::<Vec<_>>());
            let ints = |key: &str| list(key).map(|v| v.into_iter().map(|x| x as i64).collect::<Vec<_>>());
            Rollout {
                len: number("len") as usize,
                group: number("group") as usize,
                in_stats: true,
                outcome: Some(number("outcome") as f32),
                format: Some(number("format") as f32),
                format_ok: Some(object.get("format_ok").map_or(number("format"), |ok| ok.as_f64().unwrap_or(1.0)) != 0.0),
                step_ends: ints("step_end"),
                step_begins: ints("step_begin"),
                step_scores: vec![list("step_score").unwrap_or_default().into_iter().map(|x| x as f32).collect()],
                ..Default::default()
            }
        })
        .collect();
    Batch { num_groups: rollouts.iter().map(|r| r.group + 1).max().unwrap_or(0), rollouts, ..Batch::default() }
}

fn hold(name: &str, batch: &Batch) {
    let pooled = Config { chunk: oracle::Chunk::Step, k: 0.0, fusion: oracle::Fusion::Pooled, ..Config::default() };
    let settings = [Config::default(), Config { gamma: 0.99, bridge_scope_gaps: true, ..Config::default() }, pooled];
    for (n, cfg) in settings.iter().enumerate() {
        let wanted = oracle::shape(cfg, batch);
        for how in [How { output: Floats::F32, threads: 2, ..How::default() }, How { output: Floats::F32, padded: true, ..How::default() }] {
            let got = run(cfg, batch, &how);
            assert_eq!(got.status, 0, "{}", got.message);
            let (mut worst, mut tokens) = (0.0f64, 0);
            for (i, r) in batch.rollouts.iter().enumerate() {
                let largest = (0..batch.rollouts.len())
                    .filter(|j| batch.rollouts[*j].group == r.group)
                    .flat_map(|j| &wanted.rollouts[j].advantages)
                    .fold(0.0f64, |m, a| m.max(a.abs()));
                assert_eq!(got.num_chunks[i], wanted.rollouts[i].num_chunks, "{name}, setting {n}, rollout {i}");
                for (t, (a, w)) in got.advantages[i].iter().zip(&wanted.rollouts[i].advantages).enumerate() {
                    let bound = (1e-7 * largest).max(2f64.powi(-23) * w.abs()).max(1e-12);
                    assert!((a - w).abs() <= bound, "{name}, setting {n}, rollout {i} token {t}: {a:e}, oracle {w:e}");
                    worst = worst.max((a - w).abs() / bound);
                    tokens += usize::from(wanted.rollouts[i].scope[t]);
                }
            }
            println!("{name}, setting {n}: {} rollouts, {tokens} tokens in scope, largest error {worst:.2} of the bound", batch.rollouts.len());
        }
    }
}

#[test]
fn graded_rollouts_of_agents() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/agentprocessbench_hotpotqa.jsonl");
    if !path.exists() {
        println!("SKIPPED: the graded agent rollouts (../shared/data/agentprocessbench_hotpotqa.jsonl) are not beside this clone");
        return;
    }
    let batch = read(&path);
    assert_eq!((batch.rollouts.len(), batch.num_groups), (250, 50));
    hold("agent rollouts", &batch);
}

#[test]
fn the_projects_own_rollouts() {
    hold("arithmetic rollouts", &read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("bindings/python/examples/arithmetic_rollouts.jsonl")));
}
