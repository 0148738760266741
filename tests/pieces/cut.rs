//! A batch cut into pieces, put before the library call by call.
#![allow(dead_code)]
use crate::cases::Rng;
use crate::harness::{self, Floats, Got, How, Ints, Placed, Plan, library};
use crate::oracle::{Batch, Config, LogProbs, Rollout};
use passrl::abi::constants::*;
use passrl::abi::types::*;
use std::ffi::c_void;
use std::ptr::null_mut;

/// `slots` tokens of rollout `rollout` from `begin` on (beyond its end: padding), the `index`-th of its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub rollout: usize,
    pub begin: usize,
    pub slots: usize,
    pub index: usize,
}

/// Random cuts: some rollouts whole, some in up to `most` pieces, empty ones among them; some reach beyond the end.
pub fn random(batch: &Batch, most: usize, rng: &mut Rng) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (rollout, r) in batch.rollouts.iter().enumerate() {
        let count = 1 + rng.below(most);
        let mut cuts: Vec<usize> = (1..count).map(|_| rng.below(r.len + 1)).collect();
        cuts.sort();
        cuts.insert(0, 0);
        cuts.push(r.len + if rng.below(3) == 0 { rng.below(5) } else { 0 });
        pieces.extend((0..count).map(|index| Piece { rollout, begin: cuts[index], slots: cuts[index + 1] - cuts[index], index }));
    }
    pieces
}

/// Megatron's: each rollout padded to a multiple of 2 cp and cut into 2 cp equal pieces; rank r has pieces r and 2 cp - 1 - r.
pub fn zigzag(batch: &Batch, cp: usize) -> Vec<Vec<Piece>> {
    let mut ranks = vec![Vec::new(); cp];
    for (rollout, r) in batch.rollouts.iter().enumerate() {
        let slots = r.len.div_ceil(2 * cp);
        for (rank, pieces) in ranks.iter_mut().enumerate() {
            pieces.extend([rank, 2 * cp - 1 - rank].map(|index| Piece { rollout, begin: index * slots, slots, index }));
        }
    }
    ranks
}

/// Tokens of a piece as a rollout of their own; padding is in the mask, and NaN.
fn part(r: &Rollout, p: &Piece) -> Rollout {
    fn of<T: Clone>(line: &[T], p: &Piece, padding: T) -> Vec<T> {
        (p.begin..p.begin + p.slots).map(|t| line.get(t).cloned().unwrap_or(padding.clone())).collect()
    }
    let f32s = |line: &Option<Vec<f32>>| line.as_ref().map(|l| of(l, p, f32::NAN));
    let f64s = |line: &Option<Vec<f64>>| line.as_ref().map(|l| of(l, p, f64::NAN));
    let flags = |line: &Option<Vec<bool>>| line.as_ref().map(|l| of(l, p, true));
    Rollout {
        len: p.slots,
        mask: flags(&r.mask),
        group: r.group,
        signal: r.signal.iter().map(|s| of(s, p, f32::NAN)).collect(),
        logp: r.logp.as_ref().map(|l| LogProbs { policy: of(&l.policy, p, f64::NAN), teacher: of(&l.teacher, p, f64::NAN), base: f64s(&l.base) }),
        step_marks: flags(&r.step_marks),
        chunk_ends: flags(&r.chunk_ends),
        values: f32s(&r.values),
        token_rewards: f32s(&r.token_rewards),
        logp_policy: f64s(&r.logp_policy),
        logp_reference: f64s(&r.logp_reference),
        logp_behavior: f64s(&r.logp_behavior),
        sum_pi_squared: f64s(&r.sum_pi_squared),
        token_ratio: f64s(&r.token_ratio),
        in_stats: true,
        ..Rollout::default()
    }
}

/// One call: some pieces, the rollouts that they are of (`rows`: numbers in the whole batch).
pub struct Call {
    pub pieces: Vec<Piece>,
    pub rows: Vec<usize>,
}

impl Call {
    /// With all rollouts of the batch, or those alone that have a piece here, in any order.
    pub fn new(pieces: Vec<Piece>, batch: &Batch, all: bool, rng: &mut Rng) -> Call {
        let mut rows: Vec<usize> = (0..batch.rollouts.len()).filter(|i| all || pieces.iter().any(|p| p.rollout == *i)).collect();
        if !all {
            shuffle(&mut rows, rng);
        }
        Call { pieces, rows }
    }
}

pub fn shuffle<T>(list: &mut [T], rng: &mut Rng) {
    (1..list.len()).rev().for_each(|i| list.swap(i, rng.below(i + 1)));
}

