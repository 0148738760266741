//! The workspace in device memory: one function counts and carves, as src/plan/workspace.rs does on the host. What a run must find set before it begins are
//! zeros in one stretch: one memset.
use super::args::{Counts, GroupMarks, KeyedStep, Rollout, StateLayout, Workspace};
use super::pieces::{self, Places};
use super::units;
use crate::model::config::{Chunk, Credit, Kind, StepSets, TokenBaseline, Whiten};
use crate::plan::Plan;

/// Every part begins at a multiple: 16-byte loads, and no two parts in one sector.
const ALIGNMENT: usize = 256;

/// `bytes` from `offset`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stretch {
    pub offset: usize,
    pub bytes: usize,
}

#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub bytes: usize,
    /// Where a run's statistics begin, and how they lie.
    pub state: StateLayout,
    /// Keys, sums, counts, marks, the KL table: 0 before a run.
    pub zeros: Stretch,
    /// Of them those before a run in which no rollout has blocks of its own for its parts.
    pub zeros_unsplit: Stretch,
    /// Counts and marks alone: 0 before a call on partials.
    pub counts: Stretch,
    /// Counts alone: 0 before a run of passrl_steps.
    pub counts_alone: Stretch,
    /// Statistics of a run over ranks: a buffer of partials.
    pub ranks: Stretch,
    /// Offsets in place of addresses; of pieces, where rollouts come in some.
    offsets: Workspace,
    places: Places,
    units: units::Places,
}

/// As kernels/parts.cuh has them: words of `Part`; tokens a thread of a part.
const PART_WORDS: usize = 8;
const PART_ROUNDS: usize = 8;

/// From so many parts on rollouts of chunks are split.
pub const FEWEST_PARTS: usize = 4;

/// Tokens of a block that has a part of a rollout.
pub fn part(threads: u32) -> usize {
    PART_ROUNDS * threads as usize
}

/// Parts of rollouts, beside the first of each, that the workspace has room for: of the smallest blocks.
pub fn parts(plan: &Plan) -> usize {
    plan.limits.tokens / part(32) + 1
}

/// Threads of a block of passrl_gae: rollouts as long as the plan's are on average fill it. Longer ones have several blocks, so that short ones beside them do not
/// take more than theirs: the shortest have a warp each.
pub fn gae_threads(plan: &Plan) -> u32 {
    match plan.limits.tokens / plan.limits.rollouts.max(1) {
        0..=64 => 32,
        65..=128 => 64,
        129..=1024 => 128,
        _ => 256,
    }
}

/// Bytes of shared memory that a block of it asks for: sums of its tokens, and their values and the one after.
pub fn gae_shared(threads: u32) -> u32 {
    (12 * part(threads) + 4) as u32
}

/// Threads of a block of passrl_steps, which has groups of so many rollouts: a warp each.
pub fn steps_threads(group: usize) -> u32 {
    32 * group.next_power_of_two().clamp(2, 16) as u32
}

struct Carver(usize);

impl Carver {
    fn take<T>(&mut self, count: usize) -> u64 {
        let offset = self.0;
        self.0 = (self.0 + count * size_of::<T>()).next_multiple_of(ALIGNMENT);
        offset as u64
    }
}

