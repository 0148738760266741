//! The small end: a call on 8 rollouts of 16 tokens with a ready plan, and making that plan.
use super::array::Dtype;
use super::batch::{Batch, Ready};
use super::cases::{CASES, Layout};
use super::copy::{Copier, Stores};
use super::floor::moved;
use super::row::{Row, median};
use super::workload::{Size, Workload};
use criterion::Criterion;
use std::time::{Duration, Instant};

const CALL_TARGET: f64 = 3e-6;
const PLAN_TARGET: f64 = 50e-6;

pub fn bench(criterion: &mut Criterion, rows: &mut Vec<Row>) {
    let work = Workload::with_lengths(Size { name: "tiny", rollouts: 8, longest: 16, groups: 1 }, vec![16; 8]);
    let mut copier = Copier::new(1 << 20);
    let mut group = criterion.benchmark_group("tiny");
    group.sample_size(20).nresamples(1000).warm_up_time(Duration::from_millis(50)).measurement_time(Duration::from_millis(200));
    for case in CASES.iter().filter(|case| matches!(case.layout, Layout::Packed) || case.name == "grpo padded") {
        let mut batch = Batch::new(&work, case, Dtype::F32);
        let mut ready = Ready::new(&batch, 1);
        ready.run(&mut batch);
        let error = batch.check(&(case.answer)(&work));
        let (mut calls, mut plans, mut floors) = (Vec::new(), Vec::new(), Vec::new());
        group.bench_function(format!("{}/call", case.name), |bencher| {
            bencher.iter_custom(|count| {
                floors.push((0..count).map(|_| moved(&mut copier, &batch, 1, Stores::Plain)).sum::<f64>() / count as f64);
                let begin = Instant::now();
                for _ in 0..count {
                    ready.run(&mut batch);
                }
                let taken = begin.elapsed();
                calls.push(taken.as_secs_f64() / count as f64);
                taken
            });
        });
        group.bench_function(format!("{}/plan", case.name), |bencher| {
            bencher.iter_custom(|count| {
                let taken: f64 = (0..count).map(|_| ready.plan_again(&batch)).sum();
                plans.push(taken / count as f64);
                Duration::from_secs_f64(taken)
            });
        });
        let row = |what: &str, seconds: &mut Vec<f64>, floor: f64, target: f64| Row {
            name: format!("{} {what}", case.name),
            size: work.size.name,
            dtype: "f32",
            threads: 1,
            cache: "warm",
            tokens: work.tokens(),
            bytes: batch.bytes,
            call: median(seconds),
            best: seconds[0],
            floor,
            floor_kind: if floor.is_nan() { "none" } else { "copy" },
            target: Some(target),
            error,
        };
        if !calls.is_empty() {
            rows.push(row("call", &mut calls, median(&mut floors), CALL_TARGET));
        }
        if !plans.is_empty() {
            rows.push(row("plan", &mut plans, f64::NAN, PLAN_TARGET));
        }
    }
    group.finish();
}
