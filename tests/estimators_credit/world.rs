//! Ragged batches with every input of credit, put before the library in any layout or in micro-batches.
use crate::cases::Rng;
use crate::harness::{Got, How, Outputs, Placed, library, limits, place};
use crate::oracle::{self, Batch, Rollout};
use passrl::abi::constants::*;
use passrl::abi::types::*;
use std::ffi::c_void;
use std::ptr::null_mut;

/// What a rollout has beside the harness's fields.
#[derive(Clone, Default)]
pub struct Extra {
    pub policy: Vec<f64>,
    pub reference: Vec<f64>,
    pub behavior: Vec<f64>,
    pub lam: f32,
}

#[derive(Clone)]
pub struct World {
    pub config: passrl_config,
    pub batch: Batch,
    pub extra: Vec<Extra>,
    pub gives_reference: bool,
    pub gives_behavior: bool,
    pub gives_lam: bool,
}

fn line(rng: &mut Rng, len: usize, of: impl Fn(&mut Rng) -> f64) -> Vec<f64> {
    (0..len).map(|_| of(rng)).collect()
}

fn f32s(line: Vec<f64>) -> Vec<f32> {
    line.into_iter().map(|x| x as f32).collect()
}

impl World {
    /// Seven rollouts of two groups, 0 to 90 tokens, with gaps; kl signal, outcome, format, values, token rewards, log-probabilities.
    pub fn new(seed: u64) -> World {
        let mut rng = Rng(seed);
        let mut config = library().config("pass");
        config.kind = PASSRL_KIND_KL;
        config.chunk = PASSRL_CHUNK_TOKEN;
        (config.k, config.gamma, config.lam, config.kl_coef) = (0.0, 0.97, 0.9, 0.25);
        config.streams[0].center = PASSRL_CENTER_GROUP;
        config.streams[0].scale = PASSRL_SCALE_NONE;
        let (mut rollouts, mut extra) = (Vec::new(), Vec::new());
        for i in 0..7 {
            let len = [37, 90, 0, 33, 64, 5, 71][i] + rng.below(3) * usize::from(i != 2);
            let mask: Vec<bool> = (0..len).map(|t| i != 5 && (i == 3 || (t >= 3 && !rng.chance(0.25) && t + 4 < len))).collect();
            let d = line(&mut rng, len, |r| r.normal() * [1.0, 1e-3, 3.0][r.below(3)]);
            let policy = line(&mut rng, len, |r| -4.0 * r.unit());
            extra.push(Extra {
                reference: policy.iter().zip(&d).map(|(p, d)| p - d).collect(),
                behavior: policy.iter().map(|p| p + 0.4 * rng.normal()).collect(),
                policy,
                lam: rng.unit() as f32,
            });
            rollouts.push(Rollout {
                len,
                mask: Some(mask),
                group: i % 2,
                outcome: Some(rng.below(3) as f32 * 0.5),
                format: Some(rng.below(2) as f32),
                format_ok: Some(!rng.chance(0.2)),
                in_stats: true,
                signal: vec![f32s(line(&mut rng, len, |r| r.normal()))],
                chunk_ends: Some((0..len).map(|_| rng.chance(0.2)).collect()),
                values: Some(f32s(line(&mut rng, len, |r| r.normal()))),
                token_rewards: Some(f32s(line(&mut rng, len, |r| 0.3 * r.normal()))),
                bootstrap: Some(rng.normal() as f32),
                ..Default::default()
            });
        }
        World { config, batch: Batch { num_groups: 2, rollouts, ..Batch::default() }, extra, gives_reference: false, gives_behavior: false, gives_lam: false }
    }

    pub fn drop_token_rewards(&mut self) {
        self.batch.rollouts.iter_mut().for_each(|r| r.token_rewards = None);
    }

    pub fn scope(&self, i: usize, t: usize) -> bool {
        self.batch.rollouts[i].mask.as_ref().is_none_or(|m| m[t])
    }

    /// Everything that the configuration may not read is NaN (`before`: out of scope after the first token in scope is read).
    pub fn poison(&mut self, before: bool) {
        for i in 0..self.batch.rollouts.len() {
            let len = self.batch.rollouts[i].len;
            let first = (0..len).find(|t| self.scope(i, *t)).unwrap_or(len);
            for t in (0..len).filter(|t| !self.scope(i, *t)).collect::<Vec<_>>() {
                let e = &mut self.extra[i];
                e.behavior[t] = f64::NAN;
                // Under `scan_mask = none` the KL of these tokens may be in their rewards.
                if t < first || !before || self.config.kl_place != PASSRL_KL_PLACE_REWARD {
                    (e.policy[t], e.reference[t]) = (f64::NAN, f64::NAN);
                }
                if t < first || !before {
                    let r = &mut self.batch.rollouts[i];
                    for row in [Some(&mut r.signal[0]), r.values.as_mut(), r.token_rewards.as_mut()].into_iter().flatten() {
                        row[t] = f32::NAN;
                    }
                }
            }
        }
    }