impl Layout {
    pub fn new(plan: &Plan) -> Layout {
        let (config, limits, slots, p) = (&plan.config, &plan.limits, &plan.slots, &plan.partials);
        let (r, g, n) = (limits.units(), limits.groups, limits.tokens);
        let if_ = |wanted: bool, count: usize| if wanted { count } else { 0 };
        let (prm, whitens) = (config.kind == Kind::Prm, config.whiten != Whiten::None);
        let mut c = Carver(0);
        // Statistics: keys first, then sums, as in a buffer of partials but for the KL table, which a run keeps in columns.
        let extremes = c.take::<i32>(p.extremes.count);
        let batch_extremes = c.take::<i32>(p.batch_extremes.count);
        let second = c.take::<i32>(p.second.count);
        let whiten_extremes = c.take::<i32>(if_(whitens, p.whiten_extremes.count));
        let sums = c.take::<i64>(p.sums.count);
        let batch_sums = c.take::<i64>(p.batch_sums.count);
        let whiten_sums = c.take::<i64>(if_(whitens, p.whiten_sums.count));
        let counted = c.0;
        let counts = c.take::<Counts>(1);
        let marks = c.take::<GroupMarks>(g);
        let table = config.kind == Kind::Kl && config.chunk == Chunk::ByValue;
        // Of each queue: of the kernels that write in parts (passrl_gae does all in one), that look at the signal in parts, that add sums in parts.
        let queued = [config.credit == Credit::Gae || config.kind != Kind::Kl || table, prm || table, table].map(|splits| if_(splits, parts(plan)));
        let states = c.0;
        let part_states = queued.map(|count| c.take::<u32>(count));
        let in_pieces = limits.pieces > 0;
        let speakers = c.take::<u32>(if_(in_pieces, limits.rollouts));
        let counts_end = c.0;
        let columns = c.take::<i64>(if_(table, n + 4 * r + 4));
        let live = c.take::<i64>(if_(table, n + 4 * r + 4));
        let pieces_table = c.take::<u32>(if_(in_pieces, limits.rollouts * limits.rollout_pieces));
        let zeros = Stretch { offset: 0, bytes: c.0 };
        let zeros_unsplit = Stretch { bytes: if table || in_pieces { zeros.bytes } else { states }, ..zeros };
        let keyed_sets = config.step_sets == StepSets::StepGroup;
        let baselines = config.token_baseline != TokenBaseline::None;
        let scans = config.spreads() || config.lam_returns >= 0.0 || config.credit == Credit::Vtrace;
        let offsets = Workspace {
            state: 0,
            counts,
            marks,
            rollouts: c.take::<Rollout>(r),
            scope: c.take::<u64>(n / 64 + 2 * r + 2),
            elements: c.take::<f32>(if_(prm, slots.lists * n)),
            weights: c.take::<u32>(if_(prm, n)),
            last: c.take::<u32>(n),
            values: c.take::<f32>(if_(plan.workspace.values.count > 0, slots.lists * n)),
            token_values: c.take::<f32>(if_(plan.workspace.token_values.count > 0, slots.lists * n)),
            step_begin: c.take::<u32>(n),
            step_end: c.take::<u32>(n),
            step_keys: c.take::<i64>(if_(keyed_sets, n)),
            stepped: c.take::<f64>(if_(keyed_sets, slots.lists * n)),
            chunk_steps: c.take::<u32>(if_(keyed_sets, n)),
            keyed: c.take::<KeyedStep>(if_(keyed_sets, limits.steps)),
            whitened: c.take::<f32>(if_(whitens, n)),
            kl: c.take::<f32>(if_(config.kl_by_token(), n)),
            kl_sums: c.take::<f32>(if_(config.asks_kl() && !config.kl_by_token(), r)),
            paths: c.take::<f32>(if_(whitens, r)),
            baseline_weights: c.take::<f64>(if_(baselines, n)),
            baseline_gains: c.take::<f64>(if_(baselines, n)),
            signal: c.take::<f32>(if_(config.kind != Kind::None, slots.lists.max(1) * n)),
            f: c.take::<f64>(n),
            d: c.take::<f64>(n),
            v: c.take::<f64>(n),
            lines: c.take::<f64>(if_(scans, n)),
            columns,
            live,
            edges: c.take::<u64>(if_(table, n / 64 + 2 * r + 2)),
            edge_counts: c.take::<u32>(if_(table, n / part(32) + r + 1)),
            // Of each place: the largest |G W| and |W|, sums of both.
            places: c.take::<f64>(if_(baselines, 4 * n)),
            parts: queued.map(|count| c.take::<[u64; PART_WORDS]>(count)),
            part_states,
            joint: 0,
        };
        let room = pieces::bytes_of_inputs(config);
        let places = Places {
            table: pieces_table,
            offsets: c.take::<i64>(if_(in_pieces, limits.rollouts + 1)),
            absent: c.take::<u8>(if_(in_pieces, limits.rollouts)),
            gathered: std::array::from_fn(|i| c.take::<u8>(if_(in_pieces, room[i] * n))),
            results: std::array::from_fn(|_| c.take::<f64>(if_(in_pieces, n))),
        };
        // (A clipped step has a token of its piece; each piece may have one more, which is empty.)
        let steps = if_(in_pieces, n + r);
        let units = units::Places {
            joint: c.take::<u8>(units::bytes(if_(in_pieces, r))),
            speakers,
            gathered: std::array::from_fn(|_| c.take::<u64>(if_(in_pieces, r))),
            groups: c.take::<i64>(if_(in_pieces, r)),
            ends: c.take::<u32>(steps),
            begins: c.take::<u32>(steps),
            numbers: c.take::<u32>(steps),
            scores: c.take::<f32>(if_(prm, config.num_process * steps)),
            room: steps,
        };
        let shared = if_(plan.ranks.is_some(), p.bytes);
        let ranks = Stretch { offset: c.take::<u8>(shared) as usize, bytes: shared };
        let at = |offset: u64| offset as i64;
        let state = StateLayout {
            extremes: at(extremes),
            sums: at(sums),
            table: 0,
            batch_extremes: at(batch_extremes),
            batch_sums: at(batch_sums),
            second: at(second),
            whiten_extremes: at(whiten_extremes),
            whiten_sums: at(whiten_sums),
            claims: 0,
            positions: 0,
            keys_from_zero: 1,
        };
        Layout { bytes: c.0, state, zeros, zeros_unsplit, counts: Stretch { offset: counted, bytes: counts_end - counted }, counts_alone: Stretch { offset: counted, bytes: size_of::<Counts>() }, ranks, offsets, places, units }
    }

