//! One measured line of the table, of `summary.json` and of the record.

pub struct Row {
    pub name: String,
    pub size: &'static str,
    pub dtype: &'static str,
    pub threads: usize,
    /// "warm" (inputs in cache where they fit) or "cold" (600 MB swept before each call).
    pub cache: &'static str,
    pub tokens: usize,
    pub bytes: usize,
    /// Median and least, in seconds.
    pub call: f64,
    pub best: f64,
    /// Seconds that moving as many bytes takes; NaN where there is nothing to hold a time against.
    pub floor: f64,
    pub floor_kind: &'static str,
    /// Most seconds, where there is an aim.
    pub target: Option<f64>,
    pub error: f64,
}

impl Row {
    pub fn ratio(&self) -> f64 {
        self.call / self.floor
    }

    pub fn over(&self) -> bool {
        self.target.is_some_and(|target| self.call > target)
    }

    pub fn label(&self) -> String {
        let threads = if self.threads == 1 { "1 thread" } else { "2 threads" };
        format!("{}: {}, {}, {threads}, {}", self.size, self.name, self.dtype, self.cache)
    }
}

/// Infinite where nothing was measured. Leaves the values in order.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::INFINITY)
}
