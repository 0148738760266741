//! The short ways against the general stages, to the bit: random batches through the C ABI, on a context of the best instruction set and on one of the
//! baseline, which goes no short way; every output and the report. And that usual batches do go the short ways.
use super::{config::*, constants::*, context::*, plan::*, structs::*, types::*};
use crate::backend::cpu::by_token::{ALWAYS_STREAMS, TAKEN, Way};
use crate::numerics::simd::Simd;
use std::ffi::c_void;
use std::ptr::null;
use std::sync::atomic::Ordering;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn chance(&mut self, p: f64) -> bool {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 <= p
    }
    fn normal(&mut self) -> f64 {
        (0..6).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 3.0
    }
}

/// A batch of kl, GAE or return-to-go of rewards a token, and how it is put before the library.
#[derive(Clone, Debug)]
struct Batch {
    gae: bool,
    /// Instead of GAE, of rewards a token; without an outcome (`alone`) or with one on the last token.
    to_go: bool,
    alone: bool,
    whitens: bool,
    padded: bool,
    left: bool,
    lengths: bool,
    narrow: bool,
    /// 0: none, else bytes of an element.
    mask: usize,
    in_place: u8,
    returns: bool,
    report: bool,
    /// Ends of chunks are asked for.
    ends: bool,
    /// What is told of each rollout is asked for.
    told: bool,
    fill: bool,
    threads: i32,
    groups: Vec<i32>,
    row: usize,
    lens: Vec<usize>,
    scope: Vec<Vec<bool>>,
    signal: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    rewards: Option<Vec<Vec<f32>>>,
    outcome: Vec<f32>,
    ok: Vec<u8>,
    counts: Vec<u8>,
    bootstrap: Option<Vec<f32>>,
    gamma: f64,
    lam: f64,
    k: f64,
    weight: f64,
    scale: i32,
    anchored: bool,
    /// Of GAE.
    scan_mask: i32,
}

#[derive(PartialEq, Debug)]
struct Results {
    bytes: Vec<Vec<u8>>,
    counts: Vec<i64>,
    sums: [f64; 2],
    status: i32,
}

fn zeroed<T>() -> T {
    // SAFETY: used with the ABI's plain structs only, of which all zeros is a value.
    unsafe { std::mem::zeroed() }
}

impl Batch {
    fn random(random: &mut Random) -> Batch {
        let r = 1 + random.below(14);
        let gae = random.chance(0.6);
        let to_go = gae && random.chance(0.4);
        let longest = [0, 40, 100, 700][random.below(4)];
        let len = |random: &mut Random| match random.below(4) {
            0 => 32 * random.below(1 + longest / 32) + [0, 1, 31, 32][random.below(4)],
            _ => random.below(longest + 1),
        };
        let lens: Vec<usize> = (0..r).map(|_| len(random)).collect();
        let row = lens.iter().max().unwrap_or(&0) + random.below(20);
        let mask = [0, 1, 1, 4, 8][random.below(5)];
        let holes = mask > 0 && random.chance(0.4);
        let padded = random.chance(0.5);
        let lengths = !padded || mask == 0 || random.chance(0.4);
        // Now and then equal neighbours, no spread at all, what is no number, or large.
        let (steps, odd) = (random.below(3), random.below(12));
        let line = |random: &mut Random, len: usize| -> Vec<f32> {
            let mut line: Vec<f32> = (0..len)
                .map(|_| match (steps, odd) {
                    (_, 0) => 0.25,
                    (1, _) => (random.below(3) as f32 - 1.0) * 0.5,
                    (2, _) => (random.below(400) as f32 - 100.0) / 64.0,
                    _ => (random.normal() * 0.3) as f32,
                })
                .collect();
            if len > 0 && (1..4).contains(&odd) && random.chance(0.2) {
                line[random.below(len)] = [f32::NAN, f32::INFINITY, 3.0e38][odd - 1];
            }
            line
        };
        let scope: Vec<Vec<bool>> = lens
            .iter()
            .map(|len| {
                let (a, b) = if mask > 0 && !holes && random.chance(0.5) { (random.below(len + 1), random.below(len + 1)) } else { (0, *len) };
                let own = holes && random.chance(0.7);
                (0..*len).map(|t| t >= a.min(b) && t < a.max(b) && !(own && random.chance(0.3))).collect()
            })
            .collect();
        let narrow = random.chance(0.5);
        let lines = |random: &mut Random| lens.iter().map(|len| line(random, *len)).collect::<Vec<_>>();
        let mut groups: Vec<i32> = (0..r).map(|_| random.below(1 + r / 3) as i32).collect();
        if random.chance(0.6) {
            groups.sort_unstable();
        }
        Batch {
            gae,
            to_go,
            alone: to_go && random.chance(0.8),
            whitens: random.chance(0.4),
            padded,
            left: padded && lengths && random.chance(0.3),
            lengths,
            narrow,
            mask,
            in_place: if random.chance(0.3) { 1 + random.below(2) as u8 } else { 0 },
            returns: gae && random.chance(0.7),
            report: random.chance(0.7),
            ends: random.chance(0.3),
            told: random.chance(0.5),
            fill: random.chance(0.8),
            threads: 1 + random.below(2) as i32,
            groups,
            row,
            signal: lines(random),
            values: lines(random),
            rewards: (to_go || random.chance(0.6)).then(|| lines(random)),
            scope,
            outcome: (0..r).map(|_| if random.chance(0.01) { f32::NAN } else { random.below(3) as f32 }).collect(),
            ok: (0..r).map(|_| u8::from(random.chance(0.8))).collect(),
            counts: (0..r).map(|_| u8::from(random.chance(0.95))).collect(),
            bootstrap: random.chance(0.5).then(|| (0..r).map(|_| random.normal() as f32).collect()),
            gamma: [1.0, 0.99, 0.9, 0.0][random.below(4)],
            lam: [1.0, 0.95, 0.0][random.below(3)],
            k: [0.7, 0.0, 1.0][random.below(3)],
            weight: [1.0, 1.0, -0.5][random.below(3)],
            scale: [PASSRL_SCALE_GROUP, PASSRL_SCALE_GROUP, PASSRL_SCALE_NONE, PASSRL_SCALE_ABS_MAX][random.below(4)],
            anchored: random.chance(0.1),
            scan_mask: [PASSRL_SCAN_MASK_CARRY, PASSRL_SCAN_MASK_DECAY, PASSRL_SCAN_MASK_DECAY, PASSRL_SCAN_MASK_NONE][random.below(4)],
            lens,
        }
    }