    /// Likewise of pieces over calls.
    pub fn units(&self, base: u64) -> units::Places {
        self.units.at(base)
    }

    /// Addresses of what pieces need.
    pub fn places(&self, base: u64) -> Places {
        let p = self.places;
        Places {
            table: base + p.table,
            offsets: base + p.offsets,
            absent: base + p.absent,
            gathered: p.gathered.map(|offset| base + offset),
            results: p.results.map(|offset| base + offset),
        }
    }

    /// Addresses within a workspace that begins at `base`.
    pub fn at(&self, base: u64) -> Workspace {
        let mut all = self.offsets;
        let Workspace {
            state, counts, marks, rollouts, scope, elements, weights, last, values, token_values, step_begin, step_end, step_keys, stepped, chunk_steps, keyed,
            whitened, kl, kl_sums, paths, baseline_weights, baseline_gains, signal, f, d, v, lines, columns, live, edges, edge_counts, places, parts, part_states, joint: _,
        } = &mut all;
        for part in [
            state, counts, marks, rollouts, scope, elements, weights, last, values, token_values, step_begin, step_end, step_keys, stepped, chunk_steps, keyed,
            whitened, kl, kl_sums, paths, baseline_weights, baseline_gains, signal, f, d, v, lines, columns, live, edges, edge_counts, places,
        ] {
            *part += base;
        }
        parts.iter_mut().chain(part_states).for_each(|part| *part += base);
        all
    }
}

/// How the statistics lie in a buffer of partials.
pub fn partials(plan: &Plan) -> StateLayout {
    let p = &plan.partials;
    StateLayout {
        extremes: p.extremes.offset as i64,
        sums: p.sums.offset as i64,
        table: p.table.offset as i64,
        batch_extremes: p.batch_extremes.offset as i64,
        batch_sums: p.batch_sums.offset as i64,
        second: p.second.offset as i64,
        whiten_extremes: p.whiten_extremes.offset as i64,
        whiten_sums: p.whiten_sums.offset as i64,
        claims: if p.claims.count > 0 { p.claims.offset as i64 } else { 0 },
        positions: p.positions as i64,
        keys_from_zero: 0,
    }
}
