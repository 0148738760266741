//! Arguments that must be refused: the status, a sentence that names the argument, outputs untouched.
#[path = "primitives/rig.rs"]
mod rig;

use passrl::abi::constants::*;
use passrl::abi::primitives::*;
use passrl::abi::status::*;
use passrl::abi::structs::Growing;
use passrl::abi::types::*;
use rig::*;
use std::ffi::c_void;
use std::ptr::{null, null_mut};

/// A valid call of everything on 2 rollouts of 3 and 4 tokens; a test breaks one thing.
struct All {
    batch: passrl_batch,
    config: passrl_config,
    row: passrl_stream,
    /// rewards, values, base; outputs.
    a: passrl_view,
    b: passrl_view,
    c: passrl_view,
    out: passrl_view,
    out2: passrl_view,
    x: passrl_view,
    y: passrl_view,
    bootstrap: passrl_view,
    counts: passrl_view,
    means: passrl_view,
    flags: passrl_view,
    rollout_flags: passrl_view,
    chunks: passrl_view,
    ends: passrl_view,
    gamma: f64,
    lam: f64,
    k: f64,
    lambda: f64,
    workspace: *mut c_void,
    bytes: usize,
    stream: *mut c_void,
    /// NULL views by name.
    without: &'static str,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum F {
    Standardize,
    Chunks,
    Returns,
    Gae,
    Divide,
    Opd,
    Whiten,
    Flags,
}

fn call(rig: &Rig, f: F, s: &All) -> i32 {
    let v = |view: &passrl_view, name: &str| if s.without == name { null() } else { &raw const *view };
    let (b, w, n, st) = (&s.batch, s.workspace, s.bytes, s.stream);
    unsafe {
        match f {
            F::Standardize => passrl_group_standardize(
                rig.context,
                b,
                &s.row,
                v(&s.x, "x"),
                v(&s.y, "out"),
                v(&s.counts, "count"),
                v(&s.means, "mean"),
                null(),
                null(),
                w,
                n,
                st,
            ),
            F::Chunks => passrl_chunk_boundaries(rig.context, b, &s.config, v(&s.chunks, "num_chunks"), v(&s.ends, "chunk_ends"), w, n, st),
            F::Returns => passrl_discounted_returns(rig.context, b, s.gamma, v(&s.a, "rewards"), v(&s.out, "returns"), w, n, st),
            F::Gae => passrl_gae(
                rig.context,
                b,
                s.gamma,
                s.lam,
                v(&s.a, "rewards"),
                v(&s.b, "values"),
                v(&s.bootstrap, "bootstrap"),
                v(&s.out, "advantages"),
                v(&s.out2, "returns"),
                w,
                n,
                st,
            ),
            F::Divide => passrl_divide_length(rig.context, b, s.k, v(&s.a, "x"), v(&s.out, "out"), w, n, st),
            F::Opd => passrl_opd_signal(
                rig.context,
                b,
                s.lambda,
                v(&s.a, "logp_policy"),
                v(&s.b, "logp_teacher"),
                v(&s.c, "logp_base"),
                v(&s.out, "out"),
                w,
                n,
                st,
            ),
            F::Whiten => passrl_whiten(rig.context, b, &s.config, v(&s.a, "x"), v(&s.out, "out"), w, n, st),
            F::Flags => passrl_group_flags(
                rig.context,
                b,
                &s.config,
                v(&s.flags, "group_flags"),
                v(&s.rollout_flags, "rollout_flags"),
                null_mut(),
                w,
                n,
                st,
            ),
        }
    }
}

type Break = fn(&mut All);

