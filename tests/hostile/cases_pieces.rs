//! Pieces of rollouts that do not fit: of a call, and of the batch.
use crate::Case;
use crate::api::Act::*;
use crate::world::World;
use passrl::abi::constants::*;
use passrl::abi::status::*;

/// A world in pieces, with one array of it another.
macro_rules! with {
    ($name:literal, $dtype:expr, $values:expr) => {
        |w: &mut World| {
            w.pieces();
            w.ints($name, $dtype, &$values)
        }
    };
}

#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
    vec![
        ("pieces_without_limit", Run, PASSRL_ERR_LIMIT, "batch.piece_rollout has 7 pieces; the plan's limits.pieces is 0", |w| { w.pieces(); w.limits.pieces = 0; w.limits.rollout_pieces = 0 }),
        ("pieces_too_many", Run, PASSRL_ERR_LIMIT, "batch.piece_rollout has 7 pieces; the plan's limits.pieces allows 6", |w| { w.pieces(); w.limits.pieces = 6 }),
        ("pieces_not_given", Run, PASSRL_ERR_NULL, "batch.piece_rollout is NULL; the plan's limits.pieces is 8", |w| w.limits.pieces = 8),
        ("piece_begin_alone", Run, PASSRL_ERR_NULL, "batch.piece_rollout is NULL while batch.piece_begin is given", |w| { w.pieces(); w.drop(&["batch.piece_rollout"]) }),
        ("piece_begin_missing", Run, PASSRL_ERR_NULL, "batch.piece_begin is NULL; pieces need", |w| { w.pieces(); w.drop(&["batch.piece_begin"]) }),
        ("piece_index_missing", Add, PASSRL_ERR_NULL, "batch.piece_index is NULL; pieces need", |w| { w.pieces(); w.drop(&["batch.piece_index"]) }),
        ("piece_lengths_missing", Run, PASSRL_ERR_NULL, "batch.lengths is NULL; pieces need", |w| { w.pieces(); w.drop(&["batch.lengths"]) }),
        ("piece_begin_short", Run, PASSRL_ERR_SHAPE, "batch.piece_begin has 6 elements; it must have 7", with!("batch.piece_begin", PASSRL_I32, [0; 6])),
        ("piece_rollout_type", Run, PASSRL_ERR_DTYPE, "batch.piece_rollout has dtype u8", with!("batch.piece_rollout", PASSRL_U8, [0; 7])),
        ("pieces_padded", Run, PASSRL_ERR_CONFLICT, "batch.piece_rollout is given in the padded layout", |w| { w.pieces(); w.batch.layout = PASSRL_PADDED }),
        ("piece_cu_seqlens_of_rollouts", Run, PASSRL_ERR_SHAPE, "batch.cu_seqlens has 7 elements; it must have 8", with!("batch.cu_seqlens", PASSRL_I32, [0, 4, 7, 12, 16, 19, 24])),
        ("piece_rollout_beyond", Run, PASSRL_ERR_OFFSETS, "batch.piece_rollout[6] is 6; the call has 6 rollouts", with!("batch.piece_rollout", PASSRL_I32, [0, 0, 1, 2, 3, 4, 6])),
        ("piece_rollout_negative", Run, PASSRL_ERR_OFFSETS, "batch.piece_rollout[0] is -1", with!("batch.piece_rollout", PASSRL_I32, [-1, 0, 1, 2, 3, 4, 5])),
        ("piece_begin_negative", Run, PASSRL_ERR_OFFSETS, "batch.piece_begin[0] is -2", with!("batch.piece_begin", PASSRL_I64, [-2, 0, 0, 0, 0, 0, 0])),
        ("piece_begin_huge", Run, PASSRL_ERR_OFFSETS, "batch.piece_begin[1] is 9223372036854775807", with!("batch.piece_begin", PASSRL_I64, [2, i64::MAX, 0, 0, 0, 0, 0])),
        ("piece_index_beyond", Run, PASSRL_ERR_OFFSETS, "batch.piece_index[0] is 2; the plan's limits.rollout_pieces is 2", with!("batch.piece_index", PASSRL_I32, [2, 0, 0, 0, 0, 0, 0])),
        ("piece_index_negative", Run, PASSRL_ERR_OFFSETS, "batch.piece_index[1] is -1", with!("batch.piece_index", PASSRL_I32, [1, -1, 0, 0, 0, 0, 0])),
        ("piece_lengths_beyond", Run, PASSRL_ERR_LIMIT, "batch.lengths[2] is 6; the plan's limits.rollout_tokens allows 0 to 5", with!("batch.lengths", PASSRL_I64, [4, 3, 6, 4, 3, 5])),
        ("piece_lengths_negative", Run, PASSRL_ERR_LIMIT, "batch.lengths[2] is -1", with!("batch.lengths", PASSRL_I64, [4, 3, -1, 4, 3, 5])),
        ("rollout_index_beyond", Run, PASSRL_ERR_OFFSETS, "batch.rollout_index[5] is 6; the plan's limits.batch_rollouts is 6", with!("batch.rollout_index", PASSRL_I32, [0, 1, 2, 3, 4, 6])),
        ("rollout_index_not_given", Run, PASSRL_ERR_OFFSETS, "batch.num_rollouts is 6 without rollout_index; the plan's limits.batch_rollouts is 5", |w| { w.pieces(); w.limits.batch_rollouts = 5 }),
        ("piece_chunk_ends_asked", Run, PASSRL_ERR_CONFLICT, "outputs.chunk_ends is given and rollouts come in pieces", |w| { w.pieces(); w.output("chunk_ends", PASSRL_I32, [24, 1], 1) }),
        // What all pieces of the batch come to.
        ("pieces_overlap", Run, PASSRL_ERR_OFFSETS, "batch.piece_begin of piece 1 of rollout 0 of the batch is 1; the pieces before it end at 2: they overlap", with!("batch.piece_begin", PASSRL_I64, [1, 0, 0, 0, 0, 0, 0])),
        ("pieces_leave_out", Run, PASSRL_ERR_OFFSETS, "is 3; the pieces before it end at 2: they leave tokens out", with!("batch.piece_begin", PASSRL_I64, [3, 0, 0, 0, 0, 0, 0])),
        ("piece_first_missing", Run, PASSRL_ERR_OFFSETS, "batch.piece_begin of piece 0 of rollout 1 of the batch is 1", with!("batch.piece_begin", PASSRL_I64, [2, 0, 1, 0, 0, 0, 0])),
        ("piece_last_missing", Run, PASSRL_ERR_OFFSETS, "rollout 1 of the batch has 5 tokens (batch.lengths) and its 1 piece(s) end at 3", with!("batch.lengths", PASSRL_I64, [4, 5, 5, 4, 3, 5])),
        ("piece_between_missing", Run, PASSRL_ERR_OFFSETS, "has a piece with batch.piece_index 1 and none with 0", with!("batch.piece_index", PASSRL_I32, [1, 0, 1, 0, 0, 0, 0])),
        ("piece_twice", Run, PASSRL_ERR_OFFSETS, "has 2 pieces with batch.piece_index 0; each piece must come once", with!("batch.piece_index", PASSRL_I32, [0, 0, 0, 0, 0, 0, 0])),
        ("rollout_twice", Run, PASSRL_ERR_OFFSETS, "rollout 4 of the batch (batch.rollout_index) has 2 pieces", with!("batch.rollout_index", PASSRL_I32, [0, 1, 2, 3, 4, 4])),
        ("apply_before_phases", Apply, PASSRL_ERR_OFFSETS, "was not in phase 0 as it is here", World::pieces),
        ("maxima_before_edges", Add, PASSRL_ERR_OFFSETS, "was not in phase 0 as it is here", |w| { w.pieces(); w.phase = 1 }),
        // Settings.
        ("pieces_anchored", Plan, PASSRL_ERR_CONFLICT, "config.boundary_rule is anchored, with limits.pieces = 8", |w| { w.pieces(); w.config.boundary_rule = PASSRL_BOUNDARY_ANCHORED }),
        ("pieces_vtrace", Plan, PASSRL_ERR_CONFLICT, "config.credit is vtrace", |w| { w.pieces(); w.config.credit = PASSRL_CREDIT_VTRACE; w.config.k = 0.0 }),
        ("pieces_opd_steps", Run, PASSRL_ERR_CONFLICT, "batch.logp_teacher is given with steps", |w| { w.pieces(); w.drop(&["batch.step_scores"]); w.floats("batch.logp_policy", PASSRL_F32, &[-1.0; 24]); w.floats("batch.logp_teacher", PASSRL_F32, &[-1.0; 24]) }),
        ("limits_rollout_pieces_huge", Plan, PASSRL_ERR_LIMIT, "limits.rollout_pieces is 65536; it must be from 0 to 2^16 - 1", |w| { w.pieces(); w.limits.rollout_pieces = 1 << 16 }),
        ("limits_rollout_pieces_by_pieces", Plan, PASSRL_ERR_LIMIT, "limits.rollout_pieces is 0, as limits.pieces, which is 65536", |w| { w.pieces(); w.limits.pieces = 1 << 16; w.limits.rollout_pieces = 0 }),
        ("limits_pieces_exchange_huge", Plan, PASSRL_ERR_LIMIT, "what the pieces exchange would take", |w| { w.pieces(); w.limits.batch_rollouts = (1 << 31) - 1; w.limits.rollout_pieces = (1 << 16) - 1 }),
        ("limits_batch_rollouts_negative", Plan, PASSRL_ERR_LIMIT, "limits.batch_rollouts is -1", |w| w.limits.batch_rollouts = -1),
    ]
}
