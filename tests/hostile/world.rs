//! A valid call in every part, to be damaged one part at a time: the worked example A, B, C twice, as two groups.
use crate::api::Api;
use passrl::abi::constants::*;
use passrl::abi::types::*;
use std::collections::BTreeMap;

pub const SENTINEL: u8 = 0xA5;

/// A view and the memory behind it (8-byte aligned).
pub struct Slot {
    pub view: passrl_view,
    pub memory: Vec<u64>,
}

pub struct World {
    pub options: passrl_context_options,
    pub config: passrl_config,
    pub limits: passrl_limits,
    pub batch: passrl_batch,
    pub outputs: passrl_outputs,
    pub report: passrl_report,
    pub slots: BTreeMap<&'static str, Box<Slot>>,
    /// Batch, outputs and report lie in roomier memory when a case says that they are larger.
    pub batch_tail: [u8; 64],
    pub outputs_tail: [u8; 64],
    pub config_tail: [u8; 64],
    pub limits_tail: [u8; 64],
    pub collective: bool,
    pub stream: usize,
    pub phase: i32,
    /// What is done to pointers of the call itself.
    pub null: &'static str,
    pub workspace: Lent,
    pub buffer: Lent,
    pub from: Lent,
    /// The buffer is made by a plan of this other configuration or limits.
    pub other_plan: Option<fn(&mut World)>,
    pub damage: fn(&mut [u8]),
    pub from_is_into: bool,
    pub report_size: Option<u32>,
    /// The report lies in memory lent for the call, so many bytes from its begin.
    pub report_in: Option<(&'static str, usize)>,
    /// The sentence of the call.
    pub sentence: String,
}

/// Memory lent for a call: bytes said (relative to what is needed), offset of the pointer, or the memory of a slot instead.
#[derive(Clone, Copy, Default)]
pub struct Lent {
    pub less: usize,
    pub offset: usize,
    pub null: bool,
    pub over: Option<&'static str>,
}

fn bytes_of(dtype: i32) -> usize {
    match dtype {
        PASSRL_F64 | PASSRL_I64 => 8,
        PASSRL_F32 | PASSRL_I32 => 4,
        PASSRL_F16 | PASSRL_BF16 => 2,
        _ => 1,
    }
}

impl World {
    pub fn new(api: &Api) -> World {
        // SAFETY: zero is valid for these structs; each is initialised by the library next.
        let mut w: World = unsafe {
            World {
                options: std::mem::zeroed(),
                config: std::mem::zeroed(),
                limits: std::mem::zeroed(),
                batch: std::mem::zeroed(),
                outputs: std::mem::zeroed(),
                report: std::mem::zeroed(),
                slots: BTreeMap::new(),
                batch_tail: [0; 64],
                outputs_tail: [0; 64],
                config_tail: [0; 64],
                limits_tail: [0; 64],
                collective: false,
                stream: 0,
                phase: 0,
                null: "",
                workspace: Lent::default(),
                buffer: Lent::default(),
                from: Lent::default(),
                other_plan: None,
                damage: |_| (),
                from_is_into: false,
                report_size: None,
                report_in: None,
                sentence: String::new(),
            }
        };
        api.init(&mut w);
        w.options.threads = 2;
        w.options.small_call_bytes = 0;
        w.limits.rollouts = 6;
        w.limits.groups = 2;
        w.limits.tokens = 30;
        w.limits.rollout_tokens = 5;
        w.limits.steps = 12;
        w.batch.num_rollouts = 6;
        w.batch.group_size = 3;
        w.ints("batch.cu_seqlens", PASSRL_I32, &[0, 4, 7, 12, 16, 19, 24]);
        let scope = [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1];
        w.ints("batch.mask", PASSRL_U8, &[scope, scope].concat());
        w.ints("batch.step_offsets", PASSRL_I64, &[0, 2, 3, 6, 8, 9, 12]);
        w.ints("batch.step_ends", PASSRL_I32, &[2, 4, 3, 1, 2, 5, 2, 4, 3, 1, 2, 5]);
        let scores = [1.0, -1.0, 0.5, 0.25, 0.25, -0.5];
        w.floats("batch.step_scores", PASSRL_F32, &[scores, scores].concat());
        w.floats("batch.outcome", PASSRL_F32, &[1., 0., 0., 1., 0., 0.]);
        w.floats("batch.format", PASSRL_F64, &[1., 1., 0., 1., 1., 0.]);
        w.ints("batch.format_ok", PASSRL_BOOL, &[1, 1, 0, 1, 1, 0]);
        for (name, dtype) in [("advantages", PASSRL_F32), ("returns", PASSRL_F64), ("chunk_values", PASSRL_F32)] {
            w.output(name, dtype, [24, 1], 1);
        }
        w.output("chunk_ends", PASSRL_I32, [24, 1], 1);
        w.output("path_scores", PASSRL_F64, [6, 1], 1);
        w.output("num_chunks", PASSRL_I64, [6, 1], 1);
        w.output("rollout_flags", PASSRL_I32, [6, 1], 1);
        for (name, dtype) in [
            ("stats_count", PASSRL_I64),
            ("stats_mean", PASSRL_F64),
            ("stats_std", PASSRL_F64),
            ("stats_absmax", PASSRL_F64),
            ("group_flags", PASSRL_I32),
        ] {
            w.output(name, dtype, [2, 16], 2);
        }
        w
    }

