//! The short way against the general one, to the bit, on random batches; and that it is the one taken.
use crate::backend::cpu::pool::Pool as Threads;
use crate::backend::cpu::{STREAMS, run_by};
use crate::model::array::{Array, DType};
use crate::model::batch::{Extents, Groups, Problem, Process, Steps};
use crate::model::config::*;
use crate::model::context::Memory;
use crate::model::outputs::Outputs;
use crate::model::presets::PRESETS;
use crate::model::report::Report;
use crate::numerics::simd::Simd;
use crate::plan::Plan;
use crate::plan::divisors::Tables;
use half::{bf16, f16};

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 8) as usize % n
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Owns what a problem borrows.
#[derive(Default)]
struct Store(Vec<Vec<u64>>);

impl Store {
    fn put<T: Copy>(&mut self, values: &[T], dtype: DType, shape: [usize; 2]) -> Array {
        assert!(size_of::<T>() == dtype.bytes() && values.len() >= shape[0] * shape[1]);
        let mut words = vec![0u64; (size_of_val(values)).div_ceil(8) + 1];
        // SAFETY: plain numbers; the words have room for them.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), words.as_mut_ptr().cast::<u8>(), size_of_val(values)) };
        self.0.push(words);
        let data = self.0.last_mut().expect("just pushed").as_mut_ptr().cast();
        Array { data, dtype, shape, stride: if shape[1] == 1 { [1, 1] } else { [shape[1] as isize, 1] } }
    }
    fn line(&mut self, values: &[f32]) -> Array {
        self.put(values, DType::F32, [values.len(), 1])
    }
    fn ints(&mut self, values: &[i64], wide: bool) -> Array {
        let narrow: Vec<i32> = values.iter().map(|x| *x as i32).collect();
        if wide { self.put(values, DType::I64, [values.len(), 1]) } else { self.put(&narrow, DType::I32, [values.len(), 1]) }
    }
    fn flags(&mut self, values: &[bool], dtype: DType, shape: [usize; 2]) -> Array {
        let as_ = |x: &bool| i64::from(*x);
        match dtype {
            DType::I64 => self.put(&values.iter().map(as_).collect::<Vec<i64>>(), dtype, shape),
            DType::I32 => self.put(&values.iter().map(|x| as_(x) as i32 * -7).collect::<Vec<i32>>(), dtype, shape),
            DType::F32 => self.put(&values.iter().map(|x| as_(x) as f32).collect::<Vec<f32>>(), dtype, shape),
            _ => self.put(&values.iter().map(|x| as_(x) as u8).collect::<Vec<u8>>(), dtype, shape),
        }
    }
    fn floats(&mut self, values: &[f32], dtype: DType, shape: [usize; 2]) -> Array {
        match dtype {
            DType::Bf16 => self.put(&values.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>(), dtype, shape),
            DType::F16 => self.put(&values.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>(), dtype, shape),
            _ => self.put(values, DType::F32, shape),
        }
    }
    fn room(&mut self, dtype: DType, shape: [usize; 2]) -> Array {
        self.0.push(vec![0x5a5a_5a5a_5a5a_5a5a; shape[0] * shape[1] + 9]);
        let data = self.0.last_mut().expect("just pushed").as_mut_ptr();
        // Any place in a line of the cache.
        Array { data: data.wrapping_add((shape[0] * 5) % 8).cast(), dtype, shape, stride: if shape[1] == 1 { [1, 1] } else { [shape[1] as isize, 1] } }
    }
}

/// A case: its problem, configuration, and whether every group of it is usual.
struct Case {
    problem: Problem,
    config: Config,
    limits: Limits,
    clean: bool,
    _inputs: Store,
}

