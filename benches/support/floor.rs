//! Every case against the floor: sizes, types, threads, warm and cold.
use super::array::Dtype;
use super::batch::{Batch, Ready};
use super::cases::{CASES, Case};
use super::copy::{Copier, Stores};
use super::row::{Row, median};
use super::workload::{SIZES, Size, Workload};
use criterion::{Criterion, SamplingMode};
use std::cell::LazyCell;
use std::time::{Duration, Instant};

/// A batch that fits beside its copy in a cache this large is called once untimed, so that it is warm.
const CACHE: usize = 256 << 20;

/// PRM dense, small, one thread.
const SMALL_TARGET: f64 = 60e-6;

pub fn bench(criterion: &mut Criterion, rows: &mut Vec<Row>) {
    for size in SIZES {
        // Made when the first case that the filter names is met.
        let work = LazyCell::new(|| Workload::new(size));
        let copier = &mut None;
        let mut group = criterion.benchmark_group(size.name);
        group.sample_size(10).nresamples(1000).warm_up_time(Duration::from_millis(10)).measurement_time(Duration::from_millis(300));
        let mut answer = None;
        for case in &CASES {
            for dtype in Dtype::ALL {
                let mut batch = None;
                for threads in [1, 2] {
                    let (mut ready, mut error) = (None, 0.0);
                    for cold in [false, true] {
                        if cold && (size.name == "small" || size.name == "large" && dtype == Dtype::Bf16) {
                            continue;
                        }
                        group.sampling_mode(if cold { SamplingMode::Flat } else { SamplingMode::Auto });
                        // Sweeping is outside the time that criterion sees: it would plan too many calls.
                        group.measurement_time(Duration::from_millis(if cold { 1 } else { 300 }));
                        let cache = if cold { "cold" } else { "warm" };
                        let mut samples = Samples { cold, threads, ..Samples::default() };
                        group.bench_function(format!("{}/{}/{threads}/{cache}", case.name, dtype.name()), |bencher| {
                            let batch = batch.get_or_insert_with(|| Batch::new(&work, case, dtype));
                            let ready = ready.get_or_insert_with(|| {
                                let mut ready = Ready::new(batch, threads);
                                ready.run(batch);
                                let of = case.answer as *const () as usize;
                                if answer.as_ref().is_none_or(|(made, _)| *made != of) {
                                    answer = Some((of, (case.answer)(&work)));
                                }
                                error = batch.check(&answer.as_ref().expect("just made").1);
                                ready
                            });
                            let copier = copier.get_or_insert_with(|| Copier::new(most_bytes(&size)));
                            bencher.iter_custom(|calls| samples.take(calls, ready, batch, copier));
                        });
                        let Some(batch) = &batch else { continue };
                        if let Some(row) = samples.row(&work, case, dtype, batch, error) {
                            rows.push(row);
                            aim(rows, case);
                        }
                    }
                }
            }
        }
        group.finish();
    }
}

/// Every slot with an i64 mask, two inputs and two outputs.
fn most_bytes(size: &Size) -> usize {
    size.rollouts * size.longest * 24 + (1 << 20)
}

/// What the newest row is to reach.
fn aim(rows: &mut [Row], case: &Case) {
    let (new, before) = rows.split_last_mut().expect("a row was pushed");
    let cold = usize::from(new.cache == "cold");
    if new.size == "small" {
        new.target = (new.threads == 1 && new.dtype == "f32" && new.name == "dense packed").then_some(SMALL_TARGET);
    } else if new.threads == 2 && new.dtype == "f32" {
        new.target = Some(case.targets[cold] * new.floor);
    } else if new.threads == 2 {
        // No slower than f32.
        let same = |row: &&Row| (&row.name, row.size, row.threads, row.cache) == (&new.name, new.size, new.threads, new.cache);
        new.target = before.iter().find(same).map(|row| row.call);
    }
}

#[derive(Default)]
struct Samples {
    cold: bool,
    threads: usize,
    calls: Vec<f64>,
    plain: Vec<f64>,
    streaming: Vec<f64>,
}

impl Samples {
    /// The floor right before each call, warm or cold as the call is.
    fn take(&mut self, calls: u64, ready: &mut Ready, batch: &mut Batch, copier: &mut Copier) -> Duration {
        let mut total = 0.0;
        for _ in 0..calls {
            if self.cold {
                // A sweep is ten times a call: the two kinds of copy take turns.
                let stores = if self.plain.len() > self.streaming.len() { Stores::Streaming } else { Stores::Plain };
                copier.sweep();
                self.floor(copier, batch, stores);
                copier.sweep();
            } else {
                let warms = batch.bytes < CACHE;
                if warms {
                    moved(copier, batch, self.threads, Stores::Plain);
                }
                self.floor(copier, batch, Stores::Plain);
                self.floor(copier, batch, Stores::Streaming);
                if warms {
                    ready.run(batch);
                }
            }
            let begin = Instant::now();
            ready.run(batch);
            let taken = begin.elapsed().as_secs_f64();
            self.calls.push(taken);
            total += taken;
        }
        Duration::from_secs_f64(total)
    }

    fn floor(&mut self, copier: &mut Copier, batch: &Batch, stores: Stores) {
        let taken = moved(copier, batch, self.threads, stores);
        if stores == Stores::Plain { self.plain.push(taken) } else { self.streaming.push(taken) }
    }

    /// None where the filter left the case out.
    fn row(mut self, work: &Workload, case: &Case, dtype: Dtype, batch: &Batch, error: f64) -> Option<Row> {
        if self.calls.is_empty() {
            return None;
        }
        let (plain, streaming) = (median(&mut self.plain), median(&mut self.streaming));
        let kinds = if batch.only_writes { ["write", "non-temporal write"] } else { ["copy", "non-temporal copy"] };
        Some(Row {
            name: case.name.to_owned(),
            size: work.size.name,
            dtype: dtype.name(),
            threads: self.threads,
            cache: if self.cold { "cold" } else { "warm" },
            tokens: work.tokens(),
            bytes: batch.bytes,
            call: median(&mut self.calls),
            best: self.calls[0],
            floor: plain.min(streaming),
            floor_kind: kinds[usize::from(streaming < plain)],
            target: None,
            error,
        })
    }
}

/// Seconds of moving a batch's bytes.
pub fn moved(copier: &mut Copier, batch: &Batch, threads: usize, stores: Stores) -> f64 {
    if batch.only_writes { copier.fill(batch.bytes, threads, stores) } else { copier.copy(batch.bytes, threads, stores) }
}