    fn put(&mut self, name: &'static str, dtype: i32, shape: [i64; 2], ndim: i32, memory: Vec<u64>) {
        let mut memory = memory;
        let view = passrl_view {
            data: memory.as_mut_ptr().cast(),
            shape,
            stride: if ndim == 2 { [shape[1], 1] } else { [1, 1] },
            ndim,
            dtype,
            device_type: PASSRL_CPU,
            device_id: 0,
        };
        self.slots.insert(name, Box::new(Slot { view, memory }));
    }

    fn pack(dtype: i32, values: &[f64]) -> Vec<u64> {
        let mut bytes = Vec::new();
        for v in values {
            match dtype {
                PASSRL_F64 => bytes.extend(v.to_ne_bytes()),
                PASSRL_F32 => bytes.extend((*v as f32).to_ne_bytes()),
                PASSRL_BF16 => bytes.extend((((*v as f32).to_bits() >> 16) as u16).to_ne_bytes()),
                PASSRL_I64 => bytes.extend((*v as i64).to_ne_bytes()),
                PASSRL_I32 => bytes.extend((*v as i32).to_ne_bytes()),
                _ => bytes.push(*v as u8),
            }
        }
        bytes.resize(bytes.len().next_multiple_of(8) + 64, 0);
        bytes.chunks(8).map(|b| u64::from_ne_bytes(b.try_into().expect("8 bytes"))).collect()
    }

    pub fn floats(&mut self, name: &'static str, dtype: i32, values: &[f64]) {
        self.put(name, dtype, [values.len() as i64, 1], 1, World::pack(dtype, values));
    }

    pub fn ints(&mut self, name: &'static str, dtype: i32, values: &[i64]) {
        self.floats(name, dtype, &values.iter().map(|v| *v as f64).collect::<Vec<_>>());
    }

    /// As `floats`, of two dimensions.
    pub fn grid(&mut self, name: &'static str, dtype: i32, rows: i64, values: &[f64]) {
        self.put(name, dtype, [rows, values.len() as i64 / rows], 2, World::pack(dtype, values));
    }

    pub fn output(&mut self, name: &'static str, dtype: i32, shape: [i64; 2], ndim: i32) {
        let bytes = (shape[0] * shape[1]) as usize * bytes_of(dtype);
        self.put(name, dtype, shape, ndim, vec![u64::from_ne_bytes([SENTINEL; 8]); bytes.div_ceil(8) + 8]);
    }

    pub fn view(&mut self, name: &str) -> &mut passrl_view {
        &mut self.slots.get_mut(name).unwrap_or_else(|| panic!("no slot {name}")).view
    }