/// `short`: one that asks for nothing that the way of short rollouts does not know.
fn case(seed: u64, short: bool) -> Case {
    let r = &mut Random(seed);
    let mut s = Store::default();
    let (groups, size) = (1 + r.below(4), 1 + if short && r.one_in(3) { r.below(40) } else { r.below(9) });
    let rollouts = groups * size;
    let longest = r.pick(&[1, 5, 16, 70, 300, 1100]);
    let lens: Vec<usize> = (0..rollouts).map(|_| if r.one_in(12) { 0 } else { 1 + r.below(longest) }).collect();
    let packed = r.one_in(2);
    let (with_lengths, pad_left, spare) = (r.below(4) > 0, r.one_in(2), r.below(30));
    let row = if packed { 0 } else { longest + spare };
    let lens = if packed || with_lengths { lens } else { vec![row; rollouts] };
    let begins: Vec<usize> = std::iter::once(3).chain(lens.iter().scan(3, |at, len| { *at += len; Some(*at) })).collect();
    let slots = if packed { begins[rollouts] + 5 } else { row };
    let shape = if packed { [slots, 1] } else { [rollouts, slots] };
    let place = |i: usize, t: usize| match (packed, pad_left) {
        (true, _) => begins[i] + t,
        (false, false) => i * slots + t,
        (false, true) => i * slots + slots - lens[i] + t,
    };
    let mut config = PRESETS[0].config();
    let source = r.below(3);
    let gappy = source == 1 || r.one_in(2);
    // A gap in a dense signal ends its runs; everything else is as in scope.
    let mask = (r.one_in(2) && gappy).then(|| {
        let mut on = true;
        let mut flags = vec![true; shape[0] * shape[1]];
        flags.iter_mut().for_each(|f| {
            on ^= r.one_in(r.0 as usize % 40 + 2);
            *f = on;
        });
        if short && r.below(4) > 0 {
            // Without holes: some of a rollout's first and last tokens are out of scope.
            for i in 0..rollouts {
                let (a, b) = (r.below(lens[i] + 1), r.below(lens[i] + 1));
                (0..lens[i]).for_each(|t| flags[place(i, t)] = (a.min(b)..a.max(b)).contains(&t));
            }
        }
        flags
    });
    let mean = r.pick(&[1, 3, 20, 90]);
    let mut signal = vec![f32::NAN; shape[0] * shape[1]];
    let (mut offsets, mut ends, mut scores) = (vec![0i64], Vec::new(), Vec::new());
    for i in 0..rollouts {
        let mut t = 0;
        while t < lens[i] {
            let end = (t + 1 + r.below(2 * mean)).min(lens[i]);
            let score = r.pick(&[-1.0, -0.5, 0.0, -0.0, 0.25, 1.0, 1.0 + 1e-7, 3.5, 1e-9, 2e-9]);
            (t..end).for_each(|t| signal[place(i, t)] = score);
            if r.one_in(9) {
                ends.push(t as i64);
                scores.push(0.5);
            }
            ends.push(if end == lens[i] && r.one_in(3) { t as i64 } else { end as i64 });
            scores.push(score);
            t = end;
        }
        offsets.push(ends.len() as i64);
    }
    let mut clean = true;
    if r.one_in(5) && !scores.is_empty() {
        clean = false;
        let (bad, at, i) = (r.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]), r.below(scores.len()), r.below(rollouts));
        scores[at] = bad;
        if lens[i] > 0 {
            signal[place(i, r.below(lens[i]))] = bad;
        }
        if r.one_in(3) {
            let at = r.below(ends.len());
            ends[at] = 5000;
        }
    }
    let wide = r.one_in(2);
    let (process, steps) = match source {
        0 => (Process::None, None),
        1 => {
            let dtype = r.pick(&[DType::F32, DType::F32, DType::Bf16, DType::F16]);
            (Process::Signal([Some(s.floats(&signal, dtype, shape)), None, None, None]), None)
        }
        _ => {
            let steps = Steps { offsets: s.ints(&offsets, wide), ends: s.ints(&ends, !wide), begins: None };
            (Process::Scores(s.line(&scores)), Some(steps))
        }
    };
    let num_process = usize::from(source > 0);
    config.kind = if source == 0 { Kind::None } else { Kind::Prm };
    config.chunk = match source {
        0 => r.pick(&[Chunk::None, Chunk::ByValue, Chunk::Token]),
        _ => r.pick(&[Chunk::ByValue, Chunk::ByValue, Chunk::Step]),
    };
    config.num_extra = r.below(3);
    config.gamma = r.pick(&[1.0, 1.0, 0.99, 0.5]);
    config.k = r.pick(&[0.7, 0.7, 0.0, 1.0]);
    config.credit = r.pick(&[Credit::ReturnToGo, Credit::ReturnToGo, Credit::Broadcast]);
    config.fill_padding = !r.one_in(4);
    config.temperature = r.pick(&[1.0, 1.0, 0.7]);
    config.clip = r.pick(&[f64::INFINITY, f64::INFINITY, 0.8]);
    config.whiten = r.pick(&[Whiten::None, Whiten::None, Whiten::None, Whiten::Tokens, Whiten::Rollouts]);
    config.divide_scope = r.pick(&[DivideScope::All, DivideScope::All, DivideScope::Process]);
    config.fusion = if source == 0 && r.one_in(3) { Fusion::RewardSum } else { Fusion::Advantage };
    for stream in &mut config.streams {
        (stream.center, stream.scale) = r.pick(&[
            (Center::Group, Scale::Group),
            (Center::Group, Scale::Group),
            (Center::Group, Scale::None),
            (Center::LeaveOneOut, Scale::None),
            (Center::LeaveOneOut, Scale::LeaveOneOut),
            (Center::None, Scale::AbsMax),
            (Center::None, Scale::None),
        ]);
        stream.weight = r.pick(&[1.0, 1.0, 0.3, -2.0]);
        stream.singleton = r.pick(&[Singleton::Zero, Singleton::Passthrough]);
        stream.zero_variance = r.pick(&[ZeroVariance::Zero, ZeroVariance::Center]);
        stream.clip_standardized = r.pick(&[f64::INFINITY, f64::INFINITY, 0.9]);
        stream.missing = r.pick(&[Missing::Error, Missing::Error, Missing::Zero, Missing::Exclude]);
    }
    for stream in &mut config.streams[OUTCOME..] {
        stream.loo_unit = r.pick(&[LooUnit::Element, LooUnit::Rollout]);
    }
    let mut constant = true;
    if config.chunk == Chunk::Token {
        // Usual where a rollout has one value.
        let place;
        (config.credit, place) = r.pick(&[(Credit::ReturnToGo, Place::Last), (Credit::ReturnToGo, Place::Last), (Credit::Broadcast, Place::Every)]);
        config.streams.iter_mut().for_each(|s| s.place = place);
        config.scan_mask = r.pick(&[ScanMask::Carry, ScanMask::Carry, ScanMask::Decay, ScanMask::None]);
        (config.gamma, config.k) = r.pick(&[(1.0, 0.0), (1.0, 0.0), (1.0, 0.0), (0.99, 0.0), (1.0, 0.5)]);
        config.divide_scope = if place == Place::Every { config.divide_scope } else { DivideScope::All };
        if r.one_in(8) {
            config.credit = Credit::ReturnToGo;
            config.streams[r.pick(&[OUTCOME, EXTRA])].place = Place::Every;
            config.divide_scope = DivideScope::All;
        }
        constant = false;
    }
    if short {
        (config.whiten, config.temperature, config.clip) = (Whiten::None, 1.0, f64::INFINITY);
        config.divide_scope = DivideScope::All;
    }
    let mut rollout_streams = [None; 12];
    for (x, stream) in rollout_streams.iter_mut().enumerate().take(2 + config.num_extra) {
        if x == 0 || r.below(4) > 0 {
            let kinds = r.pick(&[1, 2, 5]);
            let mut values: Vec<f32> = (0..rollouts).map(|_| r.below(kinds) as f32 * 0.75 - 0.5).collect();
            if r.one_in(15) {
                clean = false;
                values[r.below(rollouts)] = r.pick(&[f32::NAN, f32::INFINITY]);
            }
            *stream = Some(if r.one_in(4) { s.put(&values.iter().map(|x| *x as f64 * 1.1).collect::<Vec<f64>>(), DType::F64, [rollouts, 1]) } else { s.line(&values) });
        }
    }
    let chance = r.pick(&[2, 6, 1000]);
    let violating: Vec<bool> = (0..rollouts).map(|_| !r.one_in(chance)).collect();
    let format_ok = (rollout_streams[1].is_some() && r.below(4) > 0).then(|| s.flags(&violating, DType::U8, [rollouts, 1]));
    let in_stats = (!short && r.one_in(4)).then(|| (0..rollouts).map(|_| !r.one_in(4)).collect::<Vec<bool>>()).map(|flags| s.flags(&flags, DType::Bool, [rollouts, 1]));
    let absent = (!short && r.one_in(12)).then(|| (0..rollouts).map(|_| r.one_in(9)).collect::<Vec<bool>>());
    clean &= absent.as_ref().is_none_or(|a| !a.contains(&true));
    let grouping = match r.below(if short { 2 } else { 3 }) {
        0 => Groups::Constant(size),
        1 => Groups::Offsets(s.ints(&(0..=groups).map(|g| (g * size) as i64).collect::<Vec<_>>(), wide)),
        _ => Groups::Index(s.ints(&(0..rollouts).map(|i| (i % groups) as i64).collect::<Vec<_>>(), wide)),
    };
    let lengths: Vec<i64> = lens.iter().map(|l| *l as i64).collect();
    let extents = if packed {
        Extents::Packed { cu_seqlens: s.ints(&begins.iter().map(|b| *b as i64).collect::<Vec<_>>(), wide) }
    } else {
        Extents::Padded { lengths: with_lengths.then(|| s.ints(&lengths, wide)), pad_left }
    };
    let dtype = r.pick(&[DType::U8, DType::Bool, DType::I32, DType::I64, DType::F32]);
    let problem = Problem {
        rollouts,
        groups,
        slots,
        extents,
        grouping,
        mask: mask.map(|flags| s.flags(&flags, dtype, shape)),
        rollout_streams,
        format_ok,
        in_stats,
        absent: absent.map(|flags| s.flags(&flags, DType::U8, [rollouts, 1])),
        process,
        num_process,
        steps,
        ..Problem::nothing()
    };
    let tokens = if packed { slots } else { rollouts * slots };
    let limits = Limits {
        rollouts, groups, tokens, rollout_tokens: lens.iter().copied().max().unwrap_or(0).max(1), steps: ends.len(), group_rollouts: rollouts,
        group_elements: tokens.max(1), pieces: 0, rollout_pieces: 0, batch_rollouts: rollouts,
    };
    // More chunks than are listed at once are no error.
    clean &= tokens + ends.len() <= 4096;
    if !constant {
        let c = &config;
        let there: Vec<usize> = (0..if c.fusion == Fusion::RewardSum { 1 } else { 12 }).filter(|s| problem.rollout_streams[*s].is_some()).collect();
        let placed = |place: Place| there.iter().all(|s| c.streams[OUTCOME + s].place == place);
        constant = c.k == 0.0 && if c.credit == Credit::Broadcast { placed(Place::Every) } else { c.gamma == 1.0 && placed(Place::Last) };
        clean &= constant;
    }
    Case { problem, config, limits, clean, _inputs: s }
}

