//! Batches on device memory whose runs are counted: deterministic, through the C ABI alone.
use crate::harness::device::{self, Block};
use crate::harness::{How, Plan, library};
use half::bf16;
use passrl::abi::constants::*;
use passrl::abi::types::*;
use std::ffi::c_void;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    Dense,
    Steps,
    Kl,
    Gae,
}

/// One case of the table.
#[derive(Clone)]
pub struct Case {
    pub input: Input,
    pub padded: bool,
    /// Signals, values, rewards and token-shaped outputs in bf16; else f32.
    pub narrow: bool,
    /// An index a rollout, in no order, in place of a constant size.
    pub scattered: bool,
    pub whiten: bool,
    /// Groups are few beside the device's multiprocessors; else it has one, so that a batch that can be counted has many.
    pub few: bool,
    pub lengths: Vec<usize>,
    pub group_size: usize,
}

impl Case {
    pub fn name(&self) -> String {
        let what = match self.input {
            Input::Dense => "prm dense",
            Input::Steps => "prm steps",
            Input::Kl => "kl",
            Input::Gae => "gae",
        };
        let more = [(self.scattered, ", scattered groups"), (self.whiten, ", whitened"), (self.few, ", few groups")];
        let more: String = more.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect();
        format!("{what}, {}, {}{more}", if self.padded { "padded" } else { "packed" }, if self.narrow { "bf16" } else { "f32" })
    }

    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn row(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// Slots of token-shaped arrays, those of the padding among them.
    pub fn slots(&self) -> usize {
        if self.padded { self.row() * self.lengths.len() } else { self.tokens() }
    }

    pub fn element(&self) -> usize {
        if self.narrow { 2 } else { 4 }
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A batch, its plan and outputs, all on the device.
pub struct Standing {
    plan: Plan,
    batch: passrl_batch,
    outputs: passrl_outputs,
    workspace: Block,
    memory: Vec<Block>,
    views: Vec<Box<passrl_view>>,
}

impl Standing {
    pub fn new(case: &Case) -> Standing {
        let (rollouts, random) = (case.lengths.len(), &mut Random(7));
        let groups = rollouts / case.group_size;
        let mut config: passrl_config = library().config(if case.input == Input::Gae { "verl.gae" } else { "pass" });
        match case.input {
            Input::Kl => config.kind = PASSRL_KIND_KL,
            Input::Gae => (config.gamma, config.lam, config.whiten) = (0.99, 0.95, PASSRL_WHITEN_NONE),
            _ => (),
        }
        if case.whiten {
            config.whiten = PASSRL_WHITEN_TOKENS;
        }
        let mut limits: passrl_limits = library().initial();
        (limits.rollouts, limits.groups, limits.tokens) = (rollouts as i64, groups as i64, case.slots() as i64);
        (limits.rollout_tokens, limits.group_rollouts) = (case.row() as i64, case.group_size as i64);
        let mut to = Views::default();
        let mut batch: passrl_batch = library().initial();
        batch.num_rollouts = rollouts as i64;
        if case.scattered {
            batch.group_index = to.ints(&(0..rollouts).map(|i| (i * 5 % groups) as i32).collect::<Vec<_>>());
        } else {
            batch.group_size = case.group_size as i64;
        }
        if case.padded {
            batch.layout = PASSRL_PADDED;
            batch.lengths = to.ints(&case.lengths.iter().map(|n| *n as i32).collect::<Vec<_>>());
        } else {
            batch.cu_seqlens = to.ints(&offsets(case.lengths.iter().copied()));
        }
        let line = |to: &mut Views, of: &mut dyn FnMut(usize) -> f32| to.floats(&(0..rollouts).map(of).collect::<Vec<_>>(), [rollouts, 1], 1, false);
        // Steps of about 60 tokens; scores are multiples of 1/256, which bf16 holds.
        let steps: Vec<Vec<(usize, f32)>> = case.lengths.iter().map(|n| cut(*n, random)).collect();
        match case.input {
            Input::Dense => {
                let dense = |i: usize, t: usize| steps[i].iter().find(|(end, _)| t < *end).map_or(0.0, |(_, score)| *score);
                batch.signal[0] = to.tokens(case, &dense);
            }
            Input::Steps => {
                let all = || steps.iter().flatten();
                batch.step_offsets = to.ints(&offsets(steps.iter().map(Vec::len)));
                batch.step_ends = to.ints(&all().map(|(end, _)| *end as i32).collect::<Vec<_>>());
                let scores: Vec<f32> = all().map(|(_, score)| *score).collect();
                batch.step_scores = to.floats(&scores, [scores.len(), 1], 1, false);
                limits.steps = scores.len() as i64;
            }
            // Averages over a group are hardly ever equal at two positions: every token is a chunk.
            Input::Kl => batch.signal[0] = to.tokens(case, &|i, t| (noise(i, t, 1) + Random((i << 32 | t) as u64).below(1 << 16) as f64 / (1u64 << 24) as f64) as f32),
            Input::Gae => {
                batch.token_rewards = to.tokens(case, &|i, t| noise(i, t, 3) as f32);
                batch.values = to.tokens(case, &|i, t| noise(i, t, 4) as f32);
            }
        }
        if case.input != Input::Gae {
            batch.outcome = line(&mut to, &mut |_| random.below(2) as f32);
            let ok: Vec<u8> = (0..rollouts).map(|_| u8::from(random.below(10) != 0)).collect();
            batch.format = line(&mut to, &mut |i| f32::from(ok[i]));
            batch.format_ok = to.view(&ok, [rollouts, 1], 1, PASSRL_U8);
        }
        let mut outputs: passrl_outputs = library().initial();
        outputs.advantages = to.dirty(case);
        if case.input == Input::Gae {
            outputs.returns = to.dirty(case);
        }
        let report = Block::dirty(size_of::<passrl_report>(), 0x5a);
        outputs.report = report.pointer().cast();
        to.memory.push(report);
        let how = How { cuda: true, ..How::default() };
        cudasim::attribute(16, if case.few { 132 } else { 1 });
        let plan = library().plan(&config, &limits, &how).unwrap_or_else(|(status, said)| panic!("{}: plan refused: {status} {said}", case.name()));
        let workspace = Block::dirty(plan.size("passrl_plan_workspace_size"), 0x5a);
        Standing { plan, batch, outputs, workspace, memory: to.memory, views: to.views }
    }

    /// Puts a run on a stream and waits for it. Returns the driver's functions that the run called.
    pub fn run(&self) -> Vec<String> {
        type Run = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32;
        let (run, driver): (Run, _) = (library().get("passrl_plan_run"), device::driver().expect("a driver"));
        let stream = driver.stream();
        cudasim::reset();
        // SAFETY: a live plan; views and memory are owned by `self`.
        let status = unsafe { run(self.plan.plan, &self.batch, &self.outputs, self.workspace.pointer(), self.workspace.bytes, stream) };
        assert_eq!(status, 0, "{}", library().last_error());
        let trace = cudasim::trace();
        driver.wait(stream);
        driver.destroy_stream(stream);
        trace
    }

    /// Did the run find nothing wrong, and is what it wrote not what was there? Returns how many chunks there are.
    pub fn check(&self) -> u64 {
        let mut copy: passrl_report = library().initial();
        let (status, said) = device::judged(self.memory.last().expect("as above"), &mut copy);
        assert_eq!((status, copy.findings), (0, 0), "{said}");
        assert!(copy.sum_squares > 0.0 && !self.views.is_empty(), "every advantage is 0");
        copy.chunks as u64
    }
}

/// About normal: the sum of four uniform numbers of a position, in multiples of 1/256.
fn noise(i: usize, t: usize, salt: u64) -> f64 {
    let mut random = Random((i as u64) << 40 | (t as u64) << 8 | salt);
    (0..4).map(|_| random.below(257) as f64 / 256.0 - 0.5).sum()
}

fn offsets(counts: impl Iterator<Item = usize>) -> Vec<i32> {
    let mut all = vec![0];
    counts.for_each(|n| all.push(all[all.len() - 1] + n as i32));
    all
}

fn cut(length: usize, random: &mut Random) -> Vec<(usize, f32)> {
    let (mut steps, mut at) = (Vec::new(), 0);
    while at < length {
        at = (at + 30 + random.below(61) as usize).min(length);
        steps.push((at, (random.below(512) as f32 - 256.0) / 256.0));
    }
    steps
}

#[derive(Default)]
struct Views {
    memory: Vec<Block>,
    views: Vec<Box<passrl_view>>,
}

impl Views {
    fn add(&mut self, block: Block, shape: [usize; 2], ndim: i32, dtype: i32) -> *const passrl_view {
        let stride = if ndim == 2 { [shape[1] as i64, 1] } else { [1, 1] };
        let view = passrl_view { data: block.pointer(), shape: shape.map(|n| n as i64), stride, ndim, dtype, device_type: PASSRL_CUDA, device_id: 0 };
        self.memory.push(block);
        self.views.push(Box::new(view));
        &**self.views.last().expect("just pushed")
    }

    fn view<T: Copy>(&mut self, values: &[T], shape: [usize; 2], ndim: i32, dtype: i32) -> *const passrl_view {
        // SAFETY: plain numbers as bytes.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        self.add(Block::of(bytes), shape, ndim, dtype)
    }

    fn ints(&mut self, values: &[i32]) -> *const passrl_view {
        self.view(values, [values.len(), 1], 1, PASSRL_I32)
    }

    fn floats(&mut self, values: &[f32], shape: [usize; 2], ndim: i32, narrow: bool) -> *const passrl_view {
        if narrow {
            return self.view(&values.iter().map(|x| bf16::from_f32(*x).to_bits()).collect::<Vec<_>>(), shape, ndim, PASSRL_BF16);
        }
        self.view(values, shape, ndim, PASSRL_F32)
    }

    fn shape(case: &Case) -> ([usize; 2], i32) {
        if case.padded { ([case.lengths.len(), case.row()], 2) } else { ([case.tokens(), 1], 1) }
    }

    fn tokens(&mut self, case: &Case, of: &dyn Fn(usize, usize) -> f32) -> *const passrl_view {
        let row = case.row();
        let mut values = Vec::with_capacity(case.slots());
        for (i, n) in case.lengths.iter().enumerate() {
            values.extend((0..*n).map(|t| of(i, t)));
            if case.padded {
                values.resize((i + 1) * row, f32::NAN);
            }
        }
        let (shape, ndim) = Views::shape(case);
        self.floats(&values, shape, ndim, case.narrow)
    }

    fn dirty(&mut self, case: &Case) -> *const passrl_view {
        let (shape, ndim) = Views::shape(case);
        self.add(Block::dirty(case.slots() * case.element(), 0x5a), shape, ndim, if case.narrow { PASSRL_BF16 } else { PASSRL_F32 })
    }
}