/// What a call reads and writes.
pub struct Stage<'b> {
    pub batch: passrl_batch,
    pub outputs: passrl_outputs,
    call: &'b Call,
    at: Vec<usize>,
    tokens: [Vec<f64>; 2],
    paths: Vec<f64>,
    chunks: Vec<i64>,
    flags: Vec<i32>,
    stats: [Vec<f64>; 3],
    counts: Vec<i64>,
    groups: Vec<i32>,
    report: Box<passrl_report>,
    views: Vec<Box<passrl_view>>,
    /// Advantages in a type of fewer bits, as bytes.
    narrow: Vec<u8>,
}

const DIRT: f64 = -77.25;

impl<'b> Stage<'b> {
    pub fn new(placed: &mut (Placed<'b>, Placed<'b>), batch: &Batch, call: &'b Call) -> Stage<'b> {
        let (tokens, whole) = placed;
        let t = tokens.batch;
        let mut b = whole.batch;
        let numbers = |list: Vec<usize>| Ints::Wide(list.into_iter().map(|x| x as i64).collect());
        let row = |p: &Piece| call.rows.iter().position(|r| *r == p.rollout).expect("a row");
        let mut ints = |list: Vec<usize>| whole.arena.ints(&numbers(list));
        b.piece_rollout = ints(call.pieces.iter().map(row).collect());
        b.piece_begin = ints(call.pieces.iter().map(|p| p.begin).collect());
        b.piece_index = ints(call.pieces.iter().map(|p| p.index).collect());
        b.rollout_index = ints(call.rows.clone());
        b.lengths = ints(call.rows.iter().map(|r| batch.rollouts[*r].len).collect());
        (b.cu_seqlens, b.mask, b.signal, b.chunk_ends, b.step_marks) = (t.cu_seqlens, t.mask, t.signal, t.chunk_ends, t.step_marks);
        (b.logp_policy, b.logp_teacher, b.logp_base, b.logp_reference) = (t.logp_policy, t.logp_teacher, t.logp_base, t.logp_reference);
        (b.values, b.token_rewards) = (t.values, t.token_rewards);
        (b.logp_behavior, b.sum_pi_squared, b.token_ratio) = (t.logp_behavior, t.sum_pi_squared, t.token_ratio);
        let (n, r, cells) = (tokens.layout.slots_in_all(), call.rows.len(), batch.num_groups * PASSRL_MAX_STREAMS);
        let mut stage = Stage {
            batch: b,
            outputs: library().initial(),
            call,
            at: tokens.layout.offsets.clone(),
            tokens: [vec![DIRT; n], vec![DIRT; n]],
            paths: vec![DIRT; r],
            chunks: vec![-1; r],
            flags: vec![-1; r],
            stats: std::array::from_fn(|_| vec![DIRT; cells]),
            counts: vec![-1; cells],
            groups: vec![-1; cells],
            report: Box::new(library().initial()),
            views: Vec::new(),
            narrow: Vec::new(),
        };
        let mut view = |data: *mut c_void, dtype: i32, count: usize, wide: bool| -> *const passrl_view {
            let columns = if wide { PASSRL_MAX_STREAMS as i64 } else { 1 };
            let shape = [count as i64 / columns, columns];
            stage.views.push(Box::new(passrl_view { data, shape, stride: [columns, 1], ndim: 1 + i32::from(wide), dtype, device_type: PASSRL_CPU, device_id: 0 }));
            &**stage.views.last().expect("just pushed")
        };
        let o = &mut stage.outputs;
        o.advantages = view(stage.tokens[0].as_mut_ptr().cast(), PASSRL_F64, n, false);
        o.returns = view(stage.tokens[1].as_mut_ptr().cast(), PASSRL_F64, n, false);
        o.path_scores = view(stage.paths.as_mut_ptr().cast(), PASSRL_F64, r, false);
        o.num_chunks = view(stage.chunks.as_mut_ptr().cast(), PASSRL_I64, r, false);
        o.rollout_flags = view(stage.flags.as_mut_ptr().cast(), PASSRL_I32, r, false);
        o.stats_mean = view(stage.stats[0].as_mut_ptr().cast(), PASSRL_F64, cells, true);
        o.stats_std = view(stage.stats[1].as_mut_ptr().cast(), PASSRL_F64, cells, true);
        o.stats_absmax = view(stage.stats[2].as_mut_ptr().cast(), PASSRL_F64, cells, true);
        o.stats_count = view(stage.counts.as_mut_ptr().cast(), PASSRL_I64, cells, true);
        o.group_flags = view(stage.groups.as_mut_ptr().cast(), PASSRL_I32, cells, true);
        o.report = &mut *stage.report;
        stage
    }

    /// Advantages are of this type instead; `widen` after the call.
    pub fn narrow(&mut self, to: Floats) {
        if to == Floats::F64 {
            return;
        }
        // SAFETY: a view of this stage.
        let mut view = unsafe { *self.outputs.advantages };
        self.narrow = vec![0x5a; self.tokens[0].len() * to.bytes() + 8];
        let odd = self.narrow.as_ptr().align_offset(8);
        (view.data, view.dtype) = (self.narrow[odd..].as_mut_ptr().cast(), to.dtype());
        self.views.push(Box::new(view));
        self.outputs.advantages = &**self.views.last().expect("just pushed");
    }

    pub fn widen(&mut self) {
        // SAFETY: the view that `narrow` has made.
        let view = unsafe { *self.outputs.advantages };
        for (t, to) in self.tokens[0].iter_mut().enumerate() {
            // SAFETY: as many elements of that type.
            unsafe {
                match view.dtype {
                    PASSRL_F32 => *to = view.data.cast::<f32>().add(t).read() as f64,
                    PASSRL_BF16 => *to = view.data.cast::<half::bf16>().add(t).read().to_f64(),
                    PASSRL_F16 => *to = view.data.cast::<half::f16>().add(t).read().to_f64(),
                    _ => return,
                }
            }
        }
    }

    /// Is every output what it was before the call?
    pub fn untouched(&self) -> bool {
        self.tokens.iter().chain(&self.stats).flatten().chain(&self.paths).all(|x| *x == DIRT) && self.chunks.iter().all(|k| *k == -1)
    }

    pub fn report(&mut self) -> &mut passrl_report {
        &mut self.report
    }

    /// Puts what the call wrote where it stands in the whole batch.
    pub fn gather(&self, all: &mut Got) {
        for (p, at) in self.call.pieces.iter().zip(&self.at) {
            let whole = all.advantages[p.rollout].len();
            let (len, begin) = (whole.saturating_sub(p.begin).min(p.slots), p.begin.min(whole));
            for (from, to) in self.tokens.iter().zip([&mut all.advantages, &mut all.returns]) {
                to[p.rollout][begin..begin + len].copy_from_slice(&from[*at..at + len]);
                all.padding_is_zero &= from[at + len..at + p.slots].iter().all(|x| *x == 0.0);
            }
        }
        for (row, i) in self.call.rows.iter().enumerate() {
            if self.call.pieces.iter().any(|p| p.rollout == *i) {
                (all.path_scores[*i], all.num_chunks[*i], all.rollout_flags[*i]) = (self.paths[row], self.chunks[row] as usize, self.flags[row]);
            } else {
                assert!(self.paths[row] == DIRT && self.chunks[row] == -1 && self.flags[row] == -1, "a row without pieces was written");
            }
        }
        let rows = |cell: usize| (self.counts[cell], self.stats[0][cell], self.stats[1][cell], self.stats[2][cell]);
        all.stats = (0..self.counts.len() / PASSRL_MAX_STREAMS).map(|g| (0..PASSRL_MAX_STREAMS).map(|s| rows(g * PASSRL_MAX_STREAMS + s)).collect()).collect();
        let (a, b) = (&mut all.report, &self.report);
        for (a, b) in counted(a).into_iter().zip(counted(&mut b.as_ref().clone())) {
            *a += *b;
        }
        a.findings |= b.findings;
    }
}

/// Counts of a report that add over calls, and of which each is counted once.
pub fn counted(r: &mut passrl_report) -> [&mut i64; 9] {
    [
        &mut r.rollouts, &mut r.tokens, &mut r.chunks, &mut r.missing_values, &mut r.nonfinite_values, &mut r.low_logps, &mut r.clipped_tokens, &mut r.overflowed_tokens,
        &mut r.bad_steps,
    ]
}

/// A call's pieces as rollouts, and its rows.
pub fn parts(batch: &Batch, call: &Call) -> (Batch, Batch) {
    let tokens = call.pieces.iter().map(|p| part(&batch.rollouts[p.rollout], p)).collect();
    (batch.with(tokens), batch.with(call.rows.iter().map(|i| batch.rollouts[*i].clone()).collect()))
}

pub fn place<'b>(cfg: &Config, of: &'b (Batch, Batch), how: &How) -> (Placed<'b>, Placed<'b>) {
    let how = How { padded: false, ..*how };
    let placed = (harness::place(cfg, &of.0, &how), harness::place(cfg, &of.1, &how));
    placed.0.seal();
    placed.1.seal();
    placed
}