    /// Itself without its tokens.
    fn short(&self) -> Batch {
        Batch { scope: Vec::new(), signal: Vec::new(), values: Vec::new(), rewards: self.rewards.as_ref().map(|_| Vec::new()), ..self.clone() }
    }

    fn slots(&self) -> usize {
        if self.padded { self.row * self.lens.len() } else { self.lens.iter().sum() }
    }

    /// Where token t of rollout i lies.
    fn slot(&self, i: usize, t: usize) -> usize {
        if !self.padded {
            return self.lens[..i].iter().sum::<usize>() + t;
        }
        i * self.row + t + if self.left { self.row - self.lens[i] } else { 0 }
    }

    fn encoded(&self, lines: &[Vec<f32>]) -> Vec<u8> {
        let bytes = if self.narrow { 2 } else { 4 };
        // What lies where no token is must not matter.
        let mut memory = f32::NAN.to_bits().to_ne_bytes().repeat(self.slots());
        if self.narrow {
            memory = 0x7fc0u16.to_ne_bytes().repeat(self.slots());
        }
        for (i, line) in lines.iter().enumerate() {
            for (t, x) in line.iter().enumerate() {
                let at = self.slot(i, t) * bytes;
                let x = if self.scope[i][t] || self.scan_mask == PASSRL_SCAN_MASK_NONE { *x } else { f32::NAN };
                if self.narrow {
                    memory[at..at + 2].copy_from_slice(&((x.to_bits() >> 16) as u16).to_ne_bytes());
                } else {
                    memory[at..at + 4].copy_from_slice(&x.to_ne_bytes());
                }
            }
        }
        memory
    }