    pub fn drop(&mut self, names: &[&'static str]) {
        for name in names {
            assert!(self.slots.remove(*name).is_some(), "no slot {name}");
        }
    }

    /// Output `name` lies where `other` does, `bytes` further on.
    pub fn alias(&mut self, name: &str, other: &str, bytes: usize) {
        let at = self.view(other).data;
        self.view(name).data = at.wrapping_byte_add(bytes);
    }

    pub fn f64s(&self, name: &str) -> Vec<f64> {
        let s = &self.slots[name];
        let n = (s.view.shape[0] * if s.view.ndim == 2 { s.view.shape[1] } else { 1 }) as usize;
        let bytes: Vec<u8> = s.memory.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let each = bytes_of(s.view.dtype);
        let value = |b: &[u8]| match s.view.dtype {
            PASSRL_F64 => f64::from_ne_bytes(b.try_into().expect("8")),
            PASSRL_F32 => f32::from_ne_bytes(b.try_into().expect("4")) as f64,
            PASSRL_I64 => i64::from_ne_bytes(b.try_into().expect("8")) as f64,
            PASSRL_I32 => i32::from_ne_bytes(b.try_into().expect("4")) as f64,
            _ => b[0] as f64,
        };
        bytes.chunks(each).take(n).map(value).collect()
    }

    /// Are all outputs as they were filled?
    pub fn untouched(&self) -> Result<(), String> {
        for (name, slot) in self.slots.iter().filter(|(name, _)| !name.starts_with("batch.")) {
            if slot.memory.iter().any(|w| *w != u64::from_ne_bytes([SENTINEL; 8])) {
                return Err(format!("outputs.{name} was written"));
            }
        }
        if self.report.tokens != -77 || self.report.findings != -77 {
            return Err("the report was written".into());
        }
        Ok(())
    }

    /// Padded layout: rows of 5 slots.
    pub fn padded(&mut self) {
        self.batch.layout = PASSRL_PADDED;
        self.batch.row_tokens = 5;
        self.drop(&["batch.cu_seqlens", "batch.mask"]);
        self.ints("batch.lengths", PASSRL_I64, &[4, 3, 5, 4, 3, 5]);
        for (name, dtype) in [("advantages", PASSRL_F32), ("returns", PASSRL_F64), ("chunk_values", PASSRL_F32), ("chunk_ends", PASSRL_I32)]
        {
            self.output(name, dtype, [6, 5], 2);
        }
    }

    /// A signal a token, without steps.
    pub fn kl(&mut self) {
        self.config.kind = PASSRL_KIND_KL;
        self.drop(&["batch.step_offsets", "batch.step_ends", "batch.step_scores"]);
        self.floats("batch.signal[0]", PASSRL_F32, &(0..24).map(|t| -0.25 * (t % 5) as f64).collect::<Vec<_>>());
    }

    /// Log-probabilities of policy and teacher.
    pub fn opd(&mut self) {
        self.kl();
        self.drop(&["batch.signal[0]"]);
        self.floats("batch.logp_policy", PASSRL_F32, &[-1.0; 24]);
        self.floats("batch.logp_teacher", PASSRL_F32, &[-0.5; 24]);
    }

    /// Sets of steps of equal state: three states in each group.
    pub fn keyed(&mut self) {
        self.config.step_sets = PASSRL_STEP_SETS_STEP_GROUP;
        self.ints("batch.step_group", PASSRL_I64, &[7, -1, 7, -1, 1 << 40, 7, 7, -1, 7, -1, 1 << 40, 7]);
    }

    /// Steps without scores: the outcome, taken back.
    pub fn returns(&mut self) {
        self.config.step_value = PASSRL_STEP_VALUE_RETURN_TO_GO;
        self.drop(&["batch.step_scores"]);
    }

    /// Rewards are summed by step, in which the outcome weighs nothing; what is missing is 0.
    pub fn shaped(&mut self) {
        self.config.fusion = PASSRL_FUSION_REWARD_SHAPING;
        self.config.streams[4].weight = 0.0;
        self.config.streams.iter_mut().for_each(|row| row.missing = PASSRL_MISSING_ZERO);
    }

    /// The outcome takes the caller's statistics; these are group 0's.
    pub fn given(&mut self, mean: f64, std: f64) {
        (self.config.streams[4].center, self.config.streams[4].scale) = (PASSRL_CENTER_GIVEN, PASSRL_SCALE_GIVEN);
        let line = |first: f64, other: f64| (0..32).map(|e| if e == 4 { first } else { other }).collect::<Vec<f64>>();
        self.grid("batch.stats_mean", PASSRL_F64, 2, &line(mean, 0.25));
        self.grid("batch.stats_std", PASSRL_F64, 2, &line(std, 0.5));
    }

    /// A baseline a token.
    pub fn token_baseline(&mut self) {
        self.config.token_baseline = PASSRL_TOKEN_BASELINE_POSITION;
        (self.config.chunk, self.config.k) = (PASSRL_CHUNK_TOKEN, 0.0);
        self.floats("batch.logp_policy", PASSRL_F32, &[-1.0; 24]);
        self.floats("batch.sum_pi_squared", PASSRL_F64, &[0.5; 24]);
    }

    /// Rollout 0 in two pieces, the others in one.
    pub fn pieces(&mut self) {
        (self.limits.pieces, self.limits.rollout_pieces) = (8, 2);
        self.drop(&["chunk_ends", "chunk_values"]);
        self.ints("batch.cu_seqlens", PASSRL_I32, &[0, 2, 4, 7, 12, 16, 19, 24]);
        self.ints("batch.lengths", PASSRL_I64, &[4, 3, 5, 4, 3, 5]);
        self.ints("batch.piece_rollout", PASSRL_I32, &[0, 0, 1, 2, 3, 4, 5]);
        self.ints("batch.piece_begin", PASSRL_I64, &[2, 0, 0, 0, 0, 0, 0]);
        self.ints("batch.piece_index", PASSRL_I32, &[1, 0, 0, 0, 0, 0, 0]);
    }

    /// GAE with importance ratios.
    pub fn vtrace(&mut self) {
        self.gae();
        self.config.credit = PASSRL_CREDIT_VTRACE;
        self.floats("batch.logp_policy", PASSRL_F32, &[-1.0; 24]);
        self.floats("batch.logp_behavior", PASSRL_F32, &[-1.5; 24]);
    }

    pub fn gae(&mut self) {
        self.config.credit = PASSRL_CREDIT_GAE;
        self.config.k = 0.0;
        self.floats("batch.values", PASSRL_F32, &[0.5; 24]);
    }
}

impl World {
    /// Moves a slot's memory to where a workspace could lie: large, aligned to 64 bytes, all sentinel beyond the values.
    pub fn room(&mut self, name: &'static str) {
        let slot = self.slots.get_mut(name).expect("a slot");
        let mut memory = vec![u64::from_ne_bytes([SENTINEL; 8]); 1 << 14];
        let skip = (memory.as_ptr().addr().next_multiple_of(64) - memory.as_ptr().addr()) / 8;
        memory[skip..skip + slot.memory.len()].copy_from_slice(&slot.memory);
        slot.view.data = memory[skip..].as_mut_ptr().cast();
        slot.memory = memory;
    }
}
