//! Which kernels a run takes: by limits, settings and shapes alone, never by what device memory says.
use crate::model::array::DType;
use crate::model::batch::{Groups, Problem, Process};
use crate::model::config::{BoundaryRule, Chunk, ChunkValue, Config, Credit, DivideScope, GaeOver, Kind, KlInReward, Missing, StepSets, StepValue, TokenBaseline, Whiten};
use crate::model::outputs::Outputs;
use crate::plan::Plan;

/// Rollouts of a group whose sums one block adds, one rollout after another.
const FEW: usize = 64;

/// Multiprocessors a group up to which each group may have one block. Such a run writes and reads next to nothing, and half of a device's multiprocessors can write as
/// fast as its memory takes (32 bytes a clock each: some 3.6 TB/s of 66 of an H100). With fewer groups a block a rollout is the better share. (Reckoned, not measured.)
const MULTIPROCESSORS_A_GROUP: usize = 2;

/// The most tokens that a group may have whose block is to write all of them: 1 MiB of f32.
const TOKENS_OF_A_GROUP: usize = 1 << 18;

/// What a block of passrl_steps keeps of a step in shared memory, an end, a score and a result; and of how many steps: 12 KiB, as a block has 48 without asking for more
/// and some 33 of them are taken in any case.
pub const BYTES_OF_A_STEP: u32 = 16;
const MOST_STEPS_AT_HAND: usize = 768;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// One kernel: GAE of rewards and values a token, without statistics.
    GaeAlone,
    /// One kernel: a block has a whole group, from its steps to its tokens.
    Steps,
    /// The first pass adds the sums too: groups stand together and are small.
    Joined,
    /// The first pass, then the sums.
    Apart,
    /// KL by value: the first pass, the sums and the position table, and (`joined`: in the same kernel) the table's edges.
    Kl { joined: bool },
}

impl Way {
    pub fn of(plan: &Plan, problem: &Problem, outputs: &Outputs, multiprocessors: usize) -> Way {
        // Of index groups no block knows which rollout is the last; a set of the whole batch is complete only after the kernel.
        let contiguous = !matches!(problem.grouping, Groups::Index(_));
        let group = group_rollouts(plan, problem);
        let whole_batch = plan.slots.batch != 0;
        if contiguous && is_gae_alone(plan, problem, outputs) {
            Way::GaeAlone
        } else if by_table(plan) {
            Way::Kl { joined: contiguous && !whole_batch }
        } else if plan.config.kind != Kind::Kl && contiguous && !whole_batch && group <= FEW {
            if may_have_whole_groups(plan, problem, group, multiprocessors) { Way::Steps } else { Way::Joined }
        } else {
            Way::Apart
        }
    }

    /// The fewest and the most kernels of a run, those of `shape` beside its last left out.
    pub fn kernels(plan: &Plan) -> (usize, usize) {
        let whole_batch = plan.slots.batch != 0;
        if by_table(plan) {
            return (if whole_batch { 4 } else { 3 }, 4);
        }
        let joined = plan.config.kind != Kind::Kl && !whole_batch;
        (if may_be_gae_alone(plan) || (joined && may_be_steps(plan)) { 1 } else if joined { 2 } else { 3 }, 3)
    }
}

/// Do the edges of a table of positions make the chunks?
fn by_table(plan: &Plan) -> bool {
    plan.config.kind == Kind::Kl && plan.config.chunk == Chunk::ByValue
}

/// Rollouts that a group may have.
pub fn group_rollouts(plan: &Plan, problem: &Problem) -> usize {
    match problem.grouping {
        Groups::Constant(size) => size,
        _ => plan.limits.group_rollouts,
    }
}

/// Settings under which passrl_gae does all there is to do.
fn may_be_gae_alone(plan: &Plan) -> bool {
    let c = &plan.config;
    let plain = c.credit == Credit::Gae && c.gae_over == GaeOver::Tokens && c.kind == Kind::None && c.chunk != Chunk::Given;
    let beside = c.lam_returns >= 0.0 || c.lam_length_alpha > 0.0 || c.whiten != Whiten::None || c.token_baseline != TokenBaseline::None;
    plain && !beside && plan.limits.pieces == 0 && !plan.slots.joint && plan.slots.batch == 0
}

fn is_gae_alone(plan: &Plan, p: &Problem, o: &Outputs) -> bool {
    let inputs = p.token_rewards.is_some() && p.values.is_some() && matches!(p.process, Process::None);
    let streams = p.rollout_streams.iter().any(Option::is_some) || p.baselines.is_some() || p.stats_mean.is_some() || p.stats_std.is_some();
    let marks = p.mask.is_some() || p.steps.is_some() || p.step_marks.is_some() || p.chunk_marks.is_some() || p.step_group.is_some();
    let rollouts = p.format_ok.is_some() || p.in_stats.is_some() || p.absent.is_some() || p.rollout_lam.is_some();
    let logps = p.reference.is_some() || p.behavior.is_some() || p.baseline_inputs.is_some();
    let asked = [&o.path_scores, &o.num_chunks, &o.chunk_ends, &o.chunk_values, &o.stats_count, &o.stats_mean, &o.stats_std, &o.stats_absmax];
    let more = asked.iter().any(|view| view.is_some()) || o.group_flags.is_some() || o.rollout_flags.is_some();
    may_be_gae_alone(plan) && p.rollouts > 0 && inputs && o.returns.is_some() && !(streams || marks || rollouts || logps || more)
}