    fn run(&self, simd: i32) -> Results {
        let r = self.lens.len();
        let shape: &[usize] = if self.padded { &[r, self.row] } else { &[self.slots()] };
        let float = if self.narrow { PASSRL_BF16 } else { PASSRL_F32 };
        let bytes = self.slots() * if self.narrow { 2 } else { 4 };
        let mut views: Vec<Box<passrl_view>> = Vec::new();
        let mut view = |data: *const c_void, shape: &[usize], dtype: i32| -> *const passrl_view {
            let columns = shape.get(1).map_or(1, |n| *n as i64);
            views.push(Box::new(passrl_view {
                data: data.cast_mut(),
                shape: [shape[0] as i64, columns],
                stride: [columns, 1],
                ndim: shape.len() as i32,
                dtype,
                device_type: PASSRL_CPU,
                device_id: 0,
            }));
            &**views.last().expect("just pushed")
        };
        let (mut batch, mut outputs, mut config, mut limits) = (zeroed::<passrl_batch>(), zeroed::<passrl_outputs>(), zeroed::<passrl_config>(), zeroed::<passrl_limits>());
        let (mut options, mut report) = (zeroed::<passrl_context_options>(), zeroed::<passrl_report>());
        let (mut context, mut plan) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: each target is a struct of the size given.
        unsafe {
            passrl_batch_init(&mut batch, size_of::<passrl_batch>() as u32);
            passrl_outputs_init(&mut outputs, size_of::<passrl_outputs>() as u32);
            passrl_limits_init(&mut limits, size_of::<passrl_limits>() as u32);
            passrl_report_init(&mut report, size_of::<passrl_report>() as u32);
            passrl_context_options_init(&mut options, size_of::<passrl_context_options>() as u32);
            if self.gae {
                passrl_config_init(&mut config, size_of::<passrl_config>() as u32);
                (config.kind, config.chunk, config.credit, config.k) = (PASSRL_KIND_NONE, PASSRL_CHUNK_NONE, PASSRL_CREDIT_GAE, 0.0);
                config.streams.iter_mut().for_each(|row| (row.center, row.scale) = (PASSRL_CENTER_NONE, PASSRL_SCALE_NONE));
                if self.to_go {
                    (config.chunk, config.credit, config.k) = (PASSRL_CHUNK_TOKEN, PASSRL_CREDIT_RETURN_TO_GO, self.k);
                    config.streams[PASSRL_STREAM_OUTCOME].place = PASSRL_PLACE_LAST;
                }
                if !self.to_go {
                    config.scan_mask = self.scan_mask;
                }
                if self.whitens {
                    (config.whiten, config.whiten_shift) = (PASSRL_WHITEN_TOKENS, i32::from(self.weight > 0.0));
                }
            } else {
                passrl_config_init(&mut config, size_of::<passrl_config>() as u32);
                (config.kind, config.k) = (PASSRL_KIND_KL, self.k);
                (config.streams[0].weight, config.streams[0].scale) = (self.weight, self.scale);
                // The outcome's row has settings of its own, too.
                config.streams[PASSRL_STREAM_OUTCOME].weight = 1.5 * self.weight;
                config.streams[PASSRL_STREAM_OUTCOME].clip_standardized = 0.25;
                config.boundary_rule = i32::from(self.anchored);
            }
        }
        (config.gamma, config.lam, config.fill_padding) = (self.gamma, self.lam, i32::from(self.fill));
        (options.threads, options.simd, options.small_call_bytes) = (self.threads, simd, 1);
        let groups = *self.groups.iter().max().expect("a rollout") as i64 + 1;
        (limits.rollouts, limits.groups, limits.tokens, limits.rollout_tokens) = (r as i64, groups, self.slots() as i64, self.row.max(1) as i64);
        limits.group_rollouts = r as i64;
        batch.num_rollouts = r as i64;
        let lengths: Vec<i32> = self.lens.iter().map(|l| *l as i32).collect();
        let starts: Vec<i32> = (0..=r).map(|i| self.lens[..i].iter().sum::<usize>() as i32).collect();
        if self.padded {
            (batch.layout, batch.row_tokens) = (PASSRL_PADDED, self.row as i64);
            if self.lengths {
                batch.lengths = view(lengths.as_ptr().cast(), &[r], PASSRL_I32);
                batch.pad_side = if self.left { PASSRL_PAD_LEFT } else { PASSRL_PAD_RIGHT };
            }
        } else {
            batch.cu_seqlens = view(starts.as_ptr().cast(), &[r + 1], PASSRL_I32);
        }
        // Groups whose rollouts stand together are given by where they begin.
        let offsets: Vec<i32> = (0..=groups as i32).map(|g| self.groups.iter().filter(|own| **own < g).count() as i32).collect();
        if self.groups.is_sorted() {
            batch.group_offsets = view(offsets.as_ptr().cast(), &[groups as usize + 1], PASSRL_I32);
        } else {
            batch.group_index = view(self.groups.as_ptr().cast(), &[r], PASSRL_I32);
        }
        let mut mask = vec![0u64; (self.slots() * self.mask).div_ceil(8)];
        if self.mask > 0 {
            let marks = mask.as_mut_ptr().cast::<u8>();
            for (i, scope) in self.scope.iter().enumerate() {
                for (t, _) in scope.iter().enumerate().filter(|(_, s)| **s) {
                    // SAFETY: a byte of the slot's own.
                    unsafe { *marks.add(self.slot(i, t) * self.mask) = 1 };
                }
            }
            let dtype = [PASSRL_BOOL, PASSRL_I32, PASSRL_I64][self.mask / 4];
            batch.mask = view(mask.as_ptr().cast(), shape, dtype);
        }
        if !self.alone {
            batch.outcome = view(self.outcome.as_ptr().cast(), &[r], PASSRL_F32);
        }
        if self.counts.contains(&0) {
            batch.in_stats = view(self.counts.as_ptr().cast(), &[r], PASSRL_U8);
        }
        let format: Vec<f32> = self.ok.iter().map(|ok| f32::from(*ok)).collect();
        let (mut signal, mut values) = (self.encoded(&self.signal), self.encoded(&self.values));
        let mut rewards = self.rewards.as_ref().map(|lines| self.encoded(lines));
        let mut input = std::ptr::null_mut();
        if self.gae {
            if !self.to_go {
                batch.values = view(values.as_ptr().cast(), shape, float);
            }
            if let Some(rewards) = &mut rewards {
                batch.token_rewards = view(rewards.as_ptr().cast(), shape, float);
            }
            batch.bootstrap = self.bootstrap.as_ref().map_or(null(), |b| view(b.as_ptr().cast(), &[r], PASSRL_F32));
            match (self.in_place, &mut rewards) {
                (1, _) if !self.to_go => input = values.as_mut_ptr(),
                (2, Some(rewards)) => input = rewards.as_mut_ptr(),
                _ => (),
            }
        } else {
            batch.format = view(format.as_ptr().cast(), &[r], PASSRL_F32);
            batch.format_ok = view(self.ok.as_ptr().cast(), &[r], PASSRL_U8);
            batch.signal[0] = view(signal.as_ptr().cast(), shape, float);
            input = if self.in_place > 0 { signal.as_mut_ptr() } else { input };
        }
        let mut out = vec![vec![0xa5u8; bytes], vec![0xa5u8; bytes], vec![0u8; 4 * r], vec![0u8; 4 * r], vec![0u8; 4 * r], vec![0u8; 4 * self.slots()]];
        for _ in 0..4 {
            out.push(vec![0u8; 8 * groups as usize * PASSRL_MAX_STREAMS]);
        }
        let in_place = !input.is_null();
        let to: Vec<*mut u8> = out.iter_mut().map(|o| o.as_mut_ptr()).collect();
        outputs.advantages = view(if in_place { input } else { to[0] }.cast(), shape, float);
        if self.returns {
            outputs.returns = view(to[1].cast(), shape, float);
        }
        if self.told {
            outputs.path_scores = view(to[2].cast(), &[r], PASSRL_F32);
            outputs.num_chunks = view(to[3].cast(), &[r], PASSRL_I32);
            outputs.rollout_flags = view(to[4].cast(), &[r], PASSRL_I32);
        }
        if self.ends {
            outputs.chunk_ends = view(to[5].cast(), shape, PASSRL_I32);
        }
        let sets = [groups as usize, PASSRL_MAX_STREAMS];
        outputs.stats_count = view(to[6].cast(), &sets, PASSRL_I64);
        outputs.stats_mean = view(to[7].cast(), &sets, PASSRL_F64);
        outputs.stats_std = view(to[8].cast(), &sets, PASSRL_F64);
        outputs.stats_absmax = view(to[9].cast(), &sets, PASSRL_F64);
        if self.report {
            outputs.report = &mut report;
        }
        let mut size = 0usize;
        let status;
        // SAFETY: filled structs over memory that lives until after the run; the handles are given back once.
        unsafe {
            assert_eq!(passrl_context_create(&options, &mut context), 0);
            assert_eq!(passrl_plan_create(context, &config, &limits, null(), &mut plan), 0);
            passrl_plan_workspace_size(plan, &mut size);
            // What another call may have left.
            let mut workspace = vec![if self.report { 0 } else { 0xa5u8 }; size + 64];
            let at = workspace.as_mut_ptr().add(64 - workspace.as_ptr() as usize % 64);
            status = passrl_plan_run(plan, &batch, &outputs, at.cast(), size, std::ptr::null_mut());
            assert!(status >= 0, "{}", std::ffi::CStr::from_ptr(super::util::passrl_last_error()).to_string_lossy());
            passrl_plan_destroy(plan);
            passrl_context_destroy(context);
        }
        if in_place {
            // SAFETY: the input's own bytes.
            out[0].copy_from_slice(unsafe { std::slice::from_raw_parts(input, bytes) });
        }
        let p = &report;
        let counts = vec![
            p.findings, p.first_finding, p.first_rollout, p.first_group, p.first_stream, p.rollouts, p.tokens, p.chunks, p.degenerate_groups, p.bad_groups,
            p.violating_groups, p.missing_values, p.nonfinite_values, p.overflowed_tokens,
        ];
        Results { bytes: out, counts, sums: [p.sum_advantages, p.sum_squares], status }
    }
}