/// A run's outputs as bytes, and its report.
fn outputs(case: &Case, seed: u64, simd: Simd, threads: usize, usual: bool, short: bool) -> (Vec<Vec<u64>>, Report, bool) {
    let r = &mut Random(seed ^ 0xabcd);
    let (p, mut s) = (&case.problem, Store::default());
    let shape = if p.packed() { [p.slots, 1] } else { [p.rollouts, p.slots] };
    let advantages = s.room(r.pick(&[DType::F32, DType::F32, DType::Bf16, DType::F16, DType::F64]), shape);
    let asked = !short && r.one_in(2);
    let rows = [p.rollouts, 1];
    let of_groups = [p.groups, MAX_STREAMS];
    let lists = asked && (case.config.chunk != Chunk::Token || r.one_in(4));
    let mut room = |dtype, shape| asked.then(|| s.room(dtype, shape));
    let outputs = Outputs {
        advantages,
        returns: room(DType::F32, shape),
        path_scores: room(DType::F64, rows),
        num_chunks: room(DType::I64, rows),
        chunk_ends: room(DType::I32, shape).filter(|_| lists),
        chunk_values: room(DType::F64, shape).filter(|_| lists),
        stats_count: room(DType::I64, of_groups),
        stats_mean: room(DType::F64, of_groups),
        stats_std: room(DType::F64, of_groups),
        stats_absmax: room(DType::F64, of_groups),
        group_flags: room(DType::I32, of_groups),
        rollout_flags: room(DType::I32, rows),
        report: true,
        report_at: 0,
    };
    let plan = Plan::create(case.config, case.limits, threads, simd, &Tables::default()).expect("a plan");
    let mut workspace = vec![0xdead_beef_u64; plan.workspace.bytes / 8 + 16];
    let data = workspace.as_mut_ptr();
    let memory = Memory { data: data.wrapping_byte_add(data.align_offset(8) + (64 - data.addr() % 64) % 64).cast(), bytes: plan.workspace.bytes };
    let pool = Threads::new(threads);
    pool.start().expect("threads");
    let report = run_by(&pool, threads, &plan, p, &outputs, memory, usual);
    (s.0, report, lists)
}

