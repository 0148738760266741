//! The workspace: one function counts and carves. Offsets only; the plan survives a moved workspace.
use super::Slots;
use crate::model::config::{ChunkValue, Config, Credit, Kind, Limits, StepSets, TokenBaseline, Whiten};

/// `count` elements from byte `offset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub offset: usize,
    pub count: usize,
}

/// What a run keeps of a rollout between its passes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Rollout {
    pub group: u32,
    /// Elements of the process sets, and chunks, listed at the rollout's slot.
    pub elements: u32,
    pub chunks: u32,
    /// Scope: tokens first .. end, all of them where `count` = end - first.
    pub first: u32,
    pub end: u32,
    pub count: u32,
    /// `PASSRL_ROLLOUT_*` bits.
    pub flags: u32,
    /// Bits of `state`.
    pub state: u32,
    /// Tokens in scope of the whole rollout, where this is a piece of it.
    pub total: u32,
}

impl Rollout {
    /// Chunks that end here: of a piece the last may go on in another.
    pub fn own_chunks(&self) -> usize {
        (self.chunks - u32::from(self.state & state::OPEN != 0)) as usize
    }
}

/// A step of a group, to be sorted by its state.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct KeyedStep {
    pub key: i64,
    /// Where its values lie in the lists of elements.
    pub slot: u64,
}

/// Bits of `Rollout::state`.
pub mod state {
    /// Counts in no set.
    pub const OUT_OF_STATS: u32 = 1;
    /// Each in-scope token is a chunk; no list is kept.
    pub const EVERY_TOKEN: u32 = 2;
    /// The chunks' process values are the elements' (one list).
    pub const ONE_LIST: u32 = 4;
    /// Has a process value.
    pub const HAS_PROCESS: u32 = 8;
    /// Every advantage is 0 and outside the whitening set.
    pub const ZEROED: u32 = 16;
    /// A value that no list holds is infinite, or NaN where that is an error.
    pub const INFINITE: u32 = 32;
    pub const NAN: u32 = 64;
    /// Of a piece: its last chunk goes on in a later one.
    pub const OPEN: u32 = 128;
    /// Likewise its last step, which is listed here all the same (`pool = tokens`).
    pub const OPEN_STEP: u32 = 256;
    /// One value for all tokens in scope, before whitening that of the path score: no list holds it.
    pub const ONE_VALUE: u32 = 512;
}

/// Entries of the lists of the usual case beyond those that are used: what a block of comparisons or a window of a permutation reaches further.
pub const SPARE: usize = 80;

/// Rollouts of a group whose signals are read together (kl).
pub const TOGETHER: usize = 32;

/// Tokens of a group whose rollouts are read and written as one line, where they lie in one.
const SHORT: usize = 1 << 17;

#[derive(Clone, Copy, Debug)]
pub struct Workspace {
    pub bytes: usize,
    /// Rollouts by group and where each group begins.
    pub order: Part,
    pub starts: Part,
    pub rollouts: Part,
    /// Scope bits; rollout i's words begin at slot / 64 + 2 i.
    pub scope: Part,
    /// Token-indexed lists, `[lists][tokens]` or `[tokens]`.
    pub elements: Part,
    pub weights: Part,
    pub last: Part,
    pub values: Part,
    pub token_values: Part,
    /// `step_sets = step_group`: keys of the elements, standardised elements `[lists][tokens]`, the element of each chunk; the steps of each group, to be
    /// sorted, and where each group's begin.
    pub step_keys: Part,
    pub stepped: Part,
    pub chunk_steps: Part,
    pub keyed: Part,
    pub keyed_starts: Part,
    pub whitened: Part,
    /// KL of the tokens, or a sum a rollout: which, `kl_place` says.
    pub kl: Part,
    pub kl_sums: Part,
    /// Path scores, where whitening is over rollouts.
    pub paths: Part,
    /// `token_baseline`: W and G W of the tokens in scope.
    pub baseline_weights: Part,
    pub baseline_gains: Part,
    /// One scratch a thread.
    pub threads: Part,
    pub thread_bytes: usize,
    pub scratch: Scratch,
}

/// Offsets within one thread's scratch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scratch {
    pub f: Part,
    pub d: Part,
    pub v: Part,
    pub signal: Part,
    pub compressed: Part,
    pub step_begin: Part,
    pub step_end: Part,
    pub step_value: Part,
    pub columns: Part,
    pub live: Part,
    pub edges: Part,
    /// kl: signals of a group that cannot be read in vectors where they lie.
    pub formed: Part,
    /// Lines of a scan beside f, d and v.
    pub lines: Part,
    /// The usual case: chunks of a group, with `SPARE` entries to write in advance.
    pub usual_ends: Part,
    pub usual_values: Part,
    pub usual_elements: Part,
    /// Of short rollouts: the chunks before each word of the group's bits, and what the chunks are credited.
    pub usual_before: Part,
    pub usual_credits: Part,
    /// Of a row of output: the values by run of tokens, and a bit a token.
    pub row_table: Part,
    pub row_marks: Part,
    /// `token_baseline`: an entry a place.
    pub gain_most: Part,
    pub weight_most: Part,
    pub gain_sums: Part,
    pub weight_sums: Part,
}

pub(super) struct Carver(usize);