/// Of the ways that calls on this thread have gone: how often each.
fn taken(way: Way) -> usize {
    TAKEN.with(|t| t.borrow()[way as usize])
}

/// Instruction sets of this processor that have short ways.
fn short_ways() -> &'static [i32] {
    if Simd::best() >= Simd::Avx512 { &[PASSRL_SIMD_AVX2, PASSRL_SIMD_AVX512] } else { &[PASSRL_SIMD_AVX2] }
}

#[test]
fn short_ways_are_the_general_stages_to_the_bit() {
    if Simd::best() < Simd::Avx2 {
        println!("SKIPPED: no AVX2 on this processor");
        return;
    }
    // An emulated processor does fewer of them.
    let cases = std::env::var("PASSRL_BATCHES").map_or(1500, |n| n.parse().expect("PASSRL_CASES is a number"));
    for case in 0..cases {
        let batch = Batch::random(&mut Random(case));
        // Results past the caches, and not.
        ALWAYS_STREAMS.store(case % 3 != 0, Ordering::Relaxed);
        let wanted = batch.run(PASSRL_SIMD_BASELINE);
        for simd in short_ways() {
            let got = batch.run(*simd);
            assert_eq!((got.status, &got.counts), (wanted.status, &wanted.counts), "case {case}, simd {simd}: {:?}", batch.short());
            for (n, (a, b)) in got.bytes.iter().zip(&wanted.bytes).enumerate() {
                let first = a.iter().zip(b).position(|(a, b)| a != b);
                assert!(first.is_none(), "case {case}, simd {simd}, output {n}, byte {first:?} of {}: {:?}", a.len(), batch.short());
            }
            for (a, b) in got.sums.iter().zip(wanted.sums) {
                assert!((a - b).abs() <= 1e-9 * (1.0 + wanted.sums[1].abs()), "case {case}, simd {simd}: {a} {b}: {:?}", batch.short());
            }
        }
    }
    for way in [Way::Columns, Way::Tokens, Way::Chunks, Way::Gae, Way::GaeHoles, Way::GaeTail, Way::ToGo, Way::ToGoHoles, Way::Again, Way::Alike, Way::Together, Way::Once, Way::Whitened] {
        assert!(taken(way) > cases as usize / 75, "{way:?} was gone {} times", taken(way));
    }
}