/// Settings under which passrl_steps does all there is to do, where the steps' scores come side by side.
fn may_be_steps(plan: &Plan) -> bool {
    let c = &plan.config;
    let scored = c.kind == Kind::Prm && c.num_process == 1 && c.streams[0].missing == Missing::Error && c.step_value == StepValue::Score && !plan.slots.joint;
    let beside = c.whiten != Whiten::None || c.token_baseline != TokenBaseline::None || c.step_sets != StepSets::Group || c.kl_in_reward != KlInReward::None;
    scored && is_one_scan(c) && !beside && plan.limits.pieces == 0
}

/// May a block have a whole group? Its steps stay where the caller has them and nothing else of its tokens is read; the groups are enough for the
/// device's multiprocessors, and none may have so many tokens that the others would wait for its block.
fn may_have_whole_groups(plan: &Plan, p: &Problem, group: usize, multiprocessors: usize) -> bool {
    let beside = p.mask.is_some() || p.step_marks.is_some() || p.chunk_marks.is_some() || p.step_group.is_some() || p.reference.is_some() || p.values.is_some() || p.behavior.is_some();
    let steps_alone = may_be_steps(plan) && may_stay_in_place(plan, p) && p.steps.is_some_and(|s| s.begins.is_none()) && !beside;
    let longest = if p.packed() { plan.limits.rollout_tokens } else { p.slots };
    steps_alone && MULTIPROCESSORS_A_GROUP * p.groups >= multiprocessors && group.saturating_mul(longest) <= TOKENS_OF_A_GROUP
}

/// Steps of a group that a block has room for in shared memory: twice what groups have on average, as far as a block may have that much beside what it
/// has in any case.
pub fn steps_at_hand(p: &Problem) -> usize {
    let steps = p.steps.map_or(0, |s| s.ends.shape[0]);
    (2 * steps.div_ceil(p.groups.max(1))).next_multiple_of(32).clamp(64, MOST_STEPS_AT_HAND)
}

/// Do settings ask for one scan of a rollout's chunks, with nothing taken or added between?
fn is_one_scan(c: &Config) -> bool {
    matches!(c.credit, Credit::ReturnToGo | Credit::Broadcast) && !c.spreads() && c.divide_scope == DivideScope::All && c.chunk_value == ChunkValue::Last
}

/// Is every rollout's way from its chunks' values to its results one scan (kernels/shape.cuh, `is_one_pass`), whatever device memory says?
pub fn is_one_pass(plan: &Plan, p: &Problem) -> bool {
    let c = &plan.config;
    let beside = p.token_rewards.is_some() || p.baseline_inputs.is_some() || (p.reference.is_some() && c.kl_by_token());
    // Where each token may be a chunk (KL), holes in the scope take another way.
    let holes = p.mask.is_some() || p.steps.is_some_and(|s| s.begins.is_some()) || c.streams[0].missing == Missing::Exclude;
    is_one_scan(c) && !beside && !(c.kind == Kind::Kl && holes)
}

/// May CSR steps stay where the caller has them, in place of lists of the workspace (kernels/elements.cuh, `list_steps_as_chunks`)? Nothing but their values as they are
/// is asked of them.
pub fn may_stay_in_place(plan: &Plan, p: &Problem) -> bool {
    let c = &plan.config;
    let side_by_side = matches!(p.process, Process::Scores(scores) if scores.dtype == DType::F32 && scores.stride[usize::from(!p.scores_flat)] == 1);
    let plain = c.streams[0].missing == Missing::Error && c.step_value == StepValue::Score && !plan.slots.joint && p.num_process == 1;
    side_by_side && plain && is_one_pass(plan, p) && c.whiten == Whiten::None && c.token_baseline == TokenBaseline::None
}

/// Of kind kl and one scan: do parts of a rollout follow from its length alone (kernels/kl_parts.cuh)? One signal, edges between neighbours kept as bits, nothing
/// of a rollout's tokens but their maxima and sums.
pub fn has_parts_of_kl(plan: &Plan, p: &Problem) -> bool {
    let c = &plan.config;
    let signal = p.num_process == 1 && matches!(p.process, Process::Signal(_) | Process::LogProbs { .. }) && c.streams[0].missing == Missing::Error;
    let beside = p.reference.is_some() || p.values.is_some() || p.behavior.is_some() || p.steps.is_some() || p.step_marks.is_some();
    by_table(plan) && c.boundary_rule == BoundaryRule::Adjacent && signal && !beside && !plan.slots.joint && plan.slots.batch == 0
}
