//! A batch against a plan's configuration and limits. Shapes here; what the offsets say is in `offsets`.
use super::offsets;
use super::view::{self, Want};
use crate::abi::constants::*;
use crate::abi::status::*;
use crate::abi::types::{passrl_batch, passrl_view};
use crate::error::Result;
use crate::model::array::{Array, DType};
use crate::model::batch::{Extents, Groups, Problem, Process, Steps};
use crate::model::config::*;
use crate::model::context::Where;
use crate::refuse;

/// Shape of token-shaped views: `[N]`, or `[R, T]`.
#[derive(Clone, Copy)]
pub(super) struct Tokens {
    pub place: Where,
    pub packed: bool,
    pub rollouts: usize,
    pub slots: usize,
}

impl Tokens {
    pub fn want(&self) -> Want {
        if self.packed { Want::Line(self.slots) } else { Want::Grid(self.rollouts, self.slots) }
    }
    /// # Safety
    /// NULL or a `passrl_view`.
    #[inline(always)]
    pub(super) unsafe fn optional(&self, view: *const passrl_view, name: &str, types: &'static [DType]) -> Result<Option<Array>> {
        // SAFETY: passed on.
        unsafe { view::optional(self.place, view, name, types, self.want()) }
    }

    /// # Safety
    /// As `optional`.
    #[inline(always)]
    unsafe fn optional_to(&self, to: &mut Option<Array>, view: *const passrl_view, name: &str, types: &'static [DType]) -> Result<()> {
        // SAFETY: passed on.
        unsafe { view::optional_to(to, self.place, view, name, types, self.want()) }
    }
}

/// What this version declares and does not serve.
fn not_yet(b: &passrl_batch) -> Result<()> {
    for (given, name, with) in [
        (!b.stats_in.is_null() || b.stats_in_bytes != 0, "stats_in", "statistics as bytes (numbers: stats_mean, stats_std)"),
    ] {
        if given {
            return refuse!(PASSRL_ERR_NOT_YET, "batch.{name} is given; it is served by a later version, with {with}: pass NULL");
        }
    }
    Ok(())
}

/// Names of views that a batch has several of.
const SIGNAL: [&str; MAX_PROCESS] = ["batch.signal[0]", "batch.signal[1]", "batch.signal[2]", "batch.signal[3]"];
const EXTRA: [&str; 10] = [
    "batch.extra[0]", "batch.extra[1]", "batch.extra[2]", "batch.extra[3]", "batch.extra[4]",
    "batch.extra[5]", "batch.extra[6]", "batch.extra[7]", "batch.extra[8]", "batch.extra[9]",
];

/// Extent of a token-shaped view along the tokens: what a view of another form says there means nothing.
fn extent(ndim: i32, shape: [i64; 2], dimension: usize, name: &str) -> Result<i64> {
    if ndim != dimension as i32 + 1 {
        return refuse!(PASSRL_ERR_SHAPE, "{name} has {ndim} dimension(s); it must have {}", dimension + 1);
    }
    if shape[dimension] < 0 {
        return refuse!(PASSRL_ERR_SHAPE, "{name} has shape[{dimension}] = {}; it must be 0 or more", shape[dimension]);
    }
    Ok(shape[dimension])
}

/// N or T: from the first token-shaped view, the batch's own word, the output's shape, or the offsets.
///
/// # Safety
/// The batch's views are NULL or `passrl_view`s.
unsafe fn slots(b: &passrl_batch, packed: bool, hint: Option<(i32, [i64; 2])>, last: Option<i64>) -> Result<usize> {
    let dimension = usize::from(!packed);
    let mut found = if !packed && b.row_tokens != 0 { Some(b.row_tokens) } else { None };
    let mut look = |view: *const passrl_view, name: &'static str| {
        // SAFETY: by the contract.
        if let (None, Some(view)) = (found, unsafe { view.as_ref() }) {
            found = Some(extent(view.ndim, view.shape, dimension, name)?);
        }
        Ok(())
    };
    let [s0, s1, s2, s3] = b.signal;
    look(s0, SIGNAL[0])?;
    look(s1, SIGNAL[1])?;
    look(s2, SIGNAL[2])?;
    look(s3, SIGNAL[3])?;
    look(b.mask, "batch.mask")?;
    look(b.logp_policy, "batch.logp_policy")?;
    look(b.logp_teacher, "batch.logp_teacher")?;
    look(b.logp_reference, "batch.logp_reference")?;
    look(b.logp_behavior, "batch.logp_behavior")?;
    look(b.sum_pi_squared, "batch.sum_pi_squared")?;
    look(b.token_ratio, "batch.token_ratio")?;
    look(b.values, "batch.values")?;
    look(b.token_rewards, "batch.token_rewards")?;
    look(b.chunk_ends, "batch.chunk_ends")?;
    look(b.step_marks, "batch.step_marks")?;
    if let (None, Some((ndim, shape))) = (found, hint) {
        found = Some(extent(ndim, shape, dimension, "outputs.advantages")?);
    }
    // A negative last offset is refused with the others, by its place.
    let found = found.or(last.map(|last| last.max(0))).unwrap_or(-1);
    match usize::try_from(found) {
        Ok(slots) => Ok(slots),
        Err(_) => refuse!(PASSRL_ERR_SHAPE, "batch.row_tokens is {} and no token-shaped view is given; set it to T, the slots of a row", b.row_tokens),
    }
}

