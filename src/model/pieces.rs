//! What is known of a piece of a rollout (context parallelism) once all pieces have been seen: words of one row of a table `[rollouts, pieces of a rollout]`.
//! Each piece adds to its own row, so that rows of several buffers add.

use super::config::MAX_PROCESS;
use super::flags;

/// Words of a row.
pub const WORDS: usize = MOST + 1 + MAX_PROCESS;

/// Pieces that have added to the row: 1, or something is wrong.
pub const TIMES: usize = 0;
/// Index of its first token in the rollout, its slots, the rollout's tokens.
pub const BEGIN: usize = 1;
pub const SLOTS: usize = 2;
pub const WHOLE: usize = 3;
/// Hash of the rollout's group and per-rollout inputs, which every piece must be given alike.
pub const INPUTS: usize = 4;
/// Tokens in scope; with some: index in the rollout of the first and the last.
pub const COUNT: usize = 5;
pub const FIRST: usize = 6;
pub const LAST: usize = 7;
/// The detector's values at the first and the last token in scope (`pair`).
pub const DETECTED: usize = 8;
/// Numbers of the steps of the first and the last token in scope, plus 1; likewise before missing steps leave the scope.
pub const FIRST_STEP: usize = 9;
pub const LAST_STEP: usize = 10;
pub const FIRST_RAW: usize = 11;
pub const LAST_RAW: usize = 12;
/// `PASSRL_ROLLOUT_*` bits, and bits of this module.
pub const FLAGS: usize = 13;
/// V at the first token in scope (`scan_mask` other than carry: at the first token, as the scan takes it), bits of an f32.
pub const VALUE: usize = 14;
/// Sparse steps: marks in scope; the first and last mark's value of each process stream (`pair`), a word each.
pub const MARKS: usize = 15;
pub const MARKED: usize = 16;
/// Where sums of the whole rollout are formed: keys of max|x|, of the KL of its tokens in scope and of the values of each process stream.
pub const MOST: usize = MARKED + MAX_PROCESS;

/// Bits of `FLAGS` beside those of rollouts.
pub const HAS_PROCESS: i64 = 1 << 32;
/// `chunk = given`: a mark before the first token in scope; one at or after the last (without any in scope: any mark).
pub const MARK_BEFORE: i64 = 1 << 33;
pub const MARK_AFTER: i64 = 1 << 34;
/// `scan_mask = none`: a value before the piece's first token in scope is a finding, if the rollout's scope begins in an earlier piece.
pub const BAD_BEFORE: i64 = 1 << 35;

/// Two numbers in one word.
pub fn pair(a: f32, b: f32) -> i64 {
    (a.to_bits() as u64 | (b.to_bits() as u64) << 32) as i64
}

pub fn first(pair: i64) -> f32 {
    f32::from_bits(pair as u32)
}

pub fn last(pair: i64) -> f32 {
    f32::from_bits((pair as u64 >> 32) as u32)
}

/// The pieces of one rollout: a row each.
#[derive(Clone, Copy)]
pub struct Rows<'a>(pub &'a [i64]);

impl<'a> Rows<'a> {
    pub fn row(&self, piece: usize) -> &'a [i64] {
        &self.0[piece * WORDS..(piece + 1) * WORDS]
    }
    /// Rows that a table of a rollout has room for.
    pub fn len(&self) -> usize {
        self.0.len() / WORDS
    }
    /// Pieces that are there: those before the first that is not (a table that has been judged has no others).
    pub fn count(&self) -> usize {
        (0..self.len()).take_while(|j| self.row(*j)[TIMES] != 0).count()
    }
    pub fn in_scope(&self, piece: usize) -> usize {
        self.row(piece)[COUNT].max(0) as usize
    }
    /// Sparse steps: value of stream p at the first mark from piece `from` on, else at the last before it.
    pub fn marked(&self, from: usize, p: usize) -> f32 {
        let has = |j: &usize| self.row(*j)[MARKS] > 0;
        match (from..self.count()).find(has) {
            Some(j) => first(self.row(j)[MARKED + p]),
            None => (0..from).rev().find(has).map_or(0.0, |j| last(self.row(j)[MARKED + p])),
        }
    }
    /// Index in the rollout of its first token in scope.
    pub fn first(&self) -> Option<usize> {
        (0..self.count()).find(|j| self.in_scope(*j) > 0).map(|j| self.row(j)[FIRST].max(0) as usize)
    }
    /// `PASSRL_ROLLOUT_*` bits of all pieces.
    pub fn flags(&self) -> u32 {
        let mut scope = false;
        (0..self.count()).fold(0, |found, j| {
            let word = self.row(j)[FLAGS];
            let beyond = scope && word & BAD_BEFORE != 0;
            scope |= self.in_scope(j) > 0;
            found | word as u32 | if beyond { flags::ROLLOUT_NONFINITE } else { 0 }
        })
    }
    /// The next piece that has tokens, in scope or not.
    pub fn next_with_tokens(&self, piece: usize) -> Option<&'a [i64]> {
        (piece + 1..self.count()).map(|j| self.row(j)).find(|row| row[SLOTS] > 0 && row[BEGIN] < row[WHOLE])
    }
    /// Largest key of a list of `MOST`.
    pub fn most(&self, list: usize) -> i32 {
        (0..self.count()).map(|j| self.row(j)[MOST + list] as i32).max().unwrap_or(0)
    }
    /// The next piece with a token in scope.
    pub fn next(&self, piece: usize) -> Option<&'a [i64]> {
        (piece + 1..self.count()).find(|j| self.in_scope(*j) > 0).map(|j| self.row(j))
    }
}