#[test]
fn hostile_arguments_are_refused_with_a_sentence_and_nothing_is_written() {
    use F::*;
    let all = [Standardize, Chunks, Returns, Gae, Divide, Opd, Whiten, Flags];
    let tokens = [Chunks, Returns, Gae, Divide, Opd, Whiten];
    let groups = [Standardize, Flags];
    let on_tokens = [Returns, Gae, Divide, Opd, Whiten];
    let cases: Vec<(&[F], Break, i32, &str)> = vec![
        (&all, |s| s.stream = std::ptr::dangling_mut(), PASSRL_ERR_DEVICE, "stream"),
        (&all, |s| s.workspace = null_mut(), PASSRL_ERR_NULL, "workspace is NULL"),
        (&all, |s| s.bytes = 63, PASSRL_ERR_WORKSPACE, "workspace has 63 bytes"),
        (&all, |s| s.workspace = s.workspace.wrapping_byte_add(8), PASSRL_ERR_WORKSPACE, "aligned to 64"),
        (&all, |s| s.batch.struct_size = 3, PASSRL_ERR_STRUCT_SIZE, "struct_size is 3"),
        (&all, |s| s.batch.reserved0 = 1, PASSRL_ERR_VALUE, "reserved0 is 1"),
        (&all, |s| s.batch.num_rollouts = -1, PASSRL_ERR_LIMIT, "num_rollouts is -1"),
        (&all, |s| s.batch.num_rollouts = i64::MAX, PASSRL_ERR_LIMIT, "num_rollouts"),
        (&tokens, |s| s.batch.layout = 7, PASSRL_ERR_VALUE, "layout is 7"),
        (&tokens, |s| s.batch.pad_side = -2, PASSRL_ERR_VALUE, "pad_side is -2"),
        (&tokens, |s| s.batch.cu_seqlens = null(), PASSRL_ERR_NULL, "cu_seqlens is NULL"),
        (&tokens, |s| s.batch.lengths = s.batch.absent, PASSRL_ERR_DTYPE, "lengths has dtype u8"),
        (&tokens, |s| s.batch.layout = PASSRL_PADDED, PASSRL_ERR_CONFLICT, "cu_seqlens is given in the padded"),
        (&tokens, |s| unsafe { *(*s.batch.cu_seqlens).data.cast::<i32>().add(1) = 9 }, PASSRL_ERR_OFFSETS, "cu_seqlens[2] is 7 after 9"),
        (
            &tokens,
            |s| unsafe { *(*s.batch.cu_seqlens).data.cast::<i32>().add(2) = 8 },
            PASSRL_ERR_OFFSETS,
            "cu_seqlens[2] is 8; there are 7",
        ),
        (&tokens, |s| unsafe { *(*s.batch.cu_seqlens).data.cast::<i32>() = -1 }, PASSRL_ERR_OFFSETS, "cu_seqlens[0] is -1"),
        (&all, |s| unsafe { (*s.batch.absent.cast_mut()).shape[0] = 3 }, PASSRL_ERR_SHAPE, "absent has 3 elements; it must have 2"),
        (&tokens, |s| unsafe { (*s.batch.mask.cast_mut()).shape[0] = 6 }, PASSRL_ERR_SHAPE, "mask has 6 elements; it must have 7"),
        (&tokens, |s| unsafe { (*s.batch.mask.cast_mut()).dtype = PASSRL_F16 }, PASSRL_ERR_DTYPE, "mask has dtype f16"),
        (&tokens, |s| unsafe { (*s.batch.mask.cast_mut()).device_type = PASSRL_CUDA }, PASSRL_ERR_DEVICE, "mask is on CUDA"),
        (
            &[Standardize, Whiten, Flags],
            |s| unsafe { (*s.batch.in_stats.cast_mut()).ndim = 2 },
            PASSRL_ERR_SHAPE,
            "in_stats has 2 dimension",
        ),
        (&groups, |s| s.batch.group_size = 0, PASSRL_ERR_NULL, "0 of batch.group_index"),
        (&groups, |s| s.batch.group_size = 3, PASSRL_ERR_SHAPE, "group_size 3"),
        (&groups, |s| s.batch.group_size = -1, PASSRL_ERR_VALUE, "group_size is -1"),
        (&groups, |s| s.batch.num_groups = 5, PASSRL_ERR_SHAPE, "num_groups is 5"),
        (
            &groups,
            |s| (s.batch.group_size, s.batch.group_index) = (0, s.batch.cu_seqlens),
            PASSRL_ERR_SHAPE,
            "num_groups is 0 with batch.group_index",
        ),
        (
            &groups,
            |s| (s.batch.group_size, s.batch.num_groups, s.batch.group_index) = (0, 1, s.batch.bootstrap),
            PASSRL_ERR_OFFSETS,
            "group_index[1] is 4",
        ),
        (&groups, |s| (s.batch.group_size, s.batch.group_offsets) = (0, s.batch.cu_seqlens), PASSRL_ERR_OFFSETS, "group_offsets"),
        (&groups, |s| s.batch.group_index = s.batch.bootstrap, PASSRL_ERR_SHAPE, "num_groups is 0"),
        (&[Returns, Gae], |s| s.gamma = 1.5, PASSRL_ERR_VALUE, "gamma is 1.5; it must be from 0.0 to 1.0"),
        (&[Returns, Gae], |s| s.gamma = f64::NAN, PASSRL_ERR_VALUE, "gamma is NaN"),
        (&[Gae], |s| s.lam = -0.1, PASSRL_ERR_VALUE, "lam is -0.1"),
        (&[Divide], |s| s.k = 8.5, PASSRL_ERR_VALUE, "k is 8.5; it must be from 0.0 to 8.0"),
        (&[Divide], |s| s.k = -1.0, PASSRL_ERR_VALUE, "k is -1.0"),
        (&[Opd], |s| s.lambda = f64::INFINITY, PASSRL_ERR_VALUE, "opd_lambda is inf"),
        (&[Returns, Gae], |s| s.without = "rewards", PASSRL_ERR_NULL, "rewards is NULL"),
        (&[Gae], |s| s.without = "values", PASSRL_ERR_NULL, "values is NULL"),
        (&[Gae], |s| s.without = "advantages", PASSRL_ERR_NULL, "advantages is NULL"),
        (&[Divide, Whiten, Standardize], |s| s.without = "x", PASSRL_ERR_NULL, "x is NULL"),
        (&[Divide, Whiten, Opd], |s| s.without = "out", PASSRL_ERR_NULL, "out is NULL"),
        (&[Opd], |s| s.without = "logp_teacher", PASSRL_ERR_NULL, "logp_teacher is NULL"),
        (&[Flags], |s| s.without = "group_flags", PASSRL_ERR_NULL, "group_flags is NULL"),
        (&on_tokens, |s| s.a.dtype = PASSRL_I32, PASSRL_ERR_DTYPE, "has dtype i32; it is one of f32, bf16, f16, f64"),
        (&on_tokens, |s| s.a.dtype = 99, PASSRL_ERR_DTYPE, "has dtype 99"),
        (&on_tokens, |s| s.out.shape[0] = 6, PASSRL_ERR_SHAPE, "has 6 elements; it must have 7"),
        (&on_tokens, |s| s.out.stride[0] = 0, PASSRL_ERR_LAYOUT, "overlaps itself"),
        (&on_tokens, |s| s.out.data = s.out.data.wrapping_byte_add(1), PASSRL_ERR_LAYOUT, "multiple of 4"),
        (&on_tokens, |s| s.out.data = null_mut(), PASSRL_ERR_NULL, ".data is NULL with 7 elements"),
        (&on_tokens, |s| s.out.data = s.a.data.wrapping_byte_add(4), PASSRL_ERR_OVERLAP, "share memory; in place means"),
        (&on_tokens, |s| (s.out.data, s.out.dtype) = (s.a.data, PASSRL_BF16), PASSRL_ERR_OVERLAP, "share memory; in place means"),
        (&[Gae], |s| s.out2 = s.out, PASSRL_ERR_OVERLAP, "advantages and returns share memory"),
        (&[Gae], |s| s.bootstrap.shape[0] = 1, PASSRL_ERR_SHAPE, "bootstrap has 1 elements; it must have 2"),
        (&on_tokens, |s| s.out.data = unsafe { (*s.batch.mask).data }, PASSRL_ERR_OVERLAP, "batch.mask share memory"),
        (&on_tokens, |s| s.a.data = s.workspace, PASSRL_ERR_OVERLAP, "workspace of"),
        (&on_tokens, |s| s.a.stride[0] = i64::MAX / 2, PASSRL_ERR_LAYOUT, "reaches further than memory"),
        (&on_tokens, |s| s.a.shape[0] = -4, PASSRL_ERR_SHAPE, "-4"),
        (&[Standardize], |s| s.row.center = PASSRL_CENTER_BATCH, PASSRL_ERR_NOT_YET, "stream_row.center is batch"),
        (&[Standardize], |s| s.row.scale = 77, PASSRL_ERR_VALUE, "stream_row.scale is 77; it is one of"),
        (&[Standardize], |s| s.row.ddof = 2, PASSRL_ERR_VALUE, "stream_row.ddof is 2"),
        (&[Standardize], |s| s.row.epsilon = -1.0, PASSRL_ERR_VALUE, "stream_row.epsilon is -1.0"),
        (&[Standardize], |s| s.row.reserved[2] = 1, PASSRL_ERR_VALUE, "reserved field"),
        (&[Standardize], |s| s.counts.dtype = PASSRL_I32, PASSRL_ERR_DTYPE, "count has dtype i32"),
        (&[Standardize], |s| s.means.shape[0] = 4, PASSRL_ERR_SHAPE, "mean has 4 elements; it must have 1"),
        (&[Standardize], |s| s.means.data = s.counts.data, PASSRL_ERR_OVERLAP, "count and mean share memory"),
        (&[Chunks, Whiten, Flags], |s| s.config.struct_size = 1 << 20, PASSRL_ERR_STRUCT_SIZE, "struct_size"),
        (&[Chunks, Whiten, Flags], |s| s.config.compat = 1, PASSRL_ERR_NOT_YET, "compat"),
        (&[Whiten], |s| s.config.whiten_ddof = 3, PASSRL_ERR_VALUE, "whiten_ddof is 3"),
        (&[Chunks], |s| s.config.eta = -1.0, PASSRL_ERR_VALUE, "eta is -1.0"),
        (&[Chunks], |s| s.batch.signal[0] = null(), PASSRL_ERR_NULL, "signal[0] and batch.step_scores are NULL"),
        (&[Chunks], |s| s.batch.step_marks = s.batch.mask, PASSRL_ERR_NOT_YET, "step_marks is given"),
        (&[Chunks], |s| s.batch.step_offsets = s.batch.cu_seqlens, PASSRL_ERR_NULL, "step_ends is NULL"),
        (&[Chunks], |s| s.ends.dtype = PASSRL_F32, PASSRL_ERR_DTYPE, "chunk_ends has dtype f32"),
        (&[Chunks], |s| s.ends.data = unsafe { (*s.batch.signal[0]).data }, PASSRL_ERR_OVERLAP, "batch.signal[0] share memory"),
        (&[Flags], |s| s.batch.outcome = null(), PASSRL_ERR_NULL, "nothing to flag"),
        (&[Flags], |s| s.batch.format_ok = s.batch.absent, PASSRL_ERR_CONFLICT, "format_ok is given without"),
        (&[Flags], |s| s.batch.extra[0] = s.batch.outcome, PASSRL_ERR_CONFLICT, "num_extra is 0"),
        (&[Flags], |s| s.config.fusion = PASSRL_FUSION_POOLED, PASSRL_ERR_CONFLICT, "config.fusion is pooled, which has one set for process, outcome and format; flags of each stream alone need fusion = advantage"),
        (&[Flags], |s| s.config.fusion = PASSRL_FUSION_REWARD_SUM, PASSRL_ERR_CONFLICT, "config.fusion is reward_sum, whose set is of the sum of the per-rollout streams; flags of each stream alone"),
        (&[Flags], |s| s.config.streams[4].clip_value = 5.0, PASSRL_ERR_CONFLICT, "config.outcome.clip_value is 5.0; flags alone are of the values as they are: set clip_value = inf"),
        (&[Flags], |s| s.config.streams[5].count_by = PASSRL_COUNT_BY_STEP, PASSRL_ERR_CONFLICT, "config.format.count_by is step; flags alone know no steps: set count_by = rollout"),
        (&[Flags], |s| (s.config.streams[4].center, s.config.streams[4].scale) = (PASSRL_CENTER_LENGTH_WEIGHTED, PASSRL_SCALE_NONE), PASSRL_ERR_CONFLICT, "config.outcome.center is length_weighted; flags alone know no lengths: set another center"),
        (&[Flags], |s| (s.config.kl_in_reward, s.config.kl_coef) = (PASSRL_KL_K1, 0.1), PASSRL_ERR_CONFLICT, "config.kl_in_reward is k1 with kl_place = outcome"),
        (&[Flags], |s| s.config.streams[15].name = [b'a' as _; 32], PASSRL_ERR_VALUE, "config.streams[15].name (extra_9) has 32 bytes and no terminating zero"),
        (&[Flags], |s| s.flags.shape[1] = 15, PASSRL_ERR_SHAPE, "group_flags has shape [1, 15]; it must be [1, 16]"),
        (&[Flags], |s| s.rollout_flags.dtype = PASSRL_I64, PASSRL_ERR_DTYPE, "rollout_flags has dtype i64"),
    ];
    let rig = Rig::new();
    let mut refused = 0;
    for (functions, breaks, status, words) in cases {
        for f in functions {
            let mut floats: Vec<Vec<f32>> = (0..3).map(|s| (0..7).map(|t| (t * (s + 1)) as f32).collect()).collect();
            let (mut out, mut out2, mut x, mut y) = (vec![7.5f32; 8], vec![7.5f32; 7], vec![1.0f32, 2.0], vec![7.5f32; 2]);
            let (mut boot, mut counts, mut means, mut flags, mut rf) =
                (vec![0.0f32; 2], vec![7i64; 1], vec![7.5f64; 1], vec![7i32; 16], vec![7i32; 2]);
            let (mut chunks, mut ends, mut signal) = (vec![7i32; 2], vec![7i32; 7], vec![1.0f32; 7]);
            let (mut cu, mut mask, mut absent, mut stats, mut index) =
                (vec![0i32, 3, 7], vec![1i32; 7], vec![0u8; 2], vec![1i32; 2], vec![0i32, 4]);
            let (cu, mut mask, mut absent, mut stats, index) =
                (line(&mut cu), line(&mut mask), line(&mut absent), line(&mut stats), line(&mut index));
            let (signal, outcome) = (line(&mut signal), line(&mut x));
            let mut b = passrl_batch {
                num_rollouts: 2,
                group_size: 2,
                cu_seqlens: &cu,
                mask: &raw mut mask,
                absent: &raw mut absent,
                in_stats: &raw mut stats,
                outcome: &outcome,
                ..batch()
            };
            b.signal[0] = &signal;
            // Not read by any primitive: lends the tests a group index.
            b.bootstrap = &index;
            let mut s = All {
                batch: b,
                config: config(),
                row: config().streams[PASSRL_STREAM_OUTCOME],
                a: line(&mut floats[0]),
                b: line(&mut floats[1]),
                c: line(&mut floats[2]),
                out: line(&mut out[..7]),
                out2: line(&mut out2),
                x: outcome,
                y: line(&mut y),
                bootstrap: line(&mut boot),
                counts: line(&mut counts),
                means: line(&mut means),
                flags: grid(&mut flags, 1, 16),
                rollout_flags: line(&mut rf),
                chunks: line(&mut chunks),
                ends: line(&mut ends),
                gamma: 0.9,
                lam: 0.9,
                k: 0.7,
                lambda: 1.25,
                workspace: rig.ws(),
                bytes: rig.bytes(),
                stream: null_mut(),
                without: "",
            };
            if refused == 0 {
                for f in all {
                    assert_eq!(call(&rig, f, &s), PASSRL_OK, "{f:?}: {}", last());
                }
                out.fill(7.5);
                (out2, y, counts, means, flags, rf, chunks, ends) =
                    (vec![7.5; 7], vec![7.5; 2], vec![7], vec![7.5], vec![7; 16], vec![7; 2], vec![7; 2], vec![7; 7]);
                (s.out2, s.y, s.counts, s.means) = (line(&mut out2), line(&mut y), line(&mut counts), line(&mut means));
                (s.flags, s.rollout_flags, s.chunks, s.ends) = (grid(&mut flags, 1, 16), line(&mut rf), line(&mut chunks), line(&mut ends));
            }
            breaks(&mut s);
            assert_eq!(call(&rig, *f, &s), status, "{f:?} \"{words}\": {}", last());
            assert!(last().contains(words), "{f:?} \"{words}\": {}", last());
            assert!(last().starts_with("passrl_"), "{}", last());
            let floats_kept = out.iter().chain(&out2).chain(&y).all(|x| *x == 7.5) && means[0] == 7.5;
            let ints_kept = flags.iter().chain(&rf).chain(&chunks).chain(&ends).all(|x| *x == 7) && counts[0] == 7;
            assert!(floats_kept && ints_kept, "{f:?} \"{words}\": outputs were written");
            assert!((0..3).all(|s| (0..7).all(|t| floats[s][t] == (t * (s + 1)) as f32)), "inputs were written");
            refused += 1;
        }
    }
    assert!(refused >= 150, "{refused}");
}