/// Typed batch.
///
/// # Safety
/// The batch's views are NULL or `passrl_view`s of readable memory of the place. `hint`: dimensions and shape of the advantages.
pub unsafe fn problem(place: Where, b: &passrl_batch, config: &Config, limits: &Limits, hint: Option<(i32, [i64; 2])>) -> Result<Problem> {
    let mut all = Problem::nothing();
    // SAFETY: passed on.
    unsafe { fill(&mut all, place, b, config, limits, hint)? };
    Ok(all)
}

/// The same, to where it is to stand, which is `Problem::nothing()`: it is thousands of bytes, and a call may be short.
///
/// # Safety
/// As `problem`.
pub unsafe fn fill(to: &mut Problem, place: Where, b: &passrl_batch, config: &Config, limits: &Limits, hint: Option<(i32, [i64; 2])>) -> Result<()> {
    not_yet(b)?;
    if b.reserved0 != 0 {
        return refuse!(PASSRL_ERR_VALUE, "batch.reserved0 is {}; it must be 0", b.reserved0);
    }
    let Some(rollouts) = usize::try_from(b.num_rollouts).ok().filter(|r| *r <= limits.rollouts) else {
        return refuse!(PASSRL_ERR_LIMIT, "batch.num_rollouts is {}; the plan's limits.rollouts allows 0 to {}", b.num_rollouts, limits.rollouts);
    };
    let packed = match b.layout {
        PASSRL_PACKED => true,
        PASSRL_PADDED => false,
        other => return refuse!(PASSRL_ERR_VALUE, "batch.layout is {other}; it is PASSRL_PACKED (0) or PASSRL_PADDED (1)"),
    };
    let pad_left = match b.pad_side {
        PASSRL_PAD_RIGHT => false,
        PASSRL_PAD_LEFT => true,
        other => return refuse!(PASSRL_ERR_VALUE, "batch.pad_side is {other}; it is PASSRL_PAD_RIGHT (0) or PASSRL_PAD_LEFT (1)"),
    };
    // SAFETY: the views are the caller's by the contract; likewise throughout.
    unsafe {
        to.rollouts = rollouts;
        to.pieces = super::pieces::pieces(place, b, rollouts, packed, limits)?;
        let (units, pieces) = (to.units(), to.pieces.is_some());
        let cu_seqlens = view::optional(place, b.cu_seqlens, "batch.cu_seqlens", view::INTS, Want::Line(units + 1))?;
        let lengths = view::optional(place, b.lengths, "batch.lengths", view::INTS, Want::Line(rollouts))?.filter(|_| !pieces);
        to.extents = match (packed, cu_seqlens, lengths) {
            (true, Some(cu_seqlens), None) => Extents::Packed { cu_seqlens },
            (true, None, _) => return refuse!(PASSRL_ERR_NULL, "batch.cu_seqlens is NULL; the packed layout needs it, [{}]", units + 1),
            (true, _, Some(_)) => return refuse!(PASSRL_ERR_CONFLICT, "batch.lengths is given in the packed layout; cu_seqlens says the lengths"),
            (false, None, lengths) => Extents::Padded { lengths, pad_left },
            (false, Some(_), _) => return refuse!(PASSRL_ERR_CONFLICT, "batch.cu_seqlens is given in the padded layout; use lengths"),
        };
        // Without token-shaped memory the offsets alone say how far the tokens reach.
        let last = match &to.extents {
            // Where the host cannot read them: no further than the plan allows.
            Extents::Packed { .. } if place != Where::Host => Some(limits.tokens as i64),
            Extents::Padded { .. } if place != Where::Host => None,
            Extents::Packed { cu_seqlens } => Some(cu_seqlens.int(units)),
            Extents::Padded { lengths, .. } => lengths.map(|l| (0..rollouts).map(|i| l.int(i)).max().unwrap_or(0)),
        };
        let slots = slots(b, packed, hint, last)?;
        to.slots = slots;
        offsets::extents(place, &to.extents, units, slots, limits, pieces)?;
        let tokens = Tokens { place, packed, rollouts, slots };
        to.steps = steps(place, b, rollouts, limits)?;
        process(to, b, config, &tokens)?;
        if pieces {
            super::pieces::forms(&to.process, &to.steps, !b.step_marks.is_null(), config)?;
        }
        let line = |to: &mut Option<Array>, view, name, types| view::optional_to(to, place, view, name, types, Want::Line(rollouts));

        line(&mut to.rollout_streams[0], b.outcome, "batch.outcome", view::FLOATS)?;
        line(&mut to.rollout_streams[1], b.format, "batch.format", view::FLOATS)?;
        for (x, view) in b.extra.iter().enumerate().filter(|(_, view)| !view.is_null()) {
            line(&mut to.rollout_streams[2 + x], *view, EXTRA[x], view::FLOATS)?;
            if x >= config.num_extra {
                return refuse!(PASSRL_ERR_CONFLICT, "batch.extra[{x}] is given; config.num_extra is {}, set it to {} or more", config.num_extra, x + 1);
            }
        }
        line(&mut to.format_ok, b.format_ok, "batch.format_ok", view::MASKS)?;
        if to.format_ok.is_some() && to.rollout_streams[1].is_none() {
            return refuse!(PASSRL_ERR_CONFLICT, "batch.format_ok is given without batch.format; a violating rollout's advantage is made of its format reward");
        }
        let rewarded = to.rollout_streams.iter().any(Option::is_some);
        let any_stream = to.num_process > 0 || rewarded;
        let gae = matches!(config.credit, Credit::Gae | Credit::Vtrace);
        tokens.optional_to(&mut to.token_rewards, b.token_rewards, "batch.token_rewards", view::FLOATS)?;
        if !gae && config.chunk != Chunk::Token {
            to.token_rewards = None;
        }
        if !any_stream && to.token_rewards.is_none() && rollouts > 0 {
            return refuse!(PASSRL_ERR_NULL, "batch has no process signal (config.kind is {}), no outcome, format or extra stream: there is nothing to shape", crate::model::config::Choice::name(config.kind));
        }
        (to.grouping, to.groups) = grouping(place, b, rollouts, limits, any_stream)?;
        tokens.optional_to(&mut to.values, b.values, "batch.values", view::FLOATS)?;
        if !gae {
            to.values = None;
        } else if to.values.is_none() && rollouts > 0 {
            return refuse!(PASSRL_ERR_NULL, "batch.values is NULL; config.credit = {} needs a value a token", config.credit.name());
        }
        if to.token_rewards.is_some() && config.credit == Credit::Gae && config.gae_over == GaeOver::Chunks {
            return refuse!(PASSRL_ERR_CONFLICT, "batch.token_rewards is given and config.gae_over is chunks, whose rewards are the chunks' values: leave token_rewards NULL, or set gae_over = tokens");
        }
        line(&mut to.baselines, b.baselines, "batch.baselines", view::FLOATS)?;
        if config.streams[OUTCOME].center != Center::Given {
            to.baselines = None;
        }
        (to.stats_mean, to.stats_std) = super::estimators::given(place, b, config, to.groups, to.baselines.is_some(), |row| match row.checked_sub(OUTCOME) {
            None => row < to.num_process,
            Some(s) if config.fusion == Fusion::RewardSum => s == 0 && rewarded,
            Some(s) => to.rollout_streams.get(s).is_some_and(|x| x.is_some()),
        })?;
        let policy = tokens.optional(b.logp_policy, "batch.logp_policy", view::FLOATS)?;
        let against = |other, name: &str, asked: bool, field: &str| {
            let other = tokens.optional(other, name, view::FLOATS)?.filter(|_| asked);
            match (policy, other) {
                (Some(policy), Some(other)) => Ok(Some((policy, other))),
                _ if !asked || rollouts == 0 => Ok(None),
                (None, _) => refuse!(PASSRL_ERR_NULL, "batch.logp_policy is NULL; config.{field} needs it beside {name}"),
                (_, None) => refuse!(PASSRL_ERR_NULL, "{name} is NULL; config.{field} needs it beside batch.logp_policy"),
            }
        };
        if config.asks_kl() || !b.logp_reference.is_null() {
            to.reference = against(b.logp_reference, "batch.logp_reference", config.asks_kl(), "kl_in_reward")?;
        }
        if config.credit == Credit::Vtrace || !b.logp_behavior.is_null() {
            to.behavior = against(b.logp_behavior, "batch.logp_behavior", config.credit == Credit::Vtrace, "credit = vtrace")?;
        }
        let takes_kl = if config.fusion == Fusion::RewardSum { rewarded } else { to.rollout_streams[0].is_some() };
        if to.reference.is_some() && !config.kl_by_token() && !takes_kl {
            return refuse!(PASSRL_ERR_NULL, "batch.outcome is NULL; config.kl_place = outcome takes the KL from it: give one (zeros will do), or set kl_place = reward");
        }
        line(&mut to.absent, b.absent, "batch.absent", view::MASKS)?;
        line(&mut to.rollout_lam, b.rollout_lam, "batch.rollout_lam", view::FLOATS)?;
        if config.credit != Credit::Gae {
            to.rollout_lam = None;
        }
        to.baseline_inputs = super::estimators::baseline_inputs(b, config, &tokens, policy)?;
        to.step_group = step_group(place, b, config, &to.steps)?;
        tokens.optional_to(&mut to.chunk_marks, b.chunk_ends, "batch.chunk_ends", view::MASKS)?;
        if config.chunk != Chunk::Given {
            to.chunk_marks = None;
        } else if to.chunk_marks.is_none() && rollouts > 0 {
            return refuse!(PASSRL_ERR_NULL, "batch.chunk_ends is NULL; config.chunk = given needs a mark a token");
        }
        tokens.optional_to(&mut to.mask, b.mask, "batch.mask", view::MASKS)?;
        line(&mut to.in_stats, b.in_stats, "batch.in_stats", view::MASKS)?;
        line(&mut to.bootstrap, b.bootstrap, "batch.bootstrap", view::FLOATS)?;
        if !gae {
            to.bootstrap = None;
        }
        // SAFETY (of the reference): a view by the contract.
        to.scores_flat = b.step_scores.as_ref().is_none_or(|v| v.ndim == 1);
        tokens.optional_to(&mut to.step_marks, b.step_marks, "batch.step_marks", view::MASKS)?;
        if config.kind != Kind::Prm {
            to.step_marks = None;
        }
        Ok(())
    }
}