impl Carver {
    pub(super) fn new() -> Carver {
        Carver(0)
    }
    pub(super) fn bytes(&self) -> usize {
        self.0
    }
    pub(super) fn take<T>(&mut self, count: usize) -> Part {
        let part = Part { offset: self.0, count };
        self.0 = (self.0 + count * size_of::<T>()).next_multiple_of(64);
        part
    }
}

impl Workspace {
    pub fn new(config: &Config, limits: &Limits, slots: &Slots, threads: usize) -> Workspace {
        let (r, n, t) = (limits.units(), limits.tokens, limits.rollout_tokens);
        let prm = config.kind == Kind::Prm;
        let if_ = |wanted: bool, count: usize| if wanted { count } else { 0 };
        let mut c = Carver(0);
        let order = c.take::<u32>(r);
        let starts = c.take::<u32>(limits.groups + 1);
        let rollouts = c.take::<Rollout>(r);
        // Rollout i: from word slot / 64 + 2 i, as two rollouts may share a word of slots and each has words of its own.
        let scope = c.take::<u64>(n / 64 + 2 * r + 2);
        let elements = c.take::<f32>(if_(prm, slots.lists * n));
        let weights = c.take::<u32>(if_(prm, n));
        let last = c.take::<u32>(n);
        let values = c.take::<f32>(if_(prm, slots.lists * n));
        let token_values = c.take::<f32>(if_(prm && config.chunk_value == ChunkValue::Mean, slots.lists * n));
        let keyed_sets = config.step_sets == StepSets::StepGroup;
        let step_keys = c.take::<i64>(if_(keyed_sets, n));
        let stepped = c.take::<f64>(if_(keyed_sets, slots.lists * n));
        let chunk_steps = c.take::<u32>(if_(keyed_sets, n));
        let keyed = c.take::<KeyedStep>(if_(keyed_sets, limits.steps));
        let keyed_starts = c.take::<u64>(if_(keyed_sets, limits.groups + 1));
        let whitened = c.take::<f32>(if_(config.whiten != Whiten::None, n));
        let paths = c.take::<f32>(if_(config.whiten != Whiten::None, r));
        let kl_asked = config.asks_kl();
        let kl_tokens = c.take::<f32>(if_(config.kl_by_token(), n));
        let kl_sums = c.take::<f32>(if_(kl_asked && !config.kl_by_token(), r));
        let baselines = config.token_baseline != TokenBaseline::None;
        let baseline_weights = c.take::<f64>(if_(baselines, n));
        let baseline_gains = c.take::<f64>(if_(baselines, n));
        let mut s = Carver(0);
        let kl = config.kind == Kind::Kl;
        // Chunks of a group that are listed at once: as many as a rollout has tokens, or a few thousand.
        let listed = if_(!kl, t.max(4096).min(n + limits.steps) + SPARE);
        // Each signal begins a line of the caches.
        let rows = limits.group_rollouts.min(TOGETHER);
        let formed = if_(kl, (rows * (t + 16)).min(n + 16 * rows));
        // Words of a bit a token of a group of short rollouts: a few thousand tokens, and as many rollouts' lines as a group is likely to have.
        let words = t.max(SHORT).min(n) / 64 + (2 * r).min(128) + 2;
        let scratch = Scratch {
            f: s.take::<f64>(t + 32),
            d: s.take::<f64>(t + 32),
            v: s.take::<f64>(t + 32),
            signal: s.take::<f32>(slots.lists.max(1) * (t + 16)),
            compressed: s.take::<f32>(t + 16),
            step_begin: s.take::<u32>(t + 1),
            step_end: s.take::<u32>(t + 1),
            step_value: s.take::<f32>(slots.lists * (t + 1)),
            columns: s.take::<i64>(if_(kl, t + 2)),
            live: s.take::<i64>(if_(kl, t + 2)),
            edges: s.take::<u64>(if_(kl, t / 64 + 2)),
            formed: s.take::<f32>(formed),
            lines: s.take::<f64>(if_(config.spreads() || config.lam_returns >= 0.0 || config.credit == Credit::Vtrace, t + 32)),
            usual_ends: s.take::<u32>(listed),
            usual_values: s.take::<f32>(listed),
            usual_elements: s.take::<f32>(listed),
            usual_before: s.take::<u32>(if_(!kl, words)),
            usual_credits: s.take::<f64>(listed),
            row_table: s.take::<u32>((3 * t + SPARE).max(listed)),
            row_marks: s.take::<u8>((t / 8 + SPARE).max(if_(!kl, 8 * words))),
            gain_most: s.take::<f64>(if_(baselines, t)),
            weight_most: s.take::<f64>(if_(baselines, t)),
            gain_sums: s.take::<i64>(if_(baselines, t)),
            weight_sums: s.take::<i64>(if_(baselines, t)),
        };
        let thread_bytes = s.0;
        let threads = c.take::<u8>(thread_bytes * threads);
        Workspace {
            bytes: c.0,
            order,
            starts,
            rollouts,
            scope,
            elements,
            weights,
            last,
            values,
            token_values,
            step_keys,
            stepped,
            chunk_steps,
            keyed,
            keyed_starts,
            whitened,
            kl: kl_tokens,
            kl_sums,
            paths,
            baseline_weights,
            baseline_gains,
            threads,
            thread_bytes,
            scratch,
        }
    }
}
