//! What ranks tell each other beside statistics: plain words whose maxima say whether all agree.

/// A number of which all ranks must have the same: its maximum and, of its complement, the minimum.
pub fn pair32(x: i32) -> [i32; 2] {
    [x, !x]
}

/// The words before the maxima of a run's first message.
pub const WORDS: usize = 8;

/// What one rank says at the begin of a run.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub plan: i32,
    pub call: i32,
    /// Rank + 1 where its arguments are refused, else 0.
    pub refused: i32,
    /// Hash of the inputs that the batch gives; `None`: no rollouts, nothing to compare.
    pub forms: Option<i32>,
    /// `SUMS` or 0.
    pub note: i32,
}

impl Header {
    /// Word of the flag.
    pub const REFUSED: usize = 4;
    /// Word of the message's note.
    pub const NOTE: usize = 7;
    /// Note of the first message: a rank's outputs ask for sums.
    pub const SUMS: i32 = 1;
    /// Note of the message before anything is written: the flag speaks of the data (`strict`), not of the arguments.
    pub const STRICT: i32 = 2;
    /// Note of the first message, said by the device (kernels/ranks.cuh): the flag speaks of offsets or lengths in device memory.
    pub const OFFSETS: i32 = 3;

    pub fn words(&self) -> [i32; WORDS] {
        let ([plan, not_plan], [call, not_call]) = (pair32(self.plan), pair32(self.call));
        let [forms, not_forms] = self.forms.map_or([i32::MIN; 2], pair32);
        [plan, not_plan, call, not_call, self.refused, forms, not_forms, self.note]
    }
}

/// Limits by name, in the order of `creation`.
pub const LIMITS: [&str; 10] = [
    "rollouts", "groups", "tokens", "rollout_tokens", "steps", "group_rollouts", "group_elements", "pieces", "rollout_pieces", "batch_rollouts",
];

/// Words of the message of a plan's creation: refusal, then number and complement of size, numerics version, configuration, limits.
pub const CREATION: usize = 1 + 2 * (3 + LIMITS.len());

/// What one rank says at the creation of a plan. `agreed` is `None` where its arguments are refused.
pub fn creation(rank: i32, agreed: Option<[i64; 3 + LIMITS.len()]>) -> [i64; CREATION] {
    let mut words = [i64::MIN; CREATION];
    words[0] = if agreed.is_none() { rank as i64 + 1 } else { 0 };
    for (pair, x) in words[1..].chunks_exact_mut(2).zip(agreed.into_iter().flatten()) {
        pair.copy_from_slice(&[x, !x]);
    }
    words
}

/// FNV-1a.
pub fn hash(text: &str) -> u64 {
    hash_bytes(text.as_bytes())
}

/// Likewise of bytes.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ *b as u64).wrapping_mul(0x0100_0000_01b3))
}