/// The report of the flags is looked at as their views are, and their sentence calls a stream as the caller does.
#[test]
fn the_report_of_flags_lies_apart() {
    let rig = Rig::new();
    let (mut x, mut flags, mut memory) = (vec![1.0f32, f32::NAN], vec![7i32; 16], vec![0u64; 64]);
    let (x, flags) = (line(&mut x), grid(&mut flags, 1, 16));
    let mut config = config();
    for (to, from) in config.streams[4].name.iter_mut().zip(b"correct\0") {
        *to = *from as _;
    }
    let b = passrl_batch { num_rollouts: 2, group_size: 2, outcome: &x, ..batch() };
    let base = memory.as_mut_ptr().cast::<u8>();
    let call = |at: *mut u8, flags: &passrl_view, b: &passrl_batch| unsafe {
        at.cast::<passrl_report>().write_unaligned(passrl_report::defaults());
        passrl_group_flags(rig.context, b, &config, flags, null(), at.cast(), rig.ws(), rig.bytes(), null_mut())
    };
    assert_eq!(call(base, &flags, &b), PASSRL_FINDING_MISSING);
    assert!(last().contains("stream correct (outcome);"), "{}", last());
    let over = passrl_view { data: base.wrapping_add(160).cast(), ..flags };
    assert_eq!(call(base, &over, &b), PASSRL_ERR_OVERLAP);
    assert!(last().contains("report and group_flags share memory; give each its own"), "{}", last());
    let read = passrl_view { data: base.wrapping_add(164).cast(), ..x };
    assert_eq!(call(base, &flags, &passrl_batch { outcome: &read, ..b }), PASSRL_ERR_OVERLAP);
    assert!(last().contains("report and batch.outcome, format or extra share memory"), "{}", last());
    assert_eq!(call(base.wrapping_add(4), &flags, &b), PASSRL_ERR_WORKSPACE);
    assert!(last().contains("report is at ") && last().contains("aligned to 8 bytes"), "{}", last());
    assert_eq!(call(rig.ws().cast(), &flags, &b), PASSRL_ERR_OVERLAP);
    assert!(last().contains("workspace and report share memory"), "{}", last());
}