    fn place<'b>(&self, batch: &'b Batch, rows: &[usize], how: &How) -> Placed<'b> {
        let cfg = oracle::Config { kind: oracle::Kind::Kl, ..Default::default() };
        let mut placed = place(&cfg, batch, how);
        let layout = placed.layout.clone();
        let of = |line: fn(&Extra) -> &Vec<f64>| move |i: usize, t: usize| Some(line(&self.extra[rows[i]])[t]);
        let (arena, b) = (&mut placed.arena, &mut placed.batch);
        if self.gives_reference || self.gives_behavior {
            b.logp_policy = arena.token_f64(&layout, how, of(|e| &e.policy));
        }
        if self.gives_reference {
            b.logp_reference = arena.token_f64(&layout, how, of(|e| &e.reference));
        }
        if self.gives_behavior {
            b.logp_behavior = arena.token_f64(&layout, how, of(|e| &e.behavior));
        }
        if self.gives_lam {
            b.rollout_lam = arena.line(&rows.iter().map(|i| self.extra[*i].lam).collect::<Vec<_>>());
        }
        if self.config.kind == PASSRL_KIND_NONE {
            b.signal = [std::ptr::null(); 4];
        }
        placed
    }

    pub fn try_run(&self, how: &How) -> Result<Got, String> {
        let plan = library().plan(&self.config, &limits(&self.batch, how), how).map_err(|(_, sentence)| sentence)?;
        let rows: Vec<usize> = (0..self.batch.rollouts.len()).collect();
        let mut placed = self.place(&self.batch, &rows, how);
        let mut outputs = Outputs::new(&placed, how);
        let (status, sentence) = plan.run(&mut placed, &mut outputs, how);
        if status < 0 { Err(sentence) } else { Ok(outputs.collect(&placed, status, sentence)) }
    }

    pub fn run(&self, how: &How) -> Got {
        self.try_run(how).unwrap_or_else(|sentence| panic!("refused: {sentence}"))
    }

    /// The advantages, returns and path scores of a run in three micro-batches by way of partials.
    pub fn run_in_slices(&self, how: &How) -> Vec<u64> {
        type Init = unsafe extern "C" fn(*const c_void, *mut c_void, usize) -> i32;
        type Add = unsafe extern "C" fn(*const c_void, i32, *const passrl_batch, *mut c_void, usize, *mut c_void, usize, *mut c_void) -> i32;
        type Apply = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const c_void, usize, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32;
        let library = library();
        let plan = library.plan(&self.config, &limits(&self.batch, how), how).expect("a plan");
        let bytes = plan.size("passrl_partials_size");
        let mut buffer = vec![0u64; bytes.div_ceil(8)];
        let ok = |status: i32| assert!(status >= 0, "{}", library.last_error());
        // SAFETY: a live plan and a buffer of that size; likewise below.
        ok(unsafe { library.get::<Init>("passrl_partials_init")(plan.plan, buffer.as_mut_ptr().cast(), bytes) });
        let parts: Vec<(Vec<usize>, Batch)> = (0..3)
            .map(|s| {
                let rows: Vec<usize> = (0..self.batch.rollouts.len()).filter(|i| i * 5 % 3 == s).collect();
                let rollouts = rows.iter().map(|i| self.batch.rollouts[*i].clone()).collect();
                (rows, self.batch.with(rollouts))
            })
            .collect();
        for phase in 0..plan.phases() {
            for (rows, part) in parts.iter().rev() {
                let (placed, workspace) = (self.place(part, rows, how), plan.workspace(how));
                // SAFETY: a live plan, its buffer, the placed batch and a workspace of this call.
                ok(unsafe {
                    let add = library.get::<Add>("passrl_partials_add");
                    add(plan.plan, phase, &placed.batch, buffer.as_mut_ptr().cast(), bytes, workspace.at, workspace.bytes, null_mut())
                });
            }
        }
        let mut all = vec![Vec::new(); self.batch.rollouts.len()];
        for (rows, part) in &parts {
            let (placed, workspace) = (self.place(part, rows, how), plan.workspace(how));
            let mut outputs = Outputs::new(&placed, how);
            // SAFETY: a live plan, and views and buffers of its sizes.
            let status = unsafe {
                let apply = library.get::<Apply>("passrl_plan_apply");
                apply(plan.plan, &placed.batch, buffer.as_ptr().cast(), bytes, &outputs.raw(), workspace.at, workspace.bytes, null_mut())
            };
            ok(status);
            let got = outputs.collect(&placed, status, String::new());
            rows.iter().enumerate().for_each(|(at, i)| all[*i] = bits_of(&got, at));
        }
        all.concat()
    }
}

fn bits_of(got: &Got, i: usize) -> Vec<u64> {
    got.advantages[i].iter().chain(&got.returns[i]).chain([&got.path_scores[i]]).map(|x| x.to_bits()).collect()
}

/// What `run_in_slices` gives, of a whole run.
pub fn bits(got: &Got) -> Vec<u64> {
    (0..got.advantages.len()).flat_map(|i| bits_of(got, i)).collect()
}