/// # Safety
/// As `problem`.
unsafe fn step_group(place: Where, b: &passrl_batch, config: &Config, steps: &Option<Steps>) -> Result<Option<Array>> {
    if config.step_sets == StepSets::Group || b.num_rollouts == 0 {
        return Ok(None);
    }
    let Some(steps) = steps else {
        return if b.num_rollouts == 0 { Ok(None) } else { refuse!(PASSRL_ERR_NULL, "batch.step_offsets is NULL; config.step_sets = step_group needs steps") };
    };
    // SAFETY: by the contract.
    let numbers = unsafe { view::optional(place, b.step_group, "batch.step_group", view::INTS, Want::Line(steps.ends.shape[0]))? };
    if numbers.is_none() {
        return refuse!(PASSRL_ERR_NULL, "batch.step_group is NULL; config.step_sets = step_group needs a number a step");
    }
    Ok(numbers)
}

/// # Safety
/// As `problem`.
pub(super) unsafe fn steps(place: Where, b: &passrl_batch, rollouts: usize, limits: &Limits) -> Result<Option<Steps>> {
    // SAFETY: by the contract.
    unsafe {
        let offsets = view::optional(place, b.step_offsets, "batch.step_offsets", view::INTS, Want::Line(rollouts + 1))?;
        let ends = view::optional(place, b.step_ends, "batch.step_ends", view::INTS, Want::AnyLine)?;
        match (offsets, ends) {
            (Some(offsets), Some(ends)) => {
                let count = ends.shape[0];
                let begins = view::optional(place, b.step_begins, "batch.step_begins", view::INTS, Want::Line(count))?;
                if count > limits.steps {
                    return refuse!(PASSRL_ERR_LIMIT, "batch.step_ends has {count} steps; the plan's limits.steps allows {}", limits.steps);
                }
                offsets::steps(place, &offsets, rollouts, count)?;
                Ok(Some(Steps { offsets, ends, begins }))
            }
            (None, None) if b.step_begins.is_null() && b.step_scores.is_null() => Ok(None),
            (offsets, _) => refuse!(
                PASSRL_ERR_NULL,
                "batch.{} is NULL while other step arguments are given; steps need offsets and ends",
                if offsets.is_none() { "step_offsets" } else { "step_ends" }
            ),
        }
    }
}

