//! Time against tokens: 10^4 to 10^8 of them, and one long rollout among short ones.
use super::array::Dtype;
use super::batch::{Batch, Ready};
use super::cases::{CASES, Case};
use super::copy::{Copier, Stores};
use super::floor::moved;
use super::row::{Row, median};
use super::workload::{Size, Workload};
use criterion::Criterion;
use std::cell::LazyCell;
use std::time::{Duration, Instant};

/// Groups of 16 rollouts with a mean of about 630 tokens: about 10^4 tokens each.
const LINE: [(&str, usize); 5] = [("1e4", 1), ("1e5", 10), ("1e6", 100), ("1e7", 1000), ("1e8", 10_000)];

/// A long rollout costs its share of the tokens; a tenth more is the clock's.
const SHARE: f64 = 1.1;
const LONG: usize = 131_072;

fn cases() -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(|case| ["dense packed", "kl packed"].contains(&case.name))
}

pub fn bench(criterion: &mut Criterion, rows: &mut Vec<Row>) {
    line(criterion, rows);
    long(criterion, rows);
}

fn line(criterion: &mut Criterion, rows: &mut Vec<Row>) {
    let mut group = criterion.benchmark_group("tokens");
    group.sample_size(10).nresamples(1000).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(100));
    for (name, groups) in LINE {
        let work = LazyCell::new(|| Workload::new(Size { name, rollouts: 16 * groups, longest: 1536, groups }));
        // A loop of 10^8 tokens through a scan in f64 takes longer than all the rest.
        for case in cases().filter(|case| groups < 10_000 || case.name == "dense packed") {
            let (mut batch, mut answer) = (None, None);
            for threads in [1, 2] {
                let (mut ready, mut calls, mut floors, mut error) = (None, Vec::new(), Vec::new(), 0.0);
                group.bench_function(format!("{}/{name}/{threads}", case.name), |bencher| {
                    let batch = batch.get_or_insert_with(|| Batch::new(&work, case, Dtype::F32));
                    let ready = ready.get_or_insert_with(|| {
                        let mut ready = Ready::new(batch, threads);
                        ready.run(batch);
                        error = batch.check(answer.get_or_insert_with(|| (case.answer)(&work)));
                        ready
                    });
                    let mut copier = Copier::new(batch.bytes);
                    bencher.iter_custom(|count| {
                        let mut total = Duration::ZERO;
                        for _ in 0..count {
                            floors.push(moved(&mut copier, batch, threads, if groups > 100 { Stores::Streaming } else { Stores::Plain }));
                            let begin = Instant::now();
                            ready.run(batch);
                            let taken = begin.elapsed();
                            calls.push(taken.as_secs_f64());
                            total += taken;
                        }
                        total
                    });
                });
                let Some(batch) = batch.as_ref().filter(|_| !calls.is_empty()) else { continue };
                rows.push(row(case, name, threads, (work.tokens(), batch.bytes), &mut calls, median(&mut floors), error));
            }
        }
    }
    group.finish();
}

/// The last of 1,024 rollouts of 512 tokens is 131,072 long: held against its share of the batch without.
fn long(criterion: &mut Criterion, rows: &mut Vec<Row>) {
    let size = Size { name: "long", rollouts: 1024, longest: 512, groups: 64 };
    let short = LazyCell::new(|| Workload::with_lengths(size, vec![512; 1024]));
    let one_long = LazyCell::new(|| {
        let lengths = (0..1024).map(|r| if r < 1023 { 512 } else { LONG }).collect();
        Workload::with_lengths(Size { longest: LONG, ..size }, lengths)
    });
    let mut group = criterion.benchmark_group("long");
    group.sample_size(10).nresamples(1000).warm_up_time(Duration::from_millis(10)).measurement_time(Duration::from_millis(100));
    for case in cases() {
        for threads in [1, 2] {
            let (mut all, mut calls, mut floors, mut error) = (None, Vec::new(), Vec::new(), 0.0);
            group.bench_function(format!("{}/{threads}", case.name), |bencher| {
                let (without, ready_without, with, ready_with) = all.get_or_insert_with(|| {
                    let (mut without, mut with) = (Batch::new(&short, case, Dtype::F32), Batch::new(&one_long, case, Dtype::F32));
                    let (mut ready_without, mut ready_with) = (Ready::new(&without, threads), Ready::new(&with, threads));
                    ready_without.run(&mut without);
                    ready_with.run(&mut with);
                    error = without.check(&(case.answer)(&short)).max(with.check(&(case.answer)(&one_long)));
                    (without, ready_without, with, ready_with)
                });
                bencher.iter_custom(|count| {
                    let mut total = Duration::ZERO;
                    for _ in 0..count {
                        let begin = Instant::now();
                        ready_without.run(without);
                        floors.push(begin.elapsed().as_secs_f64() * one_long.tokens() as f64 / short.tokens() as f64);
                        let begin = Instant::now();
                        ready_with.run(with);
                        let taken = begin.elapsed();
                        calls.push(taken.as_secs_f64());
                        total += taken;
                    }
                    total
                });
            });
            let Some((_, _, with, _)) = all.as_ref().filter(|_| !calls.is_empty()) else { continue };
            let share = median(&mut floors);
            let mut row = row(case, size.name, threads, (one_long.tokens(), with.bytes), &mut calls, share, error);
            (row.target, row.floor_kind) = (Some(SHARE * share), "share");
            rows.push(row);
        }
    }
    group.finish();
}

fn row(case: &Case, size: &'static str, threads: usize, (tokens, bytes): (usize, usize), calls: &mut [f64], floor: f64, error: f64) -> Row {
    let call = median(calls);
    Row {
        name: case.name.to_owned(),
        size,
        dtype: "f32",
        threads,
        cache: "warm",
        tokens,
        bytes,
        call,
        best: calls[0],
        floor,
        floor_kind: "copy",
        target: None,
        error,
    }
}