#[test]
fn null_handles_and_what_comes_later() {
    let rig = Rig::new();
    let mut bytes = 0usize;
    let limits = passrl_limits { rollouts: 4, tokens: 100, ..passrl_limits::defaults() };
    unsafe {
        assert_eq!(passrl_primitive_workspace_size(null(), &limits, &mut bytes), PASSRL_ERR_NULL);
        assert_eq!(passrl_primitive_workspace_size(rig.context, null(), &mut bytes), PASSRL_ERR_NULL);
        assert_eq!(passrl_primitive_workspace_size(rig.context, &limits, null_mut()), PASSRL_ERR_NULL);
        let hostile = passrl_limits { rollouts: -4, ..limits };
        assert_eq!(passrl_primitive_workspace_size(rig.context, &hostile, &mut bytes), PASSRL_ERR_LIMIT);
        let hostile = passrl_limits { rollout_tokens: 1 << 31, ..limits };
        assert_eq!(passrl_primitive_workspace_size(rig.context, &hostile, &mut bytes), PASSRL_ERR_LIMIT);
        assert!(last().contains("rollout_tokens is 2147483648"), "{}", last());
        let status = passrl_kl_in_reward(rig.context, &batch(), &config(), null(), null(), null(), null(), null_mut(), 0, null_mut());
        assert_eq!(status, PASSRL_ERR_VALUE);
        assert!(last().contains("config.kl_in_reward is none"), "{}", last());
        let k1 = passrl_config { kl_in_reward: PASSRL_KL_K1, kl_coef: 0.1, ..config() };
        let status = passrl_kl_in_reward(rig.context, &batch(), &k1, null(), null(), null(), null(), null_mut(), 0, null_mut());
        assert_eq!(status, PASSRL_ERR_NULL);
        assert!(last().contains("batch.cu_seqlens is NULL"), "{}", last());
        let none = null();
        assert_eq!(passrl_gae(null(), &batch(), 1.0, 1.0, none, none, none, none, none, null_mut(), 0, null_mut()), PASSRL_ERR_NULL);
        assert!(last().contains("context is NULL"), "{}", last());
        assert_eq!(passrl_gae(rig.context, null(), 1.0, 1.0, none, none, none, none, none, null_mut(), 0, null_mut()), PASSRL_ERR_NULL);
        assert!(last().contains("batch is NULL"), "{}", last());
        let stats = passrl_group_standardize(rig.context, &batch(), null(), none, none, none, none, none, none, null_mut(), 0, null_mut());
        assert_eq!(stats, PASSRL_ERR_NULL);
        assert!(last().contains("stream_row is NULL"), "{}", last());
        let row = config().streams[4];
        let nothing = passrl_group_standardize(rig.context, &batch(), &row, none, none, none, none, none, none, null_mut(), 0, null_mut());
        assert_eq!(nothing, PASSRL_ERR_NULL);
        assert!(last().contains("out, count, mean, std and absmax are NULL"), "{}", last());
        assert_eq!(passrl_chunk_boundaries(rig.context, &batch(), &config(), none, none, null_mut(), 0, null_mut()), PASSRL_ERR_NULL);
        assert!(last().contains("at least one is wanted"), "{}", last());
    }
}