/// The process values that the kind asks for, and how many streams, of a batch whose steps are known.
///
/// # Safety
/// As `problem`.
unsafe fn process(to: &mut Problem, b: &passrl_batch, config: &Config, tokens: &Tokens) -> Result<()> {
    // An empty batch (a rank without data) need not say what it has none of.
    if config.kind == Kind::None || tokens.rollouts == 0 {
        return Ok(());
    }
    let (steps, process, num_process) = (&to.steps, &mut to.process, &mut to.num_process);
    let kind = if config.kind == Kind::Prm { "prm" } else { "kl" };
    let signals = b.signal.iter().take_while(|v| !v.is_null()).count();
    if b.signal.iter().skip(signals).any(|v| !v.is_null()) {
        return refuse!(PASSRL_ERR_NULL, "batch.signal[{signals}] is NULL and a later one is given; give signals first to last");
    }
    // A policy alone is a forgotten teacher, unless something else asks for it.
    let policy = !b.logp_policy.is_null() && b.logp_reference.is_null() && b.logp_behavior.is_null() && b.sum_pi_squared.is_null() && config.token_baseline == TokenBaseline::None;
    let logps = policy || !b.logp_teacher.is_null() || !b.logp_base.is_null();
    let sources = usize::from(signals > 0) + usize::from(logps) + usize::from(!b.step_scores.is_null());
    if config.step_value == StepValue::ReturnToGo {
        if steps.is_some() && !b.step_marks.is_null() {
            return refuse!(PASSRL_ERR_CONFLICT, "batch.step_marks and batch.step_offsets are both given; say the steps in one way");
        }
        if steps.is_none() {
            return refuse!(PASSRL_ERR_NULL, "batch.step_offsets is NULL; config.step_value = return_to_go needs steps, as offsets and ends");
        }
        if signals > 0 {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "batch.signal[0] is given and config.step_value is return_to_go, which sums scores of steps: give step_scores, or an outcome alone, or set step_value = score"
            );
        }
        if sources == 0 {
            if b.outcome.is_null() {
                return refuse!(PASSRL_ERR_NULL, "batch.step_scores and batch.outcome are NULL; config.step_value = return_to_go sums scores of steps, or takes the outcome back: give one");
            }
            (*process, *num_process) = (Process::Returns, 1);
            return Ok(());
        }
    }
    if sources != 1 {
        return refuse!(
            if sources == 0 { PASSRL_ERR_NULL } else { PASSRL_ERR_CONFLICT },
            "config.kind is {kind} and {sources} of batch.signal, batch.logp_* and batch.step_scores are given; give exactly one, or set kind = none"
        );
    }
    let count = |found: usize| match found <= config.num_process {
        true => Ok(found),
        false => refuse!(PASSRL_ERR_CONFLICT, "batch has {found} process streams; config.num_process is {}, set it to {found}", config.num_process),
    };
    // SAFETY: by the contract.
    unsafe {
        if config.kind == Kind::Prm && steps.is_some() && !b.step_marks.is_null() {
            return refuse!(PASSRL_ERR_CONFLICT, "batch.step_marks and batch.step_offsets are both given; say the steps in one way");
        }
        if signals > 0 {
            *process = Process::Signal([None; MAX_PROCESS]);
            if let Process::Signal(arrays) = process {
                for (p, array) in arrays.iter_mut().enumerate().take(signals) {
                    tokens.optional_to(array, b.signal[p], SIGNAL[p], view::SIGNALS)?;
                }
            }
            *num_process = count(signals)?;
            return Ok(());
        }
        if logps {
            let policy = tokens.optional(b.logp_policy, "batch.logp_policy", view::FLOATS)?;
            let teacher = tokens.optional(b.logp_teacher, "batch.logp_teacher", view::FLOATS)?;
            let base = tokens.optional(b.logp_base, "batch.logp_base", view::FLOATS)?;
            let (Some(policy), Some(teacher)) = (policy, teacher) else {
                return refuse!(PASSRL_ERR_NULL, "batch.{} is NULL; OPD is teacher minus policy", if policy.is_none() { "logp_policy" } else { "logp_teacher" });
            };
            if config.kind == Kind::Prm && steps.is_none() && b.step_marks.is_null() {
                return refuse!(PASSRL_ERR_CONFLICT, "config.kind is prm and log-probabilities are given without steps; give steps, or set kind = kl");
            }
            (*process, *num_process) = (Process::LogProbs { policy, teacher, base }, count(1)?);
            return Ok(());
        }
        let Some(steps) = steps else {
            return refuse!(PASSRL_ERR_NULL, "batch.step_offsets is NULL; step_scores need offsets and ends");
        };
        if config.kind == Kind::Kl {
            return refuse!(PASSRL_ERR_CONFLICT, "config.kind is kl and batch.step_scores is given; a kl signal has a value a token: give signal, or set kind = prm");
        }
        let total = steps.ends.shape[0];
        let Some(scores) = b.step_scores.as_ref() else {
            return refuse!(PASSRL_ERR_NULL, "batch.step_scores is NULL");
        };
        let streams = if scores.ndim == 2 { usize::try_from(scores.shape[0]).unwrap_or(0) } else { 1 };
        let want = if scores.ndim == 2 { Want::Grid(streams, total) } else { Want::Line(total) };
        if streams == 0 {
            return refuse!(PASSRL_ERR_SHAPE, "batch.step_scores has shape [{}, {}]; it is [S] or [P, S] with P at least 1", scores.shape[0], scores.shape[1]);
        }
        *process = Process::Scores(view::array(tokens.place, scores, "batch.step_scores", view::FLOATS, want)?);
        *num_process = count(streams)?;
        Ok(())
    }
}