#[test]
fn usual_batches_go_the_short_ways() {
    if Simd::best() < Simd::Avx2 {
        println!("SKIPPED: no AVX2 on this processor");
        return;
    }
    let r = 12usize;
    let mut random = Random(1);
    let lens: Vec<usize> = (0..r).map(|i| 90 + 37 * i).collect();
    let lines = |random: &mut Random| lens.iter().map(|l| (0..*l).map(|_| random.normal() as f32).collect()).collect::<Vec<Vec<f32>>>();
    let usual = Batch {
        gae: false, to_go: false, alone: false, whitens: false, padded: false, left: false, lengths: true, narrow: false, mask: 0, in_place: 0, returns: false, report: true, ends: false, told: false, fill: true,
        threads: 1, groups: (0..r).map(|i| i as i32 / 4).collect(), row: 600, signal: lines(&mut random), values: lines(&mut random), rewards: Some(lines(&mut random)),
        scope: lens.iter().map(|l| vec![true; *l]).collect(), outcome: (0..r).map(|i| (i % 3) as f32).collect(), ok: (0..r).map(|i| u8::from(i % 5 != 0)).collect(),
        counts: vec![1; r], bootstrap: None, gamma: 1.0, lam: 0.95, k: 0.7, weight: 1.0, scale: PASSRL_SCALE_GROUP, anchored: false,
        scan_mask: PASSRL_SCAN_MASK_CARRY, lens: lens.clone(),
    };
    for narrow in [false, true] {
        for padded in [false, true] {
            for mask in [0, 1, 4, 8] {
                let kl = Batch { narrow, padded, mask, ..usual.clone() };
                let before = [taken(Way::Columns), taken(Way::Tokens) + taken(Way::Chunks)];
                let once = [taken(Way::Together), taken(Way::Alike), taken(Way::Once)];
                let alike = if mask == 0 { [r, 3] } else { [0, 0] };
                assert_eq!(kl.run(PASSRL_SIMD_BEST).status, 0);
                assert_eq!([taken(Way::Together), taken(Way::Alike), taken(Way::Once)], [once[0] + 3, once[1] + alike[0], once[2] + alike[1]], "{kl:?}");
                assert_eq!([taken(Way::Columns), taken(Way::Tokens) + taken(Way::Chunks)], [before[0] + 3, before[1] + r], "{kl:?}");
                for (terminal, in_place, whitens) in [(false, 0, false), (true, 0, false), (false, 1, false), (false, 0, true)] {
                    let gae = Batch { gae: true, returns: true, in_place, whitens, gamma: 0.99, ..kl.clone() };
                    let gae = Batch { rewards: gae.rewards.filter(|_| !terminal), ..gae };
                    let (before, again, once) = (taken(Way::Gae), taken(Way::Again), taken(Way::Once));
                    assert_eq!(gae.run(PASSRL_SIMD_BEST).status, 0);
                    assert_eq!((taken(Way::Gae), taken(Way::Again)), (before + r, again), "{gae:?}");
                    assert_eq!(taken(Way::Once), once + if mask == 0 && !terminal && in_place == 0 && !whitens { 3 } else { 0 }, "{gae:?}");
                }
                for (in_place, whitens) in [(0, false), (2, false), (0, true)] {
                    let to_go = Batch { gae: true, to_go: true, alone: true, returns: true, k: 0.0, in_place, whitens, gamma: 0.99, ..kl.clone() };
                    let before = [taken(Way::ToGo), taken(Way::Whitened)];
                    assert_eq!(to_go.run(PASSRL_SIMD_BEST).status, 0);
                    assert_eq!([taken(Way::ToGo), taken(Way::Whitened)], [before[0] + r, before[1] + if whitens { r } else { 0 }], "{to_go:?}");
                }
                let all = || taken(Way::ToGo) + taken(Way::Whitened) + taken(Way::Tokens) + taken(Way::Gae) + taken(Way::Alike) + taken(Way::Together);
                let before = all();
                kl.run(PASSRL_SIMD_BASELINE);
                assert_eq!(all(), before);
            }
        }
    }
}