#[test]
fn the_size_given_is_enough_and_one_byte_less_is_refused_where_it_is_needed() {
    let rig = Rig::new();
    let place = Place::new(Layout::Padded { left: false });
    let longest = *LENGTHS.iter().max().unwrap() as i64;
    let limits =
        passrl_limits { rollouts: LENGTHS.len() as i64, tokens: place.slots as i64, rollout_tokens: longest, ..passrl_limits::defaults() };
    let mut bytes = 0;
    unsafe { passrl_primitive_workspace_size(rig.context, &limits, &mut bytes) };
    assert!(bytes <= rig.bytes());
    let mut x = place.scatter::<f32>(&data(1), f32::NAN);
    let v = place.view(&mut x);
    place.with_batch(|b| unsafe {
        assert_eq!(passrl_discounted_returns(rig.context, b, 1.0, &v, &v, rig.ws(), bytes, null_mut()), PASSRL_OK, "{}", last());
        let b = passrl_batch { group_size: 5, ..*b };
        let mut y = vec![0.5f32; LENGTHS.len()];
        let y = line(&mut y);
        let row = config().streams[4];
        let n = null();
        assert_eq!(
            passrl_group_standardize(rig.context, &b, &row, &y, &y, n, n, n, n, rig.ws(), bytes, null_mut()),
            PASSRL_OK,
            "{}",
            last()
        );
    });
}