/// # Safety
/// As `problem`.
pub(super) unsafe fn grouping(place: Where, b: &passrl_batch, rollouts: usize, limits: &Limits, needed: bool) -> Result<(Groups, usize)> {
    // SAFETY: by the contract.
    let (index, offsets) = unsafe {
        (
            view::optional(place, b.group_index, "batch.group_index", view::INTS, Want::Line(rollouts))?,
            view::optional(place, b.group_offsets, "batch.group_offsets", view::INTS, Want::AnyLine)?,
        )
    };
    if b.group_size < 0 || b.num_groups < 0 {
        return refuse!(PASSRL_ERR_VALUE, "batch.group_size is {} and batch.num_groups {}; neither may be negative", b.group_size, b.num_groups);
    }
    let ways = usize::from(index.is_some()) + usize::from(offsets.is_some()) + usize::from(b.group_size > 0);
    if ways > 1 || (ways == 0 && needed) {
        return refuse!(
            if ways == 0 { PASSRL_ERR_NULL } else { PASSRL_ERR_CONFLICT },
            "{ways} of batch.group_index, batch.group_offsets and batch.group_size are given; give exactly one"
        );
    }
    let (grouping, found) = if let Some(offsets) = offsets {
        let Some(groups) = offsets.shape[0].checked_sub(1) else {
            return refuse!(PASSRL_ERR_SHAPE, "batch.group_offsets has 0 elements; it has G + 1");
        };
        (Groups::Offsets(offsets), groups)
    } else if let Some(index) = index {
        (Groups::Index(index), if b.num_groups > 0 { b.num_groups as usize } else { limits.groups })
    } else {
        let size = b.group_size.max(1) as usize;
        if rollouts % size != 0 {
            return refuse!(
                PASSRL_ERR_SHAPE,
                "batch.num_rollouts is {rollouts} and batch.group_size {size}, which leaves {} rollouts over; use group_offsets or group_index for uneven groups",
                rollouts % size
            );
        }
        (Groups::Constant(size), rollouts / size)
    };
    if b.num_groups > 0 && b.num_groups as usize != found {
        return refuse!(PASSRL_ERR_SHAPE, "batch.num_groups is {}; the groups given are {found}", b.num_groups);
    }
    if found > limits.groups {
        return refuse!(PASSRL_ERR_LIMIT, "batch has {found} groups; the plan's limits.groups allows {}", limits.groups);
    }
    offsets::groups(place, &grouping, rollouts, found)?;
    Ok((grouping, found))
}
