//! What the host hands to every kernel: the structs of kernels/args.cuh, field by field (tests/cuda_args.rs compares them). Plain numbers; how they come about is
//! in `fill`.

use crate::model::ranks::WORDS;
use crate::plan::partials::MOST_STAGES;

macro_rules! mirror {
    ($($(#[$doc:meta])* $Name:ident { $($field:ident: $T:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug)]
            pub struct $Name { $(pub $field: $T),* }

            impl $Name {
                /// All bytes zero: nothing given.
                pub const NOTHING: $Name = {
                    // SAFETY: made of numbers, for which zero is valid.
                    unsafe { std::mem::zeroed() }
                };
            }
        )*
        /// Struct, size, fields with their offsets.
        pub const LAYOUT: &[(&str, usize, &[(&str, usize)])] =
            &[$((stringify!($Name), size_of::<$Name>(), &[$((stringify!($field), std::mem::offset_of!($Name, $field))),*])),*];
    };
}

pub const MAX_STREAMS: usize = 16;
pub const MAX_PROCESS: usize = 4;
pub const ROLLOUT_STREAMS: usize = 12;
pub const NEAR_DIVISORS: usize = 48;
pub const MOST_GATHERED: usize = 13;
pub const ROW_INPUTS: usize = 18;

mirror! {
    /// A view; `data` 0: not given.
    Array {
        data: u64,
        stride: [i64; 2],
        dtype: i32,
        reserved: i32,
    }
    /// What the kernels keep of a rollout, and a step to be sorted: the host makes room for them.
    Rollout {
        group: u32,
        elements: u32,
        chunks: u32,
        first: u32,
        end: u32,
        count: u32,
        flags: u32,
        state: u32,
    }
    KeyedStep {
        key: i64,
        slot: u64,
    }
    Stream {
        weight: f64,
        epsilon: f64,
        clip_value: f64,
        clip_standardized: f64,
        center: i8,
        scale: i8,
        ddof: i8,
        epsilon_mode: i8,
        loo_unit: i8,
        singleton: i8,
        missing: i8,
        place: i8,
        zero_variance: i8,
        count_by: i8,
        reserved: [i8; 6],
    }
    PlanConstants {
        streams: [Stream; MAX_STREAMS],
        opd_lambda: f64,
        eta: f64,
        gamma: f64,
        lam: f64,
        k: f64,
        temperature: f64,
        whiten_epsilon: f64,
        clip: f64,
        kl_coef: f64,
        kl_log_ratio_clamp: f64,
        kl_clamp: f64,
        lam_returns: f64,
        lam_length_alpha: f64,
        step_gamma: f64,
        rho_clip: f64,
        c_clip: f64,
        decay: [f64; 33],
        divisors: u64,
        near_divisors: [f64; NEAR_DIVISORS],
        max_rollouts: i64,
        max_groups: i64,
        max_tokens: i64,
        max_rollout_tokens: i64,
        max_steps: i64,
        num_process: i32,
        num_extra: i32,
        kind: i32,
        pool: i32,
        fusion: i32,
        chunk: i32,
        boundary_rule: i32,
        merge_equal_steps: i32,
        average_over: i32,
        bridge_scope_gaps: i32,
        chunk_value: i32,
        credit: i32,
        divide_scope: i32,
        whiten: i32,
        whiten_ddof: i32,
        whiten_epsilon_mode: i32,
        whiten_shift: i32,
        fill_padding: i32,
        kl_in_reward: i32,
        kl_place: i32,
        scan_mask: i32,
        gae_over: i32,
        divide_by: i32,
        step_sets: i32,
        step_value: i32,
        token_baseline: i32,
        asks_kl: i32,
        kl_by_token: i32,
        credits_tokens: i32,
        spreads: i32,
        slots: i32,
        sets: i32,
        joint: i32,
        lists: i32,
        shaped: i32,
        slots_batch: u32,
        slots_runner_up: u32,
        slot_row: [i8; MAX_STREAMS],
        slot_reported: [i8; MAX_STREAMS],
        slot_bits: [i8; MAX_STREAMS],
        has_values: i32,
        has_token_values: i32,
        reserved: i32,
    }
    Batch {
        rollouts: i64,
        groups: i64,
        slots: i64,
        group_size: i64,
        steps: i64,
        layout: i32,
        grouping: i32,
        process: i32,
        num_process: i32,
        scores_flat: i32,
        steps_at_hand: i32,
        extents: Array,
        group_view: Array,
        mask: Array,
        rollout_streams: [Array; ROLLOUT_STREAMS],
        format_ok: Array,
        in_stats: Array,
        absent: Array,
        bootstrap: Array,
        signal: [Array; MAX_PROCESS],
        logp_policy: Array,
        logp_teacher: Array,
        logp_base: Array,
        scores: Array,
        step_offsets: Array,
        step_ends: Array,
        step_begins: Array,
        step_marks: Array,
        chunk_marks: Array,
        step_group: Array,
        values: Array,
        token_rewards: Array,
        baselines: Array,
        stats_mean: Array,
        stats_std: Array,
        rollout_lam: Array,
        logp_reference: Array,
        logp_behavior: Array,
        sum_pi_squared: Array,
        token_ratio: Array,
    }
    Outputs {
        advantages: Array,
        returns: Array,
        path_scores: Array,
        num_chunks: Array,
        chunk_ends: Array,
        chunk_values: Array,
        stats_count: Array,
        stats_mean: Array,
        stats_std: Array,
        stats_absmax: Array,
        group_flags: Array,
        rollout_flags: Array,
        report: u64,
    }
    /// Bytes from `Workspace::state`.
    StateLayout {
        extremes: i64,
        sums: i64,
        table: i64,
        batch_extremes: i64,
        batch_sums: i64,
        second: i64,
        whiten_extremes: i64,
        whiten_sums: i64,
        claims: i64,
        positions: i64,
        keys_from_zero: i64,
    }
    Queue {
        begun: u32,
        told: u32,
        parts: u64,
    }
    /// Counted by the kernels alone; here for its size.
    Counts {
        findings: i64,
        rollouts: i64,
        tokens: i64,
        chunks: i64,
        degenerate_groups: i64,
        bad_groups: i64,
        violating_groups: i64,
        missing_values: i64,
        nonfinite_values: i64,
        low_logps: i64,
        clipped_tokens: i64,
        overflowed_tokens: i64,
        bad_steps: i64,
        lost_deviations: i64,
        sum_advantages: f64,
        sum_squares: f64,
        first_group: u64,
        bad_offsets: u32,
        done: u32,
        queues: [Queue; 3],
        keyed: u64,
        split: u64,
        disorder: u64,
    }
    /// Likewise.
    GroupMarks {
        first: u64,
        longest: u64,
        rollouts: u32,
        missing: u32,
        found: u32,
        one_rollout: u32,
        reach: u64,
        most: u64,
        second: u32,
        counted: u32,
        arrived: u32,
        claimed: u32,
    }
    /// Addresses in the caller's workspace.
    Workspace {
        state: u64,
        counts: u64,
        marks: u64,
        rollouts: u64,
        scope: u64,
        elements: u64,
        weights: u64,
        last: u64,
        values: u64,
        token_values: u64,
        step_begin: u64,
        step_end: u64,
        step_keys: u64,
        stepped: u64,
        chunk_steps: u64,
        keyed: u64,
        whitened: u64,
        kl: u64,
        kl_sums: u64,
        paths: u64,
        baseline_weights: u64,
        baseline_gains: u64,
        signal: u64,
        f: u64,
        d: u64,
        v: u64,
        lines: u64,
        columns: u64,
        live: u64,
        edges: u64,
        edge_counts: u64,
        parts: [u64; 3],
        part_states: [u64; 3],
        places: u64,
        joint: u64,
    }
    Args {
        plan: u64,
        mode: u32,
        primitive: u32,
        batch: Batch,
        outputs: Outputs,
        layout: StateLayout,
        work: Workspace,
        constants: PlanConstants,
    }
    /// What `passrl_primitive_start` is handed.
    PrimitiveStart {
        plan: PlanConstants,
        constants: u64,
        counts: u64,
        keys: u64,
        words: u64,
    }
    /// Pieces of rollouts.
    Pieces {
        pieces: i64,
        rollouts: i64,
        slots: i64,
        each: i64,
        max_tokens: i64,
        max_rollout_tokens: i64,
        extents: Array,
        rollout: Array,
        begin: Array,
        index: Array,
        lengths: Array,
        absent: Array,
        offsets: u64,
        table: u64,
        absent_to: u64,
        counts: u64,
        inputs: [Array; MOST_GATHERED],
        gathered: [u64; MOST_GATHERED],
        outputs: [Array; 2],
        results: [u64; 2],
        count: i32,
        fill_padding: i32,
    }
    /// Rollouts in pieces over calls.
    Joint {
        edges: i64,
        own: i64,
        chunks: i64,
        scan: i64,
        rollouts: i64,
        each: i64,
        tiles: i64,
        step_numbers: u64,
        scans: i32,
        own_words: i32,
        own_lists: i32,
        chunk_words: i32,
        stage: i32,
        reserved: i32,
    }
    /// Made by the kernels alone; here for its size.
    Unit {
        begin: i64,
        len: i64,
        tail: i64,
        whole: i64,
        steps: i64,
        clipped: i64,
        number: i64,
        hash: u64,
        first: i64,
        total: i64,
        tokens_after: i64,
        position: i64,
        line: i64,
        lines_after: i64,
        row: u32,
        index: u32,
        pieces: u32,
        flags: u32,
        next: i32,
        most_kl: i32,
        head: u8,
        speaks: u8,
        bad: u8,
        process: u8,
        at_end: u8,
        scope_before: u8,
        reserved: [u8; 2],
    }
    /// What `passrl_pieces_units` is handed.
    UnitsStart {
        pieces: i64,
        rollouts: i64,
        groups: i64,
        group_size: i64,
        slots: i64,
        max_tokens: i64,
        max_rollout_tokens: i64,
        steps: i64,
        scores_room: i64,
        grouping: i32,
        num_process: i32,
        scores_flat: i32,
        hashes_scores: i32,
        extents: Array,
        rollout: Array,
        begin: Array,
        index: Array,
        lengths: Array,
        numbers: Array,
        group_view: Array,
        inputs: [Array; ROW_INPUTS],
        gathered: [u64; ROW_INPUTS],
        step_offsets: Array,
        step_ends: Array,
        step_begins: Array,
        scores: Array,
        groups_to: u64,
        ends_to: u64,
        begins_to: u64,
        scores_to: u64,
        speakers: u64,
        state: u64,
        counts: u64,
        joint_to: u64,
        joint: Joint,
    }
    /// What `passrl_announce` is handed.
    Announcement {
        words: u64,
        calls: u64,
        counts: u64,
        header: [i32; WORDS],
        rank: i32,
        reserved: i32,
    }
    /// What `passrl_phases` is handed.
    PhaseNote {
        given: u64,
        counts: u64,
        units: i64,
        phase: i32,
        phases: i32,
        words: [i32; MOST_STAGES],
    }
}

/// Bits of `Args::mode`.
pub mod mode {
    pub const COUNTING: u32 = 1;
    pub const KNOWN: u32 = 2;
    pub const KEEP: u32 = 4;
    pub const DRY: u32 = 8;
    pub const WEIGH: u32 = 16;
    pub const RANKS: u32 = 32;
    pub const JOINED: u32 = 64;
    pub const EDGES: u32 = 128;
    pub const CHUNKS: u32 = 256;
    pub const SCAN: u32 = 512;
    pub const IN_PLACE: u32 = 1024;
    pub const WHOLE_GROUPS: u32 = 2048;
}

// A kernel takes at most 4,096 bytes of arguments on every device.
const _: () = assert!(size_of::<Args>() <= 4096);