#[test]
fn an_empty_batch_is_legal() {
    let rig = Rig::new();
    let (mut cu, mut none, mut flags) = (vec![0i32], Vec::<f32>::new(), Vec::<i32>::new());
    let (cu, v, f) = (line(&mut cu), line(&mut none), grid(&mut flags, 0, 16));
    let b = passrl_batch { cu_seqlens: &cu, group_size: 4, outcome: &v, ..batch() };
    unsafe {
        assert_eq!(
            passrl_gae(rig.context, &b, 1.0, 1.0, &v, &v, null(), &v, null(), rig.ws(), rig.bytes(), null_mut()),
            PASSRL_OK,
            "{}",
            last()
        );
        assert_eq!(passrl_whiten(rig.context, &b, &config(), &v, &v, rig.ws(), rig.bytes(), null_mut()), PASSRL_OK, "{}", last());
        let n = null();
        assert_eq!(
            passrl_group_standardize(rig.context, &b, &config().streams[4], &v, &v, n, n, n, n, rig.ws(), rig.bytes(), null_mut()),
            PASSRL_OK,
            "{}",
            last()
        );
        assert_eq!(
            passrl_group_flags(rig.context, &b, &config(), &f, n, null_mut(), rig.ws(), rig.bytes(), null_mut()),
            PASSRL_OK,
            "{}",
            last()
        );
    }
}