/// A rollout beside the statistics, whose results or what whitening makes of them are beyond the type's range: they are saturated and counted.
#[test]
fn results_beyond_the_range_go_the_general_way() {
    let lens = vec![70usize, 90, 110];
    for (whitens, value, over) in [(true, 3e37, 70), (false, 3e38, 69)] {
        let mut rewards: Vec<Vec<f32>> = lens.iter().map(|len| (0..*len).map(|t| (t % 7) as f32 * 1e-3).collect()).collect();
        rewards[0].fill(value);
        let far = Batch {
            gae: true, to_go: true, alone: true, whitens, padded: true, left: false, lengths: true, narrow: false, mask: 0, in_place: 0, returns: false, report: true, ends: false,
            told: false, fill: true, threads: 1, groups: vec![0; 3], row: 120, signal: vec![Vec::new(); 3], values: vec![Vec::new(); 3], rewards: Some(rewards),
            scope: lens.iter().map(|len| vec![true; *len]).collect(), outcome: vec![0.0; 3], ok: vec![1; 3], counts: vec![0, 1, 1], bootstrap: None, gamma: 0.9, lam: 1.0, k: 0.0,
            weight: 1.0, scale: PASSRL_SCALE_GROUP, anchored: false,
            scan_mask: PASSRL_SCAN_MASK_CARRY, lens: lens.clone(),
        };
        let (got, wanted) = (far.run(PASSRL_SIMD_BEST), far.run(PASSRL_SIMD_BASELINE));
        assert_eq!((&got.bytes, &got.counts, got.status), (&wanted.bytes, &wanted.counts, wanted.status));
        assert_eq!(got.counts.last(), Some(&over), "tokens beyond the range");
    }
}