/// Limits for the cuts of a batch.
pub fn limits(batch: &Batch, pieces: &[Piece], how: &How) -> passrl_limits {
    let mut l = harness::limits(batch, &How { padded: false, ..*how });
    l.tokens = pieces.iter().map(|p| p.slots).sum::<usize>() as i64;
    l.pieces = pieces.len().max(1) as i64;
    l.rollout_pieces = pieces.iter().map(|p| p.index + 1).max().unwrap_or(1) as i64;
    l.batch_rollouts = batch.rollouts.len().max(1) as i64;
    l
}

type Run = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32;

/// One `passrl_plan_run`.
pub fn run(plan: &Plan, stage: &Stage, how: &How) -> (i32, String) {
    let workspace = plan.workspace(how);
    let run: Run = library().get("passrl_plan_run");
    // SAFETY: a live plan, and memory that outlives the call.
    let status = unsafe { run(plan.plan, &stage.batch, &stage.outputs, workspace.at, workspace.bytes, null_mut()) };
    (status, library().last_error())
}

type Init = unsafe extern "C" fn(*const c_void, *mut c_void, usize) -> i32;
type Add = unsafe extern "C" fn(*const c_void, i32, *const passrl_batch, *mut c_void, usize, *mut c_void, usize, *mut c_void) -> i32;
type Apply = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const c_void, usize, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32;