#[test]
fn groups_of_short_rollouts_are_the_general_way_to_the_bit() {
    let (mut groups, mut taken, mut failures) = ([0; 2], [0; 2], Vec::new());
    for seed in 0..8000 {
        let case = case(seed, true);
        let (wanted, said, _) = outputs(&case, seed, Simd::best(), 1, false, true);
        // Past the caches, and not. (Padded results that pass them by go the other way.)
        STREAMS.set(case.problem.packed() && seed % 3 == 0);
        let (got, mut report, _) = outputs(&case, seed, Simd::best(), 1 + seed as usize % 2, true, true);
        STREAMS.set(false);
        let packed = usize::from(case.problem.packed());
        groups[packed] += case.problem.groups as i64;
        taken[packed] += report.short_groups;
        let mut hold = |held: bool, what: String| if !held { failures.push(format!("seed {seed}: {what}")) };
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + b.abs());
        hold(near(report.sum_advantages, said.sum_advantages) && near(report.sum_squares, said.sum_squares), "sums of the report".into());
        (report.usual_groups, report.short_groups, report.sum_advantages, report.sum_squares) = (0, 0, said.sum_advantages, said.sum_squares);
        hold(report == said, format!("{report:?} against {said:?}"));
        let first = got.iter().flatten().zip(wanted.iter().flatten()).position(|(a, b)| a != b);
        let c = &case.config;
        hold(first.is_none(), format!("the output differs at word {first:?}: {:?} {:?} {:?} {:?} gamma {} k {} {:?}", case.problem.process, case.problem.extents, c.chunk, c.credit, c.gamma, c.k, c.streams[0]));
    }
    println!("{taken:?} of {groups:?} groups, padded and packed, as groups of short rollouts");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures[..failures.len().min(20)].join("\n"));
    // A packed batch with a mask goes the other way, and so do groups with findings or values that nearly are equal.
    assert!(Simd::best() < Simd::Avx2 || (0..2).all(|packed| 3 * taken[packed] > groups[packed]), "{taken:?} of {groups:?}");
}