/// Calls one after the other by way of partials, in another order each phase; the first refusal, if one is refused.
pub fn over_time(plan: &Plan, cfg: &Config, batch: &Batch, calls: &[Call], how: &How, rng: &mut Rng) -> Result<Got, (i32, String)> {
    let library = library();
    let bytes = plan.size("passrl_partials_size");
    let mut buffer = vec![0xa5a5_a5a5_a5a5_a5a5u64; bytes.div_ceil(8)];
    let (init, add, apply): (Init, Add, Apply) = (library.get("passrl_partials_init"), library.get("passrl_partials_add"), library.get("passrl_plan_apply"));
    let said = |status: i32| if status < 0 { Err((status, library.last_error())) } else { Ok(status) };
    // SAFETY: live plan, batch and buffers; likewise below.
    said(unsafe { init(plan.plan, buffer.as_mut_ptr().cast(), bytes) })?;
    let workspace = plan.workspace(how);
    for phase in 0..plan.phases() {
        let mut order: Vec<usize> = (0..calls.len()).collect();
        shuffle(&mut order, rng);
        for c in order {
            let of = parts(batch, &calls[c]);
            let mut placed = place(cfg, &of, how);
            let stage = Stage::new(&mut placed, batch, &calls[c]);
            // SAFETY: as above.
            said(unsafe { add(plan.plan, phase, &stage.batch, buffer.as_mut_ptr().cast(), bytes, workspace.at, workspace.bytes, null_mut()) })?;
        }
    }
    let mut all = harness::empty(batch);
    for call in calls {
        let of = parts(batch, call);
        let mut placed = place(cfg, &of, how);
        let stage = Stage::new(&mut placed, batch, call);
        // SAFETY: as above.
        let status = said(unsafe {
            apply(plan.plan, &stage.batch, buffer.as_ptr().cast(), bytes, &stage.outputs, workspace.at, workspace.bytes, null_mut())
        })?;
        all.status = all.status.max(status);
        stage.gather(&mut all);
    }
    Ok(all)
}

/// Where two results differ; `None`: nowhere.
pub fn difference(whole: &Got, got: &Got) -> Option<String> {
    let bits = |rows: &[Vec<f64>]| rows.iter().map(|r| r.iter().map(|x| x.to_bits()).collect::<Vec<_>>()).collect::<Vec<_>>();
    for (name, a, b) in [("advantages", &whole.advantages, &got.advantages), ("returns", &whole.returns, &got.returns)] {
        let (x, y) = (bits(a), bits(b));
        if let Some(i) = (0..x.len()).find(|i| x[*i] != y[*i]) {
            let t = (0..x[i].len()).find(|t| x[i][*t] != y[i][*t]).unwrap_or(0);
            return Some(format!("{name} of rollout {i} at token {t}: {:e}, not {:e}", b[i][t], a[i][t]));
        }
    }
    if let Some(i) = (0..whole.path_scores.len()).find(|i| whole.path_scores[*i].to_bits() != got.path_scores[*i].to_bits()) {
        return Some(format!("path score of rollout {i}: {:e}, not {:e}", got.path_scores[i], whole.path_scores[i]));
    }
    let mut reports = [whole.report, got.report];
    let [a, b] = &mut reports;
    let (a, b) = (counted(a).map(|x| *x), counted(b).map(|x| *x));
    for (name, same) in [
        ("chunk counts", whole.num_chunks == got.num_chunks),
        ("flags", whole.rollout_flags == got.rollout_flags),
        ("statistics", got.stats.is_empty() || format!("{:?}", whole.stats) == format!("{:?}", got.stats)),
        ("findings", whole.report.findings == got.report.findings),
        ("padding", got.padding_is_zero),
    ] {
        if !same {
            return Some(format!("{name}: {:?} {:?}, not {:?} {:?}", got.num_chunks, got.rollout_flags, whole.num_chunks, whole.rollout_flags));
        }
    }
    (a != b).then(|| format!("report {b:?}, not {a:?}"))
}