#[test]
fn the_short_way_is_the_general_one_to_the_bit() {
    let (mut groups, mut taken, mut clean, mut constants, mut failures) = (0, 0, 0, 0, Vec::new());
    for seed in 0..6000 {
        let case = case(seed, false);
        let tokens = case.config.chunk == Chunk::Token;
        let (wanted, said, listed) = outputs(&case, seed, Simd::best(), 1, false, false);
        let mut hold = |held: bool, what: String| if !held { failures.push(format!("seed {seed}: {what}")) };
        hold(said.usual_groups == 0, "the general way was asked for".into());
        for simd in [Simd::best(), Simd::Baseline] {
            let (got, mut report, _) = outputs(&case, seed, simd, 1 + seed as usize % 2, true, false);
            groups += case.problem.groups as i64;
            taken += report.usual_groups;
            if case.clean && !(tokens && listed) {
                clean += 1;
                constants += u32::from(tokens);
                hold(report.usual_groups == case.problem.groups as i64, format!("{simd:?}: a group that is usual went the general way"));
            }
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + b.abs());
            hold(near(report.sum_advantages, said.sum_advantages) && near(report.sum_squares, said.sum_squares), format!("{simd:?}: sums of the report"));
            (report.usual_groups, report.short_groups, report.sum_advantages, report.sum_squares) = (0, 0, said.sum_advantages, said.sum_squares);
            hold(report == said, format!("{simd:?}: {report:?} against {said:?}"));
            for (n, (a, b)) in got.iter().zip(&wanted).enumerate() {
                let first = a.iter().zip(b).position(|(a, b)| a != b);
                hold(first.is_none(), format!("{simd:?}: output {n} differs at word {first:?}"));
            }
        }
    }
    println!("{taken} of {groups} groups the short way, {clean} batches wholly, {constants} of them of a value a rollout");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures[..failures.len().min(20)].join("\n"));
    assert!(clean > 2000 && constants > 300 && taken > groups / 2);
}
